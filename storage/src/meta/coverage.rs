//! The rule by which a hybrid table's coverage follows from its pushes.
//!
//! Pure: the same facts give the same coverage, whenever and wherever it is computed. "Now" is part of
//! the facts (the time of the last change to the offline half), so coverage moves only in the transaction
//! that changes the segments, never by the passing of time.
//!
//! # The inferred boundary
//!
//! Pinot's brokers take the largest offline time, go back by one push period (a day, or an hour for hourly
//! pushes), write that in the time column's own format, and let offline answer `time <= boundary` and realtime
//! `time > boundary`. For a column that counts days under daily pushes, with 24 January as its largest time,
//! that is `<= 23 January`: offline answers everything *before* the day of the largest time, which may
//! still be incomplete.
//!
//! In half-open form that is `time < floor(largest, period)`:
//! - Column as coarse as the period (days, daily): largest = 24 January; Pinot: `<= 23`; here: `< 24`. The same.
//! - Column coarser than the period (days, hourly): Pinot goes back to 23 January 23:00, which the column
//!   writes as 23 January; here `< 24 January 00:00`. The same.
//! - Column finer than the period (milliseconds, daily): the largest = 24 January 10:00. Pinot: `<= 23 January
//!   10:00`, which leaves a day's afternoon to realtime though the next day's morning is loaded; here `< 24
//!   January 00:00`. Boundaries at whole periods are what a job that pushes whole periods means. They agree when the
//!   largest time is the period's last instant.
//!
//! So the largest offline time itself is never covered by inference, nor anything in its period. Times that a
//! coarse column writes stand for the start of their step (`TimeFormat::to_ms`), and the comparison at query
//! time is made on the same starts, so no step is cut in two.
//!
//! A row in the far future must not move the boundary beyond the present, so the largest time counts as at
//! most now.

use crate::config::PushPeriod;
use serde::{Deserialize, Serialize};
use strandline_proto::coverage::{Coverage, Interval};

/// The start of the period that holds `time_ms`; `i64::MIN` before the first whole one.
fn floor(period: PushPeriod, time_ms: i64) -> i64 {
    time_ms
        .div_euclid(period.millis())
        .checked_mul(period.millis())
        .unwrap_or(i64::MIN)
}

/// What the metastore keeps of a table from which its coverage follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageFacts {
    /// The intervals that pushes declared complete, less what was taken back; none when no push ever declared one.
    pub declared: Option<Coverage>,
    /// Intervals whose offline rows were deleted and not loaded again.
    pub deleted: Coverage,
    /// When the offline segments last changed, in milliseconds since the epoch; none without a push.
    pub changed_ms: Option<i64>,
    /// The boundary that an operator holds.
    pub pinned_at_ms: Option<i64>,
    /// Intervals that pushes took the place of, less what was taken back: complete as well, also where coverage is inferred.
    #[serde(default)]
    pub replaced: Coverage,
    /// Intervals that the offline half took over from the stream, as far as it had come.
    #[serde(default)]
    pub moved: Coverage,
    /// The largest time that inference went by before rows were deleted: what is deleted moves no boundary.
    #[serde(default)]
    pub largest_ms: Option<i64>,
}

impl CoverageFacts {
    /// The facts after an interval was declared complete.
    pub fn declare(&mut self, interval: Interval) {
        self.declared = Some(self.declared.take().unwrap_or_default().with(interval));
        self.deleted = self.deleted.without(interval);
        self.moved = self.moved.without(interval);
    }

    /// The facts after a push took the place of an interval's offline rows.
    pub fn replace(&mut self, interval: Interval) {
        self.replaced = self.replaced.with(interval);
        self.deleted = self.deleted.without(interval);
        self.moved = self.moved.without(interval);
    }

    /// The facts after the offline half took over rows of these times from the stream.
    pub fn take_over(&mut self, times: &Coverage) {
        self.moved = self.moved.union(times);
        self.deleted = self.deleted.minus(times);
    }

    /// The facts before offline rows are deleted of which `largest_ms` is the largest time.
    pub fn remember_largest(&mut self, largest_ms: Option<i64>) {
        self.largest_ms = self.largest_ms.max(largest_ms);
    }

    /// The facts with an interval as it was `before`.
    pub fn restore(&mut self, interval: Interval, before: &Self) {
        let restored =
            |now: &Coverage, then: &Coverage| now.without(interval).union(&then.within(interval));
        self.deleted = restored(&self.deleted, &before.deleted);
        self.replaced = restored(&self.replaced, &before.replaced);
        self.moved = restored(&self.moved, &before.moved);
        self.declared = match (&self.declared, &before.declared) {
            (None, None) => None,
            // It ended inference.
            (Some(now), None) if now.without(interval).is_empty() => None,
            (now, then) => {
                let or_empty = |of: &Option<Coverage>| of.clone().unwrap_or_default();
                Some(restored(&or_empty(now), &or_empty(then)))
            }
        };
    }

    /// The facts after an interval's offline rows were deleted.
    pub fn delete(&mut self, interval: Interval) {
        self.deleted = self.deleted.with(interval);
        self.replaced = self.replaced.without(interval);
        self.moved = self.moved.without(interval);
        if let Some(declared) = &mut self.declared {
            *declared = declared.without(interval);
        }
    }

    /// The facts after all offline segments were replaced by others.
    pub fn replace_all(&mut self) {
        let (pinned_at_ms, changed_ms) = (self.pinned_at_ms, self.changed_ms);
        *self = Self {
            pinned_at_ms,
            changed_ms,
            ..Self::default()
        };
    }
}

/// Which half answers for which times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Where offline rows count.
    pub offline: Coverage,
    /// Where of these times realtime rows count, too.
    pub shared: Coverage,
}

/// The times that offline answers for, with the pin applied.
///
/// `offline_max_ms` is the largest time of what was pushed to the offline half (the start of its step, for a coarse
/// column); none when it holds no time. A pin does not reach what was taken over from the stream, which the realtime half
/// no longer holds.
pub fn covered(facts: &CoverageFacts, offline_max_ms: Option<i64>, period: PushPeriod) -> Covered {
    Covered {
        offline: coverage(facts, offline_max_ms, period).union(&facts.moved),
        shared: facts.moved.clone(),
    }
}

/// The times for which pushes made offline complete, with the pin applied; see [`covered`].
pub fn coverage(
    facts: &CoverageFacts,
    offline_max_ms: Option<i64>,
    period: PushPeriod,
) -> Coverage {
    let unpinned = match &facts.declared {
        Some(declared) => declared.clone(),
        None => inferred(
            offline_max_ms.max(facts.largest_ms),
            facts.changed_ms,
            period,
        ),
    };
    let unpinned = unpinned.union(&facts.replaced).minus(&facts.deleted);
    match facts.pinned_at_ms {
        Some(boundary_ms) => unpinned.pinned_at(boundary_ms),
        None => unpinned,
    }
}

/// See the module's text.
fn inferred(offline_max_ms: Option<i64>, now_ms: Option<i64>, period: PushPeriod) -> Coverage {
    match offline_max_ms {
        Some(max_ms) => Coverage::until(floor(period, max_ms.min(now_ms.unwrap_or(i64::MAX)))),
        None => Coverage::default(),
    }
}

/// The times that neither half is known to hold completely: not covered, and before the realtime half's first
/// known time.
///
/// `offline_ms` is the smallest and largest time of the offline half, `realtime_min_ms` the smallest of the realtime
/// half (committed and consuming). Nothing before both the first covered and the first offline time is
/// reported: there the table has not begun. Without realtime rows, what lies behind coverage is a gap as far
/// as offline rows (then hidden) reach.
pub fn gaps(
    coverage: &Coverage,
    offline_ms: Option<(i64, i64)>,
    realtime_min_ms: Option<i64>,
) -> Vec<Interval> {
    let covered_from = coverage.intervals().first().map(|first| first.start_ms);
    let begins = match (covered_from, offline_ms) {
        (Some(covered), Some((offline, _))) => covered.min(offline),
        (Some(covered), None) => covered,
        (None, Some((offline, _))) => offline,
        (None, None) => return Vec::new(),
    };
    let covered_to = coverage.boundary_ms().unwrap_or(begins);
    let ends = match (realtime_min_ms, offline_ms) {
        (Some(realtime), _) => realtime,
        (None, Some((_, offline))) => covered_to.max(offline.saturating_add(1)),
        (None, None) => covered_to,
    };
    let all = Coverage::new([Interval {
        start_ms: begins,
        end_ms: ends,
    }]);
    coverage
        .intervals()
        .iter()
        .fold(all, |rest, covered| rest.without(*covered))
        .intervals()
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000;
    const HOUR: i64 = 3_600_000;
    const NOW: i64 = 20_000 * DAY;

    fn interval(start_ms: i64, end_ms: i64) -> Interval {
        Interval { start_ms, end_ms }
    }

    fn facts() -> CoverageFacts {
        CoverageFacts {
            changed_ms: Some(NOW),
            ..CoverageFacts::default()
        }
    }

    #[test]
    fn inference_agrees_with_pinots_rule_for_columns_of_days() {
        // 24 January 2014 is day 16094; Pinot answers `DaysSinceEpoch <= 16093` from offline.
        let daily = coverage(&facts(), Some(16_094 * DAY), PushPeriod::Daily);
        assert_eq!(daily, Coverage::until(16_094 * DAY));
        let hourly = coverage(&facts(), Some(16_094 * DAY), PushPeriod::Hourly);
        assert_eq!(hourly, daily);
        let last_instant = coverage(&facts(), Some(16_095 * DAY - 1), PushPeriod::Daily);
        assert_eq!(last_instant, daily);
        assert_eq!(
            coverage(
                &facts(),
                Some(16_094 * DAY + 10 * HOUR + 5),
                PushPeriod::Hourly
            ),
            Coverage::until(16_094 * DAY + 10 * HOUR)
        );
    }

    #[test]
    fn a_row_in_the_far_future_does_not_move_the_boundary_past_now() {
        let facts = CoverageFacts {
            changed_ms: Some(NOW + 5 * HOUR),
            ..facts()
        };
        assert_eq!(
            coverage(&facts, Some(i64::MAX), PushPeriod::Daily),
            Coverage::until(NOW)
        );
        assert_eq!(
            coverage(&facts, None, PushPeriod::Daily),
            Coverage::default()
        );
    }

    #[test]
    fn a_declaration_ends_inference_and_a_full_replacement_begins_it_again() {
        let mut facts = facts();
        facts.declare(interval(0, 24 * DAY));
        assert_eq!(
            coverage(&facts, Some(30 * DAY), PushPeriod::Daily),
            Coverage::new([interval(0, 24 * DAY)])
        );
        facts.delete(interval(20 * DAY, 21 * DAY));
        assert_eq!(
            coverage(&facts, Some(30 * DAY), PushPeriod::Daily).intervals(),
            [interval(0, 20 * DAY), interval(21 * DAY, 24 * DAY)]
        );
        facts.declare(interval(20 * DAY, 21 * DAY));
        assert_eq!(
            coverage(&facts, Some(30 * DAY), PushPeriod::Daily),
            Coverage::new([interval(0, 24 * DAY)])
        );
        facts.replace_all();
        assert_eq!(
            coverage(&facts, Some(30 * DAY), PushPeriod::Daily),
            Coverage::until(30 * DAY)
        );
    }

    #[test]
    fn a_gap_is_what_neither_half_holds() {
        let covered = Coverage::new([interval(10, 20), interval(30, 40)]);
        assert_eq!(
            gaps(&covered, Some((10, 39)), Some(50)),
            [interval(20, 30), interval(40, 50)]
        );
        assert_eq!(gaps(&covered, Some((10, 39)), Some(25)), [interval(20, 25)]);
        assert_eq!(gaps(&covered, Some((5, 39)), Some(15)), [interval(5, 10)]);
        assert_eq!(
            gaps(&covered, Some((10, 44)), None),
            [interval(20, 30), interval(40, 45)]
        );
        assert_eq!(gaps(&covered, Some((10, 20)), Some(5)), []);
        assert_eq!(gaps(&Coverage::default(), None, Some(5)), []);
        assert_eq!(
            gaps(&Coverage::until(20), Some((10, 20)), None),
            [interval(20, 21)]
        );
    }

    fn intervals() -> impl Strategy<Value = Vec<Interval>> {
        prop::collection::vec((-50_i64..50, 0_i64..20), 0..6).prop_map(|pairs| {
            pairs
                .into_iter()
                .map(|(start, len)| interval(start, start + len))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn coverage_holds_exactly_what_was_declared_last(steps in prop::collection::vec((any::<bool>(), -50_i64..50, 1_i64..20), 1..12)) {
            let mut facts = facts();
            facts.declare(interval(0, 1));
            let mut naive: std::collections::BTreeSet<i64> = [0].into();
            for (declare, start, len) in steps {
                if declare {
                    facts.declare(interval(start, start + len));
                    naive.extend(start..start + len);
                } else {
                    facts.delete(interval(start, start + len));
                    naive.retain(|t| !(start..start + len).contains(t));
                }
                let covered = coverage(&facts, Some(1_000), PushPeriod::Daily);
                for t in -60..80 {
                    prop_assert_eq!(covered.contains(t), naive.contains(&t));
                }
            }
        }

        #[test]
        fn inference_never_covers_the_largest_time_nor_the_future(max in any::<i64>(), now in any::<i64>(), hourly in any::<bool>()) {
            let period = if hourly { PushPeriod::Hourly } else { PushPeriod::Daily };
            let covered = coverage(&CoverageFacts { changed_ms: Some(now), ..CoverageFacts::default() }, Some(max), period);
            prop_assert!(!covered.contains(max) && !covered.contains(now));
            if let Some(boundary) = covered.boundary_ms() {
                prop_assert!(boundary.rem_euclid(period.millis()) == 0 && max.min(now) - boundary < period.millis());
            }
        }

        #[test]
        fn a_pin_puts_the_boundary_where_it_says(declared in intervals(), pin in -60_i64..80) {
            let mut facts = facts();
            for i in declared {
                facts.declare(i);
            }
            facts.pinned_at_ms = Some(pin);
            let covered = coverage(&facts, Some(1_000 * DAY), PushPeriod::Daily);
            prop_assert!(covered.intervals().iter().all(|i| i.end_ms <= pin));
        }

        #[test]
        fn gaps_are_disjoint_from_coverage_and_before_realtime(declared in intervals(), offline in (-60_i64..0, 0_i64..60), realtime in -60_i64..80) {
            let covered = Coverage::new(declared);
            let begins = covered.intervals().first().map_or(offline.0, |i| i.start_ms.min(offline.0));
            let found = Coverage::new(gaps(&covered, Some(offline), Some(realtime)));
            for t in -70..90 {
                prop_assert_eq!(found.contains(t), t >= begins && t < realtime && !covered.contains(t));
            }
        }
    }
}
