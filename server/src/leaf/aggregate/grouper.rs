//! From key ids to group numbers.
//!
//! Each key column gives small integers: dictionary ids, or numbers of interned values. While the product of the
//! numbers' ranges is small, a group is found by its place in a table of that many slots; beyond, by hashing the
//! ids packed into one integer; and where they don't fit 128 bits, by hashing them all.

use crate::leaf::values::mix;
use hashbrown::HashTable;

/// Slots of the largest table that is addressed directly (4 bytes each, untouched ones cost no memory).
const SLOTS_MAX: u64 = 1 << 20;
/// Slots that cost less than hashing however few the rows are.
const SLOTS_FEW: u64 = 1 << 10;
/// Slots for each row at most: clearing one costs about a tenth of hashing a row.
const SLOTS_PER_ROW: u64 = 8;

/// Numbers groups from 0 in the order in which they are met.
pub(super) enum Grouper {
    /// No keys: one group.
    One,
    /// One key whose ids are dense already.
    Direct { groups: usize },
    /// A slot for each combination: 0, or the group plus one.
    Slots {
        sizes: Vec<u32>,
        slots: Vec<u32>,
        groups: Vec<u32>,
        scratch: Vec<u32>,
    },
    /// Ids packed into 64 bits.
    Packed64 {
        bits: Vec<u32>,
        table: HashTable<(u64, u32)>,
        groups: Vec<u64>,
        scratch: Vec<u64>,
    },
    /// Ids packed into 128 bits.
    Packed128 {
        bits: Vec<u32>,
        table: HashTable<(u128, u32)>,
        groups: Vec<u128>,
    },
    /// Any number of ids.
    Wide {
        width: usize,
        table: HashTable<u32>,
        groups: Vec<u32>,
    },
}

fn mix128(value: u128) -> u64 {
    mix(value as u64 ^ mix((value >> 64) as u64))
}

fn mix_wide(ids: &[u32]) -> u64 {
    ids.iter().fold(0, |hash, &id| mix(hash ^ u64::from(id)))
}

impl Grouper {
    /// A grouper of about `rows` rows, of key columns whose ids are below `sizes`; none: they grow as values are met.
    pub(super) fn new(sizes: &[Option<u32>], rows: u64) -> Self {
        match sizes {
            [] => return Self::One,
            [None] => return Self::Direct { groups: 0 },
            _ => {}
        }
        let slots_max = rows
            .saturating_mul(SLOTS_PER_ROW)
            .clamp(SLOTS_FEW, SLOTS_MAX);
        let product = sizes.iter().try_fold(1u64, |product, size| {
            size.and_then(|size| product.checked_mul(u64::from(size.max(1))))
                .filter(|&product| product <= slots_max)
        });
        if let Some(product) = product {
            let sizes = sizes.iter().map(|size| size.unwrap_or(1).max(1)).collect();
            return Self::Slots {
                sizes,
                slots: vec![0; product as usize],
                groups: Vec::new(),
                scratch: Vec::new(),
            };
        }
        let bits: Vec<u32> = sizes
            .iter()
            .map(|size| size.map_or(32, |size| 32 - size.saturating_sub(1).leading_zeros()))
            .collect();
        match bits.iter().sum::<u32>() {
            0..=64 => Self::Packed64 {
                bits,
                table: HashTable::new(),
                groups: Vec::new(),
                scratch: Vec::new(),
            },
            65..=128 => Self::Packed128 {
                bits,
                table: HashTable::new(),
                groups: Vec::new(),
            },
            _ => Self::Wide {
                width: sizes.len(),
                table: HashTable::new(),
                groups: Vec::new(),
            },
        }
    }

    /// How many groups.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One => 1,
            Self::Direct { groups } => *groups,
            Self::Slots { groups, .. }
            | Self::Wide {
                groups, width: 1, ..
            } => groups.len(),
            Self::Packed64 { groups, .. } => groups.len(),
            Self::Packed128 { groups, .. } => groups.len(),
            Self::Wide { width, groups, .. } => groups.len() / (*width).max(1),
        }
    }

    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::One | Self::Direct { .. } => 0,
            // Of the slots only touched pages count, at most one for each group.
            Self::Slots { slots, groups, .. } => {
                (slots.len() * 4).min(groups.len() * 4_096) + groups.capacity() * 4
            }
            Self::Packed64 { table, groups, .. } => table.capacity() * 20 + groups.capacity() * 8,
            Self::Packed128 { table, groups, .. } => table.capacity() * 37 + groups.capacity() * 16,
            Self::Wide { table, groups, .. } => table.capacity() * 6 + groups.capacity() * 4,
        }
    }

    /// Makes `out` the groups of rows whose ids stand in `columns`, all of `rows` length.
    pub(super) fn assign(&mut self, columns: &[Vec<u32>], rows: usize, out: &mut Vec<u32>) {
        out.clear();
        match self {
            Self::One => {}
            Self::Direct { groups } => {
                let Some(ids) = columns.first() else { return };
                out.extend_from_slice(ids);
                let end = ids.iter().max().map_or(0, |&id| id as usize + 1);
                *groups = (*groups).max(end);
            }
            Self::Slots {
                sizes,
                slots,
                groups,
                scratch,
            } => {
                scratch.clear();
                scratch.resize(rows, 0);
                for (ids, &size) in columns.iter().zip(sizes.iter()) {
                    for (slot, &id) in scratch.iter_mut().zip(ids) {
                        *slot = *slot * size + id;
                    }
                }
                out.reserve(rows);
                for &slot in scratch.iter() {
                    let known = &mut slots[slot as usize];
                    if *known == 0 {
                        groups.push(slot);
                        *known = groups.len() as u32;
                    }
                    out.push(*known - 1);
                }
            }
            Self::Packed64 {
                bits,
                table,
                groups,
                scratch,
            } => {
                scratch.clear();
                scratch.resize(rows, 0);
                for (ids, &bits) in columns.iter().zip(bits.iter()) {
                    for (key, &id) in scratch.iter_mut().zip(ids) {
                        *key = *key << bits | u64::from(id);
                    }
                }
                out.reserve(rows);
                let mut last = (u64::MAX, u32::MAX);
                for &key in scratch.iter() {
                    if key != last.0 || last.1 == u32::MAX {
                        let hash = mix(key);
                        let group = match table.find(hash, |entry| entry.0 == key) {
                            Some(entry) => entry.1,
                            None => {
                                let group = groups.len() as u32;
                                groups.push(key);
                                table.insert_unique(hash, (key, group), |entry| mix(entry.0));
                                group
                            }
                        };
                        last = (key, group);
                    }
                    out.push(last.1);
                }
            }
            Self::Packed128 {
                bits,
                table,
                groups,
            } => {
                out.reserve(rows);
                for row in 0..rows {
                    let mut key = 0u128;
                    for (ids, &bits) in columns.iter().zip(bits.iter()) {
                        key = key << bits | u128::from(ids[row]);
                    }
                    let hash = mix128(key);
                    let group = match table.find(hash, |entry| entry.0 == key) {
                        Some(entry) => entry.1,
                        None => {
                            let group = groups.len() as u32;
                            groups.push(key);
                            table.insert_unique(hash, (key, group), |entry| mix128(entry.0));
                            group
                        }
                    };
                    out.push(group);
                }
            }
            Self::Wide {
                width,
                table,
                groups,
            } => {
                out.reserve(rows);
                let mut key = Vec::with_capacity(*width);
                for row in 0..rows {
                    key.clear();
                    key.extend(columns.iter().map(|ids| ids[row]));
                    let hash = mix_wide(&key);
                    let at = |group: u32| group as usize * *width..(group as usize + 1) * *width;
                    let group = match table.find(hash, |&group| groups[at(group)] == key[..]) {
                        Some(&group) => group,
                        None => {
                            let group = (groups.len() / *width) as u32;
                            groups.extend_from_slice(&key);
                            table.insert_unique(hash, group, |&group| mix_wide(&groups[at(group)]));
                            group
                        }
                    };
                    out.push(group);
                }
            }
        }
    }

    /// The ids of key column `column` for every group.
    pub(super) fn key_ids(&self, column: usize) -> Vec<u32> {
        match self {
            Self::One => Vec::new(),
            Self::Direct { groups } => (0..*groups as u32).collect(),
            Self::Slots { sizes, groups, .. } => {
                let below: u32 = sizes[column + 1..].iter().product();
                groups
                    .iter()
                    .map(|&slot| slot / below % sizes[column])
                    .collect()
            }
            Self::Packed64 { bits, groups, .. } => {
                let below: u32 = bits[column + 1..].iter().sum();
                let mask = u64::MAX.checked_shr(64 - bits[column]).unwrap_or(0);
                groups
                    .iter()
                    .map(|&key| (key.checked_shr(below).unwrap_or(0) & mask) as u32)
                    .collect()
            }
            Self::Packed128 { bits, groups, .. } => {
                let below: u32 = bits[column + 1..].iter().sum();
                let mask = u128::MAX.checked_shr(128 - bits[column]).unwrap_or(0);
                groups
                    .iter()
                    .map(|&key| (key.checked_shr(below).unwrap_or(0) & mask) as u32)
                    .collect()
            }
            Self::Wide { width, groups, .. } => groups
                .iter()
                .skip(column)
                .step_by(*width)
                .copied()
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_way_of_grouping_gives_the_same_groups() {
        let rows = 5_000usize;
        let column = |seed: u32, size: u32| -> Vec<u32> {
            (0..rows as u32)
                .map(|i| i.wrapping_mul(seed) >> 7)
                .map(|v| v % size)
                .collect()
        };
        for sizes in [
            vec![Some(7)],
            vec![None],
            vec![Some(7), Some(1)],
            vec![Some(1 << 20), Some(30)],
            vec![Some(1 << 31), Some(1 << 31), Some(40)],
            vec![None, None, None],
            vec![None; 6],
        ] {
            let columns: Vec<_> = sizes
                .iter()
                .enumerate()
                .map(|(i, size)| {
                    column(
                        2_654_435_761 + i as u32 * 2,
                        size.map_or(11, |s: u32| s.min(13)),
                    )
                })
                .collect();
            let mut grouper = Grouper::new(&sizes, rows as u64);
            let (mut groups, mut half) = (Vec::new(), Vec::new());
            let first: Vec<_> = columns.iter().map(|c| c[..2_000].to_vec()).collect();
            let second: Vec<_> = columns.iter().map(|c| c[2_000..].to_vec()).collect();
            grouper.assign(&first, 2_000, &mut half);
            groups.extend_from_slice(&half);
            grouper.assign(&second, rows - 2_000, &mut half);
            groups.extend_from_slice(&half);
            let keys: Vec<_> = (0..columns.len()).map(|c| grouper.key_ids(c)).collect();
            let mut seen = HashMap::new();
            for row in 0..rows {
                let key: Vec<u32> = columns.iter().map(|c| c[row]).collect();
                let group = groups[row] as usize;
                assert_eq!(keys.iter().map(|k| k[group]).collect::<Vec<_>>(), key);
                assert_eq!(*seen.entry(key).or_insert(group), group);
            }
            assert_eq!(seen.len(), grouper.len());
        }
    }
}
