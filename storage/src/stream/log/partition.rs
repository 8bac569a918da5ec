//! One partition: its files, and the one writer that commits groups of appends.
//!
//! A group is written at the end of the last file, synced, and only then seen by readers and acknowledged. When the
//! write fails the file is cut back to what was acknowledged, and the partition goes on. When the sync fails nothing
//! is known of the bytes since the last one: the file handle is given up, and the next append first reopens and cuts
//! the file, syncs that, and goes on in a new file.

use super::format::{self, BatchHeader, Kind, message_bytes, put_batch, put_message};
use super::producers::{Plan, Producers, Undo};
use super::{AppendOutcome, LogMessage, LogOptions};
use crate::environment::{DurableFile, Environment, file_error};
use bytes::BufMut;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use strandline_proto::ids::OffsetRange;
use strandline_proto::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// Bytes of appends that wait for a partition's disk at most; further ones wait before they are taken.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// A group takes no further append after this many bytes.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// File bytes between two entries of the sparse index.
const INDEX_STRIDE_BYTES: u64 = 64 << 10;
pub(super) const ACKNOWLEDGED_FILE: &str = "acknowledged";
pub(super) const FILE_ENDING: &str = "log";

/// Which partition this is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
    pub(super) dir: PathBuf,
}

impl Place {
    pub(super) fn file(&self, base_offset: u64) -> PathBuf {
        self.dir.join(format!("{base_offset:020}.{FILE_ENDING}"))
    }

    pub(super) fn acknowledged(&self) -> PathBuf {
        self.dir.join(ACKNOWLEDGED_FILE)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "log/{}/{}", self.topic, self.partition)
    }
}

/// One append on its way.
pub(super) struct Append {
    pub(super) messages: Vec<LogMessage>,
    pub(super) producer: Option<Arc<str>>,
    pub(super) first_sequence: u64,
}

struct Waiting {
    append: Append,
    bytes: usize,
    answer: oneshot::Sender<Result<AppendOutcome>>,
    _room: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    committing: bool,
}

/// A file of the log.
pub(super) struct LogFile {
    pub(super) base_offset: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DurableFile>,
    /// How far the file was synced: as far as readers go.
    pub(super) durable_to: AtomicU64,
    /// Offsets and positions of some batches, ascending; none until first needed.
    pub(super) index: Mutex<Option<Vec<(u64, u64)>>>,
}

impl LogFile {
    pub(super) fn note(index: &mut Vec<(u64, u64)>, offset: u64, position: u64) {
        if index
            .last()
            .is_none_or(|(_, last)| position >= last + INDEX_STRIDE_BYTES)
        {
            index.push((offset, position));
        }
    }
}

/// What only the committing thread touches.
pub(super) struct Writer {
    pub(super) producers: Producers,
    pub(super) next_offset: u64,
    /// The end of the last file, all of it synced.
    pub(super) position: u64,
    pub(super) active: Arc<LogFile>,
    pub(super) acknowledged: Arc<dyn DurableFile>,
    /// Why the last file's handle can't be trusted any more.
    pub(super) poisoned: Option<String>,
}

pub(super) struct PartitionLog {
    pub(super) place: Place,
    pub(super) environment: Environment,
    options: LogOptions,
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
    writer: Mutex<Writer>,
    /// By ascending base offset; never empty.
    files: RwLock<Vec<Arc<LogFile>>>,
    end: watch::Sender<u64>,
}

impl PartitionLog {
    /// Opens or creates the partition; blocks.
    pub(super) fn open(
        place: Place,
        environment: Environment,
        options: LogOptions,
    ) -> Result<Arc<Self>> {
        let (writer, files) = super::recovery::recover(&place, &environment)?;
        let end = watch::Sender::new(writer.next_offset);
        Ok(Arc::new(Self {
            place,
            environment,
            options,
            queue: Mutex::default(),
            room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            writer: Mutex::new(writer),
            files: RwLock::new(files),
            end,
        }))
    }

    pub(super) fn offsets(&self) -> OffsetRange {
        let start = self.files.read().first().map_or(0, |file| file.base_offset);
        OffsetRange {
            start,
            end: *self.end.borrow(),
        }
    }

    /// Changes whenever messages were acknowledged.
    pub(super) fn end(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// The file that holds `offset`, or the first one when it is gone.
    pub(super) fn file_of(&self, offset: u64) -> Result<Arc<LogFile>> {
        let files = self.files.read();
        let after = files.partition_point(|file| file.base_offset <= offset);
        files
            .get(after.saturating_sub(1))
            .cloned()
            .ok_or_else(|| Error::internal(format!("{}: no files", self.place)))
    }

    /// The file after `file`.
    pub(super) fn file_after(&self, file: &LogFile) -> Option<Arc<LogFile>> {
        let files = self.files.read();
        files
            .get(files.partition_point(|other| other.base_offset <= file.base_offset))
            .cloned()
    }

    pub(super) async fn append(self: &Arc<Self>, append: Append) -> Result<AppendOutcome> {
        let bytes = append
            .messages
            .iter()
            .map(message_bytes)
            .sum::<usize>()
            .clamp(1, WAITING_BYTES_MAX);
        let room = self
            .room
            .clone()
            .acquire_many_owned(bytes as u32)
            .await
            .map_err(|_| self.closed())?;
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut queue = self.queue.lock();
            queue.waiting.push_back(Waiting {
                append,
                bytes,
                answer,
                _room: room,
            });
            !std::mem::replace(&mut queue.committing, true)
        };
        if start {
            let log = self.clone();
            self.environment
                .spawner
                .spawn_blocking("commit log appends", Box::new(move || log.commit_waiting()));
        }
        answered.await.map_err(|_| self.closed())?
    }

    fn closed(&self) -> Error {
        Error::unavailable(format!(
            "{}: the log is shutting down; repeat the append with the same sequence",
            self.place
        ))
    }

    /// Commits groups until nothing waits.
    fn commit_waiting(&self) {
        /// A panic must not leave later appends waiting for ever.
        struct Unwinding<'a>(&'a PartitionLog);
        impl Drop for Unwinding<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    let mut queue = self.0.queue.lock();
                    queue.committing = false;
                    queue.waiting.clear();
                }
            }
        }
        let _guard = Unwinding(self);
        loop {
            let mut group = Vec::new();
            {
                let mut queue = self.queue.lock();
                let mut bytes = 0;
                while bytes < GROUP_BYTES_MAX
                    && let Some(next) = queue.waiting.pop_front()
                {
                    bytes += next.bytes;
                    group.push(next);
                }
                if group.is_empty() {
                    queue.committing = false;
                    return;
                }
            }
            self.commit(group);
        }
    }

    fn commit(&self, group: Vec<Waiting>) {
        let mut writer = self.writer.lock();
        if let Err(error) = self.make_ready(&mut writer) {
            for waiting in group {
                // Whoever gave up waiting needs no answer.
                let _ = waiting.answer.send(Err(error.clone()));
            }
            return;
        }
        let now_ms = self.environment.clock.now_ms();
        let mut staged = Staged {
            bytes: Vec::new(),
            next_offset: writer.next_offset,
            index: Vec::new(),
            undo: Undo::new(),
        };
        let mut answers = Vec::with_capacity(group.len());
        for Waiting {
            append,
            answer,
            _room,
            ..
        } in group
        {
            let outcome = self.stage(&append, &mut writer, &mut staged, now_ms);
            answers.push((answer, outcome, _room));
        }
        let written = if staged.bytes.is_empty() {
            Ok(())
        } else {
            self.write(&mut writer, staged)
        };
        for (answer, outcome, _room) in answers {
            let outcome = match &written {
                Ok(()) => outcome,
                Err(error) => outcome.and(Err(error.clone())),
            };
            let _ = answer.send(outcome);
        }
    }

    /// Encodes what is new of an append behind what is staged.
    fn stage(
        &self,
        append: &Append,
        writer: &mut Writer,
        staged: &mut Staged,
        now_ms: i64,
    ) -> Result<AppendOutcome> {
        let count = append.messages.len() as u64;
        let plan = match &append.producer {
            Some(id) => writer
                .producers
                .plan(id, append.first_sequence, count)
                .map_err(|e| e.at(&self.place))?,
            None => Plan {
                duplicates: 0,
                first_offset: None,
                next_offset: None,
            },
        };
        let new = append
            .messages
            .get(plan.duplicates as usize..)
            .unwrap_or_default();
        let base_offset = staged.next_offset;
        let next_offset = base_offset + new.len() as u64;
        if !new.is_empty() {
            let first_sequence = append.first_sequence + plan.duplicates;
            if let Some(id) = &append.producer {
                writer
                    .producers
                    .record(
                        id,
                        first_sequence,
                        base_offset,
                        new.len() as u64,
                        now_ms,
                        &mut staged.undo,
                    )
                    .map_err(|e| e.at(&self.place))?;
            }
            let header = BatchHeader {
                kind: Kind::Messages,
                body_bytes: 0,
                base_offset,
                durable_to: writer.position,
                first_sequence,
                count: new.len() as u32,
                producer_bytes: append.producer.as_ref().map_or(0, |id| id.len() as u32),
                arrival_ms: now_ms,
            };
            staged
                .index
                .push((base_offset, writer.position + staged.bytes.len() as u64));
            put_batch(&mut staged.bytes, &header, |body| {
                body.extend_from_slice(append.producer.as_deref().unwrap_or_default().as_bytes());
                for message in new {
                    put_message(body, message, now_ms);
                }
            });
            staged.next_offset = next_offset;
        }
        Ok(AppendOutcome {
            partition: self.place.partition,
            first_offset: plan.first_offset.unwrap_or(base_offset),
            next_offset: plan.next_offset.unwrap_or(next_offset),
            duplicates: plan.duplicates,
        })
    }

    /// Writes and syncs what is staged, then shows it to readers.
    fn write(&self, writer: &mut Writer, staged: Staged) -> Result<()> {
        let active = writer.active.clone();
        if let Err(error) = active.file.write_at(&staged.bytes, writer.position) {
            writer.producers.undo(staged.undo);
            if let Err(cut) = active.file.set_len(writer.position) {
                writer.poisoned = Some(format!("cutting back a failed write failed: {cut}"));
            }
            return Err(file_error("append to", &active.path, &error).at(&self.place));
        }
        if let Err(error) = active.file.sync() {
            writer.producers.undo(staged.undo);
            writer.poisoned = Some(format!("sync failed: {error}"));
            return Err(file_error("sync", &active.path, &error).at(&self.place));
        }
        writer.position += staged.bytes.len() as u64;
        writer.next_offset = staged.next_offset;
        if let Some(index) = active.index.lock().as_mut() {
            for (offset, position) in staged.index {
                LogFile::note(index, offset, position);
            }
        }
        active.durable_to.store(writer.position, Ordering::Release);
        self.note_acknowledged(writer);
        self.end.send_replace(writer.next_offset);
        Ok(())
    }

    /// Not synced: it survives the death of the process, and after a power loss an older value only says less.
    fn note_acknowledged(&self, writer: &Writer) {
        let note = acknowledged_note(writer.active.base_offset, writer.position);
        if let Err(error) = writer.acknowledged.write_at(&note, 0) {
            tracing::warn!(partition = %self.place, %error, "can't note what was acknowledged; the check for a damaged tail is weaker until it works again");
        }
    }

    /// Repairs a poisoned file and begins the next file when it is time.
    fn make_ready(&self, writer: &mut Writer) -> Result<()> {
        let active = writer.active.clone();
        if let Some(why) = &writer.poisoned {
            tracing::warn!(partition = %self.place, file = %active.path.display(), position = writer.position, why, "reopening the log file after a failure");
            let file = self
                .environment
                .files
                .open(&active.path)
                .map_err(|e| file_error("reopen", &active.path, &e))?;
            file.set_len(writer.position)
                .and_then(|()| file.sync())
                .map_err(|e| file_error("cut back", &active.path, &e).at(&self.place))?;
        } else if writer.position < self.options.file_bytes_max {
            return Ok(());
        }
        let next = create_file(
            &self.place,
            &self.environment,
            writer.next_offset,
            &writer.producers,
        )
        .map_err(|(path, e)| file_error("create", &path, &e).at(&self.place))?;
        let mut files = self.files.write();
        if active.base_offset == next.base_offset {
            // The failed file held no message: the new one took its place.
            files.pop();
        }
        files.push(next.clone());
        drop(files);
        writer.position = next.durable_to.load(Ordering::Acquire);
        writer.active = next;
        writer.poisoned = None;
        self.note_acknowledged(writer);
        Ok(())
    }

    /// Removes whole files before `offset`; blocks.
    pub(super) fn trim_before(&self, offset: u64) -> Result<u64> {
        // The writer's lock keeps the list from growing meanwhile.
        let _writer = self.writer.lock();
        loop {
            let (first, second) = {
                let files = self.files.read();
                (
                    files.first().cloned(),
                    files.get(1).map(|file| file.base_offset),
                )
            };
            match (first, second) {
                (Some(first), Some(next_base)) if next_base <= offset => {
                    self.files.write().remove(0);
                    self.environment
                        .files
                        .remove(&first.path)
                        .map_err(|e| file_error("remove", &first.path, &e))?;
                }
                _ => return Ok(self.offsets().start),
            }
        }
    }
}

struct Staged {
    bytes: Vec<u8>,
    next_offset: u64,
    index: Vec<(u64, u64)>,
    undo: Undo,
}

/// `u64 base offset | u64 position | u32 crc32c`.
pub(super) fn acknowledged_note(base_offset: u64, position: u64) -> Vec<u8> {
    let mut note = Vec::with_capacity(20);
    note.put_u64_le(base_offset);
    note.put_u64_le(position);
    note.put_u32_le(crc32c::crc32c(&note));
    note
}

/// Creates the file whose first message will have `base_offset`, durably, with what is known of producers.
pub(super) fn create_file(
    place: &Place,
    environment: &Environment,
    base_offset: u64,
    producers: &Producers,
) -> Result<Arc<LogFile>, (PathBuf, io::Error)> {
    let path = place.file(base_offset);
    let mut bytes = format::file_header(base_offset);
    let position = bytes.len() as u64;
    producers.put(
        &mut bytes,
        base_offset,
        position,
        environment.clock.now_ms(),
    );
    let created = environment
        .files
        .write_durable(&path, &bytes)
        .and_then(|()| environment.files.open(&path));
    match created {
        Ok(file) => Ok(Arc::new(LogFile {
            base_offset,
            path,
            file,
            durable_to: AtomicU64::new(bytes.len() as u64),
            index: Mutex::new(Some(vec![(base_offset, position)])),
        })),
        Err(error) => Err((path, error)),
    }
}
