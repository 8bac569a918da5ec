//! The bytes of an object; the module above draws them.

use crate::stream::Message;
use bytes::{Buf, BufMut, Bytes};
use std::io::Read as _;
use strandline_proto::ids::OffsetRange;
use strandline_proto::{Error, Result};

pub(super) const FILE_HEADER_BYTES: usize = 16;
pub(super) const BLOCK_HEADER_BYTES: usize = 40;
pub(super) const FOOTER_BYTES: usize = 64;
const FILE_MAGIC: &[u8; 8] = b"SLRAW001";
const VERSION: u32 = 1;
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"SLRB");
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"SLRF");
const NO_KEY: u32 = u32::MAX;
/// Fast rather than small: consumption waits for it.
const COMPRESSION_LEVEL: i32 = 1;
/// The largest window of a zstd frame, as a power of two.
const WINDOW_LOG_MAX: u32 = 27;

/// What a block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) stored_bytes: u32,
    pub(super) crc: u32,
    pub(super) messages: u32,
    pub(super) raw_bytes: u32,
    pub(super) first_offset: u64,
    pub(super) next_offset: u64,
}

/// What an object says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) range: OffsetRange,
    pub(super) messages: u64,
    pub(super) blocks: u64,
    /// Smallest and largest timestamp, in milliseconds; the wrong way round when none is known.
    pub(super) timestamps_ms: (i64, i64),
    pub(super) position: u64,
}

pub(super) fn file_header() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES);
    bytes.extend_from_slice(FILE_MAGIC);
    bytes.put_u32_le(VERSION);
    bytes.put_u32_le(crc32c::crc32c(&bytes));
    bytes
}

/// Why `bytes` aren't the beginning of an object.
pub(super) fn check_file_header(bytes: &[u8]) -> Result<(), String> {
    if bytes == file_header() {
        return Ok(());
    }
    let is_whole = bytes
        .split_at_checked(12)
        .is_some_and(|(content, mut crc)| {
            crc.len() == 4 && crc.get_u32_le() == crc32c::crc32c(content)
        });
    Err(match is_whole && bytes.starts_with(FILE_MAGIC) {
        true => "a newer version of Strandline wrote it".to_owned(),
        false => "it does not begin as an archive does".to_owned(),
    })
}

fn length(what: &str, bytes: usize) -> Result<u32> {
    u32::try_from(bytes).map_err(|_| {
        Error::unsupported(format!(
            "not supported: archiving a message with {what} of {bytes} bytes"
        ))
    })
}

/// Appends a message to a block's body; when it fails, the body is as it was.
pub(super) fn put_message(body: &mut Vec<u8>, message: &Message) -> Result<()> {
    let Message {
        offset,
        key,
        payload,
        timestamp_ms,
        headers,
    } = message;
    let start = body.len();
    let mut put = || {
        body.put_u64_le(*offset);
        body.put_i64_le(*timestamp_ms);
        body.put_u32_le(match key {
            None => NO_KEY,
            Some(key) => length("a key", key.len())?,
        });
        body.put_u32_le(length("a payload", payload.len())?);
        body.put_u32_le(length("headers", headers.len())?);
        body.extend_from_slice(key.as_deref().unwrap_or_default());
        body.extend_from_slice(payload);
        for (name, value) in headers {
            body.put_u32_le(length("a header's name", name.len())?);
            body.put_u32_le(length("a header", value.len())?);
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(value);
        }
        length("parts", body.len()).map(|_| ())
    };
    let put = put();
    if put.is_err() {
        body.truncate(start);
    }
    put
}

/// A block of the messages in `body`: `messages` of them, whose offsets are in `offsets`.
pub(super) fn block(body: &[u8], messages: u32, offsets: OffsetRange) -> Result<Vec<u8>> {
    let compressed = zstd::bulk::compress(body, COMPRESSION_LEVEL)
        .map_err(|e| Error::internal(format!("archive: can't compress messages: {e}")))?;
    let mut header = Vec::with_capacity(BLOCK_HEADER_BYTES - 8);
    header.put_u32_le(length("parts", compressed.len())?);
    header.put_u32_le(crc32c::crc32c(&compressed));
    header.put_u32_le(messages);
    header.put_u32_le(length("parts", body.len())?);
    header.put_u64_le(offsets.start);
    header.put_u64_le(offsets.end);
    let mut block = Vec::with_capacity(BLOCK_HEADER_BYTES + compressed.len());
    block.put_u32_le(BLOCK_MAGIC);
    block.put_u32_le(crc32c::crc32c(&header));
    block.extend_from_slice(&header);
    block.extend_from_slice(&compressed);
    Ok(block)
}

/// The part of `bytes` behind a magic number and its checksum.
fn checked(mut bytes: &[u8], magic: u32, len: usize) -> Option<&[u8]> {
    if bytes.len() != len || bytes.get_u32_le() != magic {
        return None;
    }
    let crc = bytes.get_u32_le();
    (crc == crc32c::crc32c(bytes)).then_some(bytes)
}

pub(super) fn read_block_header(bytes: &[u8]) -> Result<BlockHeader, String> {
    let mut rest = checked(bytes, BLOCK_MAGIC, BLOCK_HEADER_BYTES)
        .ok_or("a block's header fails its check")?;
    Ok(BlockHeader {
        stored_bytes: rest.get_u32_le(),
        crc: rest.get_u32_le(),
        messages: rest.get_u32_le(),
        raw_bytes: rest.get_u32_le(),
        first_offset: rest.get_u64_le(),
        next_offset: rest.get_u64_le(),
    })
}

/// The messages of a block. Takes memory by what is there, not by what a length says.
pub(super) fn read_block(header: &BlockHeader, stored: &[u8]) -> Result<Vec<Message>, String> {
    if crc32c::crc32c(stored) != header.crc {
        return Err("a block fails its check".to_owned());
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)
        .and_then(|mut decoder| {
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Ok(decoder)
        })
        .map_err(|e| format!("a block can't be decompressed: {e}"))?;
    let mut raw = Vec::new();
    decoder
        .by_ref()
        .take(u64::from(header.raw_bytes) + 1)
        .read_to_end(&mut raw)
        .map_err(|e| format!("a block can't be decompressed: {e}"))?;
    if raw.len() as u64 != u64::from(header.raw_bytes) {
        return Err("a block is not of the length that it says".to_owned());
    }
    let mut rest = Bytes::from(raw);
    let mut messages = Vec::new();
    let mut next = header.first_offset;
    for _ in 0..header.messages {
        let message = read_message(&mut rest).ok_or("a block ends within a message")?;
        if message.offset < next || message.offset >= header.next_offset {
            return Err("a block's offsets are not those that it says".to_owned());
        }
        next = message.offset + 1;
        messages.push(message);
    }
    match rest.is_empty() && next == header.next_offset {
        true => Ok(messages),
        false => Err("a block's messages are not those that it says".to_owned()),
    }
}

/// The next `len` bytes, without a copy.
fn take(rest: &mut Bytes, len: u32) -> Option<Bytes> {
    let len = usize::try_from(len).ok()?;
    (len <= rest.len()).then(|| rest.split_to(len))
}

fn read_message(rest: &mut Bytes) -> Option<Message> {
    let offset = rest.try_get_u64_le().ok()?;
    let timestamp_ms = rest.try_get_i64_le().ok()?;
    let key_bytes = rest.try_get_u32_le().ok()?;
    let payload_bytes = rest.try_get_u32_le().ok()?;
    let header_count = rest.try_get_u32_le().ok()?;
    let key = match key_bytes {
        NO_KEY => None,
        len => Some(take(rest, len)?),
    };
    let payload = take(rest, payload_bytes)?;
    let mut headers = Vec::new();
    for _ in 0..header_count {
        let name_bytes = rest.try_get_u32_le().ok()?;
        let value_bytes = rest.try_get_u32_le().ok()?;
        let name = take(rest, name_bytes)?;
        let name = std::str::from_utf8(&name).ok()?.into();
        headers.push((name, take(rest, value_bytes)?));
    }
    Some(Message {
        offset,
        key,
        payload,
        timestamp_ms,
        headers,
    })
}

impl Footer {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(FOOTER_BYTES - 8);
        content.put_u64_le(self.range.start);
        content.put_u64_le(self.range.end);
        content.put_u64_le(self.messages);
        content.put_u64_le(self.blocks);
        content.put_i64_le(self.timestamps_ms.0);
        content.put_i64_le(self.timestamps_ms.1);
        content.put_u64_le(self.position);
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.put_u32_le(FOOTER_MAGIC);
        bytes.put_u32_le(crc32c::crc32c(&content));
        bytes.extend_from_slice(&content);
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = checked(bytes, FOOTER_MAGIC, FOOTER_BYTES)
            .ok_or("it does not end as an archive does")?;
        Ok(Self {
            range: OffsetRange {
                start: rest.get_u64_le(),
                end: rest.get_u64_le(),
            },
            messages: rest.get_u64_le(),
            blocks: rest.get_u64_le(),
            timestamps_ms: (rest.get_i64_le(), rest.get_i64_le()),
            position: rest.get_u64_le(),
        })
    }
}
