//! Segment files: bytes of a right one are changed, its checksums are made right again, and all of it is read.
//!
//! The data is a list of changes: `u8` which file, then `u32` place and `u8` new byte, again and again.

use super::file_of_this_process;
use std::sync::Arc;
use strandline_index::star_tree::Need;
use strandline_index::{ColumnReader, DocBits, DocSelection};
use strandline_proto::json::JsonFilter;
use strandline_storage::segment::SegmentReader;
use strandline_storage::segment::arrow::read_array;
use strandline_storage::segment::immutable::ImmutableSegment;
use strandline_storage::segment::json::matching;

/// Files with every type, every index, and star-trees.
const FILES: [&[u8]; 4] = [
    include_bytes!("../../../storage/tests/golden/segment-1.strandline"),
    include_bytes!("../../../storage/tests/golden/segment-2.strandline"),
    include_bytes!("../../../storage/tests/golden/segment-2-star-trees.strandline"),
    include_bytes!("../../../storage/tests/golden/segment-2-text.strandline"),
];
const HEADER_BYTES: usize = 64;
const FOOTER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 32;
/// Changes that are made at most.
const CHANGES_MAX: usize = 64;

/// A changed file is opened, and read when that is possible.
pub fn segments(data: &[u8]) -> bool {
    let Some((which, changes)) = data.split_first() else {
        return false;
    };
    let mut bytes = FILES[usize::from(*which) % FILES.len()].to_vec();
    for change in changes.chunks_exact(5).take(CHANGES_MAX) {
        let place = u32::from_le_bytes([change[0], change[1], change[2], change[3]]);
        let place = place as usize % bytes.len();
        bytes[place] = change[4];
    }
    seal(&mut bytes);
    let path = file_of_this_process("segment");
    std::fs::write(&path, &bytes).expect("the file is written");
    let opened = ImmutableSegment::open(&path);
    // What is mapped stays.
    let _ = std::fs::remove_file(&path);
    match opened {
        Ok(segment) => {
            read(&segment);
            true
        }
        Err(_) => false,
    }
}

fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<[u8; BYTES]> {
    bytes.get(at..at + BYTES)?.try_into().ok()
}

/// Makes the checksums of header, sections, directory and footer right, as far as they can be found.
fn seal(bytes: &mut [u8]) -> Option<()> {
    let end = bytes.len().checked_sub(FOOTER_BYTES)?;
    let crc = crc32c::crc32c(bytes.get(..HEADER_BYTES - 4)?);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    let start = u64::from_le_bytes(number(bytes, end)?) as usize;
    let length = u32::from_le_bytes(number(bytes, end + 8)?) as usize;
    let directory = start..start.checked_add(length)?;
    bytes.get(directory.clone())?;
    for entry in directory.clone().step_by(ENTRY_BYTES) {
        let from = u64::from_le_bytes(number(bytes, entry)?) as usize;
        let length = u64::from_le_bytes(number(bytes, entry + 8)?) as usize;
        let to = from.checked_add(length)?;
        if let Some(section) = bytes.get(from..to) {
            let crc = crc32c::crc32c(section);
            bytes
                .get_mut(entry + 24..entry + 28)?
                .copy_from_slice(&crc.to_le_bytes());
        }
    }
    let crc = crc32c::crc32c(&bytes[directory]);
    bytes[end + 12..end + 16].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[end..end + 20]);
    bytes[end + 20..end + 24].copy_from_slice(&crc.to_le_bytes());
    Some(())
}

/// Everything that queries read of a segment. What it says is nobody's matter; that it says it, or an error, is.
fn read(segment: &Arc<ImmutableSegment>) {
    let all = || DocSelection::Range(0..segment.num_docs());
    for column in &segment.schema().columns {
        let Some(reader) = segment.column(&column.name) else {
            continue;
        };
        if let Ok(array) = read_array(&*reader, column.data_type, column.multi_value, all()) {
            assert_eq!(array.len(), segment.num_docs() as usize, "{}", column.name);
        }
        read_indexes(&*reader);
        let _ = segment.text(&column.name);
        let _ = segment.bounds(&column.name);
    }
    segment.offsets(all(), &mut Vec::new());
    for tree in segment.star_trees() {
        let docs = || DocSelection::Range(0..tree.num_docs());
        let _ = tree
            .tree()
            .walk(&vec![Need::Values; tree.dimensions().count()]);
        for name in tree.dimensions() {
            let known = segment.schema().column(name);
            if let (Some(column), Some(reader)) = (known, tree.column(name)) {
                let _ = read_array(&*reader, column.data_type, false, docs());
            }
        }
    }
}

fn read_indexes(reader: &dyn ColumnReader) {
    let docs = reader.num_docs();
    if let Some(dictionary) = reader.dictionary() {
        let last = dictionary.len().saturating_sub(1);
        if let Some(postings) = reader.inverted() {
            for id in [0, last / 2, last] {
                let mut bits = DocBits::new();
                postings.fill(id, 0, &mut bits);
            }
        }
        let _ = reader.sorted_docs(0..last);
    }
    if reader.has_range_index() {
        let mut bits = DocBits::new();
        reader.range_fill(None, None, 0, &mut bits);
    }
    if let Some(json) = reader.json() {
        for filter in ["\"$.n\" >= 0", "NOT \"$\" = 1", "\"$[*].n\" IS NULL"] {
            let filter = JsonFilter::parse(filter).expect("the filter is right");
            let _ = matching(json, &filter);
        }
    }
    if docs > 0 {
        let _ = strandline_index::null_docs(reader);
    }
    let _ = reader.fault();
}

/// No change, and some of each file's parts.
pub fn seeds_of_segments() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (which, file) in (0_u8..).zip(FILES) {
        seeds.push(vec![which]);
        for part in 0..24_usize {
            let place = (file.len() - 1) * part / 23;
            let mut seed = vec![which];
            for near in [0, 1, 9] {
                seed.extend(((place + near) as u32).to_le_bytes());
                seed.push([0, 1, 0x7f, 0xff][(part + near) % 4]);
            }
            seeds.push(seed);
        }
    }
    seeds
}
