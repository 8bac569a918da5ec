//! Maps a segment file and verifies all of it before anything is read from it.

use super::{
    ALIGNMENT, ENTRY_BYTES, FOOTER_BYTES, FOOTER_MAGIC, FORMAT_VERSION, HEADER_BYTES, HEADER_MAGIC,
    SectionId, content_checksum, mapping,
};
use crate::environment::file_error;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use strandline_proto::{Error, Result};

/// A mapped segment file whose bytes are what was written.
pub(crate) struct SegmentFile {
    /// The mapping; sections are slices of it that keep it alive.
    map: Bytes,
    sections: BTreeMap<SectionId, Range<usize>>,
    schema_version: u32,
    checksum: u64,
}

impl SegmentFile {
    /// Maps and verifies the file at `path`.
    ///
    /// # Errors
    /// `DataLoss` when bytes are not what was written, `Unsupported` for a newer format version.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| file_error("open", path, &e))?;
        let length = file
            .metadata()
            .map_err(|e| file_error("open", path, &e))?
            .len();
        if length < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(
                damage("header", &format!("the file has only {length} bytes")).at(path.display()),
            );
        }
        let map = Bytes::from_owner(mapping::map(&file).map_err(|e| file_error("map", path, &e))?);
        let (schema_version, directory, sections) =
            verify(&map).map_err(|e| e.at(path.display()))?;
        let checksum = content_checksum(&map[..HEADER_BYTES], &map[directory]);
        Ok(Self {
            map,
            sections,
            schema_version,
            checksum,
        })
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// See [`content_checksum`].
    pub(crate) fn checksum(&self) -> u64 {
        self.checksum
    }

    /// The version of the schema that the segment was built with.
    pub(crate) fn schema_version(&self) -> u32 {
        self.schema_version
    }

    /// The section `id`.
    pub(crate) fn section(&self, id: SectionId) -> Option<Bytes> {
        self.sections
            .get(&id)
            .map(|range| self.map.slice(range.clone()))
    }

    /// All sections, in the order of columns and kinds.
    #[cfg(test)]
    pub(crate) fn section_ids(&self) -> Vec<SectionId> {
        self.sections.keys().copied().collect()
    }

    /// The sections of `column` with their kinds, ascending.
    pub(crate) fn column_sections(&self, column: u32) -> impl Iterator<Item = (u16, Bytes)> {
        let of_column = SectionId { column, kind: 0 }..=SectionId {
            column,
            kind: u16::MAX,
        };
        self.sections
            .range(of_column)
            .map(|(id, range)| (id.kind, self.map.slice(range.clone())))
    }
}

/// An error about a part of the file that is not what was written.
pub(crate) fn damage(part: &str, what: &str) -> Error {
    Error::data_loss(format!(
        "segment file is damaged in its {part}: {what}; restore it from a copy or load its rows again"
    ))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

type Verified = (u32, Range<usize>, BTreeMap<SectionId, Range<usize>>);

/// Checks every byte of a file of at least header and footer; gives schema version, directory and sections.
fn verify(file: &[u8]) -> Result<Verified> {
    let schema_version = verify_header(file).map_err(|what| damage("header", what))??;
    let directory = verify_footer(file).map_err(|what| damage("footer", what))?;
    let mut sections = BTreeMap::new();
    let mut end_of_last = HEADER_BYTES;
    for (number, entry) in file[directory.clone()]
        .chunks_exact(ENTRY_BYTES)
        .enumerate()
    {
        let part = || format!("directory entry {number}");
        let (id, range, crc) = parse_entry(entry, &directory)
            .ok_or_else(|| damage(&part(), "it points outside the file"))?;
        verify_padding(file, end_of_last, range.start).map_err(|what| damage(&part(), what))?;
        if crc32c::crc32c(&file[range.clone()]) != crc {
            return Err(damage(
                &format!(
                    "section {} of column {} (bytes {}..{})",
                    id.kind, id.column, range.start, range.end
                ),
                "its checksum does not match",
            ));
        }
        end_of_last = range.end;
        if sections.insert(id, range).is_some() {
            return Err(damage(&part(), "the section is there twice"));
        }
    }
    verify_padding(file, end_of_last, directory.start).map_err(|what| damage("directory", what))?;
    Ok((schema_version, directory, sections))
}

fn verify_header(file: &[u8]) -> Result<Result<u32>, &'static str> {
    let header = &file[..HEADER_BYTES];
    if header[..8] != HEADER_MAGIC {
        return Err("it does not begin like a segment file");
    }
    if u32_at(header, 60) != Some(crc32c::crc32c(&header[..60])) {
        return Err("its checksum does not match");
    }
    let (Some(format_version), Some(schema_version)) = (u32_at(header, 8), u32_at(header, 12))
    else {
        return Err("it is cut short");
    };
    if format_version > FORMAT_VERSION {
        return Ok(Err(Error::unsupported(format!(
            "not supported: segment file of format version {format_version}, this build reads versions up to {FORMAT_VERSION}: upgrade it"
        ))));
    }
    if format_version == 0 {
        return Err("its format version is 0");
    }
    Ok(Ok(schema_version))
}

/// Checks footer and directory checksum; gives the directory's place.
fn verify_footer(file: &[u8]) -> Result<Range<usize>, &'static str> {
    let start = file.len() - FOOTER_BYTES;
    let footer = &file[start..];
    if footer[24..] != FOOTER_MAGIC {
        return Err("it does not end like a segment file, so it was cut short or never completed");
    }
    if u32_at(footer, 20) != Some(crc32c::crc32c(&footer[..20])) {
        return Err("its checksum does not match");
    }
    let place = || {
        let from = usize::try_from(u64_at(footer, 0)?).ok()?;
        let length = u32_at(footer, 8)? as usize;
        let whole = from >= HEADER_BYTES
            && from.is_multiple_of(ALIGNMENT)
            && length.is_multiple_of(ENTRY_BYTES)
            && from.checked_add(length)? == start;
        whole.then_some(from..start)
    };
    let directory = place().ok_or("it does not point at a directory")?;
    if u32_at(footer, 12) != Some(crc32c::crc32c(&file[directory.clone()])) {
        return Err("the directory's checksum does not match");
    }
    Ok(directory)
}

fn parse_entry(entry: &[u8], directory: &Range<usize>) -> Option<(SectionId, Range<usize>, u32)> {
    let from = usize::try_from(u64_at(entry, 0)?).ok()?;
    let end = from.checked_add(usize::try_from(u64_at(entry, 8)?).ok()?)?;
    let id = SectionId {
        column: u32_at(entry, 16)?,
        kind: u16_at(entry, 20)?,
    };
    (from.is_multiple_of(ALIGNMENT) && end <= directory.start).then_some((
        id,
        from..end,
        u32_at(entry, 24)?,
    ))
}

/// Between two sections lie less than 64 bytes, all zero.
fn verify_padding(file: &[u8], end_of_last: usize, start: usize) -> Result<(), &'static str> {
    match file.get(end_of_last..start) {
        Some(between) if between.len() < ALIGNMENT && between.iter().all(|&byte| byte == 0) => {
            Ok(())
        }
        Some(_) => Err("there are bytes between the sections"),
        None => Err("the sections overlap"),
    }
}
