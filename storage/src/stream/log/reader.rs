//! Reads one partition forward, up to what is acknowledged.

use super::format::{self, BATCH_HEADER_BYTES, FILE_HEADER_BYTES, Found, Scanner};
use super::partition::{LogFile, PartitionLog};
use crate::environment::{blocking, file_error};
use crate::stream::{Message, MessageBatch, PartitionReader};
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use strandline_proto::ids::OffsetRange;
use strandline_proto::{Error, Result};
use tokio::sync::watch;

pub(super) struct LogReader {
    log: Arc<PartitionLog>,
    end: watch::Receiver<u64>,
    /// The offset of the next message to give.
    next_offset: u64,
    /// Read and not given yet; the first has `next_offset`.
    ready: VecDeque<Message>,
    /// Where to read on behind `ready`; found again by offset when there is none.
    cursor: Option<Cursor>,
}

struct Cursor {
    file: Arc<LogFile>,
    scanner: Scanner,
}

impl LogReader {
    pub(super) fn new(log: Arc<PartitionLog>, from_offset: u64) -> Self {
        Self {
            end: log.end(),
            log,
            next_offset: from_offset,
            ready: VecDeque::new(),
            cursor: None,
        }
    }

    /// Waits until there is something behind `next_offset`, or the time is over.
    async fn wait(&mut self, wait: Duration) -> Result<()> {
        let next_offset = self.next_offset;
        let mut sleep = self.log.environment.clock.sleep(wait);
        tokio::select! {
            biased;
            changed = self.end.wait_for(|end| *end > next_offset) => match changed {
                Ok(_) => Ok(()),
                Err(_) => Err(Error::unavailable(format!("{}: the log is closed", self.log.place))),
            },
            () = &mut sleep => Ok(()),
        }
    }
}

#[async_trait]
impl PartitionReader for LogReader {
    async fn next(
        &mut self,
        messages_max: usize,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<MessageBatch> {
        let end = *self.end.borrow_and_update();
        if self.next_offset > end {
            return Err(Error::precondition(format!(
                "{}: offset {} is past the end {end}; the log is not the one that was read before",
                self.log.place, self.next_offset
            )));
        }
        let mut lost = None;
        if self.ready.is_empty() {
            let earliest = self.log.offsets().start;
            if self.next_offset < earliest {
                lost = Some(OffsetRange {
                    start: self.next_offset,
                    end: earliest,
                });
                self.next_offset = earliest;
                self.cursor = None;
            }
            if self.next_offset == end && lost.is_none() {
                self.wait(wait).await?;
            }
            if self.next_offset < *self.end.borrow() {
                let (log, cursor, from) = (self.log.clone(), self.cursor.take(), self.next_offset);
                let (messages, cursor) =
                    blocking(&self.log.environment.spawner, "read log", move || {
                        read(&log, cursor, from, messages_max, bytes_max)
                    })
                    .await?;
                self.ready = messages.into();
                self.cursor = Some(cursor);
            }
        }
        let mut batch = MessageBatch {
            lost,
            ..MessageBatch::default()
        };
        let mut bytes = 0_usize;
        while batch.messages.is_empty()
            || (batch.messages.len() < messages_max && bytes < bytes_max)
        {
            let Some(message) = self.ready.pop_front() else {
                break;
            };
            bytes += message.payload.len();
            self.next_offset = message.offset + 1;
            batch.messages.push(message);
        }
        batch.next_offset = self.next_offset;
        Ok(batch)
    }
}

/// Messages read together while one is looked for.
const SEARCH_MESSAGES: usize = 16_384;
const SEARCH_BYTES: usize = 8 << 20;

/// The offset of the first message that was written at `timestamp_ms` or later, or the end; blocks. All messages before it are
/// read, since their times need not ascend.
pub(super) fn offset_at(log: &PartitionLog, timestamp_ms: i64) -> Result<u64> {
    let range = log.offsets();
    let (mut from, mut cursor) = (range.start, None);
    while from < range.end {
        let (messages, next) = read(log, cursor, from, SEARCH_MESSAGES, SEARCH_BYTES)?;
        if let Some(found) = messages.iter().find(|m| m.timestamp_ms >= timestamp_ms) {
            return Ok(found.offset.min(range.end));
        }
        let Some(last) = messages.last() else {
            break;
        };
        (from, cursor) = (last.offset + 1, Some(next));
    }
    Ok(range.end)
}

/// Reads whole batches until enough messages or bytes are there, or the end; blocks.
fn read(
    log: &PartitionLog,
    cursor: Option<Cursor>,
    from_offset: u64,
    messages_max: usize,
    bytes_max: usize,
) -> Result<(Vec<Message>, Cursor)> {
    let mut cursor = match cursor {
        Some(cursor) => cursor,
        None => seek(log, from_offset)?,
    };
    let (mut messages, mut bytes, mut due) = (Vec::new(), 0_usize, from_offset);
    while messages.is_empty() || (messages.len() < messages_max && bytes < bytes_max) {
        let limit = cursor.file.durable_to.load(Ordering::Acquire);
        match cursor
            .scanner
            .next(limit)
            .map_err(|e| file_error("read", &cursor.file.path, &e))?
        {
            Found::Batch {
                position,
                header,
                body,
            } => {
                if header.base_offset > due {
                    return Err(damaged(
                        log,
                        &cursor.file,
                        position,
                        due,
                        "the offsets are not consecutive",
                    ));
                }
                format::messages(&header, &body, from_offset, |message| {
                    bytes += message.payload.len();
                    messages.push(message);
                })
                .map_err(|why| damaged(log, &cursor.file, position, due, &why))?;
                due = due.max(header.next_offset());
            }
            Found::Broken { position, why } => {
                return Err(damaged(log, &cursor.file, position, due, &why));
            }
            Found::End => match log.file_after(&cursor.file) {
                // Synced further in the meantime, before the next file was begun.
                Some(_) if cursor.file.durable_to.load(Ordering::Acquire) > limit => {}
                Some(next) if next.base_offset == due => {
                    cursor = Cursor {
                        scanner: Scanner::new(next.file.clone(), FILE_HEADER_BYTES),
                        file: next,
                    };
                }
                Some(next) => {
                    let why = format!(
                        "the file ends, and the next one begins with offset {}",
                        next.base_offset
                    );
                    return Err(damaged(log, &cursor.file, limit, due, &why));
                }
                None => {
                    let current = log.file_of(due)?;
                    if Arc::ptr_eq(&current, &cursor.file) {
                        break;
                    }
                    // The file was replaced after a failed sync.
                    cursor = seek(log, due)?;
                }
            },
        }
    }
    Ok((messages, cursor))
}

fn damaged(log: &PartitionLog, file: &LogFile, position: u64, offset: u64, why: &str) -> Error {
    Error::data_loss(format!(
        "{}: {} is damaged at byte {position} (offset {offset}): {why}; restore the file from a copy",
        log.place,
        file.path.display()
    ))
}

/// A cursor at or shortly before the batch that holds `offset`.
fn seek(log: &PartitionLog, offset: u64) -> Result<Cursor> {
    let file = log.file_of(offset)?;
    let position = {
        let mut index = file.index.lock();
        if index.is_none() {
            *index = Some(index_of(log, &file)?);
        }
        let entries = index.as_deref().unwrap_or_default();
        let after = entries.partition_point(|(base, _)| *base <= offset);
        entries
            .get(after.saturating_sub(1))
            .map_or(FILE_HEADER_BYTES, |(_, position)| *position)
    };
    Ok(Cursor {
        scanner: Scanner::new(file.file.clone(), position),
        file,
    })
}

/// The sparse index of a closed file, from its batch headers.
fn index_of(log: &PartitionLog, file: &LogFile) -> Result<Vec<(u64, u64)>> {
    let limit = file.durable_to.load(Ordering::Acquire);
    let (mut index, mut position, mut offset) = (Vec::new(), FILE_HEADER_BYTES, file.base_offset);
    while position < limit {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        let read = file
            .file
            .read_at(&mut bytes, position)
            .map_err(|e| file_error("read", &file.path, &e))?;
        let (header, _) = format::parse_header(bytes.get(..read).unwrap_or_default())
            .map_err(|why| damaged(log, file, position, offset, &why))?;
        LogFile::note(&mut index, header.base_offset, position);
        offset = header.next_offset();
        position += BATCH_HEADER_BYTES as u64 + u64::from(header.body_bytes);
    }
    Ok(index)
}
