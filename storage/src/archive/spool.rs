//! Messages on their way into the archive: a file of the staging folder, which becomes an object as a whole.

use super::format::{self, Footer};
use super::{Archive, ENDING};
use crate::deep_store::DeepStore;
use crate::environment::{DurableFile, Environment, Files, blocking, file_error};
use crate::stream::Message;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strandline_proto::ids::{OffsetRange, StreamPartition};
use strandline_proto::{Error, Result};

/// Bytes of messages from which on a block is written; what a spool holds in memory.
pub(super) const BLOCK_BYTES: usize = 256 << 10;

/// A range of offsets of one partition, whose messages are written as they come.
///
/// Its file is removed when it was stored, or when it is dropped.
pub struct Spool {
    path: PathBuf,
    files: Arc<dyn Files>,
    state: Mutex<State>,
}

struct State {
    file: Option<Arc<dyn DurableFile>>,
    /// What is written, and its checksum.
    position: u64,
    crc: u32,
    /// What was taken; messages of the last block are in memory.
    footer: Footer,
    body: Vec<u8>,
    body_messages: u32,
    body_offsets: OffsetRange,
    /// The end is written: nothing more is taken.
    finished: bool,
    stored: bool,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.file.is_some() && !state.stored {
            // What is left over goes at the next start.
            let _ = self.files.remove(&self.path);
        }
    }
}

impl Spool {
    /// An empty one, for offsets from `from` on. No file is made yet.
    pub fn new(path: PathBuf, files: Arc<dyn Files>, from: u64) -> Self {
        let none = OffsetRange {
            start: from,
            end: from,
        };
        Self {
            path,
            files,
            state: Mutex::new(State {
                file: None,
                position: 0,
                crc: 0,
                footer: Footer {
                    range: none,
                    messages: 0,
                    blocks: 0,
                    timestamps_ms: (i64::MAX, i64::MIN),
                    position: 0,
                },
                body: Vec::new(),
                body_messages: 0,
                body_offsets: none,
                finished: false,
                stored: false,
            }),
        }
    }

    /// The offsets whose messages it took.
    pub fn offsets(&self) -> OffsetRange {
        self.state.lock().footer.range
    }

    /// Takes the messages at the offsets of `range`, by ascending offset, apart from those that it has; blocks. False when the
    /// range begins behind its end, or it takes nothing any more: then another spool has to.
    ///
    /// # Errors
    /// When the file can't be written; the call may be repeated.
    pub fn append(&self, messages: &[Message], range: OffsetRange) -> Result<bool> {
        let mut state = self.state.lock();
        if state.finished || range.start > state.footer.range.end {
            return Ok(false);
        }
        for message in messages {
            if message.offset < state.footer.range.end {
                continue;
            }
            if state.body.len() >= BLOCK_BYTES {
                self.write_block(&mut state)?;
            }
            state.take(message)?;
        }
        if state.body.len() >= BLOCK_BYTES {
            self.write_block(&mut state)?;
        }
        let end = state.footer.range.end.max(range.end);
        state.footer.range.end = end;
        Ok(true)
    }

    /// Makes it an object of a partition's archive, durable. Nothing is left to do when it is repeated.
    ///
    /// # Errors
    /// When it can't be written or stored; the call may be repeated, and nothing is lost.
    pub async fn store(
        self: &Arc<Self>,
        deep_store: &Arc<DeepStore>,
        (table, partition): (&str, &StreamPartition),
        environment: &Environment,
    ) -> Result<()> {
        let spool = Arc::clone(self);
        let finished = blocking(&environment.spawner, "finish archive", move || {
            spool.finish()
        })
        .await?;
        let Some((range, crc, bytes)) = finished else {
            return Ok(());
        };
        let name = format!("{:020}-{:020}-{crc:08x}{ENDING}", range.start, range.end);
        let archive = Archive::of_partition(deep_store, table, partition);
        let path = archive.folder(partition.partition).join(name);
        deep_store
            .put_object(&path, &self.path, (crc, bytes))
            .await?;
        let spool = Arc::clone(self);
        blocking(&environment.spawner, "remove spool", move || {
            let mut state = spool.state.lock();
            state.stored = true;
            state.file = None;
            // What is left over goes at the next start.
            let _ = spool.files.remove(&spool.path);
            Ok(())
        })
        .await
    }

    /// Writes the end; gives offsets, checksum and length, or nothing when there is nothing to store; blocks.
    fn finish(&self) -> Result<Option<(OffsetRange, u32, u64)>> {
        let mut state = self.state.lock();
        let range = state.footer.range;
        if state.stored || range.start == range.end {
            return Ok(None);
        }
        if !state.finished {
            if !state.body.is_empty() {
                self.write_block(&mut state)?;
            }
            if state.position == 0 {
                self.write(&mut state, &format::file_header())?;
            }
            // Behind it there may be a part of what could not be written at once.
            let (file, len) = (self.file(&mut state)?, state.position);
            file.set_len(len).map_err(|e| self.failed(&e))?;
            state.footer.position = len;
            let footer = state.footer.write();
            self.write(&mut state, &footer)?;
            state.finished = true;
            state.body = Vec::new();
        }
        Ok(Some((range, state.crc, state.position)))
    }

    fn write_block(&self, state: &mut State) -> Result<()> {
        if state.position == 0 {
            self.write(state, &format::file_header())?;
        }
        let block = format::block(&state.body, state.body_messages, state.body_offsets)?;
        self.write(state, &block)?;
        state.footer.blocks += 1;
        state.body.clear();
        // One message may have been much larger than the others.
        state.body.shrink_to(2 * BLOCK_BYTES);
        state.body_messages = 0;
        Ok(())
    }

    /// Appends to the file. What a failed write left of itself is written over by the next.
    fn write(&self, state: &mut State, bytes: &[u8]) -> Result<()> {
        let file = self.file(state)?;
        file.write_at(bytes, state.position)
            .map_err(|e| self.failed(&e))?;
        state.crc = crc32c::crc32c_append(state.crc, bytes);
        state.position += bytes.len() as u64;
        Ok(())
    }

    fn file(&self, state: &mut State) -> Result<Arc<dyn DurableFile>> {
        if let Some(file) = &state.file {
            return Ok(Arc::clone(file));
        }
        let file = self.files.open(&self.path).map_err(|e| self.failed(&e))?;
        state.file = Some(Arc::clone(&file));
        Ok(file)
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        let path: &Path = &self.path;
        file_error("write", path, error).at("archive")
    }
}

impl State {
    /// Puts a message behind those that are in memory.
    fn take(&mut self, message: &Message) -> Result<()> {
        format::put_message(&mut self.body, message)?;
        if self.body_messages == 0 {
            self.body_offsets.start = message.offset;
        }
        self.body_messages += 1;
        self.body_offsets.end = message.offset + 1;
        self.footer.messages += 1;
        self.footer.range.end = message.offset + 1;
        if let Some(ms) = message.time_ms() {
            let (min, max) = self.footer.timestamps_ms;
            self.footer.timestamps_ms = (min.min(ms), max.max(ms));
        }
        Ok(())
    }
}
