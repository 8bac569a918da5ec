//! States of aggregates by group, typed; updated in blocks, merged by value.

use super::cells::{Extremes, Pairs, Rows, Sums};
use super::plan::AggregatePlan;
use super::sketch::Sketches;
use crate::leaf::compare::f64_key;
use crate::leaf::values::{Domain, Interner};
use arrow::array::BinaryArray;
use arrow::datatypes::i256;
use strandline_index::{Dictionary, DistinctValues, PhysicalType, Scalar, ValueBuffer};
use strandline_proto::{Error, Result};

/// What a sum is accumulated in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SumType {
    I64,
    U64,
    F64,
    I128,
    I256,
}

/// An aggregate and the type it works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Count,
    Sum(SumType),
    Avg(SumType),
    Extreme {
        max: bool,
        domain: Domain,
    },
    /// `approximate`: what is emitted is a sketch of them.
    Distinct {
        domain: Domain,
        approximate: bool,
    },
}

/// What the ids of a segment stand for.
pub(super) enum Numbered<'a> {
    Dictionary(&'a dyn Dictionary),
    Distinct(&'a dyn DistinctValues),
}

/// Values of ids that are read at once.
const GATHERED: usize = 4_096;

impl Numbered<'_> {
    /// Appends the numbers that `values` gives to the values of `ids`.
    fn intern(&self, ids: &[u32], values: &mut Interner, numbers: &mut Vec<u32>) {
        match self {
            Self::Dictionary(dictionary) => {
                numbers.extend(ids.iter().map(|&id| values.scalar(&dictionary.value(id))));
            }
            Self::Distinct(distinct) => {
                let mut texts = ValueBuffer::new(PhysicalType::Bytes);
                distinct.gather(ids, &mut texts);
                let texts = (0..texts.len()).filter_map(|i| texts.bytes(i));
                numbers.extend(texts.map(|text| values.bytes(text)));
            }
        }
    }
}

fn lost_values() -> Error {
    Error::internal("ids without what they stand for")
}

/// A block of an argument's values.
pub(super) enum Values {
    /// Only whether it is null matters.
    None,
    I64(Vec<i64>),
    F64(Vec<f64>),
    I128(Vec<i128>),
    Bytes(BinaryArray),
    /// Ids of the segment's dictionary, or numbers of its distinct values.
    Ids(Vec<u32>),
    /// As `Ids`, a list of them each.
    IdLists {
        ends: Vec<u32>,
        ids: Vec<u32>,
    },
    /// How many rows each stands for.
    Counts(Vec<i64>),
    /// Sums, and how many values each is of.
    Means {
        sums: Vec<f64>,
        counts: Vec<i64>,
    },
}

/// The states of one aggregate for all groups.
#[derive(Debug)]
pub(super) enum State {
    Count(Vec<i64>),
    SumI64(Sums<i64>),
    SumF64(Sums<f64>),
    SumI128(Sums<i128>),
    SumI256(Sums<i256>),
    /// Also floats, as keys.
    ExtremeI64(Extremes<i64>),
    ExtremeI128(Extremes<i128>),
    ExtremeBytes {
        values: Vec<Option<Vec<u8>>>,
        max: bool,
        bytes: usize,
    },
    /// Ids of a sorted dictionary, whose order is their values'.
    ExtremeIds(Extremes<u32>),
    Distinct {
        pairs: Pairs,
        values: Interner,
    },
    /// As [`Values::Ids`].
    DistinctIds(Pairs),
    /// Of the values of all segments.
    Sketches(Sketches),
}

impl State {
    /// No groups yet. `ids`: values come as dictionary ids. `one`: there is but one group. `counted`: sums must know whether
    /// a group has any value.
    pub(super) fn new(kind: Kind, ids: bool, one: bool, counted: bool) -> Self {
        let pairs = || Pairs::new(one);
        match kind {
            Kind::Count => Self::Count(Vec::new()),
            Kind::Sum(sum) | Kind::Avg(sum) => {
                let counted = counted || matches!(kind, Kind::Avg(_));
                match sum {
                    SumType::I64 | SumType::U64 => Self::SumI64(Sums::new(counted)),
                    SumType::F64 => Self::SumF64(Sums::new(counted)),
                    SumType::I128 => Self::SumI128(Sums::new(counted)),
                    SumType::I256 => Self::SumI256(Sums::new(counted)),
                }
            }
            Kind::Extreme { max, .. } if ids => Self::ExtremeIds(Extremes::new(max)),
            Kind::Extreme { max, domain } => match domain {
                Domain::I64 | Domain::F64 => Self::ExtremeI64(Extremes::new(max)),
                Domain::I128 => Self::ExtremeI128(Extremes::new(max)),
                Domain::Bytes | Domain::Rows => Self::ExtremeBytes {
                    values: Vec::new(),
                    max,
                    bytes: 0,
                },
            },
            Kind::Distinct { .. } if ids => Self::DistinctIds(pairs()),
            Kind::Distinct { domain, .. } => Self::Distinct {
                pairs: pairs(),
                values: Interner::new(domain),
            },
        }
    }

    /// No groups yet, for what comes of all segments. `one`: there is but one group.
    pub(super) fn merged(aggregate: &AggregatePlan, one: bool) -> Self {
        match (aggregate.kind, &aggregate.argument) {
            (
                Kind::Distinct {
                    approximate: true, ..
                },
                Some((_, argument)),
            ) => Self::Sketches(Sketches::new(argument.data_type.clone(), one)),
            (kind, _) => Self::new(kind, false, one, true),
        }
    }

    /// Makes room for `groups` groups.
    pub(super) fn resize(&mut self, groups: usize) {
        match self {
            Self::Count(counts) => counts.resize(groups, 0),
            Self::SumI64(sums) => sums.resize(groups),
            Self::SumF64(sums) => sums.resize(groups),
            Self::SumI128(sums) => sums.resize(groups),
            Self::SumI256(sums) => sums.resize(groups),
            Self::ExtremeI64(extremes) => extremes.resize(groups),
            Self::ExtremeI128(extremes) => extremes.resize(groups),
            Self::ExtremeIds(extremes) => extremes.resize(groups),
            Self::ExtremeBytes { values, .. } => values.resize(groups, None),
            Self::Distinct { .. } | Self::DistinctIds(_) => {}
            Self::Sketches(sketches) => sketches.resize(groups),
        }
    }

    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Count(counts) => counts.capacity() * 8,
            Self::SumI64(sums) => sums.memory(),
            Self::SumF64(sums) => sums.memory(),
            Self::SumI128(sums) => sums.memory(),
            Self::SumI256(sums) => sums.memory(),
            Self::ExtremeI64(extremes) => extremes.values.capacity() * 9,
            Self::ExtremeI128(extremes) => extremes.values.capacity() * 17,
            Self::ExtremeIds(extremes) => extremes.values.capacity() * 5,
            Self::ExtremeBytes { values, bytes, .. } => values.capacity() * 24 + bytes,
            Self::Distinct { pairs, values } => pairs.memory() + values.memory(),
            Self::DistinctIds(pairs) => pairs.memory(),
            Self::Sketches(sketches) => sketches.memory(),
        }
    }

    /// Adds a count to group 0 without reading rows.
    pub(super) fn add_count(&mut self, count: u64) {
        if let Self::Count(counts) = self
            && let Some(first) = counts.first_mut()
        {
            *first += count as i64;
        }
    }

    /// Offers a value to group 0.
    pub(super) fn offer(&mut self, value: &Scalar<'_>) {
        let bytes = match value {
            Scalar::Bytes(bytes) => Some(bytes.as_ref()),
            _ => None,
        };
        offer_scalar(self, 0, value, bytes);
    }

    /// Takes in a block.
    pub(super) fn update(&mut self, rows: &Rows<'_>, values: &Values) -> Result<()> {
        match (self, values) {
            (Self::Count(counts), Values::Counts(values)) => {
                rows.each(|group, row| counts[group] += values[row])
            }
            (
                Self::SumF64(sums),
                Values::Means {
                    sums: values,
                    counts,
                },
            ) => rows.each(|group, row| sums.add(group, values[row], counts[row] as u64)),
            (Self::Count(counts), _) => match rows {
                Rows {
                    groups: None,
                    documents: None,
                    valid: None,
                    len,
                } => counts[0] += *len as i64,
                _ => rows.each(|group, _| counts[group] += 1),
            },
            (Self::SumI64(sums), Values::I64(values)) => {
                sums.update(rows, values, i64::wrapping_add)
            }
            (Self::SumF64(sums), Values::F64(values)) => sums.update(rows, values, |a, b| a + b),
            (Self::SumI128(sums), Values::I128(values)) => {
                sums.update(rows, values, i128::wrapping_add)
            }
            (Self::SumI256(sums), Values::I128(values)) => {
                sums.update(rows, values, |a, b| a.wrapping_add(i256::from_i128(b)))
            }
            (Self::ExtremeI64(extremes), Values::I64(values)) => {
                extremes.update(rows, values, |v| v)
            }
            (Self::ExtremeI64(extremes), Values::F64(values)) => {
                extremes.update(rows, values, f64_key)
            }
            (Self::ExtremeI128(extremes), Values::I128(values)) => {
                extremes.update(rows, values, |v| v)
            }
            (Self::ExtremeIds(extremes), Values::Ids(values)) => {
                extremes.update(rows, values, |v| v)
            }
            (
                Self::ExtremeBytes {
                    values: held,
                    max,
                    bytes,
                },
                Values::Bytes(values),
            ) => {
                rows.each(|group, row| {
                    offer_bytes(&mut held[group], values.value(row), *max, bytes)
                });
            }
            (Self::DistinctIds(pairs), Values::Ids(values)) => {
                rows.each(|group, row| pairs.insert(group, values[row]))
            }
            (Self::DistinctIds(pairs), Values::IdLists { ends, ids }) => rows.each(|group, row| {
                let start = row.checked_sub(1).map_or(0, |before| ends[before]);
                for &id in &ids[start as usize..ends[row] as usize] {
                    pairs.insert(group, id);
                }
            }),
            (
                Self::Distinct {
                    pairs,
                    values: interner,
                },
                Values::I64(values),
            ) => rows.each(|group, row| pairs.insert(group, interner.i64(values[row]))),
            (
                Self::Distinct {
                    pairs,
                    values: interner,
                },
                Values::F64(values),
            ) => {
                rows.each(|group, row| pairs.insert(group, interner.i64(f64_key(values[row]))));
            }
            (
                Self::Distinct {
                    pairs,
                    values: interner,
                },
                Values::I128(values),
            ) => rows.each(|group, row| pairs.insert(group, interner.i128(values[row]))),
            (
                Self::Distinct {
                    pairs,
                    values: interner,
                },
                Values::Bytes(values),
            ) => {
                rows.each(|group, row| pairs.insert(group, interner.bytes(values.value(row))));
            }
            _ => {
                return Err(Error::internal(
                    "an aggregate was given values of another kind than its state's",
                ));
            }
        }
        Ok(())
    }

    /// Takes in the states of a segment, whose group `i` is `map[i]` here. `numbered` gives the values of its ids.
    pub(super) fn merge(
        &mut self,
        other: &Self,
        map: &[u32],
        numbered: Option<Numbered<'_>>,
    ) -> Result<()> {
        match (self, other) {
            (Self::Count(counts), Self::Count(other)) => {
                for (&to, &count) in map.iter().zip(other) {
                    counts[to as usize] += count;
                }
            }
            (Self::SumI64(sums), Self::SumI64(other)) => sums.merge(other, map, i64::wrapping_add),
            (Self::SumF64(sums), Self::SumF64(other)) => sums.merge(other, map, |a, b| a + b),
            (Self::SumI128(sums), Self::SumI128(other)) => {
                sums.merge(other, map, i128::wrapping_add)
            }
            (Self::SumI256(sums), Self::SumI256(other)) => {
                sums.merge(other, map, i256::wrapping_add)
            }
            (Self::ExtremeI64(extremes), Self::ExtremeI64(other)) => extremes.merge(other, map),
            (Self::ExtremeI128(extremes), Self::ExtremeI128(other)) => extremes.merge(other, map),
            (
                Self::ExtremeBytes { values, max, bytes },
                Self::ExtremeBytes { values: other, .. },
            ) => {
                for (&to, value) in map.iter().zip(other) {
                    if let Some(value) = value {
                        offer_bytes(&mut values[to as usize], value, *max, bytes);
                    }
                }
            }
            (merged, Self::ExtremeIds(other)) => {
                let Some(Numbered::Dictionary(dictionary)) = numbered else {
                    return Err(lost_values());
                };
                for (group, &to) in map
                    .iter()
                    .enumerate()
                    .filter(|(group, _)| other.seen[*group])
                {
                    let value = dictionary.value(other.values[group]);
                    let bytes = match &value {
                        Scalar::Bytes(bytes) => Some(bytes.as_ref()),
                        _ => None,
                    };
                    offer_scalar(merged, to as usize, &value, bytes);
                }
            }
            (
                Self::Distinct { pairs, values },
                Self::Distinct {
                    pairs: other,
                    values: others,
                },
            ) => {
                let mut known = vec![u32::MAX; others.len()];
                other.for_each(|group, id| {
                    let value = &mut known[id as usize];
                    if *value == u32::MAX {
                        *value = values.adopt(others, id);
                    }
                    pairs.insert(map[group as usize] as usize, *value);
                });
            }
            (Self::Sketches(sketches), Self::Sketches(other)) => sketches.merge(other, map),
            (Self::Sketches(sketches), Self::Distinct { pairs, values }) => {
                sketches.add(pairs, values, map)?;
            }
            (Self::Sketches(sketches), Self::DistinctIds(_)) => {
                // Their values are hashed as those of other segments are, not the ids.
                let domain = sketches.domain();
                let mut values = Self::new(
                    Kind::Distinct {
                        domain,
                        approximate: true,
                    },
                    false,
                    false,
                    true,
                );
                let groups: Vec<u32> = (0..map.len() as u32).collect();
                values.merge(other, &groups, numbered)?;
                if let Self::Distinct { pairs, values } = &values {
                    sketches.add(pairs, values, map)?;
                }
            }
            (Self::Distinct { pairs, values }, Self::DistinctIds(other)) => {
                let numbered = numbered.ok_or_else(lost_values)?;
                let mut met = Vec::with_capacity(other.len());
                other.for_each(|_, id| met.push(id));
                met.sort_unstable();
                met.dedup();
                let mut numbers = Vec::with_capacity(met.len());
                for ids in met.chunks(GATHERED) {
                    numbered.intern(ids, values, &mut numbers);
                }
                other.for_each(|group, id| {
                    if let Ok(at) = met.binary_search(&id) {
                        pairs.insert(map[group as usize] as usize, numbers[at]);
                    }
                });
            }
            _ => {
                return Err(Error::internal(
                    "states of different aggregates were to be merged",
                ));
            }
        }
        Ok(())
    }
}

fn offer_bytes(held: &mut Option<Vec<u8>>, value: &[u8], max: bool, bytes: &mut usize) {
    let better = match held {
        None => true,
        Some(held) if max => value > held.as_slice(),
        Some(held) => value < held.as_slice(),
    };
    if better {
        *bytes += value.len();
        *bytes -= held.as_ref().map_or(0, Vec::len);
        let mut kept = held.take().unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(value);
        *held = Some(kept);
    }
}

fn offer_scalar(state: &mut State, group: usize, value: &Scalar<'_>, text: Option<&[u8]>) {
    match (state, value) {
        (State::ExtremeI64(extremes), Scalar::I32(v)) => extremes.offer(group, i64::from(*v)),
        (State::ExtremeI64(extremes), Scalar::I64(v)) => extremes.offer(group, *v),
        (State::ExtremeI64(extremes), Scalar::F32(v)) => {
            extremes.offer(group, f64_key(f64::from(*v)))
        }
        (State::ExtremeI64(extremes), Scalar::F64(v)) => extremes.offer(group, f64_key(*v)),
        (State::ExtremeI128(extremes), Scalar::I128(v)) => extremes.offer(group, *v),
        (State::ExtremeBytes { values, max, bytes }, _) => {
            offer_bytes(&mut values[group], text.unwrap_or_default(), *max, bytes)
        }
        _ => debug_assert!(false, "a value of another kind than its state's"),
    }
}
