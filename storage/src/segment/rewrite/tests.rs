use super::rewrite_segment;
use crate::environment::{Environment, Files};
use crate::segment::builder::SegmentBuilder;
use crate::segment::immutable::ImmutableSegment;
use crate::segment::json::JsonSpec;
use crate::segment::spec::{ColumnSpec, Encoding, SegmentSpec, StarMeasure, StarTreeSpec};
use crate::segment::{DeletedKey, SegmentReader};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use strandline_index::json::Kind;
use strandline_index::{DocSelection, DocSet, ValueBuffer};
use strandline_proto::granularity::Granularity;
use strandline_proto::ids::{Half, OffsetRange, StreamPartition};
use strandline_proto::schema::{Column, DataType, Schema};
use strandline_proto::text::TextSettings;

fn schema() -> Arc<Schema> {
    let column = |name: &str, data_type| Column::dimension(name, data_type);
    Arc::new(Schema {
        name: "t".to_owned(),
        version: 4,
        columns: vec![
            column("n", DataType::Long),
            column("doc", DataType::Json),
            column("note", DataType::String),
        ],
        primary_key: Vec::new(),
    })
}

fn plain() -> Arc<SegmentSpec> {
    Arc::new(SegmentSpec {
        schema: schema(),
        columns: BTreeMap::new(),
        sorted_column: None,
        time_column: None,
        star_trees: Vec::new(),
    })
}

fn indexed() -> Arc<SegmentSpec> {
    let numbers = ColumnSpec {
        inverted: true,
        range: true,
        bloom: true,
        ..ColumnSpec::default()
    };
    let documents = ColumnSpec {
        encoding: Encoding::Raw,
        json: Some(JsonSpec::default()),
        ..ColumnSpec::default()
    };
    let notes = ColumnSpec {
        text: Some(TextSettings::default()),
        fst: true,
        ..ColumnSpec::default()
    };
    let tree = StarTreeSpec {
        dimensions: vec!["n".to_owned()],
        skip_star: Vec::new(),
        measures: vec![StarMeasure::Count, StarMeasure::Sum("n".to_owned())],
        leaf_records_max: 1,
    };
    Arc::new(SegmentSpec {
        columns: BTreeMap::from([
            ("n".to_owned(), numbers),
            ("doc".to_owned(), documents),
            ("note".to_owned(), notes),
        ]),
        star_trees: vec![tree],
        ..(*plain()).clone()
    })
}

fn built(spec: &Arc<SegmentSpec>, folder: &Path, name: &str) -> Arc<ImmutableSegment> {
    let origin = StreamPartition {
        stream: "log".into(),
        topic: "t".into(),
        partition: 1,
    };
    let range = OffsetRange {
        start: 10,
        end: 3_010,
    };
    let mut builder =
        SegmentBuilder::new(Arc::clone(spec), "s", Half::Realtime, Some((origin, range))).unwrap();
    let number = |i: i64| (i % 11 != 0).then_some(i * 7 % 100);
    let document = |i: i64| (i % 7 != 0).then(|| format!("{{\"a\": [{}, {i}]}}", i % 9));
    let note = |i: i64| (i % 5 != 0).then(|| format!("Note {} of {}", i % 13, i % 200));
    let columns: Vec<ArrayRef> = vec![
        Arc::new((0..3_000).map(number).collect::<Int64Array>()),
        Arc::new((0..3_000).map(document).collect::<StringArray>()),
        Arc::new((0..3_000).map(note).collect::<StringArray>()),
    ];
    let batch = RecordBatch::try_new(schema().arrow(), columns).unwrap();
    builder
        .push_with_offsets(&batch, &(10..3_010).collect::<Vec<_>>())
        .unwrap();
    builder.remember([deleted_key()]);
    let path = folder.join(name);
    builder.finish(&files(), &path).unwrap();
    ImmutableSegment::open(&path).unwrap()
}

fn deleted_key() -> DeletedKey {
    DeletedKey {
        key: [3; 16],
        comparison: [1, 2, 3].into_iter().collect(),
        offset: 17,
        time: 0,
    }
}

fn files() -> Arc<dyn Files> {
    Environment::real().files
}

fn offsets(segment: &ImmutableSegment) -> Vec<i64> {
    let mut offsets = Vec::new();
    segment.offsets(DocSelection::Range(0..segment.num_docs()), &mut offsets);
    offsets
}

#[test]
fn a_rewritten_segment_is_the_one_that_the_spec_gives() {
    let folder = tempfile::tempdir().unwrap();
    let source = built(&plain(), folder.path(), "plain");
    let path = folder.path().join("rewritten");
    let info = rewrite_segment(&source, &indexed(), &files(), &path).unwrap();
    let direct = built(&indexed(), folder.path(), "direct");
    // The same rows, stored by the same spec, are the same bytes.
    assert_eq!(&info, direct.info());
    assert_ne!(info.checksum, source.info().checksum);
    let rewritten = ImmutableSegment::open(&path).unwrap();
    let column = rewritten.column("doc").unwrap();
    let json = column.json().unwrap();
    let path_id = json.path(b".a[]").unwrap();
    assert!(json.key(path_id, Kind::Value, b"8").is_some() && column.dictionary().is_none());
    assert!(rewritten.column("n").unwrap().inverted().is_some());
    assert!(rewritten.column("note").unwrap().fst().is_some());
    let text = rewritten.text("note").unwrap();
    let mut found = DocSet::new();
    text.fill("12", &mut found).unwrap();
    // One in 13 by its number, and one in 200 by what it is of, but for those without a note.
    let expected = (0..3_000).filter(|i| i % 5 != 0 && (i % 13 == 12 || i % 200 == 12));
    assert_eq!(found.count(), expected.count() as u64);
    assert!(source.text("note").is_none());
    assert_eq!(rewritten.star_trees().len(), 1);
    let deleted: Vec<_> = rewritten.deleted_keys().iter().collect();
    assert_eq!(deleted, [deleted_key()]);
    assert_eq!(offsets(&rewritten), offsets(&source));
    // And back again.
    let path = folder.path().join("back");
    let back = rewrite_segment(&rewritten, &plain(), &files(), &path).unwrap();
    assert_eq!(&back, source.info());
}

#[test]
fn a_segment_without_rows_has_all_indexes_and_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = SegmentBuilder::new(indexed(), "s", Half::Offline, None).unwrap();
    builder.remember([deleted_key()]);
    let path = folder.path().join("empty");
    builder.finish(&files(), &path).unwrap();
    let empty = ImmutableSegment::open(&path).unwrap();
    assert_eq!(empty.num_docs(), 0);
    let path = folder.path().join("rewritten");
    let info = rewrite_segment(&empty, &plain(), &files(), &path).unwrap();
    let rewritten = ImmutableSegment::open(&path).unwrap();
    assert_eq!((info.rows, rewritten.deleted_keys().iter().count()), (0, 1));
}

#[test]
fn another_order_moves_whole_rows() {
    let folder = tempfile::tempdir().unwrap();
    let source = built(&plain(), folder.path(), "plain");
    let sorted = SegmentSpec {
        sorted_column: Some("n".to_owned()),
        ..(*indexed()).clone()
    };
    let path = folder.path().join("sorted");
    rewrite_segment(&source, &sorted, &files(), &path).unwrap();
    let rewritten = ImmutableSegment::open(&path).unwrap();
    let rows = |segment: &ImmutableSegment| {
        let all = || DocSelection::Range(0..segment.num_docs());
        let mut numbers = ValueBuffer::I64(Vec::new());
        segment.column("n").unwrap().values(all(), &mut numbers);
        let mut documents = ValueBuffer::new(strandline_index::PhysicalType::Bytes);
        segment.column("doc").unwrap().values(all(), &mut documents);
        let ValueBuffer::I64(numbers) = numbers else {
            panic!("longs")
        };
        let rows = numbers.into_iter().zip(offsets(segment)).enumerate();
        let rows = rows.map(|(i, (n, offset))| (offset, n, documents.bytes(i).unwrap().to_vec()));
        rows.collect::<Vec<_>>()
    };
    let (before, mut after) = (rows(&source), rows(&rewritten));
    assert!(after.is_sorted_by_key(|row| row.1) && !before.is_sorted_by_key(|row| row.1));
    after.sort();
    assert_eq!(before, after);
}

#[test]
fn what_a_segment_lacks_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let source = built(&plain(), folder.path(), "plain");
    let mut spec = (*indexed()).clone();
    let mut schema = (*schema()).clone();
    schema.columns.push(Column {
        name: "new".to_owned(),
        ..schema.columns[0].clone()
    });
    spec.schema = Arc::new(schema);
    spec.sorted_column = Some("new".to_owned());
    spec.columns.insert(
        "new".to_owned(),
        ColumnSpec {
            inverted: true,
            ..ColumnSpec::default()
        },
    );
    spec.star_trees[0].dimensions.push("new".to_owned());
    let path = folder.path().join("rewritten");
    rewrite_segment(&source, &spec, &files(), &path).unwrap();
    let rewritten = ImmutableSegment::open(&path).unwrap();
    assert_eq!(rewritten.schema(), source.schema());
    assert!(rewritten.star_trees().is_empty() && rewritten.column("new").is_none());
    assert!(rewritten.column("doc").unwrap().json().is_some());
}

#[test]
fn fingerprints_tell_storages_apart_and_nothing_else() {
    let of = |spec: &SegmentSpec| spec.fingerprint();
    let base = (*indexed()).clone();
    let mut other_schema = base.clone();
    other_schema.time_column = Some("n".to_owned());
    other_schema
        .columns
        .insert("unused".to_owned(), ColumnSpec::default());
    assert_eq!(of(&base), of(&other_schema));
    fn text(spec: &mut SegmentSpec) -> &mut TextSettings {
        let note = spec.columns.get_mut("note").unwrap();
        note.text.as_mut().unwrap()
    }
    // How queries are read, not what is indexed.
    let mut other_queries = base.clone();
    text(&mut other_queries).all_needed = true;
    assert_eq!(of(&base), of(&other_queries));
    // Stored with segments: it must never change.
    assert_eq!(of(&plain()), "7137934c8ff380b0");
    let changes: [fn(&mut SegmentSpec); 14] = [
        |s| s.sorted_column = Some("n".to_owned()),
        |s| s.star_trees.clear(),
        |s| s.star_trees[0].leaf_records_max = 2,
        |s| drop(s.columns.remove("doc")),
        |s| s.columns.get_mut("n").unwrap().inverted = false,
        |s| s.columns.get_mut("n").unwrap().range = false,
        |s| s.columns.get_mut("n").unwrap().bloom = false,
        |s| s.columns.get_mut("doc").unwrap().encoding = Encoding::Dictionary,
        |s| s.columns.get_mut("note").unwrap().fst = false,
        |s| {
            let n = s.columns.get_mut("n").unwrap();
            n.granularities.insert(Granularity::Day);
        },
        |s| s.columns.get_mut("note").unwrap().text = None,
        |s| text(s).case_sensitive = true,
        |s| text(s).stop_words.clear(),
        |s| {
            s.columns.get_mut("doc").unwrap().json = Some(JsonSpec {
                levels_max: Some(1),
                ..JsonSpec::default()
            })
        },
    ];
    let mut seen = vec![of(&base), of(&plain())];
    for change in changes {
        let mut spec = base.clone();
        change(&mut spec);
        assert!(!seen.contains(&of(&spec)));
        seen.push(of(&spec));
    }
}
