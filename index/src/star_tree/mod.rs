//! The star-tree: records that are aggregated ahead, and a tree that finds the ones that answer a query.
//!
//! Rows of a segment are sorted by its *dimensions* and rows that agree in all of them become one *record* with
//! aggregated *measures*. A node stands for the records that agree in the dimensions up to its level. It is split by the
//! next dimension into a child for each value, and where that pays a *star node* is added whose records are aggregated
//! once more, over one or several dimensions: a query that asks nothing of these reads far fewer records. A node of few
//! records is a leaf. Each node of several records also has one that aggregates them all.
//!
//! The idea is that of the star-trees of Apache Pinot. Here a star node may leave out several dimensions at once, where
//! leaving out the first alone saves little: a region and the nations that decide it, wherever they stand in the order.
//! Its records are not stored twice. Below a star node no node is split by what is left out. A leaf, too, may have a star
//! node, which leaves out the dimension of it whose absence saves most.
//!
//! This module knows dimensions as ids, and measures as numbers or sets of ids. Records' columns are stored by whoever stores
//! the tree; [`StarTree`] is the nodes. Stored, little-endian:
//!
//! ```text
//! 0   4  dimensions
//! 4   4  records
//! 8   4  nodes
//! 12  4  form: 1; 0 is read, too
//! 16     the nodes, 32 bytes each, the root first, children side by side and behind their node:
//!          0   4  value of the dimension by which the node above it is split: an id, 0xffff_fffe: null; the root:
//!                 0xffff_ffff. A star node: the set of dimensions that it leaves out, a bit each from the lowest on (in
//!                 form 0 it is 0xffff_ffff, and they are those from the level of the node above it to its own)
//!          4   4  level: the dimension by which it is split
//!          8   8  its records: first, end
//!         16   8  its children, without the star node: first, number
//!         24   4  its star node, 0xffff_ffff: none
//!         28   4  the record that aggregates its records, 0xffff_ffff: none
//! ```

mod build;
mod walk;

pub use build::{Built, Fold, Measure, Numbers, Options, Sets, build};
pub use walk::{Need, Selection};

use crate::reader::IndexError;
use crate::wire::{corrupt, part, u32_at};
use bytes::Bytes;
use std::ops::Range;

/// The value of a dimension that is null.
pub const NULL: u32 = u32::MAX - 1;
/// The value of a dimension that is aggregated over.
pub const STAR: u32 = u32::MAX;
/// Stands for a node or record that there is not.
const NONE: u32 = u32::MAX;

/// The form that is written.
const FORM: u32 = 1;
const HEADER_BYTES: usize = 16;
const NODE_BYTES: usize = 32;

/// Some of the first 32 dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DimensionSet(u32);

impl DimensionSet {
    /// These dimensions; none when one of them has no bit.
    fn of(dimensions: &[usize]) -> Option<Self> {
        dimensions
            .iter()
            .try_fold(Self(0), |Self(set), &dimension| {
                let bit = u32::try_from(dimension).ok()?;
                Some(Self(set | 1u32.checked_shl(bit)?))
            })
    }

    /// Those of the first `dimensions` that are as told.
    fn where_is(dimensions: u32, is: impl Fn(u32) -> bool) -> Self {
        let bits = (0..dimensions.min(u32::BITS)).filter(|&dimension| is(dimension));
        Self(bits.fold(0, |set, dimension| set | 1 << dimension))
    }

    fn contains(self, dimension: usize) -> bool {
        dimension < 32 && self.0 >> dimension & 1 == 1
    }
}

/// A node as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    value: u32,
    level: u32,
    records: Range<u32>,
    children: Range<u32>,
    star: Option<u32>,
    aggregate: Option<u32>,
}

impl Node {
    fn write(&self, out: &mut Vec<u8>) {
        let fields = [
            self.value,
            self.level,
            self.records.start,
            self.records.end,
            self.children.start,
            self.children.end - self.children.start,
            self.star.unwrap_or(NONE),
            self.aggregate.unwrap_or(NONE),
        ];
        for field in fields {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }
}

/// The nodes of a star-tree over stored bytes.
#[derive(Clone, Debug)]
pub struct StarTree {
    dimensions: u32,
    records: u32,
    count: u32,
    form: u32,
    nodes: Bytes,
}

impl StarTree {
    /// A tree over its stored form.
    ///
    /// # Errors
    /// When the bytes can't be a tree: every node but the root must be the child or star node of exactly one before it.
    pub fn open(bytes: &Bytes) -> Result<Self, IndexError> {
        let (dimensions, records, count) =
            (u32_at(bytes, 0)?, u32_at(bytes, 4)?, u32_at(bytes, 8)?);
        let form = u32_at(bytes, 12)?;
        if form > FORM {
            return Err(corrupt(format!(
                "a star-tree of form {form}: a later version may have written it"
            )));
        }
        let nodes = part(
            bytes,
            HEADER_BYTES,
            (count as usize).saturating_mul(NODE_BYTES),
        )?;
        if bytes.len() != HEADER_BYTES + nodes.len() || count == 0 {
            return Err(corrupt("a star-tree of another length than its nodes'"));
        }
        let tree = Self {
            dimensions,
            records,
            count,
            form,
            nodes,
        };
        tree.check()?;
        Ok(tree)
    }

    fn check(&self) -> Result<(), IndexError> {
        let fail =
            |number: u32, what: &str| Err(corrupt(format!("node {number} of a star-tree: {what}")));
        let mut named = vec![false; self.count as usize];
        for number in 0..self.count {
            let node = self.node(number)?;
            let Range { start, end } = node.records;
            if node.level > self.dimensions || start > end || end > self.records {
                return fail(number, "its level or its records");
            }
            if node.aggregate.is_some_and(|record| record >= self.records) {
                return fail(number, "the record that aggregates it");
            }
            let mut last = None;
            let children = node.children.clone().map(|child| (child, false));
            for (other, is_star) in children.chain(node.star.map(|star| (star, true))) {
                if other <= number || other >= self.count {
                    return fail(number, "it names a node that is not behind it");
                }
                if std::mem::replace(&mut named[other as usize], true) {
                    return fail(number, "it names a node that another one names");
                }
                let below = self.node(other)?;
                let Node { value, level, .. } = below;
                let fits = if is_star {
                    // It leaves out a dimension at least.
                    level >= node.level && !self.leaves_out(node.level, &below, DimensionSet(0))
                } else {
                    value != STAR && level > node.level && last < Some(value)
                };
                if !fits {
                    return fail(number, "a node below it is of another level or value");
                }
                last = Some(value);
            }
        }
        if named.iter().skip(1).any(|named| !named) {
            return fail(0, "a node that no other one names");
        }
        Ok(())
    }

    /// How many dimensions.
    pub fn dimensions(&self) -> u32 {
        self.dimensions
    }

    /// How many records.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Whether the dimensions that the star node below a node of `level` leaves out are all among `free`.
    fn leaves_out(&self, level: u32, star: &Node, free: DimensionSet) -> bool {
        let left_out = match self.form {
            0 => return (level..star.level).all(|dimension| free.contains(dimension as usize)),
            _ => star.value,
        };
        left_out & !free.0 == 0
    }

    /// The eight numbers of a node.
    #[inline]
    fn fields(&self, number: u32) -> Result<[u32; 8], IndexError> {
        let nodes = self.nodes.as_chunks::<NODE_BYTES>().0;
        let Some(node) = nodes.get(number as usize) else {
            return Err(no_node(number));
        };
        let mut fields = [0; 8];
        for (field, bytes) in fields.iter_mut().zip(node.as_chunks::<4>().0) {
            *field = u32::from_le_bytes(*bytes);
        }
        Ok(fields)
    }

    /// The value of the dimension by which the node above is split.
    #[inline]
    fn value(&self, number: u32) -> Result<u32, IndexError> {
        Ok(self.fields(number)?[0])
    }

    #[inline]
    fn node(&self, number: u32) -> Result<Node, IndexError> {
        let [value, level, from, to, first, children, star, aggregate] = self.fields(number)?;
        let some = |number: u32| (number != NONE).then_some(number);
        let Some(end) = first.checked_add(children) else {
            return Err(no_node(number));
        };
        Ok(Node {
            value,
            level,
            records: from..to,
            children: first..end,
            star: some(star),
            aggregate: some(aggregate),
        })
    }
}

#[cold]
fn no_node(number: u32) -> IndexError {
    corrupt(format!(
        "node {number} of a star-tree is not there or has too many children"
    ))
}

#[cfg(test)]
mod tests;
