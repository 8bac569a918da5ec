//! Text and FST indexes of segments: what is stored and what grows answers as the rows' own texts do.

use super::golden::{build, rows, spec};
use super::rows::{Row, batch, column, files, partition, stored_order};
use crate::segment::SegmentReader;
use crate::segment::consuming::ConsumingSegment;
use crate::segment::immutable::ImmutableSegment;
use crate::segment::spec::{ColumnSpec, SegmentSpec};
use std::path::Path;
use std::sync::Arc;
use strandline_index::DocSet;
use strandline_index::fst::FstPattern;
use strandline_proto::schema::DataType;
use strandline_proto::text::{Analyzer, TextSettings};
use strandline_proto::value::Value;

/// The newest version's rows with text and FST indexes.
const PATH: &str = "tests/golden/segment-2-text.strandline";
const CHECKSUM: u64 = 0x251a_aefb_9908_5d23;

fn spec_with_text() -> Arc<SegmentSpec> {
    let mut spec = (*spec()).clone();
    for (name, of_column) in &mut spec.columns {
        if name.starts_with("STRING") || name.starts_with("JSON") {
            of_column.text = Some(TextSettings::default());
            of_column.fst = !name.ends_with("_raw");
        }
    }
    Arc::new(spec)
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::List(elements) => elements.iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// Asks for some words in all columns of text, of the documents that the index holds.
fn check_words(
    segment: &dyn SegmentReader,
    spec: &SegmentSpec,
    rows: &[Row],
    asked: &[&str],
) -> u32 {
    let analyzer = Analyzer::new(&TextSettings::default());
    let mut covered = u32::MAX;
    for (number, column) in spec.schema.columns.iter().enumerate() {
        let Some(settings) = spec.column(&column.name).text else {
            assert!(segment.text(&column.name).is_none());
            continue;
        };
        let index = segment.text(&column.name).unwrap();
        assert_eq!(index.key(), settings.words_key());
        covered = covered.min(index.num_docs());
        for asked in asked {
            let mut found = DocSet::new();
            index.fill(asked, &mut found).unwrap();
            for (doc, row) in rows.iter().enumerate() {
                let mut holds = false;
                analyzer.words_of(texts(&row[number]), &mut |_, word| holds |= word == *asked);
                let expected = holds && (doc as u32) < index.num_docs();
                let place = format!("{asked} in {} of document {doc}", column.name);
                assert_eq!(found.contains(doc as u32), expected, "{place}");
            }
        }
    }
    covered
}

#[test]
fn the_golden_text_indexes_are_read() {
    let segment = ImmutableSegment::open(Path::new(PATH)).unwrap();
    assert_eq!(segment.info().checksum, CHECKSUM);
    let spec = spec_with_text();
    let rows: Vec<Row> = stored_order(&spec, &rows())
        .into_iter()
        .map(|row| row.1)
        .collect();
    let covered = check_words(&*segment, &spec, &rows, &["text", "ü", "5", "n", "absent"]);
    assert_eq!(covered, 200);
    let pattern = FstPattern::new("^(text|no) ü -1[1-5]$").unwrap();
    let reader = segment.column("STRING").unwrap();
    let dictionary = reader.dictionary().unwrap();
    let mut found = Vec::new();
    let search = reader
        .fst()
        .unwrap()
        .search(&pattern, |id| found.push(dictionary.value(id)));
    search.unwrap();
    let texts: Vec<String> = found
        .iter()
        .map(|value| match value {
            strandline_index::Scalar::Bytes(text) => String::from_utf8(text.to_vec()).unwrap(),
            _ => panic!("{value:?}"),
        })
        .collect();
    let held = |text: &&str| {
        rows.iter()
            .any(|row| row.contains(&Value::String((*text).to_owned())))
    };
    let matching: Vec<String> = (11..=15).map(|n| format!("text ü -{n}")).collect();
    let matching = matching.iter().map(String::as_str);
    let expected: Vec<&str> = matching.filter(held).collect();
    assert!(!expected.is_empty());
    assert_eq!(texts, expected);
}

#[test]
#[ignore = "writes the golden file"]
fn write_the_golden_text_indexes() {
    build(&spec_with_text(), Path::new(PATH));
    let segment = ImmutableSegment::open(Path::new(PATH)).unwrap();
    println!("{PATH}: checksum {:#x}", segment.info().checksum);
}

#[test]
fn the_same_texts_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    build(&spec_with_text(), &a);
    build(&spec_with_text(), &b);
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
}

#[test]
fn words_of_a_consuming_segment_are_found_as_it_grows() {
    let of_text = ColumnSpec {
        text: Some(TextSettings::default()),
        ..ColumnSpec::default()
    };
    let columns = vec![
        (column("one", DataType::String, false), of_text.clone()),
        (column("many", DataType::String, true), of_text.clone()),
        (
            column("plain", DataType::String, false),
            ColumnSpec::default(),
        ),
    ];
    let spec = super::rows::spec(columns, None, None);
    let segment = ConsumingSegment::new("s", spec.clone(), partition(), 0).unwrap();
    let text = |n: usize| Value::String(format!("Row {} of {}", n % 50, n % 3));
    let rows: Vec<Row> = (0..9_500)
        .map(|n| {
            let many = Value::List(vec![text(n), Value::Null, text(n + 7)]);
            vec![
                text(n),
                if n % 11 == 0 { Value::Null } else { many },
                text(n),
            ]
        })
        .collect();
    let mut at = 0;
    let mut pinned = None;
    for step in [1, 900, 124, 2_000, 2_000, 4_000, 475] {
        let offsets: Vec<u64> = (at as u64..(at + step) as u64).collect();
        let before = segment.bytes();
        segment
            .append(
                &batch(&spec.schema, &rows[at..at + step]),
                &offsets,
                (at + step) as u64,
            )
            .unwrap();
        assert!(segment.bytes() > before);
        at += step;
        let covered = check_words(&*segment.view(), &spec, &rows[..at], &["row", "7", "of"]);
        assert!(
            covered as usize <= at && at - (covered as usize) < 1_024,
            "{covered} of {at}"
        );
        if at == 3_025 {
            pinned = Some(segment.view());
        }
    }
    // A view answers as when it was made.
    assert_eq!(
        check_words(&*pinned.unwrap(), &spec, &rows[..3_025], &["row", "7"]),
        3_025,
        "pieces that were made since hold the view's rows"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    segment.build(&files(), &path).unwrap();
    let stored = ImmutableSegment::open(&path).unwrap();
    assert_eq!(
        check_words(&*stored, &spec, &rows, &["row", "7", "2", "of"]),
        9_500
    );
}
