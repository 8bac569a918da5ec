//! The answers that statements must have, from the rows themselves: counts and sums by columns' values.

use crate::target::parquet_files;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use strandline_tests::answer::Cell;

/// Bits of a packed key for each of its columns.
const KEY_BITS: u32 = 21;
/// Columns of a key at most.
pub(super) const KEY_COLUMNS_MAX: usize = (u128::BITS / KEY_BITS) as usize;
/// Rows read together.
const BATCH_ROWS: usize = 65_536;
/// The columns that are summed.
pub(super) const SUMMED: [&str; 2] = ["lo_revenue", "lo_supplycost"];

/// How many rows, and the sums over them of [`SUMMED`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) rows: i64,
    pub(super) sums: [i64; SUMMED.len()],
}

impl Sums {
    /// As an answer has them: the count, then the sums.
    pub(super) fn cells(&self) -> impl Iterator<Item = Cell> {
        let sums = self.sums;
        std::iter::once(self.rows)
            .chain(sums)
            .map(|number| Cell::Number(i128::from(number), 0))
    }
}

/// A column's values by their codes, the codes given out as values are met.
#[derive(Debug, Default)]
struct Codes {
    values: Vec<Cell>,
    of_text: HashMap<String, u32>,
    of_number: HashMap<i32, u32>,
}

impl Codes {
    /// The code of each row of a column.
    fn encode(&mut self, column: &ArrayRef) -> Result<Vec<u32>, String> {
        if column.null_count() > 0 {
            return Err("a null, where the benchmark has none".to_owned());
        }
        if let Some(column) = column.as_dictionary_opt::<Int32Type>() {
            let texts = column.values().as_string::<i32>();
            let codes: Vec<u32> = texts.iter().map(|t| self.text(t.unwrap_or(""))).collect();
            let keys = column.keys().values().iter();
            let code = |key: &i32| codes.get(*key as usize).copied();
            return keys
                .map(|key| code(key).ok_or_else(|| "a damaged dictionary".to_owned()))
                .collect();
        }
        match column.as_primitive_opt::<Int32Type>() {
            Some(numbers) => Ok(numbers.values().iter().map(|n| self.number(*n)).collect()),
            None => Err(format!("{} is no key", column.data_type())),
        }
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(code) = self.of_text.get(text) {
            return *code;
        }
        let code = self.values.len() as u32;
        self.values.push(Cell::Text(text.to_owned()));
        self.of_text.insert(text.to_owned(), code);
        code
    }

    fn number(&mut self, number: i32) -> u32 {
        let values = &mut self.values;
        *self.of_number.entry(number).or_insert_with(|| {
            values.push(Cell::Number(i128::from(number), 0));
            values.len() as u32 - 1
        })
    }
}

/// Sums by the values of some columns.
pub(super) type Groups = Vec<(Vec<Cell>, Sums)>;

/// Reads the files in `folder` once and gives, for each list of columns, the sums by their values.
pub(super) fn group(folder: &Path, keys: &[&[&str]]) -> Result<Vec<Groups>, Box<dyn Error>> {
    if keys.iter().any(|columns| columns.len() > KEY_COLUMNS_MAX) {
        return Err(format!("a key of more than {KEY_COLUMNS_MAX} columns").into());
    }
    let columns: BTreeSet<&str> = keys.iter().flat_map(|c| c.iter().copied()).collect();
    let mut codes: HashMap<&str, Codes> = columns
        .iter()
        .map(|column| (*column, Codes::default()))
        .collect();
    let mut groups: Vec<HashMap<u128, Sums>> = vec![HashMap::new(); keys.len()];
    for path in parquet_files(folder)? {
        let fail = |e: String| format!("{}: {e}", path.display());
        for batch in batches(&path, &columns)? {
            let batch = batch.map_err(|e| fail(e.to_string()))?;
            add(&batch, keys, &mut codes, &mut groups).map_err(fail)?;
        }
    }
    let value = |column: &str, key: u128, at: usize| -> Cell {
        let code = (key >> (at as u32 * KEY_BITS)) as usize & ((1 << KEY_BITS) - 1);
        let values = codes.get(column).map_or(&[][..], |codes| &codes.values);
        values.get(code).cloned().unwrap_or(Cell::Null)
    };
    let unpacked = groups.into_iter().zip(keys).map(|(groups, columns)| {
        let group = |(key, sums): (u128, Sums)| {
            let cells = columns.iter().enumerate();
            (cells.map(|(at, c)| value(c, key, at)).collect(), sums)
        };
        groups.into_iter().map(group).collect()
    });
    Ok(unpacked.collect())
}

type Batches = parquet::arrow::arrow_reader::ParquetRecordBatchReader;

/// The batches of a file with these columns and those that are summed, texts as dictionaries.
fn batches(path: &Path, columns: &BTreeSet<&str>) -> Result<Batches, Box<dyn Error>> {
    let plain = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let fields: Vec<Field> = plain
        .schema()
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8 => field.as_ref().clone().with_data_type(text.clone()),
            _ => field.as_ref().clone(),
        })
        .collect();
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(path)?, options)?;
    let wanted = columns.iter().chain(&SUMMED).copied();
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
    Ok(builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()?)
}

fn add<'a>(
    batch: &RecordBatch,
    keys: &[&[&'a str]],
    codes: &mut HashMap<&'a str, Codes>,
    groups: &mut [HashMap<u128, Sums>],
) -> Result<(), String> {
    let column = |name: &str| {
        let column = batch.column_by_name(name);
        column.ok_or_else(|| format!("no column {name}"))
    };
    let mut encoded: HashMap<&str, Vec<u32>> = HashMap::new();
    for (name, codes) in codes.iter_mut() {
        let rows = codes.encode(column(name)?);
        encoded.insert(name, rows.map_err(|e| format!("{name}: {e}"))?);
        if codes.values.len() >= 1 << KEY_BITS {
            return Err(format!("{name} has too many values"));
        }
    }
    let mut summed = Vec::new();
    for name in SUMMED {
        let numbers = column(name)?.as_primitive_opt::<Int32Type>();
        summed.push(numbers.ok_or_else(|| format!("{name} is no INT"))?.values());
    }
    for (columns, groups) in keys.iter().zip(groups) {
        let columns: Vec<&Vec<u32>> = columns.iter().filter_map(|c| encoded.get(c)).collect();
        for row in 0..batch.num_rows() {
            let key = columns.iter().enumerate().fold(0, |key, (at, codes)| {
                key | u128::from(codes[row]) << (at as u32 * KEY_BITS)
            });
            let sums = groups.entry(key).or_default();
            sums.rows += 1;
            for (sum, values) in sums.sums.iter_mut().zip(&summed) {
                *sum += i64::from(values[row]);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssb::data::generate;

    #[test]
    fn groups_hold_every_row_once() {
        let folder = tempfile::tempdir().unwrap();
        let (_, rows) = generate(folder.path(), 0.002, 3).unwrap();
        let keys: [&[&str]; 3] = [&[], &["d_year"], &["c_region", "d_year", "lo_custkey"]];
        let groups = group(folder.path(), &keys).unwrap();
        let total = groups[0][0].1;
        assert_eq!((groups[0].len(), total.rows), (1, rows as i64));
        assert_eq!(groups[1].len(), 7);
        assert!(groups[2].len() > 100);
        for groups in &groups {
            let mut again = Sums::default();
            for (_, sums) in groups {
                again.rows += sums.rows;
                for (sum, of_group) in again.sums.iter_mut().zip(sums.sums) {
                    *sum += of_group;
                }
            }
            assert_eq!(again, total);
        }
        let years = groups[1].iter().map(|(key, _)| key[0].clone());
        assert!(years.into_iter().any(|year| year == Cell::Number(1992, 0)));
        let texts = groups[2].iter().map(|(key, _)| &key[0]);
        assert!(
            texts
                .into_iter()
                .any(|t| *t == Cell::Text("ASIA".to_owned()))
        );
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(group(folder.path(), &[]).is_err());
        generate(folder.path(), 0.0005, 3).unwrap();
        let error = group(folder.path(), &[&["no_column"]]).unwrap_err();
        assert!(error.to_string().contains("no column no_column"), "{error}");
        let long = ["d_year"; KEY_COLUMNS_MAX + 1];
        assert!(group(folder.path(), &[&long]).is_err());
    }
}
