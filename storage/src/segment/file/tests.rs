//! Files that are not what was written.

use super::*;
use crate::environment::{Files, RealFiles};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use strandline_proto::ErrorKind;

fn files() -> Arc<dyn Files> {
    Arc::new(RealFiles)
}

const A: SectionId = SectionId { column: 0, kind: 1 };
const B: SectionId = SectionId { column: 7, kind: 3 };
const EMPTY: SectionId = SectionId {
    column: WHOLE_SEGMENT,
    kind: 9,
};

fn small_file(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("segment");
    let mut writer = SegmentFileWriter::create(&files(), &path, 5).unwrap();
    writer.section(A, &[1; 100]).unwrap();
    writer.section(B, b"some bytes").unwrap();
    writer.section(EMPTY, &[]).unwrap();
    writer.finish().unwrap();
    path
}

#[test]
fn sections_come_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("segment");
    let mut writer = SegmentFileWriter::create(&files(), &path, 5).unwrap();
    writer.section(A, &[1; 100]).unwrap();
    writer.section(B, b"some bytes").unwrap();
    let (bytes, checksum) = writer.finish().unwrap();
    let file = SegmentFile::open(&path).unwrap();
    assert_eq!(
        (file.bytes(), file.checksum(), file.schema_version()),
        (bytes, checksum, 5)
    );
    assert_eq!(file.section(A).unwrap(), vec![1; 100]);
    assert_eq!(file.section(A).unwrap().as_ptr() as usize % ALIGNMENT, 0);
    assert_eq!(
        file.column_sections(7)
            .map(|(kind, bytes)| (kind, bytes.to_vec()))
            .collect::<Vec<_>>(),
        [(3, b"some bytes".to_vec())]
    );
    assert!(file.section(EMPTY).is_none());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_unfinished_file_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer =
        SegmentFileWriter::create(&files(), &folder.path().join("segment"), 1).unwrap();
    writer.section(A, &[0; 1 << 21]).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = small_file(folder.path());
    let whole = fs::read(&path).unwrap();
    // one bit of each byte, another one in each
    for at in (0..whole.len()).map(|byte| byte * 8 + byte * 5 % 8) {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let error = SegmentFile::open(&path)
            .err()
            .unwrap_or_else(|| panic!("bit {at} was not noticed"));
        assert_eq!(error.kind(), ErrorKind::DataLoss, "bit {at}: {error}");
        assert!(
            error.message().starts_with(path.to_str().unwrap())
                && error.message().contains("restore it"),
            "{error}"
        );
    }
}

#[test]
fn a_file_cut_anywhere_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = small_file(folder.path());
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(
            SegmentFile::open(&path).err().unwrap().kind(),
            ErrorKind::DataLoss,
            "{length} bytes"
        );
    }
    fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
    assert_eq!(
        SegmentFile::open(&path).err().unwrap().kind(),
        ErrorKind::DataLoss
    );
}

/// Bytes that somebody made up, with all checksums right.
#[test]
fn a_directory_that_points_elsewhere_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = small_file(folder.path());
    let whole = fs::read(&path).unwrap();
    let footer = whole.len() - FOOTER_BYTES;
    let directory = footer - 3 * ENTRY_BYTES;
    for (field, value) in [
        (0, u64::MAX),
        (0, 0),
        (0, 1 << 40),
        (0, 128),
        (8, u64::MAX),
        (8, 1 << 33),
        (8, 0),
    ] {
        for entry in 0..3 {
            let mut bytes = whole.clone();
            let at = directory + entry * ENTRY_BYTES + field;
            if bytes[at..at + 8] == value.to_le_bytes() {
                continue;
            }
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[directory..footer]).to_le_bytes();
            bytes[footer + 12..footer + 16].copy_from_slice(&crc);
            let crc = crc32c::crc32c(&bytes[footer..footer + 20]).to_le_bytes();
            bytes[footer + 20..footer + 24].copy_from_slice(&crc);
            fs::write(&path, &bytes).unwrap();
            let error = SegmentFile::open(&path)
                .err()
                .unwrap_or_else(|| panic!("entry {entry}, field {field} = {value}"));
            assert_eq!(error.kind(), ErrorKind::DataLoss);
        }
    }
}

#[test]
fn a_newer_format_says_that_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = small_file(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[8..12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    fs::write(&path, &bytes).unwrap();
    let error = SegmentFile::open(&path).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error
            .message()
            .contains(&format!("format version {}", FORMAT_VERSION + 1))
            && error.message().contains("upgrade"),
        "{error}"
    );
}
