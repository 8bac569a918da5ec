//! The tables this server holds and the snapshot it last published.

use super::tail::Tail;
use crate::leaf::SegmentHost;
use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};
use strandline_broker::transport::{CatalogSource, PinnedKeys, Watermark, Watermarks};
use strandline_proto::catalog::{CatalogSnapshot, PushedNames, TableSnapshot};
use strandline_proto::ids::{CatalogVersion, SegmentName, StreamPartition};
use strandline_proto::leaf::{SegmentTask, TailTask};
use strandline_proto::{Error, ErrorKind, Result};
use strandline_storage::keys::TableKeys;
use strandline_storage::segment::SegmentReader;
use strandline_storage::segment::counted::counted;
use strandline_storage::segment::immutable::ImmutableSegment;
use tokio::sync::OwnedMutexGuard;

/// A segment that is held, or why it can't be.
#[derive(Clone)]
pub enum Held {
    /// Open and checked.
    Open(Arc<ImmutableSegment>),
    /// Its file failed a check: queries that need it fail with this and nothing is answered from it.
    Quarantined(Error),
}

/// The rows of one table on this server.
#[derive(Default)]
pub struct HostedTable {
    /// By name, and of each the contents by checksum: while one takes another's place there are two.
    segments: RwLock<HashMap<SegmentName, Vec<(u64, Held)>>>,
    /// Names that pushes are about to store.
    claims: Mutex<HashSet<SegmentName>>,
    tails: RwLock<BTreeMap<StreamPartition, Arc<Tail>>>,
    /// Where rows have keys.
    keys: RwLock<Option<Arc<TableKeys>>>,
    /// Held while segments of rows that have keys change.
    keys_change: Arc<tokio::sync::Mutex<()>>,
}

/// A segment name that one push alone may store; given back when dropped.
pub struct Claim {
    table: Arc<HostedTable>,
    name: SegmentName,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.table.claims.lock().remove(&self.name);
    }
}

/// Something that a snapshot no longer names.
enum Retired {
    Segment {
        table: String,
        name: SegmentName,
        checksum: u64,
        file: Option<Box<dyn FnOnce() + Send>>,
    },
    Consuming {
        tail: Arc<Tail>,
        start_offset: u64,
    },
}

/// Memory of consuming segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumingBytes {
    /// Of all that are in memory, and of the keys of their rows, in bytes.
    pub all: usize,
    /// Of those that take rows, in bytes.
    pub active: usize,
    /// Partitions, each with one segment that takes rows.
    pub partitions: usize,
}

/// All tables of this server.
pub struct Registry {
    tables: RwLock<HashMap<String, Arc<HostedTable>>>,
    current: ArcSwap<CatalogSnapshot>,
    published: Mutex<Vec<Weak<CatalogSnapshot>>>,
    retired: Mutex<Vec<(CatalogVersion, Retired)>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("version", &self.current.load().version)
            .finish_non_exhaustive()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            tables: RwLock::default(),
            current: ArcSwap::from_pointee(CatalogSnapshot::default()),
            published: Mutex::default(),
            retired: Mutex::default(),
        }
    }
}

impl Registry {
    /// The table's rows; made empty when it is new.
    pub fn table(&self, name: &str) -> Arc<HostedTable> {
        if let Some(table) = self.tables.read().get(name) {
            return Arc::clone(table);
        }
        Arc::clone(self.tables.write().entry(name.to_owned()).or_default())
    }

    /// Memory of the consuming segments of all tables.
    pub fn consuming_bytes(&self) -> ConsumingBytes {
        let tables = self.tables.read();
        let keys = tables.values().filter_map(|t| t.keys());
        let none = ConsumingBytes {
            all: keys.map(|keys| keys.bytes()).sum(),
            ..ConsumingBytes::default()
        };
        tables
            .values()
            .flat_map(|t| t.tails())
            .fold(none, |sum, tail| ConsumingBytes {
                all: sum.all + tail.bytes(),
                active: sum.active + tail.active().bytes(),
                partitions: sum.partitions + 1,
            })
    }

    /// Makes `snapshot` the current one, unless a newer one already is.
    pub fn publish(&self, snapshot: CatalogSnapshot) {
        let snapshot = Arc::new(snapshot);
        let mut published = self.published.lock();
        if snapshot.version < self.current.load().version {
            return;
        }
        published.retain(|s| s.strong_count() > 0);
        published.push(Arc::downgrade(&snapshot));
        self.current.store(snapshot);
        drop(published);
        self.sweep();
    }

    /// Drops a segment once no query can name it; then runs `file`, which removes what is stored of it.
    pub fn retire_segment(
        &self,
        last_version: CatalogVersion,
        table: &str,
        (name, checksum): (SegmentName, u64),
        file: Option<Box<dyn FnOnce() + Send>>,
    ) {
        self.retired.lock().push((
            last_version,
            Retired::Segment {
                table: table.to_owned(),
                name,
                checksum,
                file,
            },
        ));
    }

    /// Drops a consuming segment once no query can name it.
    pub fn retire_consuming(
        &self,
        last_version: CatalogVersion,
        tail: &Arc<Tail>,
        start_offset: u64,
    ) {
        self.retired.lock().push((
            last_version,
            Retired::Consuming {
                tail: Arc::clone(tail),
                start_offset,
            },
        ));
    }

    /// Takes back that a segment is to be dropped, because it is to be named again.
    pub fn keep_segment(&self, table: &str, name: &SegmentName, checksum: u64) {
        self.retired.lock().retain(|(_, retired)| match retired {
            Retired::Segment {
                table: t,
                name: n,
                checksum: c,
                ..
            } => (t.as_str(), n, *c) != (table, name, checksum),
            Retired::Consuming { .. } => true,
        });
    }

    fn is_named(&self, table: &str, name: &SegmentName, checksum: u64) -> bool {
        let snapshot = self.current.load();
        let segments = snapshot.tables.get(table).map(|t| &t.segments);
        let mut segments = segments.into_iter().flatten();
        segments.any(|s| s.name == *name && s.checksum == checksum)
    }

    /// The version of the oldest snapshot that a query may look at.
    pub fn oldest_in_use(&self) -> Option<CatalogVersion> {
        let mut published = self.published.lock();
        published.retain(|s| s.strong_count() > 0);
        let in_use = published.iter().filter_map(Weak::upgrade);
        in_use.map(|s| s.version).min()
    }

    /// Drops what no live snapshot names. Called at each publication and now and then.
    pub fn sweep(&self) {
        let Some(oldest) = self.oldest_in_use() else {
            return;
        };
        let droppable = {
            let mut retired = self.retired.lock();
            let (droppable, kept) = retired
                .drain(..)
                .partition(|(last_version, _)| *last_version < oldest);
            *retired = kept;
            let droppable: Vec<(CatalogVersion, Retired)> = droppable;
            droppable
        };
        for (_, retired) in droppable {
            match retired {
                Retired::Segment {
                    table,
                    name,
                    checksum,
                    file,
                } => {
                    if self.is_named(&table, &name, checksum) {
                        continue;
                    }
                    self.table(&table).forget(&name, checksum);
                    if let Some(remove) = file {
                        remove();
                    }
                }
                Retired::Consuming { tail, start_offset } => tail.retire(start_offset),
            }
        }
    }
}

impl HostedTable {
    /// Holds a segment, so that a snapshot may name it.
    pub fn hold(&self, name: SegmentName, checksum: u64, held: Held) {
        let mut segments = self.segments.write();
        let contents = segments.entry(name).or_default();
        contents.retain(|(other, _)| *other != checksum);
        contents.push((checksum, held));
    }

    /// A held segment.
    ///
    /// # Errors
    /// `SegmentGone` when it is not held, or why its file can't be read.
    pub fn open(&self, name: &SegmentName, checksum: u64) -> Result<Arc<ImmutableSegment>> {
        let segments = self.segments.read();
        let mut contents = segments.get(name).into_iter().flatten();
        match contents.find(|(held, _)| *held == checksum) {
            Some((_, Held::Open(segment))) => Ok(Arc::clone(segment)),
            Some((_, Held::Quarantined(e))) => Err(e.clone()),
            None => Err(Error::segment_gone(format!(
                "segment {name} is not on this server"
            ))),
        }
    }

    /// The content of a segment that was held last, or why it can't be read.
    pub fn newest(&self, name: &SegmentName) -> Option<Result<Arc<ImmutableSegment>>> {
        let segments = self.segments.read();
        let (_, held) = segments.get(name)?.last()?;
        Some(match held {
            Held::Open(segment) => Ok(Arc::clone(segment)),
            Held::Quarantined(e) => Err(e.clone()),
        })
    }

    /// The keys of its rows, where they have any.
    pub fn keys(&self) -> Option<Arc<TableKeys>> {
        self.keys.read().clone()
    }

    /// How many rows of a segment others of their keys have superseded; none where rows have no keys, or the segment is not known.
    pub fn superseded(&self, segment: &SegmentName) -> Option<u64> {
        Some(self.keys()?.docs(segment)?.superseded())
    }

    /// Waits until no other change of its segments is under way, where its rows have keys.
    pub async fn keys_change(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.keys_change).lock_owned().await
    }

    /// Gives it the keys of its rows.
    pub fn set_keys(&self, keys: Option<Arc<TableKeys>>) {
        *self.keys.write() = keys;
    }

    /// `reader`, of which those documents count that do at a version of the keys.
    fn counted(
        &self,
        reader: Arc<dyn SegmentReader>,
        keys_version: Option<u64>,
    ) -> Result<Arc<dyn SegmentReader>> {
        let Some(version) = keys_version else {
            return Ok(reader);
        };
        let keys = self.keys.read();
        let keys = keys
            .as_ref()
            .ok_or_else(|| Error::segment_gone("the table's keys are gone"))?;
        let valid = keys.valid_docs(&SegmentName::new(reader.name()), version)?;
        Ok(counted(reader, valid))
    }

    /// Reserves a name that no other push has, for a content that is not held, so that a push which fails can
    /// remove what it stored without touching a segment that was there before.
    pub fn claim(self: &Arc<Self>, name: &SegmentName, checksum: u64) -> Option<Claim> {
        let mut claims = self.claims.lock();
        let is_held = |contents: &Vec<(u64, Held)>| contents.iter().any(|(of, _)| *of == checksum);
        if self.segments.read().get(name).is_some_and(is_held) || !claims.insert(name.clone()) {
            return None;
        }
        Some(Claim {
            table: Arc::clone(self),
            name: name.clone(),
        })
    }

    /// Forgets a segment that no snapshot names.
    pub fn forget(&self, name: &SegmentName, checksum: u64) {
        let mut segments = self.segments.write();
        if let Some(contents) = segments.get_mut(name) {
            contents.retain(|(held, _)| *held != checksum);
            if contents.is_empty() {
                segments.remove(name);
            }
        }
    }

    /// Adds a partition's tail; one that is there already stays.
    pub fn add_tail(&self, tail: Arc<Tail>) -> Arc<Tail> {
        Arc::clone(
            self.tails
                .write()
                .entry(tail.partition().clone())
                .or_insert(tail),
        )
    }

    /// Removes all tails, after their consumers have stopped.
    pub fn clear_tails(&self) {
        self.tails.write().clear();
    }

    /// The tails, by partition.
    pub fn tails(&self) -> Vec<Arc<Tail>> {
        self.tails.read().values().cloned().collect()
    }

    /// Segments whose files failed a check, with the errors.
    pub fn quarantined(&self) -> Vec<(SegmentName, Error)> {
        let segments = self.segments.read();
        segments
            .iter()
            .flat_map(|(name, contents)| contents.iter().map(move |(_, held)| (name, held)))
            .filter_map(|(name, held)| match held {
                Held::Quarantined(e) => Some((name.clone(), e.clone())),
                Held::Open(_) => None,
            })
            .collect()
    }
}

impl CatalogSource for Registry {
    fn snapshot(&self) -> Arc<CatalogSnapshot> {
        self.current.load_full()
    }
}

impl SegmentHost for Registry {
    fn segment(
        &self,
        table: &str,
        task: &SegmentTask,
        keys_version: Option<u64>,
    ) -> Result<Arc<dyn SegmentReader>> {
        let hosted = self.table(table);
        match hosted.open(&task.name, task.checksum) {
            Ok(segment) => hosted.counted(segment, keys_version),
            Err(e) if e.kind() == ErrorKind::SegmentGone => Err(Error::segment_gone(format!(
                "segment {} of table {table} is not on this server",
                task.name
            ))),
            Err(e) => Err(e),
        }
    }

    fn tail(
        &self,
        table: &str,
        task: &TailTask,
        keys_version: Option<u64>,
    ) -> Result<Vec<Arc<dyn SegmentReader>>> {
        let table = self.table(table);
        let tails = table.tails.read();
        match tails.get(&task.partition) {
            Some(tail) => {
                let views = tail.views(task)?.into_iter();
                let counted = views.map(|view| table.counted(view, keys_version));
                counted.collect()
            }
            None => Err(Error::segment_gone(format!(
                "partition {} is not consumed on this server",
                task.partition
            ))),
        }
    }

    fn watermarks(&self, snapshot: &TableSnapshot) -> Result<Watermarks> {
        let table = self.table(&snapshot.name);
        let pin = match (table.keys(), snapshot.pushed) {
            (Some(keys), Some(pushed)) => keys.pin_of(pushed)?,
            (Some(keys), None) => keys.pin(),
            // All rows would count.
            (None, Some(pushed)) if pushed != PushedNames::default() => {
                return Err(Error::segment_gone("the table's keys are not open yet"));
            }
            (None, _) => None,
        };
        if let Some(pin) = pin {
            let partitions = pin.watermarks.iter().map(|(partition, to)| Watermark {
                partition: partition.clone(),
                to_offset: *to,
            });
            return Ok(Watermarks {
                partitions: partitions.collect(),
                keys: Some(PinnedKeys {
                    version: pin.version,
                    held: pin,
                }),
            });
        }
        let tails = table.tails.read();
        let partitions = tails.values().map(|t| Watermark {
            partition: t.partition().clone(),
            to_offset: t.watermark(),
        });
        Ok(Watermarks {
            partitions: partitions.collect(),
            keys: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_claimed_once_and_never_for_a_content_that_is_held() {
        let table = Arc::new(HostedTable::default());
        let name = SegmentName::new("s");
        let claim = table.claim(&name, 1).unwrap();
        assert!(table.claim(&name, 1).is_none());
        assert!(table.claim(&name, 2).is_none());
        drop(claim);
        let damaged = || Held::Quarantined(Error::data_loss("x"));
        table.hold(name.clone(), 1, damaged());
        table.hold(name.clone(), 2, damaged());
        assert!(table.claim(&name, 1).is_none());
        table.forget(&name, 1);
        assert!(table.claim(&name, 2).is_none());
        drop(table.claim(&name, 1).unwrap());
        let kinds =
            [1, 2].map(|checksum| table.open(&name, checksum).map(|_| ()).unwrap_err().kind());
        assert_eq!(kinds, [ErrorKind::SegmentGone, ErrorKind::DataLoss]);
        table.forget(&name, 2);
        assert!(table.claim(&name, 2).is_some());
    }
}
