//! What only a consuming segment does: offsets, watermarks, readers beside the writer.

use super::conformance::check;
use super::rows::{Row, batch, column, day_column, files, inverted, partition, raw, spec};
use crate::environment::{FaultyFiles, FileOperation, Files};
use crate::segment::SegmentReader;
use crate::segment::builder::SegmentBuilder;
use crate::segment::consuming::ConsumingSegment;
use crate::segment::immutable::ImmutableSegment;
use crate::segment::spec::{ColumnSpec, SegmentSpec};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use strandline_index::{DocSelection, ValueBuffer};
use strandline_proto::ErrorKind;
use strandline_proto::ids::{Half, OffsetRange};
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;

fn two_columns() -> Arc<SegmentSpec> {
    spec(
        vec![
            (column("name", DataType::String, false), inverted()),
            (day_column("day"), ColumnSpec::default()),
            (column("n", DataType::Long, false), raw()),
        ],
        Some("name"),
        Some("day"),
    )
}

fn row(i: u64) -> Row {
    vec![
        Value::String(format!("v{}", i % 5)),
        Value::Int(16_000 + (i % 30) as i32),
        Value::Long(i as i64),
    ]
}

#[test]
fn a_view_knows_bounds_of_its_whole_numbers() {
    let spec = two_columns();
    let segment = ConsumingSegment::new("s", spec.clone(), partition(), 0).unwrap();
    assert_eq!(segment.view().bounds("n"), None);
    for i in 0..4 {
        let rows: Vec<Row> = (i * 10..i * 10 + 10).map(row).collect();
        let offsets: Vec<u64> = (i * 10..i * 10 + 10).collect();
        let rows = batch(&spec.schema, &rows);
        segment.append(&rows, &offsets, i * 10 + 10).unwrap();
    }
    let view = segment.view_until(15);
    assert_eq!(view.num_docs(), 15);
    // They hold for all rows of the segment, and so for those of the view.
    assert_eq!(view.bounds("n"), Some((0, 39)));
    assert_eq!(view.bounds("day"), Some((16_000, 16_029)));
    assert_eq!((view.bounds("name"), view.bounds("none")), (None, None));
}

#[test]
fn a_watermark_cuts_between_offsets() {
    let spec = two_columns();
    let segment = ConsumingSegment::new("s", spec.clone(), partition(), 100).unwrap();
    let rows: Vec<(u64, Row)> = (0..50).map(|i| (100 + i * 3, row(i))).collect();
    for part in rows.chunks(7) {
        let offsets: Vec<u64> = part.iter().map(|r| r.0).collect();
        let next = offsets.last().unwrap() + 2;
        segment
            .append(
                &batch(
                    &spec.schema,
                    &part.iter().map(|r| r.1.clone()).collect::<Vec<_>>(),
                ),
                &offsets,
                next,
            )
            .unwrap();
    }
    assert_eq!(
        (
            segment.rows(),
            segment.start_offset(),
            segment.next_offset()
        ),
        (50, 100, 100 + 49 * 3 + 2)
    );
    for to in [0, 99, 100, 101, 103, 104, 247, 248, 249, 10_000] {
        let view = segment.view_until(to);
        let below: Vec<_> = rows.iter().filter(|r| r.0 < to).cloned().collect();
        check(&*view, &spec.schema, &below);
        let (_, range) = view.origin().unwrap();
        assert_eq!(
            range,
            OffsetRange {
                start: 100,
                end: to.clamp(100, segment.next_offset())
            }
        );
    }
}

#[test]
fn offsets_that_do_not_follow_are_refused_and_change_nothing() {
    let spec = two_columns();
    let segment = ConsumingSegment::new("s", spec.clone(), partition(), 5).unwrap();
    let append = |offsets: &[u64], next| {
        let rows: Vec<Row> = offsets.iter().map(|&o| row(o)).collect();
        segment
            .append(&batch(&spec.schema, &rows), offsets, next)
            .map_err(|e| e.kind())
    };
    append(&[5, 7], 9).unwrap();
    for (offsets, next) in [
        (&[8_u64][..], 9),
        (&[10, 9], 11),
        (&[9], 9),
        (&[], 8),
        (&[3], 12),
    ] {
        assert_eq!(
            append(offsets, next),
            Err(ErrorKind::InvalidArgument),
            "{offsets:?} {next}"
        );
    }
    append(&[], 20).unwrap();
    assert_eq!((segment.rows(), segment.next_offset()), (2, 20));
    check(&*segment.view(), &spec.schema, &[(5, row(5)), (7, row(7))]);
}

#[test]
fn rows_of_another_layout_are_refused_and_change_nothing() {
    let spec = two_columns();
    let segment = ConsumingSegment::new("s", spec.clone(), partition(), 0).unwrap();
    let other = super::rows::schema(vec![
        column("name", DataType::String, false),
        column("day", DataType::Long, false),
        column("n", DataType::Long, false),
    ]);
    let long_days = batch(&other, &[vec![Value::Null, Value::Long(1), Value::Null]]);
    let error = segment.append(&long_days, &[0], 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        error.message().contains("day") && error.message().contains("Int64"),
        "{error}"
    );
    let fewer = super::rows::schema(vec![column("name", DataType::String, false)]);
    // A large first batch also decides how its columns are held.
    for rows in [1, 5_000] {
        let offsets: Vec<u64> = (0..rows).collect();
        let names: Vec<Row> = offsets
            .iter()
            .map(|n| vec![Value::String(n.to_string())])
            .collect();
        assert_eq!(
            segment
                .append(&batch(&fewer, &names), &offsets, rows)
                .unwrap_err()
                .kind(),
            ErrorKind::InvalidArgument
        );
    }
    assert_eq!(
        segment
            .append(&batch(&spec.schema, &[row(1)]), &[0, 1], 2)
            .unwrap_err()
            .kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!((segment.rows(), segment.next_offset()), (0, 0));
    segment
        .append(&batch(&spec.schema, &[row(1)]), &[0], 1)
        .unwrap();
    check(&*segment.view(), &spec.schema, &[(0, row(1))]);
}

#[test]
fn readers_see_whole_batches_while_a_writer_appends() {
    const BATCH: u64 = 100;
    let spec = two_columns();
    let segment = ConsumingSegment::new("s", spec.clone(), partition(), 0).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let view = segment.view();
                    let rows = view.num_docs();
                    assert!(rows >= last && rows.is_multiple_of(BATCH as u32));
                    last = rows;
                    let mut values = ValueBuffer::I64(Vec::new());
                    view.column("n")
                        .unwrap()
                        .values(DocSelection::Range(0..rows), &mut values);
                    assert_eq!(values, ValueBuffer::I64((0..i64::from(rows)).collect()));
                    let mut offsets = Vec::new();
                    view.offsets(DocSelection::Range(0..rows), &mut offsets);
                    assert_eq!(offsets, (0..i64::from(rows)).collect::<Vec<_>>());
                    let names = view.column("name").unwrap();
                    let mut names_read = ValueBuffer::new(names.physical());
                    names.values(DocSelection::Range(0..rows), &mut names_read);
                    assert_eq!(names_read.len(), rows as usize);
                }
            });
        }
        for start in (0..300 * BATCH).step_by(BATCH as usize) {
            let offsets: Vec<u64> = (start..start + BATCH).collect();
            let rows: Vec<Row> = offsets.iter().map(|&o| row(o)).collect();
            segment
                .append(&batch(&spec.schema, &rows), &offsets, start + BATCH)
                .unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(segment.rows(), 300 * BATCH);
}

#[test]
fn a_segment_of_several_chunks_reads_the_same_before_and_after_it_is_built() {
    let spec = two_columns();
    let segment = ConsumingSegment::new("s", spec.clone(), partition(), 0).unwrap();
    let rows: Vec<(u64, Row)> = (0..150_000)
        .map(|i| {
            (
                i,
                if i % 11 == 0 {
                    vec![Value::Null, Value::Null, Value::Null]
                } else {
                    row(i * 7)
                },
            )
        })
        .collect();
    for part in rows.chunks(9_999) {
        let offsets: Vec<u64> = part.iter().map(|r| r.0).collect();
        let values: Vec<Row> = part.iter().map(|r| r.1.clone()).collect();
        segment
            .append(
                &batch(&spec.schema, &values),
                &offsets,
                offsets.last().unwrap() + 1,
            )
            .unwrap();
    }
    check(&*segment.view(), &spec.schema, &rows);
    assert!(segment.bytes() > 150_000 * 16);
    let folder = tempfile::tempdir().unwrap();
    let info = segment.build(&files(), &folder.path().join("s")).unwrap();
    let built = ImmutableSegment::open(&folder.path().join("s")).unwrap();
    check(
        &*built,
        &spec.schema,
        &super::rows::stored_order(&spec, &rows),
    );
    assert_eq!(
        info.time_ms,
        Some((16_000 * 86_400_000, 16_029 * 86_400_000))
    );
    assert_eq!(
        (
            info.rows,
            info.columns[0].nulls,
            info.columns[0].cardinality
        ),
        (150_000, 13_637, Some(5))
    );
    check(&*segment.view(), &spec.schema, &rows);
}

#[test]
fn a_segment_without_rows_can_be_built() {
    let spec = two_columns();
    let folder = tempfile::tempdir().unwrap();
    let segment = ConsumingSegment::new("s", spec.clone(), partition(), 7).unwrap();
    segment.append(&batch(&spec.schema, &[]), &[], 9).unwrap();
    let info = segment.build(&files(), &folder.path().join("s")).unwrap();
    assert_eq!(
        (info.rows, info.time_ms, &info.origin),
        (
            0,
            None,
            &Some((partition(), OffsetRange { start: 7, end: 9 }))
        )
    );
    check(
        &*ImmutableSegment::open(&folder.path().join("s")).unwrap(),
        &spec.schema,
        &[],
    );
}

#[test]
fn a_builder_keeps_to_its_origin() {
    let spec = two_columns();
    let range = OffsetRange { start: 5, end: 8 };
    let mut builder = SegmentBuilder::new(
        spec.clone(),
        "s",
        Half::Realtime,
        Some((partition(), range)),
    )
    .unwrap();
    let one = batch(&spec.schema, &[row(1)]);
    assert_eq!(
        builder.push(&one).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        builder.push_with_offsets(&one, &[8]).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        builder.push_with_offsets(&one, &[4]).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(builder.rows(), 0);
    builder.push_with_offsets(&one, &[7]).unwrap();
    assert_eq!(builder.rows(), 1);
    let mut offline = SegmentBuilder::new(spec.clone(), "s", Half::Offline, None).unwrap();
    assert_eq!(
        offline.push_with_offsets(&one, &[7]).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn a_spec_that_cannot_be_stored_is_refused() {
    let both = ColumnSpec {
        inverted: true,
        ..raw()
    };
    let columns =
        |of_column: ColumnSpec, multi| vec![(column("c", DataType::Int, multi), of_column)];
    for spec in [
        spec(columns(both, false), None, None),
        spec(columns(ColumnSpec::default(), true), Some("c"), None),
        spec(columns(ColumnSpec::default(), false), Some("d"), None),
        spec(columns(ColumnSpec::default(), false), None, Some("c")),
        spec(columns(ColumnSpec::default(), false), None, Some("d")),
    ] {
        assert_eq!(
            SegmentBuilder::new(spec.clone(), "s", Half::Offline, None)
                .err()
                .unwrap()
                .kind(),
            ErrorKind::InvalidArgument
        );
    }
}

#[test]
fn a_build_that_fails_leaves_nothing_and_can_be_tried_again() {
    let spec = two_columns();
    let folder = tempfile::tempdir().unwrap();
    let segment = ConsumingSegment::new("s", spec.clone(), partition(), 0).unwrap();
    let rows: Vec<(u64, Row)> = (0..3).map(|i| (i, row(i))).collect();
    let values: Vec<Row> = (0..3).map(row).collect();
    segment
        .append(&batch(&spec.schema, &values), &[0, 1, 2], 3)
        .unwrap();
    let faulty = FaultyFiles::new(files());
    let through: Arc<dyn Files> = Arc::new(faulty.clone());
    let path = folder.path().join("s");
    for failing in [
        FileOperation::Open,
        FileOperation::SetLen,
        FileOperation::WriteAt,
        FileOperation::Rename,
    ] {
        faulty.set(move |operation, _| {
            (operation == failing).then(|| io::Error::from(io::ErrorKind::StorageFull))
        });
        let error = segment.build(&through, &path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        assert!(error.message().contains(path.to_str().unwrap()), "{error}");
        faulty.clear();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        check(&*segment.view(), &spec.schema, &rows);
    }
    segment.build(&through, &path).unwrap();
    check(
        &*ImmutableSegment::open(&path).unwrap(),
        &spec.schema,
        &super::rows::stored_order(&spec, &rows),
    );
}

#[test]
fn a_dictionary_that_would_hold_nearly_each_row_is_made_when_the_segment_is_built() {
    let dictionary = ColumnSpec::default;
    let spec = spec(
        vec![
            (column("text", DataType::String, false), dictionary()),
            (column("few", DataType::String, false), dictionary()),
            (column("found", DataType::Long, false), inverted()),
            (column("n", DataType::Long, false), dictionary()),
            (column("half", DataType::Int, false), dictionary()),
            (column("d", DataType::Double, false), dictionary()),
            (column("list", DataType::Long, true), dictionary()),
        ],
        None,
        None,
    );
    let row = |i: u64| -> Row {
        let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        vec![
            Value::String(format!("a common start {mixed}")),
            Value::String(format!("v{}", i % 9)),
            Value::Long(mixed as i64),
            // A thirtieth are null, and so one value.
            if i % 30 == 7 {
                Value::Null
            } else {
                Value::Long(mixed as i64)
            },
            Value::Int((i / 2) as i32),
            Value::Double(1.5 - mixed as f64),
            Value::List(vec![Value::Long(i as i64), Value::Long(-1)]),
        ]
    };
    let rows: Vec<(u64, Row)> = (0..6_000).map(|i| (i, row(i))).collect();
    let append = |first: usize| {
        let segment = ConsumingSegment::new("s", spec.clone(), partition(), 0).unwrap();
        // What was looked at before stays as it is.
        let before = segment.view();
        let mut at = 0;
        while at < rows.len() {
            let end = rows.len().min(at + if at == 0 { first } else { 1500 });
            let offsets: Vec<u64> = (at as u64..end as u64).collect();
            let part: Vec<Row> = rows[at..end].iter().map(|r| r.1.clone()).collect();
            let part = batch(&spec.schema, &part);
            segment.append(&part, &offsets, end as u64).unwrap();
            at = end;
        }
        assert_eq!(before.num_docs(), 0);
        assert_eq!(before.column("n").unwrap().num_docs(), 0);
        segment
    };
    let folder = tempfile::tempdir().unwrap();
    let mut files_of = Vec::new();
    for (first, raw) in [(1024, &["text", "n", "d"][..]), (1000, &[])] {
        let segment = append(first);
        let view = segment.view();
        for column in &spec.schema.columns {
            let has = view.column(&column.name).unwrap().dictionary().is_some();
            assert_eq!(has, !raw.contains(&column.name.as_str()), "{}", column.name);
        }
        check(&*view, &spec.schema, &rows);
        let path = folder.path().join(format!("{first}.seg"));
        segment.build(&files(), &path).unwrap();
        let built = ImmutableSegment::open(&path).unwrap();
        for column in &spec.schema.columns {
            assert!(built.column(&column.name).unwrap().dictionary().is_some());
        }
        check(&*built, &spec.schema, &rows);
        files_of.push(std::fs::read(&path).unwrap());
    }
    // The same rows give the same bytes.
    assert!(files_of[0] == files_of[1]);
}
