//! Dictionary ids: what a test on a column's values becomes in a segment with a dictionary.

use super::operand::{Test, json_holds};
use crate::leaf::values::string_array;
use std::ops::Range;
use strandline_index::kernels::{IdSet, ValueSet};
use strandline_index::{DictId, Dictionary, Scalar, ValueBuffer};
use strandline_proto::{Error, Result};

/// Values that a dictionary gives at once.
const GATHER: u32 = 8_192;

/// The ids of a dictionary whose values pass `test`. `may_contain` leaves out single values that no document holds.
pub(super) fn ids_of(
    test: &Test,
    dictionary: &dyn Dictionary,
    may_contain: impl Fn(&Scalar<'_>) -> bool,
) -> Result<IdSet> {
    match test {
        Test::Values(set) => ids_of_values(set, dictionary, may_contain),
        Test::Json(filter) => evaluate(dictionary, 0..dictionary.len(), |values| {
            let holds = |i| json_holds(filter, values.bytes(i));
            Ok((0..values.len()).map(holds).collect())
        }),
        Test::Text(test) => {
            let candidates = match test.prefix() {
                Some((prefix, all)) if dictionary.is_sorted() => {
                    let range = prefix_range(prefix.as_bytes(), dictionary);
                    if all {
                        return Ok(IdSet::new(vec![range]));
                    }
                    range
                }
                _ => 0..dictionary.len(),
            };
            evaluate(dictionary, candidates, |values| {
                let matches = test.matches(&string_array(values, None)?)?;
                Ok(matches.iter().map(|m| m == Some(true)).collect())
            })
        }
    }
}

/// The ids of values that begin with `prefix`.
fn prefix_range(prefix: &[u8], dictionary: &dyn Dictionary) -> Range<DictId> {
    let low = Scalar::Bytes(prefix.into());
    // The first text after all that begin with the prefix: its last byte below 0xff, plus one.
    let mut after = prefix.to_vec();
    while after.last() == Some(&0xff) {
        after.pop();
    }
    match after.last_mut() {
        Some(last) => {
            *last += 1;
            dictionary.range(
                Some((&low, true)),
                Some((&Scalar::Bytes(after.into()), false)),
            )
        }
        None => dictionary.range(Some((&low, true)), None),
    }
}

fn ids_of_values(
    set: &ValueSet,
    dictionary: &dyn Dictionary,
    may_contain: impl Fn(&Scalar<'_>) -> bool,
) -> Result<IdSet> {
    let few = set.points() == set.len() && set.len() as u64 <= u64::from(dictionary.len());
    if !(dictionary.is_sorted() || few) {
        let mut words = Vec::new();
        return evaluate(dictionary, 0..dictionary.len(), |values| {
            words.resize(values.len().div_ceil(64), 0);
            if !set.mark(&values, &mut words) {
                return Err(Error::data_loss(
                    "a dictionary gives values of another type than its column's",
                ));
            }
            let marked = |i: usize| words[i / 64] >> (i % 64) & 1 == 1;
            Ok((0..values.len()).map(marked).collect())
        });
    }
    let mut ranges = Vec::with_capacity(set.len());
    for bounds in set.ranges() {
        match bounds {
            (Some((low, true)), Some((high, true))) if low.total_cmp(&high).is_eq() => {
                if may_contain(&low) {
                    ranges.extend(dictionary.id_of(&low).map(|id| id..id + 1));
                }
            }
            (low, high) => ranges.push(dictionary.range(
                low.as_ref().map(|(value, included)| (value, *included)),
                high.as_ref().map(|(value, included)| (value, *included)),
            )),
        }
    }
    Ok(IdSet::new(ranges))
}

/// The ids of `candidates` whose values pass, each evaluated.
pub(super) fn evaluate(
    dictionary: &dyn Dictionary,
    candidates: Range<DictId>,
    mut passes: impl FnMut(ValueBuffer) -> Result<Vec<bool>>,
) -> Result<IdSet> {
    let mut flags = vec![false; candidates.start as usize];
    let mut start = candidates.start;
    while start < candidates.end {
        let end = candidates.end.min(start.saturating_add(GATHER));
        let ids: Vec<DictId> = (start..end).collect();
        let mut values = ValueBuffer::new(dictionary.physical());
        dictionary.gather(&ids, &mut values);
        flags.extend(passes(values)?);
        start = end;
    }
    Ok(IdSet::of_flags(flags.into_iter()))
}
