//! Raw texts and bytes in compressed blocks.
//!
//! ```text
//! | values u64 | blocks u32 | 0 u32 | entry 0 | entry 1 | ... | block 0 | block 1 | ... |
//! entry: | first value u32 | values u32 | offset u64 | raw length u32 | codec u8, wide u8, 0 u16 |
//! block, uncompressed: | length of each value, u16 (u32 when wide) | the values' bytes |
//! ```
//!
//! A block holds at most 64 KiB, or one value that is longer. Codec 0 stores as is, 1 is LZ4's block format,
//! 2 is Zstandard; whatever doesn't shrink is stored as is. A block's raw length is at most 64 KiB or 255 times
//! its stored length, so that damaged bytes can't ask for memory out of proportion.

use crate::reader::{DocSelection, IndexError, ValueBuffer, bytes_offset};
use crate::wire::{corrupt, part, size_at, u8_at, u32_at};
use bytes::Bytes;
use std::ops::Range;

/// Raw bytes of a block, lengths included.
const BLOCK_BYTES: usize = 64 * 1024;
/// How much larger than its stored form a block above [`BLOCK_BYTES`] may be.
const RATIO_MAX: usize = 255;
const HEADER: usize = 16;
const ENTRY: usize = 24;

/// How blocks of raw texts are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast to read.
    #[default]
    Lz4,
    /// Smaller.
    Zstd,
}

/// Values in compressed blocks.
#[derive(Clone, Debug)]
pub(crate) struct TextBlocks {
    directory: Bytes,
    data: Bytes,
    len: usize,
}

/// One block's place.
struct Entry {
    values: Range<usize>,
    data: Range<usize>,
    raw_len: usize,
    codec: u8,
    wide: bool,
}

/// A block as it was before compression.
#[derive(Default)]
struct Decoded {
    raw: Vec<u8>,
    /// Where each value begins in `raw`, and the end.
    starts: Vec<u32>,
}

impl TextBlocks {
    /// Appends the stored form of `values`, a buffer of bytes.
    pub(crate) fn write(
        values: &ValueBuffer,
        compression: Compression,
        out: &mut Vec<u8>,
    ) -> Result<(), IndexError> {
        let count = values.len();
        let mut directory = Vec::new();
        let mut data = Vec::new();
        let mut raw: Vec<u8> = Vec::new();
        let mut blocks = 0u32;
        let mut first = 0;
        while first < count {
            let mut end = first;
            let mut raw_len = 0;
            while let Some(value) = values.bytes(end) {
                // two bytes of length each; a value too long for that is a block by itself
                if end > first && raw_len + value.len() + 2 > BLOCK_BYTES {
                    break;
                }
                raw_len += value.len() + 2;
                end += 1;
            }
            if end == first {
                return Err(corrupt(format!(
                    "value {first} of a text column has no bytes: its offsets are not ascending"
                )));
            }
            let wide = end == first + 1
                && values
                    .bytes(first)
                    .is_some_and(|v| v.len() > usize::from(u16::MAX));
            raw.clear();
            raw.reserve(raw_len + 2);
            for value in (first..end).filter_map(|i| values.bytes(i)) {
                if wide {
                    raw.extend_from_slice(&(value.len() as u32).to_le_bytes());
                } else {
                    raw.extend_from_slice(&(value.len() as u16).to_le_bytes());
                }
            }
            for value in (first..end).filter_map(|i| values.bytes(i)) {
                raw.extend_from_slice(value);
            }
            let (codec, stored) = compress(raw.as_slice(), compression)?;
            directory.extend_from_slice(&(first as u32).to_le_bytes());
            directory.extend_from_slice(&((end - first) as u32).to_le_bytes());
            directory.extend_from_slice(&(data.len() as u64).to_le_bytes());
            directory.extend_from_slice(&(raw.len() as u32).to_le_bytes());
            directory.extend_from_slice(&[codec, u8::from(wide), 0, 0]);
            data.extend_from_slice(stored.as_deref().unwrap_or(&raw));
            blocks += 1;
            first = end;
        }
        out.reserve(16 + directory.len() + data.len());
        out.extend_from_slice(&(count as u64).to_le_bytes());
        out.extend_from_slice(&blocks.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&directory);
        out.extend_from_slice(&data);
        Ok(())
    }

    pub(crate) fn open(bytes: Bytes) -> Result<Self, IndexError> {
        let len = size_at(&bytes, 0)?;
        let blocks = u32_at(&bytes, 8)? as usize;
        let directory = part(&bytes, HEADER, blocks.saturating_mul(ENTRY))?;
        let data = bytes.slice(HEADER + directory.len()..);
        let texts = Self {
            directory,
            data,
            len,
        };
        let (mut value, mut at) = (0, 0);
        for block in 0..blocks {
            let misplaced = || corrupt(format!("block {block} of texts is misplaced"));
            let entry = texts.entry(block)?;
            if entry.values.start != value
                || entry.values.is_empty()
                || entry.data.start != at
                || entry.codec > 2
            {
                return Err(misplaced());
            }
            let stored = entry.data.len();
            let lengths = entry.values.len() * if entry.wide { 4 } else { 2 };
            let too_large = entry.raw_len > BLOCK_BYTES.max(stored.saturating_mul(RATIO_MAX));
            if entry.data.end > texts.data.len() || too_large || entry.raw_len < lengths {
                return Err(misplaced());
            }
            if entry.codec == 0 && entry.raw_len != stored {
                return Err(misplaced());
            }
            (value, at) = (entry.values.end, entry.data.end);
        }
        if value != len || at != texts.data.len() {
            return Err(corrupt(format!(
                "blocks hold {value} texts, {len} were expected"
            )));
        }
        Ok(texts)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn blocks(&self) -> usize {
        self.directory.len() / ENTRY
    }

    fn first_value(&self, block: usize) -> usize {
        u32_at(&self.directory, block * ENTRY).map_or(self.len, |v| v as usize)
    }

    fn entry(&self, block: usize) -> Result<Entry, IndexError> {
        let at = block * ENTRY;
        let first = u32_at(&self.directory, at)? as usize;
        let values = u32_at(&self.directory, at + 4)? as usize;
        let start = size_at(&self.directory, at + 8)?;
        let end = if block + 1 < self.blocks() {
            size_at(&self.directory, at + ENTRY + 8)?
        } else {
            self.data.len()
        };
        if end < start {
            return Err(corrupt(format!(
                "block {block} of texts ends before it begins"
            )));
        }
        Ok(Entry {
            values: first..first.saturating_add(values),
            data: start..end,
            raw_len: u32_at(&self.directory, at + 16)? as usize,
            codec: u8_at(&self.directory, at + 20)?,
            wide: u8_at(&self.directory, at + 21)? != 0,
        })
    }

    fn decode(&self, block: usize, decoded: &mut Decoded) -> Result<Range<usize>, IndexError> {
        let damaged = || corrupt(format!("block {block} of texts can't be decompressed"));
        let entry = self.entry(block)?;
        let stored = self.data.get(entry.data.clone()).ok_or_else(damaged)?;
        decoded.raw.clear();
        match entry.codec {
            0 => decoded.raw.extend_from_slice(stored),
            1 => {
                decoded.raw.resize(entry.raw_len, 0);
                let len = lz4_flex::block::decompress_into(stored, &mut decoded.raw)
                    .map_err(|_| damaged())?;
                if len != entry.raw_len {
                    return Err(damaged());
                }
            }
            _ => {
                decoded.raw.resize(entry.raw_len, 0);
                let len = zstd::bulk::decompress_to_buffer(stored, decoded.raw.as_mut_slice())
                    .map_err(|_| damaged())?;
                if len != entry.raw_len {
                    return Err(damaged());
                }
            }
        }
        let count = entry.values.len();
        let mut at = (count * if entry.wide { 4 } else { 2 }) as u32;
        let (raw, starts) = (&decoded.raw, &mut decoded.starts);
        let lengths = raw.get(..at as usize).ok_or_else(damaged)?;
        starts.clear();
        starts.push(at);
        let mut push = |len: u32| {
            at = at.saturating_add(len);
            starts.push(at);
        };
        if entry.wide {
            lengths
                .as_chunks::<4>()
                .0
                .iter()
                .for_each(|len| push(u32::from_le_bytes(*len)));
        } else {
            lengths
                .as_chunks::<2>()
                .0
                .iter()
                .for_each(|len| push(u32::from(u16::from_le_bytes(*len))));
        }
        if at as usize != raw.len() {
            return Err(damaged());
        }
        Ok(entry.values)
    }

    /// Appends the values of a selection; after an error the values that could not be read are empty.
    pub(crate) fn append(
        &self,
        docs: &DocSelection<'_>,
        out: &mut ValueBuffer,
    ) -> Result<(), IndexError> {
        let ValueBuffer::Bytes { offsets, data } = out else {
            return Ok(());
        };
        let mut decoded = Decoded::default();
        let mut outcome = Ok(());
        match docs {
            DocSelection::Range(range) => {
                let (mut at, end) = (range.start as usize, (range.end as usize).min(self.len));
                while at < end {
                    let block = self.block_of(at);
                    let values = match self.decode(block, &mut decoded) {
                        Ok(values) => values,
                        Err(e) => {
                            outcome = Err(e);
                            offsets.resize(offsets.len() + end - at, bytes_offset(data.len()));
                            break;
                        }
                    };
                    let until = end.min(values.end);
                    let starts = decoded
                        .starts
                        .get(at - values.start..=until - values.start)
                        .unwrap_or_default();
                    if let (Some(&first), Some(&last)) = (starts.first(), starts.last()) {
                        let shift = data.len() as i64 - i64::from(first);
                        data.extend_from_slice(
                            decoded
                                .raw
                                .get(first as usize..last as usize)
                                .unwrap_or_default(),
                        );
                        bytes_offset(data.len());
                        offsets.extend(
                            starts
                                .iter()
                                .skip(1)
                                .map(|&s| (i64::from(s) + shift) as i32),
                        );
                    }
                    at = until;
                }
            }
            DocSelection::Docs(docs) => {
                let mut held = 0..0;
                for &doc in *docs {
                    let doc = doc as usize;
                    if !held.contains(&doc) {
                        held = match self.decode(self.block_of(doc), &mut decoded) {
                            Ok(values) => values,
                            Err(e) => {
                                outcome = Err(e);
                                0..0
                            }
                        };
                    }
                    let value = doc.checked_sub(held.start).and_then(|i| {
                        let (start, end) = (*decoded.starts.get(i)?, *decoded.starts.get(i + 1)?);
                        decoded.raw.get(start as usize..end as usize)
                    });
                    if held.contains(&doc) {
                        data.extend_from_slice(value.unwrap_or_default());
                    }
                    offsets.push(bytes_offset(data.len()));
                }
            }
        }
        outcome
    }

    /// The block that holds value `i`.
    fn block_of(&self, i: usize) -> usize {
        let (mut low, mut high) = (0, self.blocks());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.first_value(middle) <= i {
                low = middle
            } else {
                high = middle
            }
        }
        low
    }
}

/// The codec and the compressed bytes; none: store as is.
fn compress(raw: &[u8], compression: Compression) -> Result<(u8, Option<Vec<u8>>), IndexError> {
    let fits = |stored: &Vec<u8>| {
        stored.len() < raw.len()
            && raw.len() <= BLOCK_BYTES.max(stored.len().saturating_mul(RATIO_MAX))
    };
    if compression == Compression::Zstd {
        let stored = zstd::bulk::compress(raw, 3)
            .map_err(|e| corrupt(format!("zstd can't compress a block: {e}")))?;
        if fits(&stored) {
            return Ok((2, Some(stored)));
        }
    }
    if compression != Compression::None {
        let stored = lz4_flex::block::compress(raw);
        if fits(&stored) {
            return Ok((1, Some(stored)));
        }
    }
    Ok((0, None))
}
