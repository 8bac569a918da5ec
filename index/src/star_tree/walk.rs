//! Walking a star-tree: from what a query asks of each dimension to the records that answer it.

use super::{DimensionSet, NULL, Node, StarTree};
use crate::kernels::IdSet;
use crate::reader::IndexError;
use std::ops::Range;

/// What a query asks of a dimension.
#[derive(Clone, Copy, Debug)]
pub enum Need<'a> {
    /// Nothing.
    Free,
    /// Its values.
    Values,
    /// That its value be one of these (and not null), and maybe its values.
    In(&'a IdSet),
}

/// Records that answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The records, ascending.
    pub records: Vec<Range<u32>>,
    /// Whether records may be among them whose dimensions are not in what [`Need::In`] asks for.
    pub unchecked: bool,
}

impl Selection {
    /// How many records.
    pub fn len(&self) -> u64 {
        let lengths = self.records.iter().map(|r| u64::from(r.end - r.start));
        lengths.sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

impl StarTree {
    /// Records that stand for each row exactly once among those that pass `needs`, one for each dimension. They hold the
    /// values of all dimensions that are not [`Need::Free`].
    ///
    /// # Errors
    /// When the tree is damaged.
    pub fn walk(&self, needs: &[Need<'_>]) -> Result<Selection, IndexError> {
        let is_free = |level: u32| matches!(needs.get(level as usize), None | Some(Need::Free));
        let last_needed = (0..self.dimensions()).rfind(|&level| !is_free(level));
        let needed_end = last_needed.map_or(0, |level| level + 1);
        // All bits beyond the dimensions are those of none.
        let free = DimensionSet::where_is(u32::BITS, is_free);
        let mut found = Selection::default();
        let mut open = vec![0];
        while let Some(number) = open.pop() {
            let node = self.node(number)?;
            let Node {
                level, children, ..
            } = &node;
            let level = *level;
            if level >= needed_end {
                let whole = node.aggregate.map_or(node.records, |one| one..one + 1);
                found.records.push(whole);
                continue;
            }
            if let Some(star) = node.star
                && self.leaves_out(level, &self.node(star)?, free)
            {
                open.push(star);
                continue;
            }
            if children.is_empty() {
                let behind = needs.get(level as usize..).unwrap_or_default();
                found.unchecked |= behind.iter().any(|need| matches!(need, Need::In(_)));
                found.records.push(node.records);
                continue;
            }
            match needs.get(level as usize) {
                Some(Need::In(ids)) if ids.len() < u64::from(children.end - children.start) / 8 => {
                    for id in ids.ranges().iter().flat_map(Clone::clone) {
                        open.extend(self.child(children, id)?);
                    }
                }
                Some(Need::In(ids)) => {
                    for child in children.clone() {
                        let value = self.value(child)?;
                        if value != NULL && ids.contains(value) {
                            open.push(child);
                        }
                    }
                }
                _ => open.extend(children.clone()),
            }
        }
        found.records.retain(|records| !records.is_empty());
        found.records.sort_unstable_by_key(|records| records.start);
        found.records.dedup_by(|next, before| {
            let joins = next.start == before.end;
            if joins {
                before.end = next.end;
            }
            joins
        });
        Ok(found)
    }

    /// The child of `value`.
    fn child(&self, children: &Range<u32>, value: u32) -> Result<Option<u32>, IndexError> {
        let (mut low, mut high) = (children.start, children.end);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.value(middle)?.cmp(&value) {
                std::cmp::Ordering::Equal => return Ok(Some(middle)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }
}
