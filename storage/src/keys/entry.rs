//! What is known of a key: its row of the highest rank, and where that is.

use bytes::Buf;
use hashbrown::HashSet;
use smallvec::SmallVec;
use std::hash::{BuildHasherDefault, Hasher};
use strandline_index::DocId;
use strandline_proto::{Error, Result};

/// A key: 128 bits that are other ones for other values of the key's columns, but for one pair in 2^128.
pub(super) type Key = [u8; 16];

/// A map by keys, whose bits are hashed already.
pub(super) type KeyMap<T> = hashbrown::HashMap<Key, T, BuildHasherDefault<FirstBits>>;

/// The first 64 bits of a key as its hash.
#[derive(Default)]
pub(super) struct FirstBits(u64);

impl Hasher for FirstBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}
}

/// A comparison value in bytes that compare as the values do.
pub(super) type Comparison = SmallVec<[u8; 16]>;

/// The place in a segment of a row that was deleted from it, and whose key it remembers. Nothing is there.
pub(super) const NO_DOC: DocId = DocId::MAX;

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The number of its segment in the table's keys.
    pub(super) segment: u32,
    /// Its place in the segment, or [`NO_DOC`].
    pub(super) doc: DocId,
}

impl Place {
    /// Whether there is a row.
    pub(super) fn has_row(&self) -> bool {
        self.doc != NO_DOC
    }
}

/// The row of a key that has the highest rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its comparison value; empty where the table has no comparison column.
    pub(super) comparison: Comparison,
    /// The stream and partition that it came from.
    pub(super) partition: u32,
    /// Its offset there.
    pub(super) offset: u64,
    /// Where it is.
    pub(super) place: Place,
    /// Whether it says that the key is deleted.
    pub(super) deleted: bool,
    /// Its comparison value as a number, where the table forgets keys; else 0.
    pub(super) time: i64,
}

impl Entry {
    /// Whether a row of this entry's key is put in the shade by this one: a row that is equal in all is the same row.
    pub(super) fn outranks(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    fn rank(&self) -> (&[u8], u32, u64, DocId) {
        // Rows of one message have one offset and follow each other in one segment.
        (
            &self.comparison,
            self.partition,
            self.offset,
            self.place.doc,
        )
    }

    /// ```text
    /// flags u8 (1: deleted) | segment u32 | doc u32 | partition u32 | offset u64 | time i64 | comparison
    /// ```
    /// All numbers are little-endian.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.comparison.len());
        bytes.push(u8::from(self.deleted));
        bytes.extend(self.place.segment.to_le_bytes());
        bytes.extend(self.place.doc.to_le_bytes());
        bytes.extend(self.partition.to_le_bytes());
        bytes.extend(self.offset.to_le_bytes());
        bytes.extend(self.time.to_le_bytes());
        bytes.extend(&self.comparison);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let short = |_| Error::data_loss("an entry of the keys is too short");
        let mut rest = bytes;
        let flags = rest.try_get_u8().map_err(short)?;
        let place = Place {
            segment: rest.try_get_u32_le().map_err(short)?,
            doc: rest.try_get_u32_le().map_err(short)?,
        };
        Ok(Self {
            partition: rest.try_get_u32_le().map_err(short)?,
            offset: rest.try_get_u64_le().map_err(short)?,
            place,
            deleted: flags == 1,
            time: rest.try_get_i64_le().map_err(short)?,
            comparison: SmallVec::from_slice(rest),
        })
    }
}

/// What is known of a key on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Of the rows of the stream, the one of the highest rank.
    pub(super) stream: Option<Entry>,
    /// Of each pushed segment that has rows of the key, the one of the highest rank.
    pub(super) pushed: Vec<Entry>,
}

impl Known {
    /// The row that counts among those of the stream and of the segments of `numbers`, unless it says that the key is deleted.
    pub(super) fn counted(&self, numbers: &HashSet<u32>) -> Option<&Entry> {
        self.highest(numbers).filter(|entry| !entry.deleted)
    }

    /// The row of the highest rank.
    pub(super) fn highest(&self, numbers: &HashSet<u32>) -> Option<&Entry> {
        higher(self.stream.as_ref(), self.highest_pushed(numbers))
    }

    /// The pushed row of the highest rank.
    pub(super) fn highest_pushed(&self, numbers: &HashSet<u32>) -> Option<&Entry> {
        let pushed = self.pushed.iter();
        let pushed = pushed.filter(|entry| numbers.contains(&entry.place.segment));
        pushed.reduce(|a, b| if b.outranks(a) { b } else { a })
    }

    /// Without pushed rows the entry of the stream's. Else
    ///
    /// ```text
    /// 2 u8 | of each entry: bytes u32 (0: there is none of the stream) | entry
    /// ```
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        if let (Some(stream), true) = (&self.stream, self.pushed.is_empty()) {
            return stream.to_bytes();
        }
        let mut bytes = vec![OF_SEVERAL];
        let stream = self
            .stream
            .as_ref()
            .map(Entry::to_bytes)
            .unwrap_or_default();
        let pushed = self.pushed.iter().map(Entry::to_bytes);
        for entry in std::iter::once(stream).chain(pushed) {
            bytes.extend((entry.len() as u32).to_le_bytes());
            bytes.extend(entry);
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let Some((&OF_SEVERAL, mut rest)) = bytes.split_first() else {
            return Ok(Self {
                stream: Some(Entry::from_bytes(bytes)?),
                pushed: Vec::new(),
            });
        };
        let short = || Error::data_loss("entries of the keys are too short");
        let mut known = Self::default();
        let mut is_first = true;
        while !rest.is_empty() {
            let length = rest.try_get_u32_le().map_err(|_| short())?;
            let entry = rest.split_off(..length as usize).ok_or_else(short)?;
            match is_first {
                true if entry.is_empty() => {}
                true => known.stream = Some(Entry::from_bytes(entry)?),
                false => known.pushed.push(Entry::from_bytes(entry)?),
            }
            is_first = false;
        }
        Ok(known)
    }
}

/// Of a key's highest row of the stream and its highest pushed one, the one that counts.
pub(super) fn higher<'a>(
    stream: Option<&'a Entry>,
    pushed: Option<&'a Entry>,
) -> Option<&'a Entry> {
    match (stream, pushed) {
        (Some(stream), Some(pushed)) if stream.outranks(pushed) => Some(stream),
        (stream, pushed) => pushed.or(stream),
    }
}

/// The first byte of what is known of a key that has pushed rows; that of an entry is smaller.
const OF_SEVERAL: u8 = 2;
/// Bytes of an entry before its comparison value.
const FIXED_BYTES: usize = 29;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_key_comes_back_from_its_bytes() {
        let entry = |segment, comparison: &[u8]| Entry {
            comparison: SmallVec::from_slice(comparison),
            partition: 1,
            offset: 2,
            place: Place { segment, doc: 3 },
            deleted: segment == 5,
            time: 0,
        };
        for stream in [None, Some(entry(1, b""))] {
            for pushed in [vec![], vec![entry(2, b"b"), entry(5, b"c"), entry(4, b"")]] {
                let known = Known {
                    stream: stream.clone(),
                    pushed,
                };
                let bytes = known.to_bytes();
                assert_eq!(Known::from_bytes(&bytes).unwrap(), known);
                let first = known.pushed.first();
                let of =
                    |numbers: &[u32]| known.highest(&numbers.iter().copied().collect()).cloned();
                assert_eq!(of(&[2, 4]), first.cloned().or(stream.clone()));
                assert_eq!(of(&[]), stream);
                if first.is_some() {
                    assert!(Known::from_bytes(bytes.get(..bytes.len() - 1).unwrap()).is_err());
                    assert!(known.counted(&[2, 5].into_iter().collect()).is_none());
                }
            }
        }
    }

    #[test]
    fn an_entry_comes_back_from_its_bytes() {
        let entry = Entry {
            comparison: SmallVec::from_slice(b"0123456789abcdefghij"),
            partition: 7,
            offset: u64::MAX,
            place: Place {
                segment: 3,
                doc: 65_537,
            },
            deleted: true,
            time: -1,
        };
        let bytes = entry.to_bytes();
        assert_eq!(Entry::from_bytes(&bytes).unwrap(), entry);
        for short in 0..FIXED_BYTES {
            assert!(Entry::from_bytes(bytes.get(..short).unwrap()).is_err());
        }
    }
}
