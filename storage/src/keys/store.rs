//! Keys on disk: one embedded store for all tables of a server.
//!
//! ```text
//! tables                table -> how its rows are told apart; "\0" -> what keys are hashed with
//! <table>.keys          key -> entry
//! <table>.superseded    segment u32 | chunk u32 (big-endian) -> 8,192 bytes, a bit for each document that does not count
//! <table>.segments      segment name -> segment u32 | u8 (1: its rows are all in); "\0" -> next segment u32 | largest time i64
//! ```

use super::docs::{CHUNK_WORDS, SegmentDocs};
use super::entry::{Entry, Key};
use super::table::Changes;
use crate::config::KeysConfig;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use hashbrown::HashMap;
use std::path::Path;
use strandline_index::DocId;
use strandline_proto::ids::SegmentName;
use strandline_proto::{Error, Result};

/// The layout of what is stored; another one is made again.
const FORMAT: u32 = 1;
/// A key for what is of no table and no segment, whose names have no such character.
const OWN: &str = "\0";
/// Entries that are removed in one step.
const REMOVED_TOGETHER: usize = 16_384;
/// Bytes of writes that are in memory before they go to files.
const MEMTABLE_BYTES_MAX: u64 = 16 << 20;

/// The keys of all tables of a server.
pub struct KeyStore {
    database: Database,
    tables: Keyspace,
    secret: [u8; 16],
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyStore").finish_non_exhaustive()
    }
}

impl KeyStore {
    /// Opens the store in a folder, or makes it. One that can't be read is made again: its content comes from segments.
    ///
    /// `memory_bytes_max`: for what it has read, in bytes; what it is about to write takes some 50 MiB a table besides.
    pub fn open(folder: &Path, memory_bytes_max: u64, new_secret: [u8; 16]) -> Result<Self> {
        match Self::open_there(folder, memory_bytes_max, new_secret) {
            Err(e) if folder.exists() => {
                tracing::warn!(folder = %folder.display(), error = %e, "the keys' store can't be read; it is made again from segments");
                std::fs::remove_dir_all(folder).map_err(|e| {
                    Error::precondition(format!("cannot remove {}: {e}", folder.display()))
                })?;
                Self::open_there(folder, memory_bytes_max, new_secret)
            }
            opened => opened,
        }
    }

    fn open_there(folder: &Path, memory_bytes_max: u64, new_secret: [u8; 16]) -> Result<Self> {
        let database = Database::builder(folder)
            .cache_size(memory_bytes_max)
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let tables = database
            .keyspace("tables", KeyspaceCreateOptions::default)
            .map_err(failed)?;
        let secret = match tables.get(OWN).map_err(failed)? {
            Some(secret) => secret
                .as_ref()
                .try_into()
                .map_err(|_| Error::data_loss("the keys' secret is damaged"))?,
            None => {
                tables.insert(OWN, new_secret).map_err(failed)?;
                database.persist(PersistMode::SyncAll).map_err(failed)?;
                new_secret
            }
        };
        Ok(Self {
            database,
            tables,
            secret,
        })
    }

    /// What keys are hashed with.
    pub(super) fn secret(&self) -> [u8; 16] {
        self.secret
    }

    /// A table's keys; empty when it is new here, or when its rows are told apart otherwise than before.
    pub(super) fn table(&self, table: &str, config: &KeysConfig) -> Result<StoredKeys> {
        let fingerprint = format!("{FORMAT} {config:?}");
        let known = self.tables.get(table).map_err(failed)?;
        if known.is_some_and(|known| *known != *fingerprint.as_bytes()) {
            self.drop_table(table)?;
        }
        let keyspace = |of: &str, options: fn() -> KeyspaceCreateOptions| {
            let name = keyspace_name(table, of);
            self.database.keyspace(&name, options).map_err(failed)
        };
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
        let stored = StoredKeys {
            database: self.database.clone(),
            keys: keyspace("keys", options)?,
            superseded: keyspace("superseded", options)?,
            segments: keyspace("segments", options)?,
        };
        self.tables
            .insert(table, fingerprint.as_bytes())
            .map_err(failed)?;
        Ok(stored)
    }

    /// Forgets a table.
    pub fn drop_table(&self, table: &str) -> Result<()> {
        for of in ["keys", "superseded", "segments"] {
            let name = keyspace_name(table, of);
            if self.database.keyspace_exists(&name) {
                let keyspace = self
                    .database
                    .keyspace(&name, KeyspaceCreateOptions::default)
                    .map_err(failed)?;
                self.database.delete_keyspace(keyspace).map_err(failed)?;
            }
        }
        self.tables.remove(table).map_err(failed)?;
        self.database.persist(PersistMode::SyncAll).map_err(failed)
    }

    /// The tables that it has keys of.
    pub fn tables(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for item in self.tables.iter() {
            let (name, _) = item.into_inner().map_err(failed)?;
            if *name != *OWN.as_bytes() {
                names.push(String::from_utf8_lossy(&name).into_owned());
            }
        }
        Ok(names)
    }
}

fn keyspace_name(table: &str, of: &str) -> String {
    format!("{table}.{of}")
}

/// The keys of one table.
pub(super) struct StoredKeys {
    database: Database,
    keys: Keyspace,
    superseded: Keyspace,
    segments: Keyspace,
}

/// What is known of a table's segments.
pub(super) struct StoredSegments {
    /// Each with its number, and whether all of its rows are in.
    pub(super) segments: HashMap<SegmentName, (u32, bool)>,
    /// The first number that no segment had.
    pub(super) next: u32,
    /// The largest time of a row.
    pub(super) largest_time: i64,
}

impl StoredKeys {
    pub(super) fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let found = self.keys.get(key).map_err(failed)?;
        found.map(|bytes| Entry::from_bytes(&bytes)).transpose()
    }

    /// What it knows of segments.
    pub(super) fn segments(&self) -> Result<StoredSegments> {
        let mut stored = StoredSegments {
            segments: HashMap::new(),
            next: 0,
            largest_time: i64::MIN,
        };
        let damaged = || Error::data_loss("what the keys know of a segment is damaged");
        for item in self.segments.iter() {
            let (name, value) = item.into_inner().map_err(failed)?;
            let (number, rest) = value.split_first_chunk().ok_or_else(damaged)?;
            let number = u32::from_le_bytes(*number);
            if *name == *OWN.as_bytes() {
                stored.next = number;
                stored.largest_time = i64::from_le_bytes(rest.try_into().map_err(|_| damaged())?);
            } else {
                let name = String::from_utf8_lossy(&name).into_owned();
                let whole = rest == [1];
                stored
                    .segments
                    .insert(SegmentName::new(&name), (number, whole));
            }
        }
        Ok(stored)
    }

    /// Notes that rows of a segment of this number are about to come: no other segment gets the number from now on.
    pub(super) fn begin(&self, docs: &SegmentDocs, next: u32, largest_time: i64) -> Result<()> {
        self.note(docs, false, next, largest_time)
    }

    fn note(&self, docs: &SegmentDocs, whole: bool, next: u32, largest_time: i64) -> Result<()> {
        let mut batch = self.database.batch();
        let mut value = docs.number.to_le_bytes().to_vec();
        value.push(u8::from(whole));
        batch.insert(&self.segments, docs.name.as_str(), value);
        let mut value = next.to_le_bytes().to_vec();
        value.extend(largest_time.to_le_bytes());
        batch.insert(&self.segments, OWN, value);
        batch.commit().map_err(failed)
    }

    /// Notes that all rows of a segment are in.
    pub(super) fn finish(&self, docs: &SegmentDocs, next: u32, largest_time: i64) -> Result<()> {
        self.note(docs, true, next, largest_time)
    }

    /// Has `docs` know which of their segment's documents do not count.
    pub(super) fn restore(&self, docs: &SegmentDocs) -> Result<()> {
        for item in self.superseded.prefix(docs.number.to_be_bytes()) {
            let (at, bits) = item.into_inner().map_err(failed)?;
            let chunk = at
                .get(4..)
                .and_then(|chunk| chunk.try_into().ok())
                .map(u32::from_be_bytes);
            let (Some(chunk), Some(words)) = (chunk, words_of(&bits)) else {
                return Err(Error::data_loss(
                    "superseded documents in the keys are damaged",
                ));
            };
            docs.restore(chunk, &words);
        }
        Ok(())
    }

    /// Takes in what rows of a segment change, all of it or nothing.
    pub(super) fn add(&self, changes: Changes) -> Result<()> {
        let Changes {
            entries,
            mut superseded,
        } = changes;
        let mut batch = self.database.batch();
        for (key, entry) in entries {
            batch.insert(&self.keys, key, entry.to_bytes());
        }
        superseded.sort_unstable_by_key(|place| (place.segment, place.doc));
        let chunk_of = |doc: DocId| doc / strandline_index::CHUNK_DOCS;
        for places in
            superseded.chunk_by(|a, b| (a.segment, chunk_of(a.doc)) == (b.segment, chunk_of(b.doc)))
        {
            let Some(first) = places.first() else {
                continue;
            };
            let chunk = chunk_of(first.doc);
            let mut at = first.segment.to_be_bytes().to_vec();
            at.extend(chunk.to_be_bytes());
            let known = self.superseded.get(&at).map_err(failed)?;
            let mut words = known
                .and_then(|bits| words_of(&bits))
                .unwrap_or([0; CHUNK_WORDS]);
            for place in places {
                let doc = place.doc % strandline_index::CHUNK_DOCS;
                if let Some(word) = words.get_mut((doc / u64::BITS) as usize) {
                    *word |= 1 << (doc % u64::BITS);
                }
            }
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            batch.insert(&self.superseded, at, bytes);
        }
        batch.commit().map_err(failed)
    }

    /// Removes entries for which `is_old` is true.
    pub(super) fn remove_if(&self, is_old: impl Fn(&Entry) -> bool) -> Result<()> {
        let mut batch = self.database.batch();
        for item in self.keys.iter() {
            let (key, bytes) = item.into_inner().map_err(failed)?;
            if is_old(&Entry::from_bytes(&bytes)?) {
                batch.remove(&self.keys, key);
            }
            if batch.len() >= REMOVED_TOGETHER {
                let full = std::mem::replace(&mut batch, self.database.batch());
                full.commit().map_err(failed)?;
            }
        }
        batch.commit().map_err(failed)
    }

    /// Forgets a segment that is gone. Entries that name it are passed over.
    pub(super) fn forget(&self, name: &SegmentName, number: u32) -> Result<()> {
        let mut batch = self.database.batch();
        for item in self.superseded.prefix(number.to_be_bytes()) {
            batch.remove(&self.superseded, item.key().map_err(failed)?);
        }
        batch.remove(&self.segments, name.as_str());
        batch.commit().map_err(failed)
    }
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
    Error::unavailable(format!("the store of keys: {e}"))
}
