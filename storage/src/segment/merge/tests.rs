use super::{add_rows, docs_by_time};
use crate::environment::{Environment, Files};
use crate::segment::SegmentReader;
use crate::segment::arrow::read_array;
use crate::segment::builder::SegmentBuilder;
use crate::segment::immutable::ImmutableSegment;
use crate::segment::spec::{ColumnSpec, Encoding, SegmentSpec};
use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
};
use arrow::datatypes::{Int32Type, Int64Type};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use strandline_index::DocSelection;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::{Half, OffsetRange, StreamPartition};
use strandline_proto::lineage::Lineage;
use strandline_proto::schema::{Column, ColumnRole, DataType, Schema};
use strandline_proto::time_format::TimeFormat;
use strandline_proto::value::Value;

fn time() -> Column {
    Column {
        role: ColumnRole::DateTime {
            format: TimeFormat::parse("1:DAYS:EPOCH").unwrap(),
            granularity: "1:DAYS".to_owned(),
        },
        ..Column::dimension("day", DataType::Int)
    }
}

fn schema(version: u32, more: Vec<Column>) -> Arc<Schema> {
    let tags = Column {
        multi_value: true,
        ..Column::dimension("tags", DataType::String)
    };
    let mut columns = vec![time(), Column::dimension("text", DataType::String), tags];
    columns.extend(more);
    Arc::new(Schema {
        name: "t".to_owned(),
        version,
        columns,
        primary_key: Vec::new(),
    })
}

fn spec(schema: Arc<Schema>, raw_days: bool) -> Arc<SegmentSpec> {
    let raw = ColumnSpec {
        encoding: Encoding::Raw,
        ..ColumnSpec::default()
    };
    let columns = raw_days.then(|| ("day".to_owned(), raw));
    Arc::new(SegmentSpec {
        schema,
        columns: columns.into_iter().collect::<BTreeMap<_, _>>(),
        sorted_column: Some("text".to_owned()),
        time_column: Some("day".to_owned()),
        star_trees: Vec::new(),
    })
}

fn partition() -> StreamPartition {
    StreamPartition {
        stream: "log".into(),
        topic: "t".into(),
        partition: 3,
    }
}

/// The row of an offset: a day, a text (null now and then), and tags.
fn row(offset: u64) -> (i32, Option<String>, Vec<Option<String>>) {
    let text = (!offset.is_multiple_of(7)).then(|| format!("text {}", offset * 31 % 1_000));
    let tags = (0..offset % 4).map(|n| (n != 2).then(|| format!("tag {n}")));
    ((offset / 100) as i32, text, tags.collect())
}

fn segment(
    folder: &Path,
    name: &str,
    offsets: std::ops::Range<u64>,
    raw: bool,
) -> Arc<ImmutableSegment> {
    let spec = spec(schema(1, Vec::new()), raw);
    let range = OffsetRange {
        start: offsets.start,
        end: offsets.end,
    };
    let rows: Vec<_> = offsets.clone().map(row).collect();
    let mut tags = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
    for (_, _, of_row) in &rows {
        of_row
            .iter()
            .for_each(|tag| tags.values().append_option(tag.as_deref()));
        tags.append(true);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(rows.iter().map(|r| r.1.as_deref()).collect::<StringArray>()),
        Arc::new(tags.finish()),
    ];
    let batch = RecordBatch::try_new(spec.schema.arrow(), columns).unwrap();
    let mut builder =
        SegmentBuilder::new(spec, name, Half::Realtime, Some((partition(), range))).unwrap();
    builder
        .push_with_offsets(&batch, &offsets.collect::<Vec<_>>())
        .unwrap();
    finish(builder, folder, name)
}

fn finish(builder: SegmentBuilder, folder: &Path, name: &str) -> Arc<ImmutableSegment> {
    let files: Arc<dyn Files> = Environment::real().files;
    let path = folder.join(name);
    builder.finish(&files, &path).unwrap();
    ImmutableSegment::open(&path).unwrap()
}

fn values(segment: &ImmutableSegment, column: &Column) -> ArrayRef {
    let reader = segment.column(&column.name).unwrap();
    let docs = DocSelection::Range(0..segment.num_docs());
    read_array(&*reader, column.data_type, column.multi_value, docs).unwrap()
}

fn texts(list: &ListArray, at: usize) -> Vec<Option<String>> {
    let elements = list.value(at);
    let elements = elements.as_string::<i32>().iter();
    elements.map(|text| text.map(str::to_owned)).collect()
}

fn of<'a>(segment: &'a ImmutableSegment, lineage: &'a Lineage) -> super::Source<'a> {
    super::Source {
        segment,
        version: 1,
        lineage,
    }
}

#[test]
fn merged_segments_hold_each_row_with_its_offset_and_new_columns_their_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let first = segment(folder.path(), "a", 100..3_000, false);
    let second = segment(folder.path(), "b", 3_000..3_010, true);
    let third = segment(folder.path(), "c", 3_010..7_000, false);
    let number = Column {
        default: Value::Long(-5),
        ..Column::dimension("number", DataType::Long)
    };
    let list = Column {
        multi_value: true,
        default: Value::List(vec![Value::Int(9)]),
        ..Column::dimension("list", DataType::Int)
    };
    let none = Column::dimension("none", DataType::String);
    let mut new = Schema::clone(&schema(2, vec![number.clone(), list.clone(), none.clone()]));
    // A day counts in 64 bits from now on.
    new.columns[0].data_type = DataType::Long;
    let new = Arc::new(new);
    let range = OffsetRange {
        start: 100,
        end: 7_000,
    };
    let origin = Some((partition(), range));
    let merged_spec = spec(Arc::clone(&new), false);
    let mut builder = SegmentBuilder::new(merged_spec, "m", Half::Realtime, origin).unwrap();
    for part in [&first, &second, &third] {
        add_rows(
            &mut builder,
            &new,
            of(part, &Lineage::default()),
            None,
            true,
        )
        .unwrap();
    }
    let merged = finish(builder, folder.path(), "m");
    assert_eq!(merged.info().rows, 6_900);
    assert_eq!(merged.info().time_ms, Some((86_400_000, 69 * 86_400_000)));
    let mut offsets = Vec::new();
    merged.offsets(DocSelection::Range(0..merged.num_docs()), &mut offsets);
    let [days, text, tags] = [0, 1, 2].map(|at| values(&merged, &new.columns[at]));
    let (days, text) = (days.as_primitive::<Int64Type>(), text.as_string::<i32>());
    let tags = tags.as_list::<i32>();
    let mut seen = vec![false; 7_000];
    for (at, &offset) in offsets.iter().enumerate() {
        let expected = row(offset as u64);
        assert!(!std::mem::replace(&mut seen[offset as usize], true));
        assert_eq!(days.value(at), i64::from(expected.0));
        assert_eq!(
            text.is_valid(at).then(|| text.value(at).to_owned()),
            expected.1
        );
        assert_eq!(texts(tags, at), expected.2);
    }
    assert!(seen[100..].iter().all(|seen| *seen));
    // Sorted as the spec says, nulls first.
    let sorted: Vec<_> = text.iter().collect();
    assert!(sorted.is_sorted());
    let numbers = values(&merged, &number);
    assert_eq!(
        numbers.as_ref(),
        &Int64Array::from_value(-5, 6_900) as &dyn Array
    );
    let lists = values(&merged, &list);
    let lists = lists.as_list::<i32>();
    assert!((0..6_900).all(|at| lists.value(at).as_primitive::<Int32Type>().values() == &[9]));
    assert_eq!(values(&merged, &none).null_count(), 6_900);
}

#[test]
fn rows_are_taken_by_document_and_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let day = |number: i64| number * 86_400_000;
    let intervals = [
        Interval {
            start_ms: day(5),
            end_ms: day(7),
        },
        // The column writes days: one that begins within the interval is in it.
        Interval {
            start_ms: day(9) - 1,
            end_ms: day(9) + 1,
        },
    ];
    for raw in [false, true] {
        let source = segment(folder.path(), &format!("s{raw}"), 0..2_000, raw);
        let wanted = [5, 6, 9];
        let days = values(&source, &time());
        let days = days.as_primitive::<Int32Type>();
        let is_in = |doc: &u32| wanted.contains(&days.value(*doc as usize));
        let inside = docs_by_time(&source, &time(), &intervals, false).unwrap();
        let expected: Vec<u32> = (0..2_000).filter(is_in).collect();
        assert_eq!((inside.len(), &inside), (300, &expected));
        let outside = docs_by_time(&source, &time(), &intervals, true).unwrap();
        assert_eq!(
            outside,
            (0..2_000).filter(|doc| !is_in(doc)).collect::<Vec<_>>()
        );

        let schema = schema(1, Vec::new());
        let name = format!("part{raw}");
        let mut builder =
            SegmentBuilder::new(spec(Arc::clone(&schema), raw), &name, Half::Offline, None)
                .unwrap();
        add_rows(
            &mut builder,
            &schema,
            of(&source, &Lineage::default()),
            Some(&inside),
            false,
        )
        .unwrap();
        let part = finish(builder, folder.path(), &name);
        assert_eq!(part.info().rows, 300);
        let days = values(&part, &time());
        assert!(
            days.as_primitive::<Int32Type>()
                .values()
                .iter()
                .all(|d| wanted.contains(d))
        );
    }
}

#[test]
fn a_value_that_does_not_fit_the_new_type_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let source = segment(folder.path(), "s", 0..20, false);
    let mut schema = Schema::clone(&schema(2, Vec::new()));
    schema.columns[1].data_type = DataType::Long;
    let plain = SegmentSpec {
        schema: Arc::new(schema.clone()),
        columns: BTreeMap::new(),
        sorted_column: None,
        time_column: None,
        star_trees: Vec::new(),
    };
    let mut builder = SegmentBuilder::new(Arc::new(plain), "m", Half::Offline, None).unwrap();
    let error = add_rows(
        &mut builder,
        &schema,
        of(&source, &Lineage::default()),
        None,
        false,
    )
    .unwrap_err();
    assert!(error.message().contains("column text"), "{error}");
    assert_eq!(builder.rows(), 0);
}
