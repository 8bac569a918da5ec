//! Opening a partition: the last file is read through, and what was never acknowledged at its end is cut off.
//!
//! A broken place is a torn tail only if nothing speaks against it. It is damage, and an error, when the
//! `acknowledged` note says that the file was on disk beyond it, or when a batch behind it does.

use super::format::{self, FILE_HEADER_BYTES, Found, Kind, Scanner};
use super::partition::{FILE_ENDING, LogFile, Place, Writer, acknowledged_note, create_file};
use super::producers::Producers;
use crate::environment::{DurableFile, Environment, file_error};
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use strandline_proto::{Error, Result};

/// Bytes that are written again at a time.
const WRITE_BYTES_MAX: usize = 1 << 20;

pub(super) fn recover(
    place: &Place,
    environment: &Environment,
) -> Result<(Writer, Vec<Arc<LogFile>>)> {
    let files = &environment.files;
    files
        .create_dir(&place.dir)
        .map_err(|e| file_error("create", &place.dir, &e))?;
    let found = list(place, environment)?;
    let note_path = place.acknowledged();
    let acknowledged = files
        .open(&note_path)
        .map_err(|e| file_error("open", &note_path, &e))?;
    let note = read_note(&*acknowledged).map_err(|e| file_error("read", &note_path, &e))?;
    let last_base = found.last().map(|(base, _)| *base);
    if let Some((base, position)) = note
        && last_base.is_none_or(|last| last < base)
    {
        return Err(Error::data_loss(format!(
            "{place}: the file {} is missing, of which {position} bytes had been acknowledged; restore it",
            place.file(base).display()
        )));
    }

    let mut open = Vec::with_capacity(found.len());
    for (base_offset, path) in found {
        let file = files
            .open(&path)
            .map_err(|e| file_error("open", &path, &e))?;
        let len = file.len().map_err(|e| file_error("read", &path, &e))?;
        check_header(&*file, &path, base_offset)?;
        open.push(Arc::new(LogFile {
            base_offset,
            path,
            file,
            durable_to: AtomicU64::new(len),
            index: Mutex::new(None),
        }));
    }
    let Some(active) = open.last().cloned() else {
        let producers = Producers::default();
        let active = create_file(place, environment, 0, &producers)
            .map_err(|(path, e)| file_error("create", &path, &e))?;
        let position = active.durable_to.load(Ordering::Acquire);
        return Ok((
            Writer {
                producers,
                next_offset: 0,
                position,
                active: active.clone(),
                acknowledged,
                poisoned: None,
            },
            vec![active],
        ));
    };

    let note = note
        .filter(|(base, _)| *base == active.base_offset)
        .map_or(0, |(_, position)| position);
    let scanned = scan(place, &active, note)?;
    let position = scanned.position;
    if scanned.torn_bytes > 0 {
        tracing::warn!(partition = %place, file = %active.path.display(), position, bytes = scanned.torn_bytes, "cutting off a torn tail that was never acknowledged");
        active
            .file
            .set_len(position)
            .map_err(|e| file_error("cut", &active.path, &e))?;
    }
    // A file may have come here by its rename alone.
    files
        .sync_dir(&place.dir)
        .map_err(|e| file_error("sync", &place.dir, &e))?;
    // What lies here may have been written and not synced; from now on readers see it.
    write_again(&*active.file, note, position)
        .and_then(|()| active.file.sync())
        .map_err(|e| file_error("sync", &active.path, &e))?;
    active.durable_to.store(position, Ordering::Release);
    *active.index.lock() = Some(scanned.index);
    acknowledged
        .write_at(&acknowledged_note(active.base_offset, position), 0)
        .map_err(|e| file_error("write", &note_path, &e))?;
    let writer = Writer {
        producers: scanned.producers,
        next_offset: scanned.next_offset,
        position,
        active,
        acknowledged,
        poisoned: None,
    };
    Ok((writer, open))
}

/// Writes bytes that are there once more. A sync of theirs may have failed before the process ended: then they are read back
/// from memory, the system takes them for written, and only bytes that are written anew reach the disk with the next sync.
fn write_again(file: &dyn DurableFile, from: u64, to: u64) -> io::Result<()> {
    let mut position = from;
    while position < to {
        let mut bytes = vec![0; WRITE_BYTES_MAX.min((to - position) as usize)];
        let read = file.read_at(&mut bytes, position)?;
        bytes.truncate(read);
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_at(&bytes, position)?;
        position += bytes.len() as u64;
    }
    Ok(())
}

/// The partition's log files by ascending base offset. Leftovers of unfinished creations are removed.
fn list(place: &Place, environment: &Environment) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for path in environment
        .files
        .list(&place.dir)
        .map_err(|e| file_error("list", &place.dir, &e))?
    {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("tmp") => environment
                .files
                .remove(&path)
                .map_err(|e| file_error("remove", &path, &e))?,
            Some(FILE_ENDING) => {
                let base = path
                    .file_stem()
                    .and_then(|stem| stem.to_str())
                    .and_then(|stem| stem.parse().ok());
                let base: u64 = base.ok_or_else(|| {
                    Error::data_loss(format!(
                        "{}: not the name of a log file; move it away",
                        path.display()
                    ))
                })?;
                found.push((base, path));
            }
            _ => {}
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn read_note(file: &dyn DurableFile) -> std::io::Result<Option<(u64, u64)>> {
    let mut note = [0; 20];
    let read = file.read_at(&mut note, 0)?;
    let (Some(base), Some(position)) = (note.first_chunk(), note[8..].first_chunk()) else {
        return Ok(None);
    };
    let (base, position) = (u64::from_le_bytes(*base), u64::from_le_bytes(*position));
    Ok(
        (read == note.len() && acknowledged_note(base, position) == note)
            .then_some((base, position)),
    )
}

fn check_header(file: &dyn DurableFile, path: &Path, base_offset: u64) -> Result<()> {
    let mut header = [0; FILE_HEADER_BYTES as usize];
    let read = file
        .read_at(&mut header, 0)
        .map_err(|e| file_error("read", path, &e))?;
    format::check_file_header(header.get(..read).unwrap_or_default(), base_offset).map_err(|why| {
        Error::data_loss(format!(
            "{}: {why}; restore the file from a copy",
            path.display()
        ))
    })
}

struct Scanned {
    producers: Producers,
    next_offset: u64,
    /// Where the whole batches end.
    position: u64,
    torn_bytes: u64,
    index: Vec<(u64, u64)>,
}

/// Reads the last file through, of which at least `acknowledged_to` bytes must be whole.
fn scan(place: &Place, active: &LogFile, acknowledged_to: u64) -> Result<Scanned> {
    let io = |e| file_error("read", &active.path, &e);
    let len = active.file.len().map_err(io)?;
    let mut scanner = Scanner::new(active.file.clone(), FILE_HEADER_BYTES);
    let mut scanned = Scanned {
        producers: Producers::default(),
        next_offset: active.base_offset,
        position: FILE_HEADER_BYTES,
        torn_bytes: 0,
        index: Vec::new(),
    };
    let damaged = |position: u64, offset: u64, why: &str| {
        Err(Error::data_loss(format!(
            "{place}: {} is damaged at byte {position} (offset {offset}): {why}; acknowledged messages from there on can't be read: restore the file from a copy",
            active.path.display()
        )))
    };
    loop {
        let why = match scanner.next(len).map_err(io)? {
            Found::End => None,
            Found::Broken { why, .. } => Some(why),
            Found::Batch {
                position,
                header,
                body,
            } => match apply(&mut scanned, &header, &body) {
                Ok(()) => {
                    LogFile::note(&mut scanned.index, header.base_offset, position);
                    scanned.position = scanner.position();
                    continue;
                }
                // Its checksum is right, so this is no torn write.
                Err(why) => return damaged(position, scanned.next_offset, &why),
            },
        };
        let (position, offset) = (scanned.position, scanned.next_offset);
        if position < acknowledged_to {
            return damaged(
                position,
                offset,
                why.as_deref().unwrap_or("the file was cut"),
            );
        }
        if let Some(why) = why {
            if position == FILE_HEADER_BYTES {
                // The first batch was synced with the file's creation.
                return damaged(position, offset, &why);
            }
            if let Some((_, behind)) =
                format::resume_after(&active.file, position, len).map_err(io)?
                && behind.durable_to > position
            {
                return damaged(position, offset, &why);
            }
            scanned.torn_bytes = len - position;
        } else if position == FILE_HEADER_BYTES {
            return damaged(position, offset, "the file ends after its header");
        }
        return Ok(scanned);
    }
}

fn apply(
    scanned: &mut Scanned,
    header: &format::BatchHeader,
    body: &bytes::Bytes,
) -> Result<(), String> {
    if header.base_offset != scanned.next_offset {
        return Err(format!(
            "a batch of offset {} where {} is due",
            header.base_offset, scanned.next_offset
        ));
    }
    match header.kind {
        Kind::Producers => scanned.producers = Producers::parse(header.count, body.clone())?,
        Kind::Messages => {
            format::messages(header, body, u64::MAX, |_| {})?;
            if let Some(id) = format::producer(header, body)? {
                scanned.producers.replay(
                    id,
                    header.first_sequence,
                    header.base_offset,
                    u64::from(header.count),
                    header.arrival_ms,
                );
            }
        }
    }
    scanned.next_offset = header.next_offset();
    Ok(())
}
