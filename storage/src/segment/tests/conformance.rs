//! One suite for both kinds of segments: a reader answers as a naive look at the rows does.

use super::rows::{Row, array, value_cmp};
use crate::segment::SegmentReader;
use crate::segment::arrow::{null_buffer, read_array};
use crate::segment::metadata::scalar_value;
use std::collections::BTreeSet;
use std::ops::Range;
use strandline_index::{CHUNK_DOCS, ColumnReader, DocBits, DocId, DocSelection, Scalar};
use strandline_proto::schema::{Column, Schema};
use strandline_proto::value::Value;

/// Holds all that `segment` answers against `rows`, which are its documents in order, with their stream offsets.
pub(super) fn check(segment: &dyn SegmentReader, schema: &Schema, rows: &[(u64, Row)]) {
    let docs = rows.len() as u32;
    assert_eq!(segment.num_docs(), docs);
    assert!(segment.column("no such column").is_none());
    if segment.origin().is_some() {
        let mut offsets = vec![-1];
        segment.offsets(DocSelection::Range(0..docs), &mut offsets);
        assert_eq!(
            offsets[1..],
            rows.iter().map(|row| row.0 as i64).collect::<Vec<_>>()
        );
    }
    for (number, column) in schema.columns.iter().enumerate() {
        let reader = segment
            .column(&column.name)
            .unwrap_or_else(|| panic!("column {}", column.name));
        let values: Vec<&Value> = rows.iter().map(|row| &row.1[number]).collect();
        assert_eq!(
            (reader.num_docs(), reader.is_multi_value()),
            (docs, column.multi_value),
            "{}",
            column.name
        );
        check_arrays(&*reader, column, &values);
        check_lookups(&*reader, column, &values);
        assert_eq!(reader.fault(), None);
    }
}

fn check_arrays(reader: &dyn ColumnReader, column: &Column, values: &[&Value]) {
    let docs = values.len() as u32;
    let third = docs / 3;
    for range in [
        0..docs,
        third..docs,
        third..docs - third,
        docs..docs,
        0..docs.min(1),
    ] {
        let expected = array(
            column,
            values[range.start as usize..range.end as usize]
                .iter()
                .copied(),
        );
        let read = read_array(
            reader,
            column.data_type,
            column.multi_value,
            DocSelection::Range(range.clone()),
        )
        .unwrap();
        assert_eq!(&read, &expected, "{} {range:?}", column.name);
        assert_eq!(read.data_type(), &column.arrow_type());
    }
    for step in [1, 2, 7, 1000] {
        let some: Vec<DocId> = (0..docs).skip(step / 2).step_by(step).collect();
        let expected = array(column, some.iter().map(|&doc| values[doc as usize]));
        let read = read_array(
            reader,
            column.data_type,
            column.multi_value,
            DocSelection::Docs(&some),
        )
        .unwrap();
        assert_eq!(&read, &expected, "{} every {step}", column.name);
    }
    let nulls = values.iter().filter(|v| v.is_null()).count();
    assert_eq!(
        null_buffer(reader, DocSelection::Range(0..docs)).map_or(0, |n| n.null_count()),
        nulls,
        "{}",
        column.name
    );
    assert!(nulls == 0 || reader.has_nulls(), "{}", column.name);
}

/// The values or non-null elements of a row.
fn elements(value: &Value) -> &[Value] {
    match value {
        Value::Null => &[],
        Value::List(elements) => elements,
        single => std::slice::from_ref(single),
    }
}

fn scalar(value: &Value) -> Scalar<'_> {
    match value {
        Value::Boolean(v) => Scalar::I32(i32::from(*v)),
        Value::Int(v) => Scalar::I32(*v),
        Value::Long(v) | Value::Timestamp(v) => Scalar::I64(*v),
        Value::Float(v) => Scalar::F32(*v),
        Value::Double(v) => Scalar::F64(*v),
        Value::Decimal { unscaled, .. } => Scalar::I128(*unscaled),
        Value::String(v) => Scalar::Bytes(v.as_bytes().into()),
        Value::Bytes(v) => Scalar::Bytes(v.as_slice().into()),
        other => panic!("{other:?}"),
    }
}

/// Documents that `matches` any element of, and the same as the reader's `fill` gives them, nulls taken away.
fn compare_docs(
    reader: &dyn ColumnReader,
    values: &[&Value],
    what: &str,
    matches: &dyn Fn(&Value) -> bool,
    fill: &dyn Fn(u32, &mut DocBits),
) {
    let expected: Vec<DocId> = (0..values.len() as u32)
        .filter(|&doc| {
            elements(values[doc as usize])
                .iter()
                .any(|e| !e.is_null() && matches(e))
        })
        .collect();
    let mut found = Vec::new();
    for chunk in 0..(values.len() as u32).div_ceil(CHUNK_DOCS) {
        let (mut bits, mut nulls) = (DocBits::new(), DocBits::new());
        fill(chunk, &mut bits);
        reader.null_bits(chunk, &mut nulls);
        bits.and_not(&nulls);
        bits.append_docs(chunk * CHUNK_DOCS, &mut found);
    }
    assert_eq!(found, expected, "{what}");
}

fn check_lookups(reader: &dyn ColumnReader, column: &Column, values: &[&Value]) {
    let mut distinct: Vec<&Value> = values
        .iter()
        .flat_map(|v| elements(v))
        .filter(|e| !e.is_null())
        .collect();
    distinct.sort_by(|a, b| value_cmp(a, b));
    distinct.dedup_by(|a, b| value_cmp(a, b).is_eq());
    for value in &distinct {
        assert!(
            reader.may_contain(&scalar(value)),
            "{} {value:?}",
            column.name
        );
    }
    let picked: Vec<&Value> = distinct
        .iter()
        .copied()
        .step_by((distinct.len() / 12).max(1))
        .collect();
    if let Some(dictionary) = reader.dictionary() {
        let ids: BTreeSet<_> = distinct
            .iter()
            .map(|value| {
                let id = dictionary
                    .id_of(&scalar(value))
                    .unwrap_or_else(|| panic!("{} lacks {value:?}", column.name));
                assert!(
                    value_cmp(
                        &scalar_value(&dictionary.value(id), column.data_type),
                        value
                    )
                    .is_eq(),
                    "{} {value:?}",
                    column.name
                );
                id
            })
            .collect();
        assert_eq!(ids.len(), distinct.len());
        for value in &picked {
            let id = dictionary.id_of(&scalar(value)).unwrap();
            let what = format!("{} = {value:?}", column.name);
            let equal = |e: &Value| value_cmp(e, value).is_eq();
            if let Some(inverted) = reader.inverted() {
                compare_docs(reader, values, &what, &equal, &|chunk, out| {
                    inverted.fill(id, chunk, out)
                });
            }
            if let Some(docs) = reader.sorted_docs(id..id + 1) {
                compare_docs(reader, values, &what, &equal, &|chunk, out| {
                    insert(docs.clone(), chunk, out)
                });
            }
        }
    }
    if reader.has_range_index() {
        for low in &picked {
            for high in [picked.first(), picked.last(), Some(low)]
                .into_iter()
                .flatten()
            {
                let what = format!("{} in [{low:?}, {high:?})", column.name);
                let within = |e: &Value| value_cmp(e, low).is_ge() && value_cmp(e, high).is_lt();
                compare_docs(reader, values, &what, &within, &|chunk, out| {
                    assert!(reader.range_fill(
                        Some((&scalar(low), true)),
                        Some((&scalar(high), false)),
                        chunk,
                        out
                    ));
                });
            }
        }
    }
}

fn insert(docs: Range<DocId>, chunk: u32, out: &mut DocBits) {
    let within = |doc: DocId| doc.saturating_sub(chunk * CHUNK_DOCS).min(CHUNK_DOCS);
    out.insert_range(within(docs.start), within(docs.end));
}
