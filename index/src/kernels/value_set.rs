//! Sets of values of one physical type.

use super::{OwnedBound, mark};
use crate::fixed::{Fixed, Key, by_type, key_bounds};
use crate::reader::{PhysicalType, Scalar, ValueBuffer};
use crate::widest::widest;
use std::borrow::Cow;

/// Of more ranges the one that can hold a value is looked up by halving.
const RANGES_COMPARED: usize = 4;

/// Values in ranges: which of a column's values pass a comparison, or are in a list. Floats are in total order, texts and
/// bytes in that of their bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueSet(Ranges);

#[derive(Clone, Debug, PartialEq)]
enum Ranges {
    I32(Keys<i32>),
    I64(Keys<i64>),
    F32(Keys<f32>),
    F64(Keys<f64>),
    I128(Keys<i128>),
    Bytes(Texts),
}

/// Runs `$fixed` or `$bytes` with `$ranges` bound to the ranges of whatever type.
macro_rules! each {
    ($set:expr, $ranges:ident => $do:expr) => {
        match $set {
            Ranges::I32($ranges) => $do,
            Ranges::I64($ranges) => $do,
            Ranges::F32($ranges) => $do,
            Ranges::F64($ranges) => $do,
            Ranges::I128($ranges) => $do,
            Ranges::Bytes($ranges) => $do,
        }
    };
}

impl ValueSet {
    /// The values that lie between the bounds of any of `ranges`; none when a bound is of another type.
    pub fn new(physical: PhysicalType, ranges: &[(OwnedBound, OwnedBound)]) -> Option<Self> {
        let bounds = ranges.iter().flat_map(|(low, high)| [low, high]);
        if bounds
            .flatten()
            .any(|(value, _)| value.physical() != physical)
        {
            return None;
        }
        Some(Self(by_type!(physical, T => {
            T::ranges(Keys::new(ranges))
        }, bytes => Ranges::Bytes(Texts::new(ranges)))))
    }

    /// Whether no value is in.
    pub fn is_empty(&self) -> bool {
        each!(&self.0, ranges => ranges.len() == 0)
    }

    /// How many ranges, single values among them.
    pub fn len(&self) -> usize {
        each!(&self.0, ranges => ranges.len())
    }

    /// How many of the ranges are single values.
    pub fn points(&self) -> usize {
        each!(&self.0, ranges => ranges.points())
    }

    /// Drops single values that are not to be kept.
    pub fn retain_points(&mut self, keep: impl FnMut(&Scalar<'_>) -> bool) {
        each!(&mut self.0, ranges => ranges.retain_points(keep));
    }

    /// The ranges by their bounds; a single value is both, included.
    pub fn ranges(&self) -> Vec<(OwnedBound, OwnedBound)> {
        each!(&self.0, ranges => ranges.bounds())
    }

    /// Whether `value`, of the set's type, is in.
    pub fn contains(&self, value: &Scalar<'_>) -> bool {
        each!(&self.0, ranges => ranges.contains_scalar(value))
    }

    /// Sets bit `i` of `words` if value `i` is in, and clears it if it is not; `words` reach over `values`. False: the
    /// values are of another type, and nothing was done.
    pub fn mark(&self, values: &ValueBuffer, words: &mut [u64]) -> bool {
        each!(&self.0, ranges => ranges.mark(values, words))
    }
}

/// Where each type's ranges stand in [`Ranges`].
trait Kept: Fixed {
    fn ranges(keys: Keys<Self>) -> Ranges;
}

macro_rules! kept {
    ($($t:ty, $variant:ident;)*) => {$(
        impl Kept for $t {
            fn ranges(keys: Keys<Self>) -> Ranges {
                Ranges::$variant(keys)
            }
        }
    )*};
}
kept!(i32, I32; i64, I64; f32, F32; f64, F64; i128, I128;);

/// Values of fixed width: by key, both ends included, ascending, not touching.
#[derive(Clone, Debug, PartialEq)]
struct Keys<T: Fixed>(Vec<(T::Key, T::Key)>);

impl<T: Fixed> Keys<T> {
    fn new(ranges: &[(OwnedBound, OwnedBound)]) -> Self {
        let mut keys: Vec<_> = ranges
            .iter()
            .filter_map(|(low, high)| key_bounds::<T>(borrowed(low), borrowed(high)))
            .collect();
        keys.sort_unstable();
        let mut merged: Vec<(T::Key, T::Key)> = Vec::with_capacity(keys.len());
        for (low, high) in keys {
            match merged.last_mut() {
                Some(last) if last.1.next().is_none_or(|next| low <= next) => {
                    last.1 = last.1.max(high)
                }
                _ => merged.push((low, high)),
            }
        }
        Self(merged)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn points(&self) -> usize {
        self.0.iter().filter(|(low, high)| low == high).count()
    }

    fn retain_points(&mut self, mut keep: impl FnMut(&Scalar<'_>) -> bool) {
        self.0
            .retain(|&(low, high)| low != high || keep(&T::of_key(low).scalar()));
    }

    fn bounds(&self) -> Vec<(OwnedBound, OwnedBound)> {
        let bound = |key: T::Key| Some((T::of_key(key).scalar(), true));
        let bounds = self.0.iter().map(|&(low, high)| {
            let point = low == high;
            (
                bound(low).filter(|_| point || low != T::Key::LOWEST),
                bound(high).filter(|_| point || high != T::Key::HIGHEST),
            )
        });
        bounds.collect()
    }

    fn contains(&self, key: T::Key) -> bool {
        let after = self.0.partition_point(|range| range.0 <= key);
        after > 0 && key <= self.0[after - 1].1
    }

    fn contains_scalar(&self, value: &Scalar<'_>) -> bool {
        T::from_scalar(value).is_some_and(|value| self.contains(value.key()))
    }

    fn mark(&self, values: &ValueBuffer, words: &mut [u64]) -> bool {
        let Some(values) = T::slice(values) else {
            return false;
        };
        widest(|| self.mark_all(values, words));
        true
    }

    #[inline(always)]
    fn mark_all(&self, values: &[T], words: &mut [u64]) {
        let test = |&(low, high): &(T::Key, T::Key)| (low, high.minus(low));
        match self.0.as_slice() {
            [] => mark(values, words, |_| false),
            [only] => {
                let (low, span) = test(only);
                mark(values, words, |value| value.key().minus(low) <= span);
            }
            [first, others @ ..] if others.len() < RANGES_COMPARED => {
                // One more test of the first range changes nothing.
                let mut tests = [test(first); RANGES_COMPARED];
                for (to, range) in tests.iter_mut().skip(1).zip(others) {
                    *to = test(range);
                }
                mark(values, words, |value| {
                    let key = value.key();
                    tests
                        .iter()
                        .fold(false, |any, &(low, span)| any | (key.minus(low) <= span))
                });
            }
            _ => mark(values, words, |value| self.contains(value.key())),
        }
    }
}

/// Texts or bytes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Texts {
    /// Single values, ascending, distinct.
    points: Vec<Vec<u8>>,
    /// Other ranges; they may overlap.
    ranges: Vec<(TextBound, TextBound)>,
}

type TextBound = Option<(Vec<u8>, bool)>;

impl Texts {
    fn new(ranges: &[(OwnedBound, OwnedBound)]) -> Self {
        let text = |bound: &OwnedBound| match bound {
            Some((Scalar::Bytes(text), included)) => Some((text.to_vec(), *included)),
            _ => None,
        };
        let mut texts = Self::default();
        for (low, high) in ranges {
            match (text(low), text(high)) {
                (Some((low, true)), Some((high, true))) if low == high => texts.points.push(low),
                bounds => texts.ranges.push(bounds),
            }
        }
        texts.points.sort_unstable();
        texts.points.dedup();
        texts
    }

    fn len(&self) -> usize {
        self.points.len() + self.ranges.len()
    }

    fn points(&self) -> usize {
        self.points.len()
    }

    fn retain_points(&mut self, mut keep: impl FnMut(&Scalar<'_>) -> bool) {
        self.points
            .retain(|text| keep(&Scalar::Bytes(Cow::Borrowed(text))));
    }

    fn bounds(&self) -> Vec<(OwnedBound, OwnedBound)> {
        let bound = |(text, included): &(Vec<u8>, bool)| {
            (Scalar::Bytes(Cow::Owned(text.clone())), *included)
        };
        let point = |text: &Vec<u8>| Some((Scalar::Bytes(Cow::Owned(text.clone())), true));
        let points = self.points.iter().map(|text| (point(text), point(text)));
        let ranges = self
            .ranges
            .iter()
            .map(|(low, high)| (low.as_ref().map(bound), high.as_ref().map(bound)));
        points.chain(ranges).collect()
    }

    fn contains(&self, value: &[u8]) -> bool {
        let within = |(low, high): &(TextBound, TextBound)| {
            low.as_ref()
                .is_none_or(|(low, included)| value > &low[..] || (*included && value == &low[..]))
                && high.as_ref().is_none_or(|(high, included)| {
                    value < &high[..] || (*included && value == &high[..])
                })
        };
        let point = self.points.binary_search_by(|point| point[..].cmp(value));
        point.is_ok() || self.ranges.iter().any(within)
    }

    fn contains_scalar(&self, value: &Scalar<'_>) -> bool {
        matches!(value, Scalar::Bytes(value) if self.contains(value))
    }

    fn mark(&self, values: &ValueBuffer, words: &mut [u64]) -> bool {
        let ValueBuffer::Bytes { offsets, data } = values else {
            return false;
        };
        let texts = offsets.windows(2).map(|ends| match *ends {
            [start, end] => data.get(start as usize..end as usize).unwrap_or_default(),
            _ => &[],
        });
        for word in words.iter_mut().take(values.len().div_ceil(64)) {
            *word = 0;
        }
        for (i, text) in texts.enumerate() {
            if let Some(word) = words.get_mut(i / 64) {
                *word |= u64::from(self.contains(text)) << (i % 64);
            }
        }
        true
    }
}

fn borrowed(bound: &OwnedBound) -> Option<(&Scalar<'static>, bool)> {
    bound.as_ref().map(|(value, included)| (value, *included))
}
