//! Input files of a load, in every format. The first byte of the data says which one.

use super::{UNNESTED, file_of_this_process, table};
use apache_avro::types::Value;
use arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use std::cell::OnceCell;
use std::sync::Arc;
use strandline_storage::config::TableConfig;
use strandline_storage::input::{self, InputFormat};

const FORMATS: [InputFormat; 4] = [
    InputFormat::Json,
    InputFormat::Csv,
    InputFormat::Avro,
    InputFormat::Parquet,
];
/// Rows of a file that are read.
const ROWS_MAX: usize = 100_000;

thread_local! {
    static TABLES: OnceCell<[TableConfig; 2]> = const { OnceCell::new() };
}

/// The file that the data is behind its first byte is read to its end, or to what is wrong with it.
pub fn files(data: &[u8]) -> bool {
    let Some((which, content)) = data.split_first() else {
        return false;
    };
    let which = usize::from(*which);
    let path = file_of_this_process("input");
    std::fs::write(&path, content).expect("the file is written");
    let is_taken = TABLES.with(|tables| {
        let tables = tables.get_or_init(|| [table("OFFLINE", ""), table("OFFLINE", UNNESTED)]);
        let format = Some(FORMATS[which % FORMATS.len()]);
        let config = &tables[which / FORMATS.len() % tables.len()];
        let Ok(mut source) = input::open(&path, format, config, 100) else {
            return false;
        };
        let mut rows = 0;
        loop {
            let batch = match source.next_batch() {
                Ok(Some(batch)) => batch,
                Ok(None) => return true,
                Err(_) => return false,
            };
            rows += batch.num_rows();
            assert_eq!(batch.num_columns(), config.spec.schema.columns.len());
            for column in batch.columns() {
                let whole = column.to_data().validate_full();
                whole.expect("the rows are whole");
            }
            if rows > ROWS_MAX {
                return true;
            }
        }
    });
    let _ = std::fs::remove_file(&path);
    is_taken
}

fn parquet() -> Vec<u8> {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
    ]);
    let columns: [(&str, ArrayRef); 4] = [
        ("day", Arc::new(Int32Array::from(vec![1, 2, 3]))),
        (
            "name",
            Arc::new(StringArray::from(vec![Some("a"), None, Some("ü")])),
        ),
        ("codes", Arc::new(lists)),
        ("date", Arc::new(StringArray::from(vec!["2026-01-02"; 3]))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.map(|(name, column)| (name, column, true)),
    );
    let path = file_of_this_process("seed");
    crate::arrow_files::write_parquet(&path, &batch.expect("the columns fit"))
        .expect("the file is written");
    let bytes = std::fs::read(&path).expect("the file is read");
    let _ = std::fs::remove_file(&path);
    bytes
}

fn avro() -> Vec<u8> {
    let schema = r#"{"type": "record", "name": "r", "fields": [{"name": "day", "type": "int"}, {"name": "name", "type": ["null", "string"]},
        {"name": "items", "type": {"type": "array", "items": "long"}}]}"#;
    let schema = apache_avro::Schema::parse_str(schema).expect("the schema is right");
    let mut writer = apache_avro::Writer::new(&schema, Vec::new());
    for day in 0..3 {
        let record = Value::Record(vec![
            ("day".into(), Value::Int(day)),
            (
                "name".into(),
                Value::Union(1, Box::new(Value::String("a".into()))),
            ),
            ("items".into(), Value::Array(vec![Value::Long(7)])),
        ]);
        writer.append(record).expect("the record fits");
    }
    writer.into_inner().expect("the file is written")
}

/// A right file of each format, for both tables.
pub fn seeds_of_files() -> Vec<Vec<u8>> {
    let json = b"{\"day\": 1, \"name\": \"a\", \"tags\": [\"x\"], \"items\": [{\"n\": 1}]}\n\n{\"day\": 2, \"doc\": {\"a\": [1]}}\r\n{\"day\": 3, \"price\": 1.5}";
    let csv = b"day,name,tags,ratio,date\n1,\"a, \"\"b\"\"\",x;y,0.5,2026-01-02\n2,,,,\n3,\"line\nbreak\",,1e9,2026-01-03\n";
    let contents = [json.to_vec(), csv.to_vec(), avro(), parquet()];
    let twice = contents.iter().chain(&contents);
    let seed = |(number, content): (u8, &Vec<u8>)| [&[number][..], content].concat();
    (0..).zip(twice).map(seed).collect()
}
