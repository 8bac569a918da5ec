//! The bytes of a log file.
//!
//! All numbers are little endian.
//!
//! ```text
//! file    magic "SLLOG001" | u64 base offset | u32 crc32c of those 16 bytes | u32 0 | batch*
//!
//! batch    0  u32  magic "SLB1"
//!          4  u32  crc32c of everything after this field
//!          8  u32  body bytes
//!         12  u8   kind: 0 messages, 1 producers | u8[3] 0
//!         16  u64  offset of the first message (of the next one, for producers)
//!         24  u64  file position up to which the file was on disk when this batch was written
//!         32  u64  sequence of the first message
//!         40  u32  messages (producers, for producers)
//!         44  u32  producer id bytes
//!         48  i64  time of arrival, ms
//!         56  body: producer id, then each message
//! message      u32 key bytes (u32::MAX: no key) | u32 payload bytes | i64 timestamp ms | key | payload
//! ```
//!
//! The first batch of each file has kind *producers*: what the partition remembers of its producers.
//! So the last file alone tells all that appends need, and older ones can be removed.
//!
//! The position at byte 24 tells a torn tail from damage: behind a broken batch at P, a batch that says the
//! file was on disk beyond P proves that the broken one had been acknowledged.

use super::LogMessage;
use crate::environment::DurableFile;
use crate::stream::Message;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use std::sync::Arc;

pub(super) const FILE_HEADER_BYTES: u64 = 24;
pub(super) const BATCH_HEADER_BYTES: usize = 56;
const FILE_MAGIC: &[u8; 8] = b"SLLOG001";
const BATCH_MAGIC: &[u8; 4] = b"SLB1";
const MESSAGE_HEADER_BYTES: usize = 16;
const NO_KEY: u32 = u32::MAX;
/// Bodies are far smaller; a larger length is damage.
const BODY_BYTES_MAX: u32 = 128 << 20;
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Messages,
    Producers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) kind: Kind,
    pub(super) body_bytes: u32,
    pub(super) base_offset: u64,
    pub(super) durable_to: u64,
    pub(super) first_sequence: u64,
    pub(super) count: u32,
    pub(super) producer_bytes: u32,
    pub(super) arrival_ms: i64,
}

impl BatchHeader {
    pub(super) fn next_offset(&self) -> u64 {
        match self.kind {
            Kind::Messages => self.base_offset.saturating_add(u64::from(self.count)),
            Kind::Producers => self.base_offset,
        }
    }
}

pub(super) fn file_header(base_offset: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES as usize);
    bytes.extend_from_slice(FILE_MAGIC);
    bytes.put_u64_le(base_offset);
    bytes.put_u32_le(crc32c::crc32c(&bytes));
    bytes.put_u32_le(0);
    bytes
}

/// Why `bytes` aren't the header of the file that begins at `base_offset`.
pub(super) fn check_file_header(bytes: &[u8], base_offset: u64) -> Result<(), String> {
    if bytes == file_header(base_offset) {
        Ok(())
    } else if bytes.starts_with(b"SLLOG") && !bytes.starts_with(FILE_MAGIC) {
        Err("the file was written by a newer version of Strandline".to_owned())
    } else {
        Err(format!(
            "the first {FILE_HEADER_BYTES} bytes are not the header of a log file with base offset {base_offset}"
        ))
    }
}

/// Bytes that a message takes in a batch.
pub(super) fn message_bytes(message: &LogMessage) -> usize {
    MESSAGE_HEADER_BYTES + message.key.as_ref().map_or(0, Bytes::len) + message.payload.len()
}

/// Appends a batch; `write_body` appends its body. `body_bytes` in `header` is filled in here.
pub(super) fn put_batch(
    out: &mut Vec<u8>,
    header: &BatchHeader,
    write_body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(BATCH_MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(0);
    out.put_u32_le(match header.kind {
        Kind::Messages => 0,
        Kind::Producers => 1,
    });
    out.put_u64_le(header.base_offset);
    out.put_u64_le(header.durable_to);
    out.put_u64_le(header.first_sequence);
    out.put_u32_le(header.count);
    out.put_u32_le(header.producer_bytes);
    out.put_i64_le(header.arrival_ms);
    write_body(out);
    let body_bytes = (out.len() - start - BATCH_HEADER_BYTES) as u32;
    out[start + 8..start + 12].copy_from_slice(&body_bytes.to_le_bytes());
    let crc = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

pub(super) fn put_message(out: &mut Vec<u8>, message: &LogMessage, now_ms: i64) {
    out.put_u32_le(message.key.as_ref().map_or(NO_KEY, |key| key.len() as u32));
    out.put_u32_le(message.payload.len() as u32);
    out.put_i64_le(if message.timestamp_ms == 0 {
        now_ms
    } else {
        message.timestamp_ms
    });
    if let Some(key) = &message.key {
        out.extend_from_slice(key);
    }
    out.extend_from_slice(&message.payload);
}

/// Reads a batch header; the checksum is not looked at.
pub(super) fn parse_header(mut bytes: &[u8]) -> Result<(BatchHeader, u32), String> {
    if bytes.len() < BATCH_HEADER_BYTES {
        return Err("the file ends within a batch header".to_owned());
    }
    if !bytes.starts_with(BATCH_MAGIC) {
        return Err("no batch begins here".to_owned());
    }
    bytes.advance(4);
    let crc = bytes.get_u32_le();
    let body_bytes = bytes.get_u32_le();
    let kind = match bytes.get_u32_le() {
        0 => Kind::Messages,
        1 => Kind::Producers,
        other => return Err(format!("unknown kind of batch {other}")),
    };
    let header = BatchHeader {
        kind,
        body_bytes,
        base_offset: bytes.get_u64_le(),
        durable_to: bytes.get_u64_le(),
        first_sequence: bytes.get_u64_le(),
        count: bytes.get_u32_le(),
        producer_bytes: bytes.get_u32_le(),
        arrival_ms: bytes.get_i64_le(),
    };
    if body_bytes > BODY_BYTES_MAX || header.producer_bytes > body_bytes {
        return Err("impossible lengths in a batch header".to_owned());
    }
    Ok((header, crc))
}

/// The producer id of a checked batch.
pub(super) fn producer(header: &BatchHeader, body: &Bytes) -> Result<Option<Arc<str>>, String> {
    match body.get(..header.producer_bytes as usize) {
        Some([]) => Ok(None),
        Some(id) => Ok(Some(Arc::from(
            std::str::from_utf8(id).map_err(|_| "the producer id is not text")?,
        ))),
        None => Err("the batch ends within the producer id".to_owned()),
    }
}

/// The messages of a checked batch at or after `from_offset`; they share `body`'s memory.
pub(super) fn messages(
    header: &BatchHeader,
    body: &Bytes,
    from_offset: u64,
    mut each: impl FnMut(Message),
) -> Result<(), String> {
    let mut rest = body.clone();
    let short = || "the batch ends within a message".to_owned();
    if header.kind != Kind::Messages {
        return Ok(());
    }
    if rest.len() < header.producer_bytes as usize {
        return Err(short());
    }
    rest.advance(header.producer_bytes as usize);
    for i in 0..u64::from(header.count) {
        if rest.len() < MESSAGE_HEADER_BYTES {
            return Err(short());
        }
        let key_bytes = rest.get_u32_le();
        let payload_bytes = rest.get_u32_le() as usize;
        let timestamp_ms = rest.get_i64_le();
        let key_len = if key_bytes == NO_KEY {
            0
        } else {
            key_bytes as usize
        };
        if rest.len() < key_len.saturating_add(payload_bytes) {
            return Err(short());
        }
        let key = rest.split_to(key_len);
        let payload = rest.split_to(payload_bytes);
        let offset = header.base_offset.saturating_add(i);
        if offset >= from_offset {
            each(Message {
                offset,
                key: (key_bytes != NO_KEY).then_some(key),
                payload,
                timestamp_ms,
                headers: Vec::new(),
            });
        }
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err("bytes left over after the last message".to_owned())
    }
}

/// What lies at a position.
pub(super) enum Found {
    Batch {
        position: u64,
        header: BatchHeader,
        body: Bytes,
    },
    /// The limit was reached exactly after a batch.
    End,
    /// Something else than a whole, checked batch.
    Broken { position: u64, why: String },
}

/// Reads a file's batches forward from a position to a limit, checking each.
pub(super) struct Scanner {
    file: Arc<dyn DurableFile>,
    position: u64,
    /// Bytes of the file from `position` on.
    chunk: Bytes,
}

impl Scanner {
    pub(super) fn new(file: Arc<dyn DurableFile>, position: u64) -> Self {
        Self {
            file,
            position,
            chunk: Bytes::new(),
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Sees to it that the chunk holds `bytes` bytes, or all up to `limit`.
    fn fill(&mut self, bytes: usize, limit: u64) -> io::Result<()> {
        let available = limit.saturating_sub(self.position);
        if self.chunk.len() >= bytes || self.chunk.len() as u64 >= available {
            return Ok(());
        }
        let wanted = available.min(bytes.max(CHUNK_BYTES) as u64) as usize;
        let mut chunk = BytesMut::zeroed(wanted);
        let read = self.file.read_at(&mut chunk, self.position)?;
        chunk.truncate(read);
        self.chunk = chunk.freeze();
        Ok(())
    }

    /// The next batch before `limit`, the file's end or the part of it that may be read.
    pub(super) fn next(&mut self, limit: u64) -> io::Result<Found> {
        if self.position >= limit {
            return Ok(Found::End);
        }
        let position = self.position;
        let broken = |why| Ok(Found::Broken { position, why });
        self.fill(BATCH_HEADER_BYTES, limit)?;
        let (header, crc) = match parse_header(&self.chunk) {
            Ok(parsed) => parsed,
            Err(why) => return broken(why),
        };
        let bytes = BATCH_HEADER_BYTES + header.body_bytes as usize;
        self.fill(bytes, limit)?;
        if self.chunk.len() < bytes {
            return broken("the file ends within a batch".to_owned());
        }
        if crc32c::crc32c(&self.chunk[8..bytes]) != crc {
            return broken("the batch fails its checksum".to_owned());
        }
        let mut batch = self.chunk.split_to(bytes);
        batch.advance(BATCH_HEADER_BYTES);
        self.position += bytes as u64;
        Ok(Found::Batch {
            position,
            header,
            body: batch,
        })
    }
}

/// The next whole batch after a broken place, found by its magic and checksum.
pub(super) fn resume_after(
    file: &Arc<dyn DurableFile>,
    broken_at: u64,
    len: u64,
) -> io::Result<Option<(u64, BatchHeader)>> {
    let mut from = broken_at + 1;
    while from < len {
        let mut chunk = vec![0; CHUNK_BYTES.min((len - from) as usize)];
        let read = file.read_at(&mut chunk, from)?;
        chunk.truncate(read);
        if chunk.len() < BATCH_MAGIC.len() {
            return Ok(None);
        }
        for (i, _) in chunk
            .windows(BATCH_MAGIC.len())
            .enumerate()
            .filter(|(_, window)| window == BATCH_MAGIC)
        {
            if let Found::Batch {
                position, header, ..
            } = Scanner::new(file.clone(), from + i as u64).next(len)?
            {
                return Ok(Some((position, header)));
            }
        }
        from += (chunk.len() - (BATCH_MAGIC.len() - 1)) as u64;
    }
    Ok(None)
}
