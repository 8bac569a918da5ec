//! Reads one object forward, a block at a time.

use super::ArchiveObject;
use super::format::{
    self, BLOCK_HEADER_BYTES, BlockHeader, FILE_HEADER_BYTES, FOOTER_BYTES, Footer,
};
use crate::deep_store::DeepStore;
use crate::environment::blocking;
use crate::stream::Message;
use bytes::Bytes;
use std::sync::Arc;
use strandline_proto::{Error, Result};

/// What is read at once; several blocks.
const READ_BYTES: u64 = 1 << 20;

/// An object that is read. In memory are what is read at once and the messages of one block.
pub struct ObjectReader {
    deep_store: Arc<DeepStore>,
    object: ArchiveObject,
    footer: Footer,
    /// Messages before it are passed over.
    from: u64,
    position: u64,
    /// The bytes at `position`.
    buffer: Bytes,
    /// How much is read at once: little while blocks are passed over.
    ahead: u64,
    /// Of the block whose body is at `position`.
    header: Option<BlockHeader>,
    messages: u64,
    blocks: u64,
    next_offset: u64,
}

impl ObjectReader {
    pub(super) async fn open(
        deep_store: Arc<DeepStore>,
        object: ArchiveObject,
        from: u64,
    ) -> Result<Self> {
        let read = |start: u64, bytes: usize| {
            let range = start..start.saturating_add(bytes as u64).min(object.bytes);
            deep_store.read_object(&object.path, range)
        };
        let at = object.bytes.saturating_sub(FOOTER_BYTES as u64);
        if at < FILE_HEADER_BYTES as u64 {
            return Err(damaged(&object, "it is too short"));
        }
        let header = read(0, FILE_HEADER_BYTES).await?;
        format::check_file_header(&header).map_err(|e| damaged(&object, &e))?;
        let footer = read(at, FOOTER_BYTES).await?;
        let footer = Footer::read(&footer).map_err(|e| damaged(&object, &e))?;
        if footer.position != at || footer.range != object.offsets() {
            return Err(damaged(&object, "it is not what its name says"));
        }
        Ok(Self {
            next_offset: footer.range.start,
            deep_store,
            object,
            footer,
            from,
            position: FILE_HEADER_BYTES as u64,
            buffer: Bytes::new(),
            ahead: BLOCK_HEADER_BYTES as u64,
            header: None,
            messages: 0,
            blocks: 0,
        })
    }

    /// Messages in the object.
    pub fn messages(&self) -> u64 {
        self.footer.messages
    }

    /// The smallest and the largest timestamp of its messages, in milliseconds, when any is known.
    pub fn timestamps_ms(&self) -> Option<(i64, i64)> {
        let (min, max) = self.footer.timestamps_ms;
        (min <= max).then_some((min, max))
    }

    /// The messages of the next block that has any at or after the offset that was asked for; none at the end.
    ///
    /// Dropping the future loses no message, and after an error the call may be repeated.
    ///
    /// # Errors
    /// `DataLoss`, with the file, when it is damaged.
    pub async fn next_block(&mut self) -> Result<Option<Vec<Message>>> {
        loop {
            let header = match self.header {
                Some(header) => header,
                None if self.position >= self.footer.position => break,
                None => {
                    let bytes = self.peek(BLOCK_HEADER_BYTES as u64).await?;
                    let header =
                        format::read_block_header(&bytes).map_err(|e| damaged(&self.object, &e))?;
                    self.check(&header)?;
                    self.pass(BLOCK_HEADER_BYTES as u64);
                    *self.header.insert(header)
                }
            };
            let stored_bytes = u64::from(header.stored_bytes);
            if header.next_offset <= self.from {
                self.header = None;
                self.pass(stored_bytes);
                continue;
            }
            self.ahead = READ_BYTES;
            let stored = self.peek(stored_bytes).await?;
            let spawner = &self.deep_store.environment().spawner;
            let object = self.object.clone();
            let mut messages = blocking(spawner, "read archive", move || {
                format::read_block(&header, &stored).map_err(|e| damaged(&object, &e))
            })
            .await?;
            self.header = None;
            self.pass(stored_bytes);
            messages.retain(|m| m.offset >= self.from);
            if !messages.is_empty() {
                return Ok(Some(messages));
            }
        }
        match (self.messages, self.blocks) == (self.footer.messages, self.footer.blocks) {
            true => Ok(None),
            false => Err(damaged(&self.object, "blocks are missing")),
        }
    }

    /// Whether a block may follow the ones before it.
    fn check(&mut self, header: &BlockHeader) -> Result<()> {
        let follows = self.next_offset <= header.first_offset
            && header.first_offset < header.next_offset
            && header.next_offset <= self.footer.range.end;
        if !follows {
            return Err(damaged(&self.object, "its blocks are not in order"));
        }
        self.next_offset = header.next_offset;
        self.messages += u64::from(header.messages);
        self.blocks += 1;
        Ok(())
    }

    /// The next bytes, which must be there before the footer.
    async fn peek(&mut self, bytes: u64) -> Result<Bytes> {
        let left = self.footer.position.saturating_sub(self.position);
        let cut = || damaged(&self.object, "a block is cut short");
        if bytes > left {
            return Err(cut());
        }
        if (self.buffer.len() as u64) < bytes {
            let range = self.position..self.position + bytes.max(self.ahead.min(left));
            self.buffer = self
                .deep_store
                .read_object(&self.object.path, range)
                .await?;
        }
        let wanted = usize::try_from(bytes).map_err(|_| cut())?;
        match self.buffer.len() < wanted {
            true => Err(cut()),
            false => Ok(self.buffer.slice(..wanted)),
        }
    }

    /// Passes over bytes.
    fn pass(&mut self, bytes: u64) {
        let held = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.buffer = match held < self.buffer.len() {
            true => self.buffer.split_off(held),
            false => Bytes::new(),
        };
        self.position = self.position.saturating_add(bytes);
    }
}

fn damaged(object: &ArchiveObject, what: &str) -> Error {
    Error::data_loss(format!(
        "archive {}: {what}; restore the file from a copy, or remove it to go on without its messages",
        object.path
    ))
}
