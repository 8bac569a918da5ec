//! The access path of one predicate in one segment: what answers it, how selective and how dear it is.

use super::ids::{IdSet, ids_of};
use super::node::{IndexBound, Node};
use super::operand::{BytesSet, KeySet, Test};
use crate::leaf::column::BoundColumn;
use crate::leaf::compare::{Key, f32_of_key, f64_of_key};
use std::sync::Arc;
use strandline_index::{PhysicalType, Scalar};
use strandline_proto::Result;

/// An inverted index is asked for at most so many ids, unless they name few documents.
const POSTINGS_IDS: u64 = 48;
/// An inverted index is asked for at most so many ids in any case.
const POSTINGS_IDS_MAX: u64 = 4_096;

/// A compiled node with what is needed to put it in order and to explain it.
#[derive(Debug)]
pub(super) struct Access {
    /// The node.
    pub(super) node: Node,
    /// Estimated microseconds for a chunk.
    pub(super) cost: f32,
    /// Estimated share of documents that pass.
    pub(super) share: f32,
    /// What answers it, for EXPLAIN.
    pub(super) by: &'static str,
    /// Whether a bloom filter ruled it out.
    pub(super) bloomed: bool,
}

impl Access {
    pub(super) fn new(node: Node, by: &'static str, cost: f32, share: f32) -> Self {
        Self {
            node,
            cost,
            share,
            by,
            bloomed: false,
        }
    }

    fn nothing(by: &'static str) -> Self {
        Self::new(Node::Nothing, by, 0.0, 0.0)
    }
}

/// The path of `test` (or its negation) on `column`.
pub(super) fn access(column: Arc<BoundColumn>, test: Test, negated: bool) -> Result<Access> {
    if column.reader.num_docs() == 0 {
        return Ok(Access::nothing("metadata"));
    }
    match column.reader.dictionary() {
        None => raw(column, test, negated),
        Some(dictionary) => {
            let mut ruled_out = 0u32;
            let reader = Arc::clone(&column.reader);
            let counter = std::cell::Cell::new(0u32);
            let set = ids_of(&test, dictionary, |value| {
                let may = reader.may_contain(value);
                counter.set(counter.get() + u32::from(!may));
                may
            })?;
            ruled_out += counter.get();
            let len = dictionary.len();
            let multi_value = column.is_multi_value();
            let mut access = if multi_value {
                multi(column, set, len, &test, negated)
            } else {
                single(column, set, len, negated, false)
            };
            access.bloomed = ruled_out > 0 && matches!(access.node, Node::Nothing);
            Ok(access)
        }
    }
}

/// The path of a single-value column's `ids` (or the others); `nulls_pass` when null documents pass too.
pub(super) fn single(
    column: Arc<BoundColumn>,
    ids: IdSet,
    len: u32,
    negated: bool,
    nulls_pass: bool,
) -> Access {
    let set = if negated { ids.complement(len) } else { ids };
    let docs = column.reader.num_docs();
    let nulls = column.reader.has_nulls();
    if set.is_empty() {
        return match nulls_pass && nulls {
            true => Access::new(
                Node::Null {
                    column,
                    negated: false,
                },
                "null bitmap",
                1.0,
                0.1,
            ),
            false => Access::nothing("dictionary"),
        };
    }
    if set.is_all(len) {
        return match nulls && !nulls_pass {
            true => Access::new(
                Node::Null {
                    column,
                    negated: true,
                },
                "null bitmap",
                1.0,
                0.9,
            ),
            false => Access::new(Node::All, "dictionary", 0.0, 1.0),
        };
    }
    if nulls_pass && nulls {
        let share = set.len() as f32 / len as f32;
        return Access::new(
            Node::Ids {
                column,
                set,
                negated: false,
                nulls_pass,
            },
            "dictionary scan",
            60.0,
            share,
        );
    }
    if column.reader.is_sorted() {
        let ranges: Option<Vec<_>> = set
            .ranges()
            .iter()
            .map(|ids| column.reader.sorted_docs(ids.clone()))
            .collect();
        if let Some(mut ranges) = ranges.filter(|r| r.len() <= 1_024) {
            ranges.retain(|r| r.start < r.end);
            let found: u64 = ranges.iter().map(|r| u64::from(r.end - r.start)).sum();
            let share = found as f32 / docs as f32;
            return match found {
                0 => Access::nothing("sorted"),
                all if all == u64::from(docs) => Access::new(Node::All, "sorted", 0.0, 1.0),
                _ => Access::new(Node::Docs(ranges), "sorted", 0.5, share),
            };
        }
    }
    let share = set.len() as f32 / len as f32;
    if column.reader.inverted().is_some() {
        let others = set.complement(len);
        let (asked, negated) = if others.len() < set.len() {
            (&others, true)
        } else {
            (&set, false)
        };
        if let Some(access) = postings(&column, asked, negated) {
            return access;
        }
    }
    if column.reader.has_range_index()
        && let [only] = set.ranges()
        && column.reader.dictionary().is_some_and(|d| d.is_sorted())
        && let Some(dictionary) = column.reader.dictionary()
    {
        let low = (only.start > 0).then(|| (dictionary.value(only.start).into_owned(), true));
        let high = (only.end < len).then(|| (dictionary.value(only.end - 1).into_owned(), true));
        return Access::new(
            Node::RangeIndex {
                column: Arc::clone(&column),
                ranges: vec![(low, high)],
                negated: false,
            },
            "range",
            20.0,
            share,
        );
    }
    Access::new(
        Node::Ids {
            column,
            set,
            negated: false,
            nulls_pass: false,
        },
        "dictionary scan",
        60.0,
        share,
    )
}

/// The inverted index for `ids`, unless reading the forward index is cheaper.
fn postings(column: &Arc<BoundColumn>, ids: &IdSet, negated: bool) -> Option<Access> {
    if ids.len() > POSTINGS_IDS_MAX {
        return None;
    }
    let postings = column.reader.inverted()?;
    let docs = u64::from(column.reader.num_docs());
    let ids: Vec<_> = ids.ranges().iter().flat_map(Clone::clone).collect();
    let found: u64 = ids.iter().map(|&id| postings.count(id)).sum();
    if ids.len() as u64 > POSTINGS_IDS && found > docs / 16 {
        return None;
    }
    let share = (found as f32 / docs as f32).min(1.0);
    // A dense posting costs half a microsecond a chunk, a sparse one about a nanosecond a document.
    let cost = 0.5
        + (ids.len() as f32 * 0.5).min(found as f32 / docs as f32 * 65.0 + ids.len() as f32 * 0.05);
    let node = Node::Postings {
        column: Arc::clone(column),
        ids,
        negated,
    };
    Some(Access::new(
        node,
        "inverted",
        cost,
        if negated { 1.0 - share } else { share },
    ))
}

fn multi(column: Arc<BoundColumn>, set: IdSet, len: u32, test: &Test, negated: bool) -> Access {
    if set.is_empty() {
        return match (negated, column.reader.has_nulls()) {
            (true, true) => Access::new(
                Node::Null {
                    column,
                    negated: true,
                },
                "null bitmap",
                1.0,
                0.9,
            ),
            (true, false) => Access::new(Node::All, "dictionary", 0.0, 1.0),
            (false, _) => Access::nothing("dictionary"),
        };
    }
    let share = (set.len() as f32 / len.max(1) as f32).min(1.0);
    let share = if negated { 1.0 - share } else { share };
    // Indexes can't tell a null element from the placeholder in its place.
    if !(passes_placeholder(test) && column.has_null_elements()) {
        if let Some(mut access) = postings(&column, &set, negated) {
            access.share = access.share.clamp(0.0, 1.0);
            return access;
        }
        if let Some(ranges) = index_ranges(test, column.reader.physical())
            .filter(|r| column.reader.has_range_index() && r.len() == 1)
        {
            return Access::new(
                Node::RangeIndex {
                    column,
                    ranges,
                    negated,
                },
                "range",
                30.0,
                share,
            );
        }
    }
    Access::new(
        Node::Ids {
            column,
            set,
            negated,
            nulls_pass: false,
        },
        "dictionary scan",
        250.0,
        share,
    )
}

fn raw(column: Arc<BoundColumn>, mut test: Test, negated: bool) -> Result<Access> {
    let physical = column.reader.physical();
    let before = points(&test);
    rule_out(&mut test, physical, |value| {
        column.reader.may_contain(value)
    });
    let bloomed = before > points(&test);
    if is_empty(&test) {
        let mut access = match (negated, column.reader.has_nulls()) {
            (true, true) => Access::new(
                Node::Null {
                    column,
                    negated: true,
                },
                "null bitmap",
                1.0,
                0.9,
            ),
            (true, false) => Access::new(Node::All, "metadata", 0.0, 1.0),
            (false, _) => Access::nothing(if bloomed { "bloom" } else { "metadata" }),
        };
        access.bloomed = bloomed && !negated;
        return Ok(access);
    }
    let inexact =
        column.is_multi_value() && passes_placeholder(&test) && column.has_null_elements();
    let ranges = index_ranges(&test, physical)
        .filter(|ranges| column.reader.has_range_index() && ranges.len() <= 4 && !inexact);
    if let Some(ranges) = ranges {
        return Ok(Access::new(
            Node::RangeIndex {
                column,
                ranges,
                negated,
            },
            "range",
            25.0,
            if negated { 0.7 } else { 0.3 },
        ));
    }
    let cost = match (column.is_multi_value(), &test) {
        (_, Test::Text(_)) => 4_000.0,
        (true, _) => 300.0,
        (false, Test::Bytes(_)) => 1_000.0,
        (false, _) => 70.0,
    };
    let share = if points(&test) > 0 { 0.1 } else { 0.3 };
    Ok(Access::new(
        Node::Values {
            column,
            test,
            negated,
        },
        "scan",
        cost,
        if negated { 1.0 - share } else { share },
    ))
}

/// Whether what stands in the place of a null passes.
fn passes_placeholder(test: &Test) -> bool {
    match test {
        Test::K32(set) => set.contains(0),
        Test::K64(set) => set.contains(0),
        Test::K128(set) => set.contains(0),
        Test::Bytes(set) => set.contains(&[]),
        Test::Text(_) => true,
    }
}

fn is_empty(test: &Test) -> bool {
    match test {
        Test::K32(set) => set.ranges.is_empty(),
        Test::K64(set) => set.ranges.is_empty(),
        Test::K128(set) => set.ranges.is_empty(),
        Test::Bytes(set) => set.points.is_empty() && set.ranges.is_empty(),
        Test::Text(_) => false,
    }
}

/// How many single values the test names.
fn points(test: &Test) -> usize {
    fn singles<K: Key>(set: &KeySet<K>) -> usize {
        set.ranges.iter().filter(|(low, high)| low == high).count()
    }
    match test {
        Test::K32(set) => singles(set),
        Test::K64(set) => singles(set),
        Test::K128(set) => singles(set),
        Test::Bytes(set) => set.points.len(),
        Test::Text(_) => 0,
    }
}

/// Drops single values that no document can hold.
fn rule_out(test: &mut Test, physical: PhysicalType, may_contain: impl Fn(&Scalar<'_>) -> bool) {
    fn singles<K: Key>(set: &mut KeySet<K>, keep: impl Fn(K) -> bool) {
        set.ranges.retain(|&(low, high)| low != high || keep(low));
    }
    match test {
        Test::K32(set) => singles(set, |key| may_contain(&scalar32(key, physical))),
        Test::K64(set) => singles(set, |key| may_contain(&scalar64(key, physical))),
        Test::K128(set) => singles(set, |key| may_contain(&Scalar::I128(key))),
        Test::Bytes(set) => set
            .points
            .retain(|value| may_contain(&Scalar::Bytes(value.as_slice().into()))),
        Test::Text(_) => {}
    }
}

fn scalar32(key: i32, physical: PhysicalType) -> Scalar<'static> {
    if physical == PhysicalType::F32 {
        Scalar::F32(f32_of_key(key))
    } else {
        Scalar::I32(key)
    }
}

fn scalar64(key: i64, physical: PhysicalType) -> Scalar<'static> {
    if physical == PhysicalType::F64 {
        Scalar::F64(f64_of_key(key))
    } else {
        Scalar::I64(key)
    }
}

/// The ranges of a test as bounds for a range index; none for patterns.
fn index_ranges(test: &Test, physical: PhysicalType) -> Option<Vec<(IndexBound, IndexBound)>> {
    fn keys<K: Key>(
        set: &KeySet<K>,
        scalar: impl Fn(K) -> Scalar<'static>,
    ) -> Vec<(IndexBound, IndexBound)> {
        let bound = |key: K, end: K| (key != end).then(|| (scalar(key), true));
        set.ranges
            .iter()
            .map(|&(low, high)| (bound(low, K::MIN), bound(high, K::MAX)))
            .collect()
    }
    fn texts(set: &BytesSet) -> Vec<(IndexBound, IndexBound)> {
        let scalar = |value: &Vec<u8>| Scalar::Bytes(value.clone().into());
        let points = set
            .points
            .iter()
            .map(|p| (Some((scalar(p), true)), Some((scalar(p), true))));
        let bound = |bound: &Option<(Vec<u8>, bool)>| bound.as_ref().map(|(v, i)| (scalar(v), *i));
        points
            .chain(
                set.ranges
                    .iter()
                    .map(|(low, high)| (bound(low), bound(high))),
            )
            .collect()
    }
    Some(match test {
        Test::K32(set) => keys(set, |key| scalar32(key, physical)),
        Test::K64(set) => keys(set, |key| scalar64(key, physical)),
        Test::K128(set) => keys(set, Scalar::I128),
        Test::Bytes(set) => texts(set),
        Test::Text(_) => return None,
    })
}
