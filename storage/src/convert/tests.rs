use super::json_row::JsonRow;
use super::*;
use crate::transform::Transforms;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, Float64Type, Int64Type};
use proptest::prelude::*;
use strandline_proto::schema::{Column, ColumnRole, DataType, Schema};
use strandline_proto::time_format::TimeFormat;
use strandline_proto::value::Value;

fn value(cell: Cell<'_>, data_type: DataType) -> Result<Value, String> {
    scalar::value(&cell, data_type)
}

const DECIMAL: DataType = DataType::BigDecimal {
    precision: 38,
    scale: 3,
};

fn dec(unscaled: i128) -> Value {
    Value::Decimal { unscaled, scale: 3 }
}

#[test]
fn values_that_fit_are_converted_exactly() {
    let text = |t: &'static str| Cell::Text(t.into());
    for (cell, data_type, expected) in [
        (Cell::Number("12"), DataType::Int, Value::Int(12)),
        (Cell::Number("-1.2e1"), DataType::Int, Value::Int(-12)),
        (text(" 7.00 "), DataType::Long, Value::Long(7)),
        (
            Cell::Double(-9_223_372_036_854_775_808.0),
            DataType::Long,
            Value::Long(i64::MIN),
        ),
        (
            Cell::Number("9223372036854775807"),
            DataType::Long,
            Value::Long(i64::MAX),
        ),
        (Cell::Boolean(true), DataType::Int, Value::Int(1)),
        (Cell::Date(5), DataType::Int, Value::Int(5)),
        (Cell::Number("0.1"), DataType::Float, Value::Float(0.1)),
        (Cell::Number("1e-400"), DataType::Double, Value::Double(0.0)),
        (
            text("-Infinity"),
            DataType::Double,
            Value::Double(f64::NEG_INFINITY),
        ),
        (
            Cell::Float(0.1),
            DataType::Double,
            Value::Double(f64::from(0.1_f32)),
        ),
        (
            Cell::Float(0.1),
            DataType::String,
            Value::String("0.1".into()),
        ),
        (
            Cell::Double(1.0),
            DataType::String,
            Value::String("1.0".into()),
        ),
        (
            Cell::Number("12345678901234567890123456789012345.678"),
            DECIMAL,
            dec(12_345_678_901_234_567_890_123_456_789_012_345_678),
        ),
        (Cell::Double(0.1), DECIMAL, dec(100)),
        (text("-1.5000"), DECIMAL, dec(-1_500)),
        (Cell::Number("1E3"), DECIMAL, dec(1_000_000)),
        (text("TRUE"), DataType::Boolean, Value::Boolean(true)),
        (Cell::Number("0"), DataType::Boolean, Value::Boolean(false)),
        (
            text("2014-01-22"),
            DataType::Timestamp,
            Value::Timestamp(1_390_348_800_000),
        ),
        (
            text("1390348800000"),
            DataType::Timestamp,
            Value::Timestamp(1_390_348_800_000),
        ),
        (
            Cell::Date(16_092),
            DataType::String,
            Value::String("2014-01-22".into()),
        ),
        (
            Cell::Bytes((&[1_u8, 0xab][..]).into()),
            DataType::String,
            Value::String("01ab".into()),
        ),
        (
            Cell::Document("{\"a\": 1}".into()),
            DataType::String,
            Value::String("{\"a\": 1}".into()),
        ),
        (
            Cell::JsonArray("[1]"),
            DataType::Json,
            Value::String("[1]".into()),
        ),
        (
            Cell::Number("1.50"),
            DataType::Json,
            Value::String("1.50".into()),
        ),
        (Cell::Null, DataType::Int, Value::Null),
    ] {
        assert_eq!(value(cell.clone(), data_type), Ok(expected), "{cell}");
    }
}

#[test]
fn values_that_do_not_fit_are_refused_and_shown() {
    let text = |t: &'static str| Cell::Text(t.into());
    for (cell, data_type, part) in [
        (
            Cell::Number("2147483648"),
            DataType::Int,
            "2147483648 is outside the range of INT",
        ),
        (
            Cell::Number("1e30"),
            DataType::Long,
            "outside the range of 64-bit",
        ),
        (
            Cell::Double(9_223_372_036_854_775_808.0),
            DataType::Long,
            "outside the range",
        ),
        (Cell::Double(f64::NAN), DataType::Long, "not a whole number"),
        (text(""), DataType::Int, "'' is not a whole number"),
        (text("inf"), DataType::Double, "not a number"),
        (
            text("1e999"),
            DataType::Double,
            "outside the range of DOUBLE",
        ),
        (
            Cell::Number("1e39"),
            DataType::Float,
            "outside the range of FLOAT",
        ),
        (
            Cell::Number("0.0001"),
            DECIMAL,
            "does not fit a decimal of 38 digits, 3 after the point",
        ),
        (text("1,5"), DECIMAL, "not a decimal"),
        (text("yes"), DataType::Boolean, "'yes' is not a BOOLEAN"),
        (text("abc"), DataType::Bytes, "odd number of hex digits"),
        (text("zz"), DataType::Bytes, "hex digits"),
        (text("tomorrow"), DataType::Timestamp, "is not a TIMESTAMP"),
        (
            Cell::Integer(i64::MAX),
            DataType::Timestamp,
            "outside the years 1 to 9999",
        ),
        (text("{"), DataType::Json, "not a JSON document"),
        (Cell::List(vec![]), DataType::Int, "not a whole number"),
        (Cell::Timestamp(5), DataType::Int, "not an INT"),
    ] {
        let error = value(cell.clone(), data_type).expect_err(part);
        assert!(error.contains(part), "{cell}: {error}");
    }
    let long = "x".repeat(100_000);
    assert!(
        value(Cell::Text(long.as_str().into()), DataType::Int)
            .unwrap_err()
            .len()
            < 200
    );
}

fn schema() -> Schema {
    let column = |name: &str, data_type, multi_value| Column {
        multi_value,
        ..Column::dimension(name, data_type)
    };
    Schema {
        name: "t".into(),
        version: 1,
        columns: vec![
            column("s", DataType::String, false),
            column("l", DataType::Long, true),
            column("d", DataType::Double, false),
        ],
        primary_key: vec![],
    }
}

fn builder() -> (RowLayout, RowBuilder) {
    let layout = RowLayout::new(&schema(), &Transforms::default());
    let builder = RowBuilder::new(&schema(), &Transforms::default(), &layout, None).unwrap();
    (layout, builder)
}

proptest! {
    #[test]
    fn json_is_read_as_another_reader_reads_it(
        s in prop::option::of("\\PC{0,12}|[\"\\\\\\n\\t\u{1f600}é]{0,6}"),
        l in prop::option::of(prop::collection::vec(prop::option::of(any::<i64>()), 0..5)),
        d in prop::option::of(any::<f64>().prop_filter("JSON has no other", |d| d.is_finite())),
        ascii in any::<bool>(), order in any::<bool>(), bad in any::<bool>(),
    ) {
        let mut fields = [("s", serde_json::json!(s)), ("l", serde_json::json!(l)), ("d", serde_json::json!(d)), ("z", serde_json::json!([{"s": l}, s]))];
        if order { fields.reverse(); }
        let mut text = String::from("{");
        for (i, (name, value)) in fields.iter().enumerate() {
            let mut value = value.to_string();
            if ascii {
                value = value.chars().flat_map(|c| {
                    let mut units = [0; 2];
                    let all: Vec<String> = if c.is_ascii() { vec![c.to_string()] } else { c.encode_utf16(&mut units).iter().map(|u| format!("\\u{u:04X}")).collect() };
                    all
                }).collect();
            }
            text += &format!("{}\n\"{name}\" : {value}", if i == 0 { "" } else { " ," });
        }
        text += " } ";
        let (layout, mut builder) = builder();
        let mut row = JsonRow::default();
        for _ in 0..2 {
            let mut cells = Vec::new();
            row.fill(&layout, &text, &mut cells).unwrap();
            builder.push(&mut cells).unwrap();
            if bad {
                let mut cells = [Cell::Text("half".into()), Cell::List(vec![Cell::Integer(1)]), Cell::Text("no number".into())];
                prop_assert!(builder.push(&mut cells).is_err());
            }
        }
        let batch = builder.finish().unwrap();
        prop_assert_eq!(batch.num_rows(), 2);
        for at in 0..2 {
            let strings = batch["s"].as_string::<i32>();
            prop_assert_eq!(strings.is_valid(at).then(|| strings.value(at)), s.as_deref());
            let doubles = batch["d"].as_primitive::<Float64Type>();
            prop_assert_eq!(doubles.is_valid(at).then(|| doubles.value(at)), d);
            let lists = batch["l"].as_list::<i32>();
            let list: Option<Vec<Option<i64>>> = lists.is_valid(at).then(|| lists.value(at).as_primitive::<Int64Type>().iter().collect());
            prop_assert_eq!(&list, &l);
        }
    }

    #[test]
    fn a_text_is_json_exactly_when_another_reader_says_so(text in "[\\[\\]{}:,\"0-9a-ftrunl.eE+\\\\ -]{0,16}") {
        // The other reader stops at a number beyond a double and says nothing of what follows.
        prop_assume!(!overflows(&text));
        prop_assert_eq!(json::check(&text).is_ok(), serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn decimals_survive_their_text(unscaled in any::<i64>(), scale in 0_i8..19) {
        let text = decimal::to_text(i128::from(unscaled), scale);
        let (digits, found) = decimal::parse(&text).unwrap();
        prop_assert_eq!(decimal::rescale(digits, found, i32::from(scale)), Some(i128::from(unscaled)));
    }

    #[test]
    fn a_float_is_rounded_once(text in "-?[0-9]{1,12}\\.[0-9]{1,12}") {
        prop_assert_eq!(value(Cell::Number(&text), DataType::Float), Ok(Value::Float(text.parse().unwrap())));
    }
}

/// Columns of each type, with and without a default, and a time.
fn every_type() -> Schema {
    let types = [
        DataType::Int,
        DataType::Long,
        DataType::Float,
        DataType::Double,
        DataType::Boolean,
        DataType::Timestamp,
        DataType::String,
        DataType::Json,
        DataType::Bytes,
        DECIMAL,
    ];
    let names = ["i", "l", "f", "d", "b", "t", "s", "j", "x", "n"];
    let single = (names.iter().zip(types)).map(|(name, of)| Column::dimension(*name, of));
    let lists = (names.iter().zip(types)).map(|(name, data_type)| Column {
        multi_value: true,
        ..Column::dimension(format!("{name}s"), data_type)
    });
    let time = Column {
        role: ColumnRole::DateTime {
            format: TimeFormat::parse("1:MILLISECONDS:EPOCH").unwrap(),
            granularity: "1:MINUTES".to_owned(),
        },
        default: Value::Long(7),
        ..Column::dimension("time", DataType::Long)
    };
    let strict = Column {
        not_null: true,
        ..Column::dimension("strict", DataType::String)
    };
    Schema {
        name: "t".into(),
        version: 1,
        columns: single.chain(lists).chain([time, strict]).collect(),
        primary_key: vec![],
    }
}

/// JSON values, and what is nearly JSON.
fn drawn_value() -> impl Strategy<Value = String> {
    const ODD: &[&str] = &[
        "0",
        "-0",
        "-0.0",
        "007",
        "-",
        "1.",
        ".5",
        "1.0",
        "0.1",
        "1e5",
        "1E-3",
        "1.5e400",
        "2147483647",
        "2147483648",
        "16777217",
        "0.30000000000000004",
        "9007199254740993",
        "123456789012345678",
        "999999999999999999",
        "1234567890123456789",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "253402300799999",
        "253402300800000",
        "true",
        "false",
        "null",
        "nul",
        "[]",
        "[1, null, 2]",
        "[[1]]",
        "[\"a\", 1]",
        "[1,",
        "{}",
        "{\"k\": [1, {\"k\": \"}\"}]}",
        "\"\"",
        "\"42\"",
        "\" 7 \"",
        "\"true\"",
        "\"é\u{1f600}\"",
        "\"a\\n\\\"b\"",
        "\"\\u00e9\\ud83d\\ude00\"",
        "\"\\ud800\"",
        "\"\\x\"",
        "\"a\u{1}\"",
        "\"2020-01-01T00:00:00Z\"",
        "\"{\\\"a\\\": 1}\"",
        "\"beef\"",
        "\"open",
    ];
    prop_oneof![
        4 => prop::sample::select(ODD).prop_map(str::to_owned),
        2 => "-?(0|[1-9][0-9]{0,19})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        2 => "\"[a-zé ]{0,20}\"",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_row_that_is_read_into_its_columns_is_the_one_of_its_cells(
        messages in prop::collection::vec((
            prop::collection::vec((0..26_usize, prop::option::weighted(0.5, drawn_value())), 0..12),
            prop::sample::select(&[("", ""), (" ", ""), ("", " "), ("\n", "\t ")][..]),
            prop::sample::select(&["{", "{", "{", "{", "[", " {"][..]),
            prop::sample::select(&["}", "}", "}", "}", "} ", "", "}x", ",}"][..]),
        ), 1..8),
    ) {
        let schema = every_type();
        let names: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().chain(["other", "\\u0069", "s\\u0073", "strict"]).collect();
        let layout = RowLayout::new(&schema, &Transforms::default());
        let new = || RowBuilder::new(&schema, &Transforms::default(), &layout, Some("time")).unwrap();
        let (mut direct, mut general) = (new(), new());
        let (mut direct_row, mut general_row) = (JsonRow::default(), JsonRow::default());
        for (members, (before, after), open, close) in &messages {
            let members = members.iter().map(|(name, value)| {
                let name = names[*name];
                // Most values are of their column's type.
                let fitting = match name.trim_end_matches('s') {
                    "s" | "strict" | "" => "\"text\"",
                    "b" => "true",
                    "x" => "\"00ff\"",
                    _ => "12",
                };
                let value = value.as_deref().unwrap_or(fitting);
                format!("{before}\"{name}\"{before}:{after}{value}{after}")
            });
            let strict = ["\"strict\":\"a\"".to_owned()];
            let members: Vec<String> = strict.into_iter().chain(members).collect();
            let text = format!("{open}{}{close}", members.join(","));
            let of_cells = |row: &mut JsonRow, builder: &mut RowBuilder| {
                let mut cells = Vec::new();
                row.fill(&layout, &text, &mut cells)?;
                builder.push(&mut cells).map_err(|e| e.to_string())
            };
            let expected = of_cells(&mut general_row, &mut general);
            let appended = direct_row.append(&layout, &text, &mut direct);
            if appended {
                prop_assert_eq!(&expected, &Ok(()), "{}", text);
            } else {
                prop_assert_eq!(&of_cells(&mut direct_row, &mut direct), &expected, "{}", text);
            }
            prop_assert_eq!(direct.rows(), general.rows());
            prop_assert_eq!(direct.bytes(), general.bytes());
        }
        let (direct, general) = (direct.finish().unwrap(), general.finish().unwrap());
        // Not by the values: -0.0 is not 0.0, and no number is itself where it is none.
        prop_assert_eq!(format!("{direct:?}"), format!("{general:?}"));
    }
}

#[test]
fn rows_are_read_into_their_columns_unless_cells_are_looked_at() {
    let (layout, mut builder) = builder();
    let mut row = JsonRow::default();
    let text = r#"{"s": "a\tb", "d": 1.5, "l": [1, 2], "z": {"s": 1}}"#;
    assert!(row.append(&layout, text, &mut builder));
    assert!(!row.append(&layout, r#"{"s": "a", "s": "b"}"#, &mut builder));
    assert!(!row.append(&layout, r#"{"s": "a", "d": "x"}"#, &mut builder));
    assert_eq!(builder.rows(), 1);
    let transforms = Transforms::parse([("s", "upper(z)")]).unwrap();
    let filter = Transforms::default().with_filter("s = 'a'").unwrap();
    for transforms in [transforms, filter] {
        let layout = RowLayout::new(&schema(), &transforms);
        let mut builder = RowBuilder::new(&schema(), &transforms, &layout, None).unwrap();
        assert!(!JsonRow::default().append(&layout, text, &mut builder));
    }
}

/// Whether the other reader refuses a number beyond a double, which is JSON nevertheless.
fn overflows(text: &str) -> bool {
    matches!(serde_json::from_str::<serde_json::Value>(text), Err(e) if e.to_string().contains("out of range"))
}

#[test]
fn defaults_fill_what_is_absent_and_not_null_refuses_it() {
    let mut schema = schema();
    schema.columns[0].default = Value::String("none".into());
    schema.columns[1].default = Value::List(vec![Value::Long(-1)]);
    schema.columns[2].not_null = true;
    let layout = RowLayout::new(&schema, &Transforms::default());
    let mut builder = RowBuilder::new(&schema, &Transforms::default(), &layout, None).unwrap();
    builder
        .push(&mut [Cell::Null, Cell::Null, Cell::Integer(1)])
        .unwrap();
    let error = builder
        .push(&mut [Cell::Null, Cell::Null, Cell::Null])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "column d: null where the schema says notNull"
    );
    let batch = builder.finish().unwrap();
    assert_eq!(batch.num_rows(), 1);
    assert_eq!(batch["s"].as_string::<i32>().value(0), "none");
    assert_eq!(
        batch["l"]
            .as_list::<i32>()
            .value(0)
            .as_primitive::<Int64Type>()
            .values(),
        &[-1]
    );
    assert!(batch["d"].as_primitive_opt::<Float32Type>().is_none());
}
