//! Coverage: the set of times for which the offline half is complete.
//!
//! Kept as disjoint, ascending, non-adjacent half-open intervals of milliseconds since the epoch.
//! An offline row answers inside, a realtime row outside, so every instant is answered by exactly
//! one half. In the usual case there is one interval, and its end is the time boundary.

use serde::{Deserialize, Serialize};

/// A half-open interval of milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Interval {
    /// The first millisecond.
    pub start_ms: i64,
    /// The first millisecond after it.
    pub end_ms: i64,
}

/// The covered times of one hybrid table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Coverage(Vec<Interval>);

impl Coverage {
    /// Coverage of these intervals, in any order, overlapping or not; empty ones are dropped.
    pub fn new(intervals: impl IntoIterator<Item = Interval>) -> Self {
        let mut sorted: Vec<_> = intervals
            .into_iter()
            .filter(|i| i.start_ms < i.end_ms)
            .collect();
        sorted.sort_unstable();
        let mut merged: Vec<Interval> = Vec::with_capacity(sorted.len());
        for next in sorted {
            match merged.last_mut() {
                Some(last) if next.start_ms <= last.end_ms => {
                    last.end_ms = last.end_ms.max(next.end_ms)
                }
                _ => merged.push(next),
            }
        }
        Self(merged)
    }

    /// Everything before `end_ms`.
    pub fn until(end_ms: i64) -> Self {
        Self::new([Interval {
            start_ms: i64::MIN,
            end_ms,
        }])
    }

    /// The intervals: disjoint, ascending, not touching.
    pub fn intervals(&self) -> &[Interval] {
        &self.0
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time boundary: the end of the last interval.
    pub fn boundary_ms(&self) -> Option<i64> {
        self.0.last().map(|i| i.end_ms)
    }

    /// Whether `time_ms` is covered.
    pub fn contains(&self, time_ms: i64) -> bool {
        let after = self.0.partition_point(|i| i.start_ms <= time_ms);
        after > 0 && time_ms < self.0[after - 1].end_ms
    }

    /// Whether all of `[min_ms, max_ms]` (both included) is covered.
    pub fn contains_range(&self, min_ms: i64, max_ms: i64) -> bool {
        self.0
            .iter()
            .any(|i| i.start_ms <= min_ms && max_ms < i.end_ms)
    }

    /// Whether any of `[min_ms, max_ms]` (both included) is covered.
    pub fn overlaps_range(&self, min_ms: i64, max_ms: i64) -> bool {
        self.0
            .iter()
            .any(|i| i.start_ms <= max_ms && min_ms < i.end_ms)
    }

    /// This and `interval`.
    pub fn with(&self, interval: Interval) -> Self {
        Self::new(self.0.iter().copied().chain([interval]))
    }

    /// This without `interval`.
    pub fn without(&self, interval: Interval) -> Self {
        Self::new(self.0.iter().flat_map(|i| {
            [
                Interval {
                    start_ms: i.start_ms,
                    end_ms: i.end_ms.min(interval.start_ms),
                },
                Interval {
                    start_ms: i.start_ms.max(interval.end_ms),
                    end_ms: i.end_ms,
                },
            ]
        }))
    }

    /// This and all of `other`.
    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).copied())
    }

    /// This without all of `other`.
    pub fn minus(&self, other: &Self) -> Self {
        other
            .0
            .iter()
            .fold(self.clone(), |left, i| left.without(*i))
    }

    /// What of this lies within `interval`.
    pub fn within(&self, interval: Interval) -> Self {
        Self::new(self.0.iter().map(|i| Interval {
            start_ms: i.start_ms.max(interval.start_ms),
            end_ms: i.end_ms.min(interval.end_ms),
        }))
    }

    /// Everything before `boundary_ms`, except the holes that this has before it: what an operator's pin makes of it.
    pub fn pinned_at(&self, boundary_ms: i64) -> Self {
        let extended = match self.0.last() {
            Some(last) => self.with(Interval {
                start_ms: last.start_ms,
                end_ms: boundary_ms.max(last.end_ms),
            }),
            None => Self::until(boundary_ms),
        };
        extended.without(Interval {
            start_ms: boundary_ms,
            end_ms: i64::MAX,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(i64, i64)]) -> Coverage {
        Coverage::new(
            pairs
                .iter()
                .map(|&(start_ms, end_ms)| Interval { start_ms, end_ms }),
        )
    }

    #[test]
    fn touching_and_overlapping_intervals_become_one() {
        assert_eq!(of(&[(5, 9), (0, 3), (3, 5), (20, 20)]), of(&[(0, 9)]));
    }

    #[test]
    fn a_deleted_hole_leaves_both_sides_covered() {
        let covered = of(&[(0, 24)]).without(Interval {
            start_ms: 20,
            end_ms: 21,
        });
        assert_eq!(covered, of(&[(0, 20), (21, 24)]));
        assert!(
            covered.contains(19)
                && !covered.contains(20)
                && covered.contains(21)
                && !covered.contains(24)
        );
        assert_eq!(covered.boundary_ms(), Some(24));
    }

    #[test]
    fn a_pin_moves_the_boundary_both_ways_and_keeps_holes() {
        let covered = of(&[(0, 20), (21, 24)]);
        assert_eq!(covered.pinned_at(22), of(&[(0, 20), (21, 22)]));
        assert_eq!(covered.pinned_at(30), of(&[(0, 20), (21, 30)]));
        assert_eq!(covered.pinned_at(10), of(&[(0, 10)]));
        assert!(covered.contains_range(0, 19) && !covered.contains_range(0, 20));
        assert!(covered.overlaps_range(20, 21) && !covered.overlaps_range(20, 20));
    }
}
