use super::*;
use crate::convert::json_row::all_fields;
use crate::transform::Transforms;
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;
use strandline_proto::schema::{Column, DataType, Schema};

type Rows = Vec<Vec<Option<String>>>;

fn config(unnest: &[&str], to_json: ArraysToJson, rename: &[(&str, &str)]) -> ComplexTypes {
    ComplexTypes {
        delimiter: ".".to_owned(),
        unnest: unnest.iter().map(|p| (*p).to_owned()).collect(),
        to_json,
        rename: (rename.iter())
            .map(|(prefix, new)| ((*prefix).to_owned(), (*new).to_owned()))
            .collect(),
    }
}

fn parts(config: &ComplexTypes, columns: &[&str], of: DataType) -> (Flattener, RowBuilder) {
    let schema = Schema {
        name: "t".to_owned(),
        version: 1,
        columns: (columns.iter())
            .map(|name| Column::dimension(*name, of))
            .collect(),
        primary_key: vec![],
    };
    let layout = RowLayout::new(&schema, &Transforms::default());
    let builder = RowBuilder::new(&schema, &Transforms::default(), &layout, None).unwrap();
    (Flattener::new(config, &layout), builder)
}

/// A record's rows, each as the texts of its columns.
fn rows(config: &ComplexTypes, columns: &[&str], json: &str) -> Result<Rows, String> {
    let (mut flattener, mut builder) = parts(config, columns, DataType::String);
    let pushed = flattener.push(&all_fields(json)?, &[], &mut builder);
    if pushed.is_err() {
        assert_eq!(builder.rows(), 0, "a refused record leaves no row");
    }
    pushed.map_err(|e| e.to_string())?;
    let batch = builder.finish().unwrap();
    let text = |column: usize, row: usize| {
        let column = batch.column(column).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let row = |row| (0..columns.len()).map(|column| text(column, row)).collect();
    Ok((0..batch.num_rows()).map(row).collect())
}

/// `-` stands for null.
fn check(config: &ComplexTypes, columns: &[&str], json: &str, expected: &[&[&str]]) {
    let value = |v: &&str| (*v != "-").then(|| (*v).to_owned());
    let expected: Rows = (expected.iter())
        .map(|row| row.iter().map(value).collect())
        .collect();
    assert_eq!(rows(config, columns, json), Ok(expected), "{json}");
}

#[test]
fn objects_become_paths_and_arrays_rows() {
    let columns = ["id", "a.b", "a.c.d", "l", "l.x", "l.m", "l.m.y"];
    let nested = config(&["l", "l.m"], ArraysToJson::Nested, &[]);
    check(
        &nested,
        &columns,
        r#"{"id": 1, "a": {"b": "x", "c": {"d": 2}}}"#,
        &[&["1", "x", "2", "-", "-", "-", "-"]],
    );
    let first = r#"{"x": 1, "m": [{"y": 2}, {"y": 3}]}"#;
    check(
        &nested,
        &columns,
        &format!(r#"{{"id": 1, "l": [{first}, {{"x": 4}}, {{"x": 5, "m": []}}, 6, null]}}"#),
        &[
            &["1", "-", "-", first, "1", r#"{"y": 2}"#, "2"],
            &["1", "-", "-", first, "1", r#"{"y": 3}"#, "3"],
            &["1", "-", "-", r#"{"x": 4}"#, "4", "-", "-"],
            &["1", "-", "-", r#"{"x": 5, "m": []}"#, "5", "-", "-"],
            &["1", "-", "-", "6", "-", "-", "-"],
            &["1", "-", "-", "-", "-", "-", "-"],
        ],
    );
    // An array in an object, an empty one, null, no array at all, and arrays in an array.
    let inner = config(&["a.list"], ArraysToJson::Nested, &[]);
    for (list, expected) in [
        (r#"["x", "y"]"#, &[&["x"][..], &["y"]][..]),
        ("[]", &[&["-"]]),
        ("null", &[&["-"]]),
        (r#""plain""#, &[&["plain"]]),
        ("[[1, 2], [3]]", &[&["[1, 2]"], &["[3]"]]),
    ] {
        let json = format!(r#"{{"a": {{"list": {list}}}}}"#);
        check(&inner, &["a.list"], &json, expected);
    }
    // Two arrays beside each other give all combinations.
    let two = config(&["p", "q"], ArraysToJson::Nested, &[]);
    check(
        &two,
        &["p", "q"],
        r#"{"q": ["a", "b"], "p": [1, 2]}"#,
        &[&["1", "a"], &["1", "b"], &["2", "a"], &["2", "b"]],
    );
}

#[test]
fn other_arrays_become_json_as_the_config_says() {
    let json = r#"{"flat": [1, 2], "deep": [{"x": 1}]}"#;
    for to_json in [ArraysToJson::None, ArraysToJson::Nested] {
        let error = rows(&config(&[], to_json, &[]), &["flat"], json).unwrap_err();
        assert!(error.contains("column flat: [1, 2] is a list"), "{error}");
    }
    let deep = r#"[{"x": 1}]"#;
    let nested = config(&[], ArraysToJson::Nested, &[]);
    check(&nested, &["deep"], json, &[&[deep]]);
    let all = config(&[], ArraysToJson::All, &[]);
    check(&all, &["flat", "deep"], json, &[&["[1, 2]", deep]]);
    let none = config(&[], ArraysToJson::None, &[]);
    assert!(rows(&none, &["deep"], json).is_err());
}

#[test]
fn prefixes_are_renamed_and_a_name_for_two_is_refused() {
    let rename = [("payload.", ""), ("payload.items.", "item_")];
    let renamed = config(&["payload.items"], ArraysToJson::Nested, &rename);
    check(
        &renamed,
        &["id", "item_n", "kind"],
        r#"{"kind": "k", "payload": {"id": 1, "items": [{"n": 1}, {"n": 2}]}}"#,
        &[&["1", "1", "k"], &["1", "2", "k"]],
    );
    for json in [
        r#"{"id": 1, "payload": {"id": 2}}"#,
        r#"{"payload": {"id": 2}, "id": 1}"#,
    ] {
        let error = rows(&renamed, &["id"], json).unwrap_err();
        assert!(error.contains("two fields are called id"), "{error}");
    }
    let null = r#"{"id": null, "payload": {"id": 2}}"#;
    check(&renamed, &["id"], null, &[&["2"]]);
}

#[test]
fn values_that_come_as_lists_and_objects_are_flattened_like_text() {
    let unnest = config(&["l"], ArraysToJson::Nested, &[]);
    let (mut flattener, mut builder) = parts(&unnest, &["l.x", "o.y"], DataType::Long);
    let document = |text: &str| Cell::Document(text.to_owned().into());
    let list = vec![document(r#"{"x": 1}"#), document(r#"{"x": 2}"#)];
    let fields: Fields<'_> = vec![
        ("l".into(), Cell::List(list)),
        ("o".into(), document(r#"{"y": 3}"#)),
    ];
    flattener.push(&fields, &[], &mut builder).unwrap();
    let batch = builder.finish().unwrap();
    let column = |at: usize| {
        batch
            .column(at)
            .as_primitive::<Int64Type>()
            .values()
            .to_vec()
    };
    assert_eq!((column(0), column(1)), (vec![1, 2], vec![3, 3]));
}

proptest! {
    /// Unnesting is the product of the arrays with the record's other fields.
    #[test]
    fn rows_are_the_product_of_the_arrays(
        a in prop::collection::vec(prop::option::of(0..9_i32), 0..4), b in prop::collection::vec(0..9_i32, 0..4), id in 0..9_i32,
    ) {
        let objects: Vec<serde_json::Value> = a.iter().map(|x| serde_json::json!({"x": x})).collect();
        let json = serde_json::json!({"id": id, "a": objects, "b": b}).to_string();
        let unnest = config(&["a", "b"], ArraysToJson::Nested, &[]);
        let found = rows(&unnest, &["id", "a.x", "b"], &json).unwrap();
        let or_null = |all: Vec<Option<String>>| if all.is_empty() { vec![None] } else { all };
        let first = or_null(a.iter().map(|x| x.map(|x| x.to_string())).collect());
        let second = or_null(b.iter().map(|x| Some(x.to_string())).collect());
        let expected: Rows = first.iter()
            .flat_map(|x| second.iter().map(move |y| vec![Some(id.to_string()), x.clone(), y.clone()]))
            .collect();
        prop_assert_eq!(found, expected);
    }
}
