//! The dictionary of a consuming column: ids in the order in which values first came.
//!
//! Values stand in an append-only log; an open-addressing table of atomic slots finds them. A slot is the high half
//! of the value's hash, which says where it stands, and its id plus one; 0 is free. The writer stores a slot (release) after
//! the value that it names, and replaces a table that is half full by one twice its size, so readers never wait for it.
//!
//! Values are interned some at a time: their slots are loaded first, all at once, so that the memory's latency is paid once.

use super::append_vec::AppendVec;
use super::value_log::{Logged, ValueLog, ValueLogWriter};
use crate::fixed::{Fixed, by_type};
use crate::hash::{hash_bytes, hash_scalar};
use crate::reader::{
    DictId, Dictionary, DocSelection, IndexError, PhysicalType, Scalar, ValueBuffer,
};
use crate::wire::corrupt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

const SLOTS_FIRST: usize = 64;
/// No id: a dictionary ends before it.
const UNKNOWN: DictId = DictId::MAX;
const HIGH: u64 = 0xffff_ffff_0000_0000;
/// Values whose slots are loaded together.
const TOGETHER: usize = 16;

struct Table {
    slots: Box<[AtomicU64]>,
}

impl Table {
    fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// The slots to look at for a hash, in order.
    fn probe(&self, hash: u64) -> impl Iterator<Item = &AtomicU64> {
        let mask = self.slots.len() - 1;
        let first = (hash >> 32) as usize;
        (0..self.slots.len())
            .filter_map(move |step| self.slots.get(first.wrapping_add(step) & mask))
    }

    /// Brings the first slots of hashes near.
    #[inline]
    fn touch(&self, hashes: &[u64]) {
        let mask = self.slots.len() - 1;
        let slot = |hash: &u64| self.slots.get((*hash >> 32) as usize & mask);
        let held = hashes.iter().filter_map(slot);
        std::hint::black_box(held.fold(0, |all, slot| all | slot.load(Ordering::Relaxed)));
    }

    /// The same in twice as many slots.
    fn grown(&self) -> Arc<Self> {
        let table = Self::new(self.slots.len() * 2);
        for slot in &self.slots {
            match slot.load(Ordering::Relaxed) {
                0 => {}
                held => table.insert(held & HIGH, (held as u32).wrapping_sub(1)),
            }
        }
        table
    }

    #[inline]
    fn find(&self, hash: u64, is_value: impl Fn(DictId) -> bool) -> Option<DictId> {
        for slot in self.probe(hash) {
            let held = slot.load(Ordering::Acquire);
            if held == 0 {
                return None;
            }
            let id = (held as u32).wrapping_sub(1);
            if held & HIGH == hash & HIGH && is_value(id) {
                return Some(id);
            }
        }
        None
    }

    fn insert(&self, hash: u64, id: DictId) {
        if let Some(slot) = self
            .probe(hash)
            .find(|slot| slot.load(Ordering::Relaxed) == 0)
        {
            slot.store(hash & HIGH | u64::from(id + 1), Ordering::Release);
        }
    }
}

/// The readers' side.
pub(crate) struct MutableDictionary {
    values: ValueLog,
    /// Locked only for as long as it takes to copy or replace the pointer.
    table: RwLock<Arc<Table>>,
}

/// The writer's side.
pub(crate) struct DictionaryWriter {
    values: ValueLogWriter,
    table: Arc<Table>,
    shared: Arc<MutableDictionary>,
    len: u32,
}

/// A dictionary as it was at some length.
pub(crate) struct DictionaryView {
    dictionary: Arc<MutableDictionary>,
    len: u32,
}

impl MutableDictionary {
    pub(crate) fn new(physical: PhysicalType) -> (DictionaryWriter, Arc<Self>) {
        let (writer, values) = ValueLog::new(physical);
        let table = Table::new(SLOTS_FIRST);
        let shared = Arc::new(Self {
            values,
            table: RwLock::new(table.clone()),
        });
        (
            DictionaryWriter {
                values: writer,
                table,
                shared: shared.clone(),
                len: 0,
            },
            shared,
        )
    }

    /// The first `len` values.
    pub(crate) fn view(self: &Arc<Self>, len: u32) -> DictionaryView {
        DictionaryView {
            dictionary: self.clone(),
            len,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let slots = self
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .slots
            .len();
        self.values.bytes() + slots * size_of::<AtomicU64>()
    }
}

impl DictionaryWriter {
    /// How many values there are.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Appends the id of each of `values`, which are of the dictionary's type; new values are added.
    pub(crate) fn intern(
        &mut self,
        values: &ValueBuffer,
        ids: &mut Vec<DictId>,
    ) -> Result<(), IndexError> {
        ids.reserve(values.len());
        by_type!(values.physical(), T => {
            self.intern_fixed::<T>(T::slice(values).unwrap_or_default(), ids)
        }, bytes => {
            let mut hashes = [0; TOGETHER];
            for start in (0..values.len()).step_by(TOGETHER) {
                let texts = start..values.len().min(start + TOGETHER);
                for (hash, i) in hashes.iter_mut().zip(texts.clone()) {
                    *hash = hash_bytes(values.bytes(i).unwrap_or_default());
                }
                self.table.touch(&hashes);
                for (hash, i) in hashes.iter().zip(texts) {
                    ids.push(self.intern_hashed(values.bytes(i).unwrap_or_default(), *hash)?);
                }
            }
            Ok(())
        })
    }

    /// Appends the id of each of the texts that `keys` name, new ones being added. `known` holds the ids of `texts` that
    /// were met before.
    pub(crate) fn intern_keyed(
        &mut self,
        texts: &ValueBuffer,
        keys: &[u32],
        known: &mut Vec<DictId>,
        ids: &mut Vec<DictId>,
    ) -> Result<(), IndexError> {
        known.resize(texts.len(), UNKNOWN);
        ids.reserve(keys.len());
        for &key in keys {
            let Some(id) = known.get_mut(key as usize) else {
                return Err(corrupt(format!("key {key} of {} texts", texts.len())));
            };
            if *id == UNKNOWN {
                *id = self.intern_text(texts.bytes(key as usize).unwrap_or_default())?;
            }
            ids.push(*id);
        }
        Ok(())
    }

    /// The id of a text, which is added when it is new.
    pub(crate) fn intern_text(&mut self, text: &[u8]) -> Result<DictId, IndexError> {
        self.intern_hashed(text, hash_bytes(text))
    }

    fn intern_hashed(&mut self, text: &[u8], hash: u64) -> Result<DictId, IndexError> {
        let shared = &self.shared;
        let is_text = |id: DictId| shared.values.text(id as usize) == text;
        if let Some(id) = self.table.find(hash, is_text) {
            return Ok(id);
        }
        let id = self.next_id()?;
        self.values.push_text(text);
        self.publish(hash, id);
        Ok(id)
    }

    fn intern_fixed<T: Logged>(
        &mut self,
        values: &[T],
        ids: &mut Vec<DictId>,
    ) -> Result<(), IndexError> {
        let shared = self.shared.clone();
        let Some(log) = T::vec(&shared.values) else {
            return Err(corrupt(format!(
                "values of type {:?} for another dictionary",
                T::PHYSICAL
            )));
        };
        let mut previous: Option<(T::Key, DictId)> = None;
        let mut hashes = [0; TOGETHER];
        for values in values.chunks(TOGETHER) {
            for (hash, value) in hashes.iter_mut().zip(values) {
                *hash = value.hash();
            }
            self.table.touch(&hashes);
            for (&value, &hash) in values.iter().zip(&hashes) {
                let key = value.key();
                if let Some((last, id)) = previous
                    && last == key
                {
                    ids.push(id);
                    continue;
                }
                let is_value =
                    |id: DictId| AppendVec::get(log, id as usize).is_some_and(|v| v.key() == key);
                let id = match self.table.find(hash, is_value) {
                    Some(id) => id,
                    None => {
                        let id = self.next_id()?;
                        if let Some(writer) = T::writer(&mut self.values) {
                            writer.extend(&[value]);
                        }
                        self.publish(hash, id);
                        id
                    }
                };
                previous = Some((key, id));
                ids.push(id);
            }
        }
        Ok(())
    }

    fn next_id(&self) -> Result<DictId, IndexError> {
        if self.len >= u32::MAX - 1 {
            return Err(corrupt(
                "a dictionary of more than 4 billion values; seal segments earlier",
            ));
        }
        Ok(self.len)
    }

    /// Makes the value that was appended as `id` findable.
    fn publish(&mut self, hash: u64, id: DictId) {
        self.len = id + 1;
        if (self.len as usize) * 2 <= self.table.slots.len() {
            self.table.insert(hash, id);
            return;
        }
        let table = self.table.grown();
        table.insert(hash, id);
        self.table = table.clone();
        *self
            .shared
            .table
            .write()
            .unwrap_or_else(PoisonError::into_inner) = table;
    }
}

impl Dictionary for DictionaryView {
    fn len(&self) -> u32 {
        self.len
    }

    fn physical(&self) -> PhysicalType {
        self.dictionary.values.physical()
    }

    fn is_sorted(&self) -> bool {
        false
    }

    fn id_of(&self, value: &Scalar<'_>) -> Option<DictId> {
        if value.physical() != self.physical() {
            return None;
        }
        let table = self
            .dictionary
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let is_value = |id: DictId| {
            self.dictionary
                .values
                .value(id as usize)
                .total_cmp(value)
                .is_eq()
        };
        table
            .find(hash_scalar(value), is_value)
            .filter(|&id| id < self.len)
    }

    fn value(&self, id: DictId) -> Scalar<'_> {
        self.dictionary.values.value(id as usize)
    }

    fn gather(&self, ids: &[DictId], out: &mut ValueBuffer) {
        self.dictionary.values.append(&DocSelection::Docs(ids), out);
    }

    fn range(
        &self,
        _: Option<(&Scalar<'_>, bool)>,
        _: Option<(&Scalar<'_>, bool)>,
    ) -> Range<DictId> {
        0..0
    }
}
