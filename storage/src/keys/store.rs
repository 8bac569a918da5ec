//! Keys on disk: one embedded store for all tables of a server.
//!
//! ```text
//! tables                table -> how its rows are told apart; "\0" -> what keys are hashed with
//! <table>.keys          key -> entry, or entries
//! <table>.superseded    segment u32 | chunk u32 (big-endian) -> 8,192 bytes, a bit for each document that does not count
//! <table>.segments      segment name -> segment u32 | u8 (1: its rows are all in; 2: it was pushed, and they count);
//!                       "\0" -> next segment u32 | largest time i64
//! ```

use super::docs::{CHUNK_WORDS, Marks, SegmentDocs};
use super::entry::{Entry, Key, KeyMap, Known, Place};
use crate::config::KeysConfig;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use hashbrown::{HashMap, HashSet};
use parking_lot::RwLock;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use strandline_index::{CHUNK_DOCS, DocId};
use strandline_proto::ids::SegmentName;
use strandline_proto::{Error, ErrorKind, Result};

/// The layout of what is stored; another one is made again.
const FORMAT: u32 = 2;
/// A key for what is of no table and no segment, whose names have no such character.
const OWN: &str = "\0";
/// Entries that are removed, or looked at, in one step.
const TAKEN_TOGETHER: usize = 16_384;
/// From how many rows on their entries go to files of their own.
const TABLE_ROWS_MIN: usize = if cfg!(test) { 8 } else { 50_000 };
/// Files of entries that were not merged with others, each of which is asked for a key; with as many, more wait.
const TABLES_MAX: usize = 16;
/// How long, and how often, they wait.
const MERGE_WAIT: Duration = Duration::from_millis(20);
const MERGE_WAITS_MAX: u32 = 1_000;
/// Bytes of writes that are in memory before they go to files.
const MEMTABLE_BYTES_MAX: u64 = 16 << 20;

/// The keys of all tables of a server.
///
/// After an error of its files the store takes nothing any more; then it is opened again, and has all that it took before.
pub struct KeyStore {
    folder: PathBuf,
    memory_bytes_max: u64,
    secret: [u8; 16],
    /// The names of its tables after it could not be opened again.
    open: RwLock<Result<Open, Vec<String>>>,
}

/// The open store.
struct Open {
    database: Database,
    tables: Keyspace,
    of_tables: HashMap<String, TableKeyspaces>,
}

/// What is stored of one table.
struct TableKeyspaces {
    keys: Keyspace,
    superseded: Keyspace,
    segments: Keyspace,
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyStore").finish_non_exhaustive()
    }
}

impl Open {
    fn new(folder: &Path, memory_bytes_max: u64) -> fjall::Result<Self> {
        let database = Database::builder(folder)
            .cache_size(memory_bytes_max)
            .worker_threads(1)
            .open()?;
        let tables = database.keyspace("tables", KeyspaceCreateOptions::default)?;
        Ok(Self {
            database,
            tables,
            of_tables: HashMap::new(),
        })
    }

    fn add_table(&mut self, table: &str) -> fjall::Result<()> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
        let keyspace = |of| self.database.keyspace(&keyspace_name(table, of), options);
        let keyspaces = TableKeyspaces {
            keys: keyspace("keys")?,
            superseded: keyspace("superseded")?,
            segments: keyspace("segments")?,
        };
        self.of_tables.insert(table.to_owned(), keyspaces);
        Ok(())
    }

    fn drop_table(&mut self, table: &str) -> fjall::Result<()> {
        self.of_tables.remove(table);
        for of in ["keys", "superseded", "segments"] {
            let name = keyspace_name(table, of);
            if self.database.keyspace_exists(&name) {
                let keyspace = self
                    .database
                    .keyspace(&name, KeyspaceCreateOptions::default)?;
                self.database.delete_keyspace(keyspace)?;
            }
        }
        self.tables.remove(table)?;
        self.database.persist(PersistMode::SyncAll)
    }
}

impl KeyStore {
    /// Opens the store in a folder, or makes it. One that can't be read, or whose keys were hashed with another secret, is made
    /// again: its content comes from segments.
    ///
    /// `memory_bytes_max`: for what it has read, in bytes; what it is about to write takes some 50 MiB a table besides.
    pub fn open(folder: &Path, memory_bytes_max: u64, secret: [u8; 16]) -> Result<Self> {
        let io = |what, e| Error::precondition(format!("cannot {what} {}: {e}", folder.display()));
        let remove = |why: &str| {
            tracing::warn!(folder = %folder.display(), why, "the keys' store can't be read; it is made again from segments");
            std::fs::remove_dir_all(folder).map_err(|e| io("remove", e))
        };
        // Some damage ends the process while the store is opened; the next one finds this file.
        let opening = folder.with_extension("opening");
        if opening.exists() && folder.exists() {
            remove("the process that opened it before ended meanwhile")?;
        }
        std::fs::write(&opening, []).map_err(|e| io("open", e))?;
        let open = || Self::open_there(folder, memory_bytes_max, secret);
        let opened = match std::panic::catch_unwind(open) {
            Ok(Err(e)) if e.kind() != ErrorKind::ResourceExhausted => Err(e.message().to_owned()),
            Ok(opened) => Ok(opened),
            Err(_) => Err("what is stored is not what was written".to_owned()),
        };
        let opened = match opened {
            Err(why) if folder.exists() => {
                remove(&why)?;
                open()
            }
            Err(why) => Err(Error::unavailable(why)),
            Ok(opened) => opened,
        };
        std::fs::remove_file(&opening).map_err(|e| io("open", e))?;
        opened
    }

    fn open_there(folder: &Path, memory_bytes_max: u64, secret: [u8; 16]) -> Result<Self> {
        let open = Open::new(folder, memory_bytes_max).map_err(failed)?;
        match open.tables.get(OWN).map_err(failed)? {
            Some(known) if *known == secret => {}
            Some(_) => {
                return Err(Error::data_loss("its keys were hashed with another secret"));
            }
            None => {
                open.tables.insert(OWN, secret).map_err(failed)?;
                open.database
                    .persist(PersistMode::SyncAll)
                    .map_err(failed)?;
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            memory_bytes_max,
            secret,
            open: RwLock::new(Ok(open)),
        })
    }

    /// What keys are hashed with.
    pub(super) fn secret(&self) -> [u8; 16] {
        self.secret
    }

    /// A table's keys; empty when it is new here, or when its rows are told apart otherwise than before.
    pub(super) fn table(self: &Arc<Self>, table: &str, config: &KeysConfig) -> Result<StoredKeys> {
        let fingerprint = format!("{FORMAT} {config:?}");
        self.change(|open| {
            let known = open.tables.get(table)?;
            if known.is_some_and(|known| *known != *fingerprint.as_bytes()) {
                open.drop_table(table)?;
            }
            open.add_table(table)?;
            open.tables.insert(table, fingerprint.as_bytes())
        })?;
        Ok(StoredKeys {
            store: Arc::clone(self),
            table: table.to_owned(),
        })
    }

    /// Forgets a table.
    pub fn drop_table(&self, table: &str) -> Result<()> {
        self.change(|open| open.drop_table(table))
    }

    /// The tables that it has keys of.
    pub fn tables(&self) -> Result<Vec<String>> {
        self.change(|open| {
            let mut names = Vec::new();
            for item in open.tables.iter() {
                let (name, _) = item.into_inner()?;
                if *name != *OWN.as_bytes() {
                    names.push(String::from_utf8_lossy(&name).into_owned());
                }
            }
            Ok(names)
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Open) -> fjall::Result<T>) -> Result<T> {
        let mut open = self.open.write();
        match open.as_mut() {
            Ok(open) => change(open).map_err(failed),
            Err(_) => Err(closed()),
        }
    }

    /// Opens it again after an error, from which it does not recover otherwise.
    pub(super) fn open_again(&self) {
        let mut open = self.open.write();
        // What was open goes before it is opened again.
        let tables: Vec<String> = match &mut *open {
            Ok(before) => before.of_tables.drain().map(|(name, _)| name).collect(),
            Err(tables) => std::mem::take(tables),
        };
        *open = Err(tables.clone());
        let opened = Open::new(&self.folder, self.memory_bytes_max).and_then(|mut opened| {
            tables
                .iter()
                .try_for_each(|table| opened.add_table(table))?;
            Ok(opened)
        });
        match opened {
            Ok(opened) => *open = Ok(opened),
            Err(e) => tracing::warn!(error = %e, "the keys' store can't be opened again yet"),
        }
    }
}

fn keyspace_name(table: &str, of: &str) -> String {
    format!("{table}.{of}")
}

/// The keys of one table.
pub(super) struct StoredKeys {
    store: Arc<KeyStore>,
    table: String,
}

/// What is known of a table's segments.
pub(super) struct StoredSegments {
    /// Each with its number.
    pub(super) segments: HashMap<SegmentName, (u32, Noted)>,
    /// The first number that no segment had.
    pub(super) next: u32,
    /// The largest time of a row.
    pub(super) largest_time: i64,
}

/// What is noted of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// Some of its rows may be in.
    Begun,
    /// All of its rows are in.
    Whole,
    /// It was pushed, all of its rows are in, and superseded documents are known with it.
    Pushed,
}

impl Noted {
    fn byte(self) -> u8 {
        match self {
            Self::Begun => 0,
            Self::Whole => 1,
            Self::Pushed => 2,
        }
    }

    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [1] => Self::Whole,
            [2] => Self::Pushed,
            _ => Self::Begun,
        }
    }
}

impl StoredKeys {
    /// Does something with what is stored of the table. After an error of the store's it is opened again, and the caller's next
    /// attempt finds it as it was before this one.
    fn with<T>(
        &self,
        act: impl FnOnce(&Database, &TableKeyspaces) -> Result<T, StoreError>,
    ) -> Result<T> {
        let done = {
            let open = self.store.open.read();
            let of_table = open.as_ref().ok();
            let of_table =
                of_table.and_then(|open| Some((&open.database, open.of_tables.get(&self.table)?)));
            match of_table {
                Some((database, keyspaces)) => act(database, keyspaces),
                None => Err(StoreError::Closed),
            }
        };
        done.map_err(|e| match e {
            StoreError::Content(e) => e,
            StoreError::Store(e) => {
                self.store.open_again();
                failed(e)
            }
            StoreError::Closed => {
                self.store.open_again();
                closed()
            }
        })
    }

    /// What is known of those of `keys` of which anything is.
    pub(super) fn entries(&self, keys: &[&Key]) -> Result<KeyMap<Known>> {
        self.with(|_, stored| {
            let mut found = KeyMap::default();
            for key in keys {
                if let Some(known) = stored.entry(key)? {
                    found.insert(**key, known);
                }
            }
            Ok(found)
        })
    }

    /// What it knows of segments.
    pub(super) fn segments(&self) -> Result<StoredSegments> {
        let damaged = || Error::data_loss("what the keys know of a segment is damaged");
        self.with(|_, stored| {
            let mut found = StoredSegments {
                segments: HashMap::new(),
                next: 0,
                largest_time: i64::MIN,
            };
            for item in stored.segments.iter() {
                let (name, value) = item.into_inner()?;
                let (number, rest) = value.split_first_chunk().ok_or_else(damaged)?;
                let number = u32::from_le_bytes(*number);
                if *name == *OWN.as_bytes() {
                    found.next = number;
                    let time = rest.try_into().map_err(|_| damaged())?;
                    found.largest_time = i64::from_le_bytes(time);
                } else {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    let noted = Noted::of(rest);
                    let segments = &mut found.segments;
                    segments.insert(SegmentName::new(&name), (number, noted));
                }
            }
            Ok(found)
        })
    }

    /// Whether all rows of a segment are in.
    pub(super) fn is_whole(&self, name: &SegmentName) -> Result<bool> {
        self.with(|_, stored| {
            let noted = stored.segments.get(name.as_str())?;
            let noted = noted.and_then(|noted| noted.get(4..).map(Noted::of));
            Ok(noted == Some(Noted::Whole))
        })
    }

    /// Notes something of a segment; no other one gets its number from then on. `next`: the first number that no segment has.
    pub(super) fn note(
        &self,
        docs: &SegmentDocs,
        noted: Noted,
        (next, largest_time): (u32, i64),
    ) -> Result<()> {
        self.with(|database, stored| {
            let mut batch = database.batch();
            stored.note(docs, noted, &mut batch);
            let mut value = next.to_le_bytes().to_vec();
            value.extend(largest_time.to_le_bytes());
            batch.insert(&stored.segments, OWN, value);
            Ok(batch.commit()?)
        })
    }

    /// Has `docs` know which of their segment's documents do not count.
    pub(super) fn restore(&self, docs: &SegmentDocs) -> Result<()> {
        self.with(|_, stored| {
            for item in stored.superseded.prefix(docs.number.to_be_bytes()) {
                let (at, bits) = item.into_inner()?;
                let chunk = at
                    .get(4..)
                    .and_then(|chunk| chunk.try_into().ok())
                    .map(u32::from_be_bytes);
                let (Some(chunk), Some(words)) = (chunk, words_of(&bits)) else {
                    let damaged = "superseded documents in the keys are damaged";
                    return Err(Error::data_loss(damaged).into());
                };
                docs.restore(chunk, &words);
            }
            Ok(())
        })
    }

    /// Takes in what `rows` rows of a segment change, which `take` says in the order of keys. When this fails, or the process ends
    /// meanwhile, superseded documents may be known and entries not, never the other way round.
    pub(super) fn take(
        &self,
        rows: usize,
        take: impl FnOnce(&mut Taking<'_>) -> Result<(), StoreError>,
    ) -> Result<()> {
        self.with(|database, stored| {
            let mut batch = database.batch();
            let mut superseded = Vec::new();
            if rows < TABLE_ROWS_MIN {
                let mut insert = |key: &Key, entry| {
                    batch.insert(&stored.keys, key, entry);
                    Ok(())
                };
                take(&mut Taking {
                    stored,
                    insert: &mut insert,
                    superseded: &mut superseded,
                })?;
                note_superseded(stored, superseded, &mut batch)?;
                return Ok(batch.commit()?);
            }
            // Into files of their own, without being in memory and in the journal before. The store merges them beside this;
            // when it falls behind, it is waited for, but not for ever.
            for _ in 0..MERGE_WAITS_MAX {
                if stored.keys.l0_table_count() < TABLES_MAX {
                    break;
                }
                std::thread::sleep(MERGE_WAIT);
            }
            let mut tables = stored.keys.start_ingestion()?;
            take(&mut Taking {
                stored,
                insert: &mut |key, entry| tables.write(key, entry),
                superseded: &mut superseded,
            })?;
            note_superseded(stored, superseded, &mut batch)?;
            batch.commit()?;
            // These files survive a loss of power at once, and so must what is written before them.
            database.persist(PersistMode::SyncAll)?;
            Ok(tables.finish()?)
        })
    }

    /// Notes in one step that pushed segments have come and gone, and which documents, by the segments' numbers, count since.
    pub(super) fn switch(
        &self,
        added: &[Arc<SegmentDocs>],
        removed: &[Arc<SegmentDocs>],
        marks: &HashMap<u32, Marks>,
    ) -> Result<()> {
        self.with(|database, stored| {
            let mut batch = database.batch();
            for docs in removed {
                stored.forget(&docs.name, docs.number, &mut batch)?;
            }
            for docs in added {
                stored.note(docs, Noted::Pushed, &mut batch);
            }
            for (number, marks) in marks {
                if removed.iter().any(|docs| docs.number == *number) {
                    continue;
                }
                for chunk in 0..marks.chunks() {
                    let (at, mut words) = stored.superseded(*number, chunk)?;
                    marks.apply_to_chunk(chunk, &mut words);
                    batch.insert(&stored.superseded, at, bytes_of(&words));
                }
            }
            batch.commit()?;
            Ok(database.persist(PersistMode::SyncAll)?)
        })
    }

    /// Keys of which rows of any of the segments are known, some at a time, with what is known of them.
    pub(super) fn keys_of(
        &self,
        segments: &HashSet<u32>,
        mut take: impl FnMut(&KeyMap<Known>),
    ) -> Result<()> {
        self.with(|_, stored| {
            let mut found = KeyMap::default();
            for item in stored.keys.iter() {
                let (key, bytes) = item.into_inner()?;
                let known = Known::from_bytes(&bytes)?;
                let mut pushed = known.pushed.iter();
                if pushed.any(|entry| segments.contains(&entry.place.segment)) {
                    let key = Key::try_from(&*key)
                        .map_err(|_| Error::data_loss("a key in the keys is damaged"))?;
                    found.insert(key, known);
                }
                if found.len() >= TAKEN_TOGETHER {
                    take(&std::mem::take(&mut found));
                }
            }
            take(&found);
            Ok(())
        })
    }

    /// Removes entries for which `is_old` is true. Keys of which pushed rows are known stay.
    pub(super) fn remove_if(&self, is_old: impl Fn(&Entry) -> bool) -> Result<()> {
        self.with(|database, stored| {
            let mut batch = database.batch();
            for item in stored.keys.iter() {
                let (key, bytes) = item.into_inner()?;
                let known = Known::from_bytes(&bytes)?;
                let stream = known.stream.filter(|_| known.pushed.is_empty());
                if stream.is_some_and(|stream| is_old(&stream)) {
                    batch.remove(&stored.keys, key);
                }
                if batch.len() >= TAKEN_TOGETHER {
                    std::mem::replace(&mut batch, database.batch()).commit()?;
                }
            }
            Ok(batch.commit()?)
        })
    }

    /// Forgets a segment that is gone. Entries that name it are passed over.
    pub(super) fn forget(&self, name: &SegmentName, number: u32) -> Result<()> {
        self.with(|database, stored| {
            let mut batch = database.batch();
            stored.forget(name, number, &mut batch)?;
            Ok(batch.commit()?)
        })
    }
}

impl TableKeyspaces {
    fn entry(&self, key: &Key) -> Result<Option<Known>, StoreError> {
        let found = self.keys.get(key)?;
        Ok(found.map(|bytes| Known::from_bytes(&bytes)).transpose()?)
    }

    fn note(&self, docs: &SegmentDocs, noted: Noted, batch: &mut OwnedWriteBatch) {
        let mut value = docs.number.to_le_bytes().to_vec();
        value.push(noted.byte());
        batch.insert(&self.segments, docs.name.as_str(), value);
    }

    fn forget(
        &self,
        name: &SegmentName,
        number: u32,
        batch: &mut OwnedWriteBatch,
    ) -> Result<(), StoreError> {
        for item in self.superseded.prefix(number.to_be_bytes()) {
            batch.remove(&self.superseded, item.key()?);
        }
        batch.remove(&self.segments, name.as_str());
        Ok(())
    }

    /// The superseded documents of a chunk, and where they are noted.
    fn superseded(
        &self,
        number: u32,
        chunk: u32,
    ) -> Result<(Vec<u8>, [u64; CHUNK_WORDS]), StoreError> {
        let mut at = number.to_be_bytes().to_vec();
        at.extend(chunk.to_be_bytes());
        let known = self.superseded.get(&at)?;
        let words = known.and_then(|bits| words_of(&bits));
        Ok((at, words.unwrap_or([0; CHUNK_WORDS])))
    }
}

/// What rows of a segment change.
pub(super) struct Taking<'a> {
    stored: &'a TableKeyspaces,
    insert: &'a mut dyn FnMut(&Key, Vec<u8>) -> fjall::Result<()>,
    /// Rows that do not count.
    pub(super) superseded: &'a mut Vec<Place>,
}

impl Taking<'_> {
    /// What was known of a key before.
    pub(super) fn get(&self, key: &Key) -> Result<Known, StoreError> {
        Ok(self.stored.entry(key)?.unwrap_or_default())
    }

    /// Has this be known of a key, which is larger than those before it.
    pub(super) fn insert(&mut self, key: &Key, known: &Known) -> Result<(), StoreError> {
        Ok((self.insert)(key, known.to_bytes())?)
    }
}

fn note_superseded(
    stored: &TableKeyspaces,
    mut superseded: Vec<Place>,
    batch: &mut OwnedWriteBatch,
) -> Result<(), StoreError> {
    superseded.sort_unstable_by_key(|place| (place.segment, place.doc));
    let chunk_of = |doc: DocId| doc / CHUNK_DOCS;
    let of_chunks =
        superseded.chunk_by(|a, b| (a.segment, chunk_of(a.doc)) == (b.segment, chunk_of(b.doc)));
    for places in of_chunks {
        let Some(first) = places.first() else {
            continue;
        };
        let (at, mut words) = stored.superseded(first.segment, chunk_of(first.doc))?;
        for place in places {
            let doc = place.doc % CHUNK_DOCS;
            if let Some(word) = words.get_mut((doc / u64::BITS) as usize) {
                *word |= 1 << (doc % u64::BITS);
            }
        }
        batch.insert(&stored.superseded, at, bytes_of(&words));
    }
    Ok(())
}

/// Why something was not done.
pub(super) enum StoreError {
    /// The store's files.
    Store(fjall::Error),
    /// It is not open.
    Closed,
    /// What is stored makes no sense.
    Content(Error),
}

impl From<fjall::Error> for StoreError {
    fn from(e: fjall::Error) -> Self {
        Self::Store(e)
    }
}

impl From<Error> for StoreError {
    fn from(e: Error) -> Self {
        Self::Content(e)
    }
}

fn bytes_of(words: &[u64; CHUNK_WORDS]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words_of(bytes: &[u8]) -> Option<[u64; CHUNK_WORDS]> {
    let mut words = [0; CHUNK_WORDS];
    let (stored, rest) = bytes.as_chunks::<8>();
    if stored.len() != CHUNK_WORDS || !rest.is_empty() {
        return None;
    }
    for (word, bytes) in words.iter_mut().zip(stored) {
        *word = u64::from_le_bytes(*bytes);
    }
    Some(words)
}

fn failed(e: fjall::Error) -> Error {
    match e {
        fjall::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => {
            Error::exhausted(format!("the store of keys: {io}: make room on its disk"))
        }
        e => Error::unavailable(format!("the store of keys: {e}")),
    }
}

fn closed() -> Error {
    Error::unavailable("the store of keys could not be opened again yet; it is tried again")
}
