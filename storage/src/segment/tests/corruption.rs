//! A segment file that is not what was written gives an error, never an answer and never a panic.

use super::golden::{rows, spec_with_trees};
use super::rows::{batch, files};
use crate::segment::SegmentReader;
use crate::segment::arrow::read_array;
use crate::segment::builder::SegmentBuilder;
use crate::segment::file::{
    METADATA_KIND, SectionId, SegmentFile, SegmentFileWriter, WHOLE_SEGMENT,
};
use crate::segment::immutable::ImmutableSegment;
use crate::segment::json::{JsonSpec, matching};
use crate::segment::spec::StarMeasure;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strandline_index::DocSelection;
use strandline_index::star_tree::Need;
use strandline_proto::granularity::Granularity;
use strandline_proto::ids::Half;
use strandline_proto::json::JsonFilter;
use strandline_proto::schema::DataType;
use strandline_proto::{ErrorKind, Result};

/// Columns with a timestamp index, and its granularity.
const TIMES: [&str; 2] = ["TIMESTAMP", "TIMESTAMP_raw"];
const TRUNCATED_TO: Granularity = Granularity::Day;
/// Columns whose distinct values star-trees hold.
const DISTINCT: [&str; 2] = ["STRING", "LONG_raw"];

fn segment(folder: &Path) -> PathBuf {
    let mut spec = (*spec_with_trees()).clone();
    for name in ["JSON", "JSON_raw"] {
        let column = spec.columns.entry(name.to_owned()).or_default();
        column.json = Some(JsonSpec::default());
    }
    for name in TIMES {
        let column = spec.columns.entry(name.to_owned()).or_default();
        column.granularities.insert(TRUNCATED_TO);
    }
    for tree in &mut spec.star_trees {
        let distinct = DISTINCT.map(|name| StarMeasure::Distinct(name.to_owned()));
        tree.measures.extend(distinct);
    }
    let spec = Arc::new(spec);
    let mut builder = SegmentBuilder::new(spec.clone(), "s", Half::Offline, None).unwrap();
    let values: Vec<_> = rows().into_iter().map(|row| row.1).collect();
    builder.push(&batch(&spec.schema, &values)).unwrap();
    let path = folder.join("s");
    builder.finish(&files(), &path).unwrap();
    path
}

#[test]
fn flips_and_cuts_anywhere_in_a_segment_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = segment(folder.path());
    let whole = fs::read(&path).unwrap();
    let step = (whole.len() / 200).max(1);
    for at in (0..whole.len()).step_by(step) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let error = ImmutableSegment::open(&path)
            .err()
            .unwrap_or_else(|| panic!("byte {at}"));
        assert_eq!(error.kind(), ErrorKind::DataLoss, "byte {at}: {error}");
        fs::write(&path, &whole[..at]).unwrap();
        assert_eq!(
            ImmutableSegment::open(&path).err().unwrap().kind(),
            ErrorKind::DataLoss,
            "cut at {at}"
        );
    }
}

/// The sections of a file, each changed by `change`, with all checksums right: what reaches the parsers.
fn rewritten(from: &Path, to: &Path, change: &dyn Fn(SectionId, &mut Vec<u8>) -> bool) {
    let file = SegmentFile::open(from).unwrap();
    let mut writer = SegmentFileWriter::create(&files(), to, file.schema_version()).unwrap();
    for id in file.section_ids() {
        let mut bytes = file.section(id).unwrap().to_vec();
        if change(id, &mut bytes) {
            writer.section(id, &bytes).unwrap();
        }
    }
    writer.finish().unwrap();
}

/// Sections of every kind: each rewritten file is synced, so that all of them would take minutes.
fn sampled_sections(path: &Path) -> Vec<SectionId> {
    SegmentFile::open(path)
        .unwrap()
        .section_ids()
        .into_iter()
        .step_by(5)
        .collect()
}

#[test]
fn sections_that_are_missing_or_cut_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = segment(folder.path());
    let bad = folder.path().join("bad");
    for id in sampled_sections(&path) {
        for cut in [Some(0), Some(1), Some(9), None] {
            rewritten(&path, &bad, &|other, bytes| {
                let length = bytes.len();
                match cut {
                    Some(cut) if other == id => bytes.truncate(length.saturating_sub(cut + 1)),
                    None if other == id => return false,
                    _ => {}
                }
                true
            });
            let read = ImmutableSegment::open(&bad).and_then(|segment| read_all(&segment));
            match read {
                // indexes may be absent, and so may what only nulls need
                Ok(()) => assert!(cut.is_none() && id.kind > 3, "{id:?} cut by {cut:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}"),
            }
        }
    }
}

/// Reads every value of every column.
fn read_all(segment: &ImmutableSegment) -> Result<()> {
    for column in &segment.schema().columns {
        let reader = segment.column(&column.name).unwrap();
        let all = DocSelection::Range(0..segment.num_docs());
        read_array(&*reader, column.data_type, column.multi_value, all)?;
        if let Some(json) = reader.json() {
            for filter in ["\"$.n\" >= 0", "NOT \"$\" = 1", "\"$[*].n\" IS NULL"] {
                let found = matching(json, &JsonFilter::parse(filter)?);
                found.map_err(|e| strandline_proto::Error::data_loss(e.to_string()))?;
            }
        }
    }
    for name in TIMES {
        let reader = segment.column(&TRUNCATED_TO.column_of(name)).unwrap();
        let all = DocSelection::Range(0..segment.num_docs());
        read_array(&*reader, DataType::Timestamp, false, all)?;
    }
    for tree in segment.star_trees() {
        for name in DISTINCT {
            let data_type = segment.schema().column(name).unwrap().data_type;
            let measure = StarMeasure::Distinct(name.to_owned());
            let reader = tree.measure(&measure).unwrap();
            let all = DocSelection::Range(0..tree.num_docs());
            read_array(&*reader, data_type, true, all)?;
        }
        let of_all = vec![Need::Values; tree.dimensions().count()];
        let found = tree.tree().walk(&of_all);
        found.map_err(|e| strandline_proto::Error::data_loss(e.to_string()))?;
        for name in tree.dimensions() {
            let data_type = segment.schema().column(name).unwrap().data_type;
            let reader = tree.column(name).unwrap();
            let all = DocSelection::Range(0..tree.num_docs());
            read_array(&*reader, data_type, false, all)?;
        }
    }
    Ok(())
}

#[test]
fn made_up_bytes_with_right_checksums_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = segment(folder.path());
    let bad = folder.path().join("bad");
    for id in sampled_sections(&path) {
        for seed in 0..8_usize {
            rewritten(&path, &bad, &|other, bytes| {
                if other == id && !bytes.is_empty() {
                    let at = (seed * 7919) % bytes.len().min(64 + seed * 40);
                    bytes[at] = if seed % 2 == 0 {
                        0xff
                    } else {
                        bytes[at].wrapping_add(1)
                    };
                }
                true
            });
            // an answer may differ, because these bytes are somebody's data as far as anyone can tell
            if let Ok(segment) = ImmutableSegment::open(&bad) {
                let _ = read_all(&segment);
            }
        }
    }
}

#[test]
fn unknown_sections_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = segment(folder.path());
    let newer = folder.path().join("newer");
    let file = SegmentFile::open(&path).unwrap();
    let mut writer = SegmentFileWriter::create(&files(), &newer, file.schema_version()).unwrap();
    for id in file.section_ids() {
        writer.section(id, &file.section(id).unwrap()).unwrap();
    }
    writer
        .section(
            SectionId {
                column: 0,
                kind: 999,
            },
            b"an index of a later version",
        )
        .unwrap();
    writer
        .section(
            SectionId {
                column: WHOLE_SEGMENT,
                kind: 77,
            },
            b"a star-tree",
        )
        .unwrap();
    writer.finish().unwrap();
    let (old, new) = (
        ImmutableSegment::open(&path).unwrap(),
        ImmutableSegment::open(&newer).unwrap(),
    );
    assert_eq!(old.info().columns, new.info().columns);
    assert_ne!(old.info().checksum, new.info().checksum);
}

#[test]
fn metadata_that_says_something_else_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = segment(folder.path());
    let bad = folder.path().join("bad");
    for (from, to) in [
        ("\"rows\":", "\"rows\":9"),
        ("\"version\":3", "\"version\":4"),
        ("{\"name\"", "[\"name\""),
        ("\"Int\"", "\"Long\""),
    ] {
        rewritten(&path, &bad, &|id, bytes| {
            if id
                == (SectionId {
                    column: WHOLE_SEGMENT,
                    kind: METADATA_KIND,
                })
            {
                let text = String::from_utf8(bytes.clone()).unwrap();
                assert!(text.contains(from), "{text}");
                *bytes = text.replacen(from, to, 1).into_bytes();
            }
            true
        });
        assert_eq!(
            ImmutableSegment::open(&bad).err().map(|e| e.kind()),
            Some(ErrorKind::DataLoss),
            "{from}"
        );
    }
}
