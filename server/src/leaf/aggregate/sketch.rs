//! About how many distinct values: a HyperLogLog a group, in the form and by the hash of DataFusion's `approx_distinct`.
//!
//! A group of few values keeps their hashes, and so does its answer: registers would take 16 KiB each. Within a segment the
//! values themselves are kept, which its dictionary or rows bound; what is kept of all segments is bounded by the groups.

use super::cells::Pairs;
use crate::leaf::values::{Domain, Interner};
use arrow::array::{BinaryArray, BinaryBuilder};
use arrow::datatypes::DataType;
use datafusion::common::hash_utils::{HLL_RANDOM_STATE, create_hashes};
use strandline_proto::{Error, Result};

/// Bits of a hash that choose a register.
const REGISTER_BITS: u32 = 14;
const REGISTERS: usize = 1 << REGISTER_BITS;
/// Distinct hashes that a group keeps at most: DataFusion takes no more.
const HASHES_MAX: usize = 256;

/// The hashes of a group's values, or the registers that they fill.
#[derive(Clone, Debug)]
enum Sketch {
    /// Some of them may be there more than once.
    Hashes(Vec<u64>),
    Registers(Box<[u8]>),
}

/// The register of a hash, and what it is at least.
fn register(hash: u64) -> (usize, u8) {
    let rest = hash >> REGISTER_BITS | 1 << (u64::BITS - REGISTER_BITS);
    let index = hash as usize % REGISTERS;
    (index, rest.trailing_zeros() as u8 + 1)
}

fn registers(hashes: &[u64]) -> Box<[u8]> {
    let mut registers = vec![0u8; REGISTERS].into_boxed_slice();
    for &hash in hashes {
        raise(&mut registers, hash);
    }
    registers
}

fn raise(registers: &mut [u8], hash: u64) {
    let (index, rank) = register(hash);
    registers[index] = registers[index].max(rank);
}

impl Sketch {
    fn add(&mut self, hash: u64) {
        match self {
            Self::Registers(registers) => raise(registers, hash),
            Self::Hashes(hashes) => {
                hashes.push(hash);
                if hashes.len() >= 2 * HASHES_MAX {
                    self.settle();
                }
            }
        }
    }

    /// Each hash once, and registers where they are too many.
    fn settle(&mut self) {
        if let Self::Hashes(hashes) = self {
            hashes.sort_unstable();
            hashes.dedup();
            if hashes.len() > HASHES_MAX {
                *self = Self::Registers(registers(hashes));
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        match (self, other) {
            (sketch, Self::Hashes(hashes)) => hashes.iter().for_each(|&hash| sketch.add(hash)),
            (Self::Registers(registers), Self::Registers(others)) => {
                for (register, &other) in registers.iter_mut().zip(others) {
                    *register = (*register).max(other);
                }
            }
            (sketch, Self::Registers(others)) => {
                let mut merged = Self::Registers(others.clone());
                merged.merge(sketch);
                *sketch = merged;
            }
        }
    }
}

/// A sketch a group.
#[derive(Debug)]
pub(super) struct Sketches {
    data_type: DataType,
    /// There is but one group, whose answer is registers always.
    one: bool,
    sketches: Vec<Sketch>,
}

impl Sketches {
    /// None yet, of values of `data_type`.
    pub(super) fn new(data_type: DataType, one: bool) -> Self {
        Self {
            data_type,
            one,
            sketches: Vec::new(),
        }
    }

    /// The domain of the values.
    pub(super) fn domain(&self) -> Domain {
        Domain::of(&self.data_type)
    }

    /// Makes room for `groups` groups.
    pub(super) fn resize(&mut self, groups: usize) {
        self.sketches.resize(groups, Sketch::Hashes(Vec::new()));
    }

    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> usize {
        let inside = |sketch: &Sketch| match sketch {
            Sketch::Hashes(hashes) => hashes.capacity() * size_of::<u64>(),
            Sketch::Registers(_) => REGISTERS,
        };
        let inside: usize = self.sketches.iter().map(inside).sum();
        self.sketches.capacity() * size_of::<Sketch>() + inside
    }

    /// Adds values: pairs of a group, which is `map`'s here, and one of `values`.
    pub(super) fn add(&mut self, pairs: &Pairs, values: &Interner, map: &[u32]) -> Result<()> {
        let ids: Vec<u32> = (0..values.len() as u32).collect();
        let values = values.gather(&ids, &self.data_type)?;
        let mut hashes = vec![0; ids.len()];
        create_hashes([&*values], &HLL_RANDOM_STATE, &mut hashes)
            .map_err(|e| Error::internal(e.to_string()))?;
        pairs.for_each(|group, id| {
            self.sketches[map[group as usize] as usize].add(hashes[id as usize]);
        });
        Ok(())
    }

    /// Takes in sketches, of which each is of the group that `map` says.
    pub(super) fn merge(&mut self, other: &Self, map: &[u32]) {
        for (sketch, &to) in other.sketches.iter().zip(map) {
            self.sketches[to as usize].merge(sketch);
        }
    }

    /// The sketches as DataFusion's states.
    pub(super) fn emit(self) -> Result<BinaryArray> {
        let mut states = BinaryBuilder::new();
        let mut bytes = 0usize;
        for mut sketch in self.sketches {
            sketch.settle();
            let state: Box<[u8]> = match sketch {
                Sketch::Registers(registers) => registers,
                Sketch::Hashes(hashes) if self.one => registers(&hashes),
                Sketch::Hashes(hashes) => {
                    hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect()
                }
            };
            bytes += state.len();
            if i32::try_from(bytes).is_err() {
                return Err(Error::exhausted(
                    "over 2 GiB of sketches in one answer: group by fewer values, or filter",
                ));
            }
            states.append_value(state);
        }
        Ok(states.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::tests::naive::sketch;
    use arrow::array::{ArrayRef, Int64Array};
    use datafusion::common::ScalarValue;
    use std::sync::Arc;

    #[test]
    fn few_and_many_values_give_the_states_of_datafusion() {
        // Groups of 5, 256, 257 and 20,000 values, in segments that share some.
        let sizes = [5, 256, 257, 20_000];
        let values_of = |size: i64| (0..size).map(|i| i * 7_919);
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        let groups = sizes.into_iter().enumerate();
        let pairs =
            groups.flat_map(|(group, size)| values_of(size).map(move |value| (group, value)));
        for (row, pair) in pairs.enumerate() {
            parts[row % 3].push(pair);
            parts[(row + 1) % 3].push(pair);
        }
        let map: Vec<u32> = (0..sizes.len() as u32).collect();
        let mut all = Sketches::new(DataType::Int64, false);
        all.resize(sizes.len());
        for part in parts {
            let mut interner = Interner::new(Domain::I64);
            let mut pairs = Pairs::new(false);
            for (group, value) in part {
                pairs.insert(group, interner.i64(value));
            }
            let mut one = Sketches::new(DataType::Int64, false);
            one.resize(sizes.len());
            one.add(&pairs, &interner, &map).unwrap();
            all.merge(&one, &map);
        }
        let states = all.emit().unwrap();
        for (group, size) in sizes.into_iter().enumerate() {
            let of_group: ArrayRef = Arc::new(Int64Array::from_iter_values(values_of(size)));
            let state = ScalarValue::Binary(Some(states.value(group).to_vec()));
            assert_eq!(state, sketch(&of_group, false), "{size} values");
        }
        assert_eq!(states.value(1).len(), 256 * 8);
        assert_eq!(states.value(2).len(), REGISTERS);
    }
}
