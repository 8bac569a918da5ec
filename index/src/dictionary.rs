//! The sorted dictionary of an immutable column.
//!
//! ```text
//! | type u8 | offset width u8 | 0 u16 | values u32 | data bytes u64 | offsets | data |
//! ```
//!
//! Values of fixed width stand in `data` one after the other, little-endian, without offsets (width 0). Bytes
//! have `values + 1` offsets of 4 or 8 bytes, from 0, into `data`. Values are strictly ascending: floats in
//! total order, bytes bytewise. Opening checks all of this.

use crate::fixed::{Fixed, by_type};
use crate::reader::{
    DictId, Dictionary, IndexError, PhysicalType, Scalar, ValueBuffer, bytes_offset,
};
use crate::wire::{corrupt, part, size_at, u8_at, u32_at};
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Range;

const HEADER: usize = 16;
/// Of an offset as it is written: a buffer's are below 2 GiB.
const OFFSET_BYTES: u8 = 4;

/// A dictionary over stored bytes.
#[derive(Clone, Debug)]
pub struct ImmutableDictionary {
    physical: PhysicalType,
    len: u32,
    /// Empty for values of fixed width.
    offsets: Bytes,
    wide_offsets: bool,
    data: Bytes,
}

/// Appends the stored form of `values`, which are strictly ascending.
pub(crate) fn write(values: &ValueBuffer, out: &mut Vec<u8>) {
    let physical = values.physical();
    let (width, data_len) = match values {
        ValueBuffer::Bytes { data, .. } => (OFFSET_BYTES, data.len()),
        _ => (
            0,
            by_type!(physical, T => values.len() * T::WIDTH, bytes => 0),
        ),
    };
    let offsets = usize::from(width) * (values.len() + 1);
    out.reserve(HEADER + offsets + data_len);
    out.extend_from_slice(&[physical.code(), width, 0, 0]);
    out.extend_from_slice(&(values.len() as u32).to_le_bytes());
    out.extend_from_slice(&(data_len as u64).to_le_bytes());
    by_type!(physical, T => {
        for &value in T::slice(values).unwrap_or_default() {
            value.put(out);
        }
    }, bytes => {
        if let ValueBuffer::Bytes { offsets: ends, data } = values {
            ends.iter().for_each(|end| out.extend_from_slice(&(*end as u32).to_le_bytes()));
            out.extend_from_slice(data);
        }
    });
}

impl ImmutableDictionary {
    /// A dictionary over its stored bytes.
    ///
    /// # Errors
    /// When the bytes can't be a dictionary: lengths, offsets or order are wrong.
    pub fn open(bytes: Bytes) -> Result<Self, IndexError> {
        let code = u8_at(&bytes, 0)?;
        let physical = PhysicalType::from_code(code)
            .ok_or_else(|| corrupt(format!("a dictionary of the unknown type {code}")))?;
        let offset_width = usize::from(u8_at(&bytes, 1)?);
        let len = u32_at(&bytes, 4)?;
        let data_len = size_at(&bytes, 8)?;
        let count = len as usize;
        let (offsets_len, expected) = by_type!(physical, T => (0, count.checked_mul(T::WIDTH)), bytes => {
            if offset_width != 4 && offset_width != 8 {
                return Err(corrupt(format!("a dictionary with offsets of {offset_width} bytes")));
            }
            ((count + 1).saturating_mul(offset_width), Some(data_len))
        });
        let offsets = part(&bytes, HEADER, offsets_len)?;
        let data = bytes.slice(HEADER + offsets_len..);
        if expected != Some(data_len) || data.len() != data_len {
            return Err(corrupt(format!(
                "a dictionary of {len} values has {} bytes of them",
                data.len()
            )));
        }
        let dictionary = Self {
            physical,
            len,
            offsets,
            wide_offsets: offset_width == 8,
            data,
        };
        dictionary.check_order()?;
        Ok(dictionary)
    }

    fn check_order(&self) -> Result<(), IndexError> {
        let damaged = |i: u32| corrupt(format!("a dictionary's value {i} is out of order"));
        by_type!(self.physical, T => {
            let table = T::table(&self.data);
            if let Some(i) = table.windows(2).position(|w| T::of_le(w[0]).key() >= T::of_le(w[1]).key()) {
                return Err(damaged(i as u32 + 1));
            }
        }, bytes => {
            if self.offset(0) != 0 || self.offset(self.len as usize) != self.data.len() {
                return Err(damaged(0));
            }
            let mut previous: Option<&[u8]> = None;
            for id in 0..self.len {
                let range = self.offset(id as usize)..self.offset(id as usize + 1);
                let value = self.data.get(range).ok_or_else(|| damaged(id))?;
                if previous.is_some_and(|p| p >= value) {
                    return Err(damaged(id));
                }
                previous = Some(value);
            }
        });
        Ok(())
    }

    #[inline]
    fn offset(&self, i: usize) -> usize {
        if self.wide_offsets {
            self.offsets
                .as_chunks::<8>()
                .0
                .get(i)
                .map_or(0, |o| u64::from_le_bytes(*o) as usize)
        } else {
            self.offsets
                .as_chunks::<4>()
                .0
                .get(i)
                .map_or(0, |o| u32::from_le_bytes(*o) as usize)
        }
    }

    #[inline]
    fn bytes_of(&self, id: DictId) -> &[u8] {
        self.data
            .get(self.offset(id as usize)..self.offset(id as usize + 1))
            .unwrap_or_default()
    }

    /// How many values are below `value`, or not above it when `or_equal`.
    fn rank(&self, value: &Scalar<'_>, or_equal: bool) -> Option<DictId> {
        by_type!(self.physical, T => {
            let key = T::from_scalar(value)?.key();
            let table = T::table(&self.data);
            let below = |v: &<T as Fixed>::Le| {
                let v = T::of_le(*v).key();
                v < key || (or_equal && v == key)
            };
            let likely = match (value, table.first(), table.last()) {
                (Scalar::I32(_) | Scalar::I64(_), Some(first), Some(last)) => {
                    let [first, last] = [*first, *last].map(|v| whole(&T::of_le(v).scalar()));
                    place(whole(value), first, last, table.len())
                }
                _ => table.len() / 2,
            };
            Some(partition_near(table, likely, below) as DictId)
        }, bytes => {
            let Scalar::Bytes(value) = value else { return None };
            let value: &[u8] = value;
            let (mut low, mut high) = (0, self.len);
            while low < high {
                let middle = low + (high - low) / 2;
                let v = self.bytes_of(middle);
                if v < value || (or_equal && v == value) { low = middle + 1 } else { high = middle }
            }
            Some(low)
        })
    }
}

/// A whole number.
fn whole(value: &Scalar<'_>) -> f64 {
    match value {
        Scalar::I32(value) => f64::from(*value),
        Scalar::I64(value) => *value as f64,
        _ => 0.0,
    }
}

/// Where `value` stands among `len` numbers from `first` to `last`, were they evenly apart.
fn place(value: f64, first: f64, last: f64, len: usize) -> usize {
    let share = (value - first) / (last - first);
    // Not a number where there is one value only.
    (share * len as f64) as usize
}

/// As `partition_point`, looking around `likely` first, in ever longer steps: few reads where it is near.
fn partition_near<T>(table: &[T], likely: usize, below: impl Fn(&T) -> bool) -> usize {
    let likely = likely.min(table.len());
    let (mut low, mut high, mut step) = (0, table.len(), 1);
    if table.get(likely).is_some_and(&below) {
        low = likely + 1;
        while let Some(value) = table.get(low + step - 1) {
            if !below(value) {
                high = low + step - 1;
                break;
            }
            (low, step) = (low + step, step * 2);
        }
    } else {
        high = likely;
        while let Some(value) = high.checked_sub(step).and_then(|at| table.get(at)) {
            if below(value) {
                low = high - step + 1;
                break;
            }
            (high, step) = (high - step, step * 2);
        }
    }
    let between = table.get(low..high).unwrap_or_default();
    low + between.partition_point(below)
}

impl Dictionary for ImmutableDictionary {
    fn len(&self) -> u32 {
        self.len
    }

    fn physical(&self) -> PhysicalType {
        self.physical
    }

    fn is_sorted(&self) -> bool {
        true
    }

    fn id_of(&self, value: &Scalar<'_>) -> Option<DictId> {
        let id = self.rank(value, false)?;
        (id < self.len && self.value(id).total_cmp(value).is_eq()).then_some(id)
    }

    fn value(&self, id: DictId) -> Scalar<'_> {
        by_type!(self.physical, T => {
            T::table(&self.data).get(id as usize).map_or_else(T::default, |v| T::of_le(*v)).scalar()
        }, bytes => Scalar::Bytes(Cow::Borrowed(self.bytes_of(id))))
    }

    fn gather(&self, ids: &[DictId], out: &mut ValueBuffer) {
        by_type!(self.physical, T => {
            let table = T::table(&self.data);
            if let Some(out) = T::buffer(out) {
                out.extend(ids.iter().map(|&id| table.get(id as usize).map_or_else(T::default, |v| T::of_le(*v))));
            }
        }, bytes => {
            if let ValueBuffer::Bytes { offsets, data } = out {
                offsets.reserve(ids.len());
                for &id in ids {
                    data.extend_from_slice(self.bytes_of(id));
                    offsets.push(bytes_offset(data.len()));
                }
            }
        });
    }

    fn range(
        &self,
        low: Option<(&Scalar<'_>, bool)>,
        high: Option<(&Scalar<'_>, bool)>,
    ) -> Range<DictId> {
        let start = low.map_or(Some(0), |(value, included)| self.rank(value, !included));
        let end = high.map_or(Some(self.len), |(value, included)| {
            self.rank(value, included)
        });
        match (start, end) {
            (Some(start), Some(end)) if start < end => start..end,
            _ => 0..0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wherever_the_search_begins_it_ends_at_the_same_place() {
        for len in 0..40u32 {
            let table: Vec<u32> = (0..len).collect();
            for end in 0..=len {
                for likely in 0..len as usize + 3 {
                    let found = partition_near(&table, likely, |&v| v < end);
                    assert_eq!(found, end as usize, "{likely} of {len}");
                }
            }
        }
        for (value, at) in [
            (0.0, 0),
            (50.0, 5),
            (100.0, 10),
            (-7.0, 0),
            (1e30, usize::MAX),
        ] {
            assert_eq!(place(value, 0.0, 100.0, 10), at);
        }
        assert_eq!(place(5.0, 5.0, 5.0, 1), 0);
    }
}
