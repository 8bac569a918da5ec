//! Keys whose rows a statement deleted: the segment that takes the place of theirs remembers them, so that rows that rank
//! below do not count, whenever they come. Of a key there is a hash, and no value but the one by which its rows rank.
//!
//! ```text
//! of each, ascending by key: key, 16 bytes | offset u64 | time i64 | length u32 | comparison value
//! ```
//! All numbers are little-endian.

use super::file::damage;
use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use strandline_proto::Result;

/// Bytes of an entry before its comparison value.
const FIXED_BYTES: usize = 36;

/// A key whose row was deleted, and what ranks that row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeletedKey {
    /// The key, as the table's keys have it.
    pub key: [u8; 16],
    /// The row's comparison value, in bytes that compare as values do; empty where the table has no comparison column.
    pub comparison: SmallVec<[u8; 16]>,
    /// The row's offset in its stream partition.
    pub offset: u64,
    /// Its comparison value as a number, where the table forgets keys; else 0.
    pub time: i64,
}

/// The deleted keys of a segment, ascending, as they are stored.
#[derive(Clone, Debug, Default)]
pub struct DeletedKeys(Bytes);

impl DeletedKeys {
    /// Some deleted keys, in any order; of several rows of a key the one counts that ranks highest.
    pub(super) fn of(mut keys: Vec<DeletedKey>) -> Self {
        keys.sort_unstable();
        let mut bytes = Vec::with_capacity(keys.len() * (FIXED_BYTES + 9));
        for of_key in keys.chunk_by(|a, b| a.key == b.key) {
            if let Some(highest) = of_key.last() {
                bytes.extend(highest.key);
                bytes.extend(highest.offset.to_le_bytes());
                bytes.extend(highest.time.to_le_bytes());
                bytes.extend((highest.comparison.len() as u32).to_le_bytes());
                bytes.extend(&highest.comparison);
            }
        }
        Self(bytes.into())
    }

    /// What was stored.
    ///
    /// # Errors
    /// `DataLoss` when it can't be that.
    pub(super) fn open(bytes: Bytes) -> Result<Self> {
        let mut rest = &bytes[..];
        let mut last: Option<[u8; 16]> = None;
        while !rest.is_empty() {
            let next = first(&mut rest)
                .filter(|next| last.is_none_or(|last| last < next.key))
                .ok_or_else(|| damage("deleted keys", "they are not what was written"))?;
            last = Some(next.key);
        }
        Ok(Self(bytes))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is to be stored.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// So many at a time.
    pub fn pieces(&self, of: usize) -> impl Iterator<Item = Vec<DeletedKey>> {
        let mut keys = self.iter();
        std::iter::from_fn(move || {
            let piece: Vec<_> = keys.by_ref().take(of).collect();
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = DeletedKey> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || first(&mut rest))
    }
}

/// The first entry, which is taken off.
fn first(rest: &mut &[u8]) -> Option<DeletedKey> {
    let mut key = [0; 16];
    rest.try_copy_to_slice(&mut key).ok()?;
    let offset = rest.try_get_u64_le().ok()?;
    let time = rest.try_get_i64_le().ok()?;
    let length = rest.try_get_u32_le().ok()?;
    let comparison = rest.split_off(..length as usize)?;
    Some(DeletedKey {
        key,
        comparison: SmallVec::from_slice(comparison),
        offset,
        time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first: u8, comparison: &[u8], offset: u64) -> DeletedKey {
        DeletedKey {
            key: [first; 16],
            comparison: SmallVec::from_slice(comparison),
            offset,
            time: -7,
        }
    }

    #[test]
    fn deleted_keys_come_back_in_order_each_with_its_highest_row() {
        let keys = vec![
            key(9, b"b", 4),
            key(2, b"", 1),
            key(9, b"c", 2),
            key(9, b"c", 1),
            key(
                5,
                b"a comparison value of more than sixteen bytes",
                u64::MAX,
            ),
        ];
        let bytes = DeletedKeys::of(keys.clone()).bytes().to_vec();
        let back = DeletedKeys::open(bytes.clone().into()).unwrap();
        let back: Vec<_> = back.iter().collect();
        assert_eq!(back, [keys[1].clone(), keys[4].clone(), keys[2].clone()]);
        assert!(
            DeletedKeys::open(DeletedKeys::of(Vec::new()).0)
                .unwrap()
                .is_empty()
        );
        let ends = [37 - 1, 37 - 1 + FIXED_BYTES + 45];
        for short in (1..bytes.len()).filter(|short| !ends.contains(short)) {
            assert!(
                DeletedKeys::open(bytes[..short].to_vec().into()).is_err(),
                "{short}"
            );
        }
        // Not in order.
        let [low, high] = [1, 2].map(|first| DeletedKeys::of(vec![key(first, b"", 1)]));
        assert!(DeletedKeys::open([high.bytes(), low.bytes()].concat().into()).is_err());
        assert!(DeletedKeys::open([low.bytes(), low.bytes()].concat().into()).is_err());
    }
}
