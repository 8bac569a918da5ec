//! The access path of one predicate in one segment: what answers it, how selective and how dear it is.

use super::ids::ids_of;
use super::node::Node;
use super::operand::Test;
use crate::leaf::column::BoundColumn;
use crate::leaf::segment::SegmentView;
use std::ops::Range;
use std::sync::Arc;
use strandline_index::kernels::{IdSet, OwnedBound};
use strandline_index::{DictId, DocSet, PhysicalType, Scalar};
use strandline_proto::json::JsonFilter;
use strandline_proto::{Error, Result};
use strandline_storage::segment::json::matching;

/// An inverted index is asked for at most so many ids, unless they name few documents.
const POSTINGS_IDS: u64 = 48;
/// An inverted index is asked for at most so many ids in any case.
const POSTINGS_IDS_MAX: u64 = 4_096;

/// Documents are read one by one unless they repeat each value so often.
const REPEATED: u64 = 2;

/// An FST index is asked where a dictionary has so many values; fewer are looked at one by one.
const FST_VALUES_MIN: u32 = if cfg!(test) { 1 } else { 2_048 };

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
}

impl Access {
    pub(super) fn new(node: Node, by: &'static str, cost: f32, share: f32) -> Self {
        Self {
            node,
            cost,
            share,
            by,
        }
    }

    fn nothing(by: &'static str) -> Self {
        Self::new(Node::Nothing, by, 0.0, 0.0)
    }
}

/// Whether all whole numbers between the bounds (inclusive) pass, or none does; none when it takes a look at each.
fn decided(test: &Test, (min, max): (i64, i64)) -> Option<bool> {
    let Test::Values(set) = test else {
        return None;
    };
    let whole = |bound: &OwnedBound| match bound {
        None => Some(None),
        Some((Scalar::I32(value), included)) => Some(Some((i64::from(*value), *included))),
        Some((Scalar::I64(value), included)) => Some(Some((*value, *included))),
        Some(_) => None,
    };
    let mut none_passes = true;
    for (low, high) in set.ranges() {
        let (low, high) = (whole(&low)?, whole(&high)?);
        let begins_before = low.is_none_or(|(v, included)| v < min || included && v == min);
        let ends_behind = high.is_none_or(|(v, included)| v > max || included && v == max);
        if begins_before && ends_behind {
            return Some(true);
        }
        let above = low.is_some_and(|(v, included)| v > max || !included && v == max);
        let below = high.is_some_and(|(v, included)| v < min || !included && v == min);
        none_passes &= above || below;
    }
    none_passes.then_some(false)
}

/// The path of `test` (or its negation) on `column` of `segment`: the column's bounds where they decide.
pub(super) fn access_in(
    segment: &SegmentView,
    column: Arc<BoundColumn>,
    test: &Arc<Test>,
    negated: bool,
) -> Result<Access> {
    let bounds = segment.reader.bounds(&column.name);
    match bounds.and_then(|bounds| decided(test, bounds)) {
        Some(pass) if pass != negated => Ok(not_null(column, "metadata")),
        Some(_) => Ok(Access::nothing("metadata")),
        None => access(column, test, negated),
    }
}

/// The path of `test` (or its negation) on `column`.
fn access(column: Arc<BoundColumn>, test: &Arc<Test>, negated: bool) -> Result<Access> {
    if column.reader.num_docs() == 0 {
        return Ok(Access::nothing("metadata"));
    }
    if let Test::Json(filter) = &**test
        && let Some(access) = json(&column, filter, test, negated)?
    {
        return Ok(access);
    }
    match column.reader.dictionary() {
        None => raw(column, test, negated),
        Some(dictionary) => {
            let reader = Arc::clone(&column.reader);
            let len = dictionary.len();
            let by_fst = ids_by_fst(test, &column)?;
            let has_fst = by_fst.is_some();
            let set = match by_fst {
                Some(set) => set,
                None => ids_of(test, dictionary, |value| reader.may_contain(value))?,
            };
            let multi_value = column.is_multi_value();
            let mut access = if multi_value {
                multi(column, set, len, test, negated)
            } else {
                single(column, set, len, negated, false)
            };
            if has_fst {
                access.by = with_fst(access.by);
            }
            Ok(access)
        }
    }
}

/// The path of a JSON filter: the column's index where it holds what the filter asks for, or the documents one by one where
/// most are different; none: whatever is best for a test of texts.
fn json(
    column: &Arc<BoundColumn>,
    filter: &JsonFilter,
    test: &Arc<Test>,
    negated: bool,
) -> Result<Option<Access>> {
    let docs = column.reader.num_docs();
    if let Some(index) = column.reader.json().filter(|index| index.docs() == docs) {
        let found = matching(index, filter)
            .map_err(|e| Error::data_loss(format!("column {:?}: {e}", column.name)))?;
        if let Some(found) = found {
            let found = DocSet::of_words(found.words());
            return Ok(Some(by_index(Arc::clone(column), found, negated, "json")));
        }
    }
    let repeated = column
        .reader
        .dictionary()
        .is_some_and(|d| u64::from(d.len()) * REPEATED <= u64::from(docs));
    Ok((!repeated && !column.is_multi_value()).then(|| {
        let node = Node::Values {
            column: Arc::clone(column),
            test: Arc::clone(test),
            negated,
        };
        Access::new(node, "scan", 20_000.0, 0.3)
    }))
}

/// The documents that the index `by` found (or the others, nulls apart).
pub(super) fn by_index(
    column: Arc<BoundColumn>,
    found: DocSet,
    negated: bool,
    by: &'static str,
) -> Access {
    let share = found.count() as f32 / column.reader.num_docs().max(1) as f32;
    match (negated, found.is_empty()) {
        (false, true) => Access::nothing(by),
        (true, true) => not_null(column, by),
        (negated, false) => {
            let node = Node::Found {
                column,
                docs: found,
                negated,
            };
            Access::new(node, by, 1.0, if negated { 1.0 - share } else { share })
        }
    }
}

/// The ids that an FST index finds for a pattern; none where a look at the dictionary's texts is faster.
fn ids_by_fst(test: &Test, column: &BoundColumn) -> Result<Option<IdSet>> {
    let (Test::Text(pattern), Some(fst), Some(dictionary)) =
        (test, column.reader.fst(), column.reader.dictionary())
    else {
        return Ok(None);
    };
    if dictionary.len() < FST_VALUES_MIN {
        return Ok(None);
    }
    let Some(pattern) = pattern.fst_pattern() else {
        return Ok(None);
    };
    let mut ranges: Vec<Range<DictId>> = Vec::new();
    let search = fst.search(pattern, |id| match ranges.last_mut() {
        Some(last) if last.end == id => last.end = id + 1,
        _ => ranges.push(id..id + 1),
    });
    search.map_err(|e| {
        Error::data_loss(format!(
            "the FST index of column {:?}: {e}: restore the segment from the deep store",
            column.name
        ))
    })?;
    Ok(Some(IdSet::new(ranges)))
}

/// What answers when an FST index found the ids.
fn with_fst(by: &'static str) -> &'static str {
    match by {
        "sorted" => "fst, sorted",
        "inverted" => "fst, inverted",
        "range" => "fst, range",
        "dictionary scan" => "fst, dictionary scan",
        "null bitmap" => "fst, null bitmap",
        _ => "fst",
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
        return match nulls_pass {
            true => Access::new(Node::All, "dictionary", 0.0, 1.0),
            false => not_null(column, "dictionary"),
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

/// All documents that are not null; `by` says how that is known when none is.
fn not_null(column: Arc<BoundColumn>, by: &'static str) -> Access {
    if !column.reader.has_nulls() {
        return Access::new(Node::All, by, 0.0, 1.0);
    }
    let node = Node::Null {
        column,
        negated: true,
    };
    Access::new(node, "null bitmap", 1.0, 0.9)
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
        return match negated {
            true => not_null(column, "dictionary"),
            false => Access::nothing("dictionary"),
        };
    }
    let share = (set.len() as f32 / len.max(1) as f32).min(1.0);
    let share = if negated { 1.0 - share } else { share };
    // Indexes can't tell a null element from the placeholder in its place.
    let physical = column.reader.physical();
    if !(passes_placeholder(test, physical) && column.has_null_elements()) {
        if let Some(mut access) = postings(&column, &set, negated) {
            access.share = access.share.clamp(0.0, 1.0);
            return access;
        }
        if let Some(ranges) =
            index_ranges(test).filter(|r| column.reader.has_range_index() && r.len() == 1)
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

fn raw(column: Arc<BoundColumn>, test: &Arc<Test>, negated: bool) -> Result<Access> {
    let mut test = Arc::clone(test);
    let mut points = 0;
    if let Test::Values(set) = &*test {
        let before = set.len();
        if set.points() > 0
            && let Test::Values(set) = Arc::make_mut(&mut test)
        {
            set.retain_points(|value| column.reader.may_contain(value));
        }
        if let Test::Values(set) = &*test {
            points = set.points();
            if set.is_empty() {
                let bloomed = set.len() < before;
                return Ok(match negated {
                    true => not_null(column, "metadata"),
                    false => Access::nothing(if bloomed { "bloom" } else { "metadata" }),
                });
            }
        }
    }
    let physical = column.reader.physical();
    let inexact = column.is_multi_value()
        && passes_placeholder(&test, physical)
        && column.has_null_elements();
    let ranges = index_ranges(&test)
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
    let cost = match (column.is_multi_value(), &*test) {
        (_, Test::Text(_) | Test::Json(_)) => 4_000.0,
        (true, _) => 300.0,
        (false, _) if physical == PhysicalType::Bytes => 1_000.0,
        (false, _) => 70.0,
    };
    let share = if points > 0 { 0.1 } else { 0.3 };
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
fn passes_placeholder(test: &Test, physical: PhysicalType) -> bool {
    match test {
        Test::Values(set) => set.contains(&Scalar::placeholder(physical)),
        Test::Text(_) | Test::Json(_) => true,
    }
}

/// The ranges of a test as bounds for a range index; none for patterns.
fn index_ranges(test: &Test) -> Option<Vec<(OwnedBound, OwnedBound)>> {
    match test {
        Test::Values(set) => Some(set.ranges()),
        Test::Text(_) | Test::Json(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_index::kernels::ValueSet;

    #[test]
    fn bounds_decide_as_all_values_between_them_do() {
        let ends = [None, Some(-2), Some(0), Some(1), Some(3)];
        for (low, high) in ends.iter().flat_map(|l| ends.iter().map(move |h| (*l, *h))) {
            for (with_low, with_high) in
                [(true, true), (true, false), (false, true), (false, false)]
            {
                let bound = |end: Option<i64>, included| end.map(|v| (Scalar::I64(v), included));
                let second = (Some((Scalar::I64(7), true)), Some((Scalar::I64(7), true)));
                let ranges = [(bound(low, with_low), bound(high, with_high)), second];
                let set = ValueSet::new(PhysicalType::I64, &ranges).unwrap();
                for (min, max) in [
                    (0, 0),
                    (0, 2),
                    (-3, 3),
                    (1, 1),
                    (4, 6),
                    (6, 8),
                    (7, 7),
                    (i64::MIN, i64::MAX),
                ] {
                    let looked_at = [i64::MIN, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, i64::MAX];
                    let values = looked_at.iter().filter(|v| (min..=max).contains(*v));
                    let mut passed = values.map(|v| set.contains(&Scalar::I64(*v)));
                    let first = passed.next().unwrap();
                    let expected = passed.all(|pass| pass == first).then_some(first);
                    let found = decided(&Test::Values(set.clone()), (min, max));
                    // A range without values is left to the scan.
                    assert!(
                        found == expected || found.is_none() && expected == Some(false),
                        "{ranges:?} in {min}..={max}: {found:?}, not {expected:?}"
                    );
                }
            }
        }
    }
}
