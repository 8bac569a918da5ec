//! Times of answers by kind and by second, and errors.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Kinds of errors that are kept.
const ERRORS_MAX: usize = 10;
/// The longest time that is told from longer ones, in microseconds.
const LONGEST: u64 = 600_000_000;
/// Seconds that are kept apart; what comes later counts into the last of them.
const SECONDS_MAX: usize = 3_600;

/// The percentiles that are reported, by their keys in results and their names in tables.
pub const PERCENTILES: [(&str, &str, f64); 6] = [
    ("p50_ms", "p50", 0.5),
    ("p90_ms", "p90", 0.9),
    ("p95_ms", "p95", 0.95),
    ("p99_ms", "p99", 0.99),
    ("p999_ms", "p99.9", 0.999),
    ("max_ms", "max", 1.0),
];

/// Times in microseconds, three digits exact.
#[derive(Clone, Debug)]
pub struct Times {
    started: Instant,
    kinds: Vec<(&'static str, Histogram<u64>)>,
    all: Histogram<u64>,
    /// Answers by the second in which they came, two digits exact.
    seconds: Vec<Histogram<u64>>,
    errors: BTreeMap<String, u64>,
    failed: u64,
}

/// No times yet.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3)
        .unwrap_or_else(|e| unreachable!("these bounds make a histogram: {e}"))
}

/// No times of a second yet: grows with the longest.
fn second() -> Histogram<u64> {
    Histogram::new(2).unwrap_or_else(|e| unreachable!("two digits make a histogram: {e}"))
}

/// A time as it is recorded.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros())
        .unwrap_or(LONGEST)
        .clamp(1, LONGEST)
}

/// The percentiles of times as milliseconds; null of no times.
pub fn percentiles(times: &Histogram<u64>) -> Value {
    let ms = |quantile: f64| {
        let micros = match quantile < 1.0 {
            true => times.value_at_quantile(quantile),
            false => times.max(),
        };
        (!times.is_empty()).then_some(micros as f64 / 1e3)
    };
    PERCENTILES
        .iter()
        .map(|&(key, _, quantile)| (key.to_owned(), json!(ms(quantile))))
        .collect::<Map<_, _>>()
        .into()
}

impl Times {
    /// No answers yet, of these kinds, since `started`.
    pub fn new(kinds: &[&'static str], started: Instant) -> Self {
        Self {
            started,
            kinds: kinds.iter().map(|kind| (*kind, histogram())).collect(),
            all: histogram(),
            seconds: Vec::new(),
            errors: BTreeMap::new(),
            failed: 0,
        }
    }

    /// Notes an answer that came now.
    pub fn answered(&mut self, kind: usize, time: Duration) {
        self.answered_after(self.started.elapsed(), kind, time);
    }

    fn answered_after(&mut self, since_start: Duration, kind: usize, time: Duration) {
        let micros = micros(time);
        if let Some((_, of_kind)) = self.kinds.get_mut(kind) {
            of_kind.saturating_record(micros);
        }
        self.all.saturating_record(micros);
        let at = (since_start.as_secs() as usize).min(SECONDS_MAX - 1);
        if self.seconds.len() <= at {
            self.seconds.resize_with(at + 1, second);
        }
        if let Some(of_second) = self.seconds.get_mut(at) {
            // It grows as it must; saturating, it would not.
            (of_second.record(micros)).unwrap_or_else(|e| unreachable!("{e}"));
        }
    }

    /// Notes an error.
    pub fn failed(&mut self, error: String) {
        self.failed += 1;
        if self.errors.len() < ERRORS_MAX || self.errors.contains_key(&error) {
            *self.errors.entry(error).or_default() += 1;
        }
    }

    /// Adds what another worker noted since the same start.
    pub fn add(&mut self, other: &Self) {
        let kinds = self.kinds.iter_mut().zip(&other.kinds);
        let kinds = kinds.map(|((_, mine), (_, theirs))| (mine, theirs));
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize_with(other.seconds.len(), second);
        }
        let seconds = self.seconds.iter_mut().zip(&other.seconds);
        for (mine, theirs) in kinds.chain(seconds).chain([(&mut self.all, &other.all)]) {
            // They have the same precision and bounds, or grow as they must.
            mine.add(theirs).unwrap_or_else(|e| unreachable!("{e}"));
        }
        self.failed += other.failed;
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
    }

    /// Answers.
    pub fn answers(&self) -> u64 {
        self.all.len()
    }

    /// Errors.
    pub fn errors(&self) -> u64 {
        self.failed
    }

    /// A percentile of all answers in milliseconds; none without answers.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        (!self.all.is_empty()).then(|| self.all.value_at_quantile(quantile) as f64 / 1e3)
    }

    /// The percentiles of each kind.
    pub fn by_kind(&self) -> Map<String, Value> {
        let kind = |(name, times): &(&str, Histogram<u64>)| {
            let mut document = percentiles(times);
            document["answers"] = json!(times.len());
            ((*name).to_owned(), document)
        };
        self.kinds.iter().map(kind).collect()
    }

    /// The percentiles of each second.
    pub fn by_second(&self) -> Vec<Value> {
        let second = |(at, times): (usize, &Histogram<u64>)| {
            let mut document = percentiles(times);
            document["second"] = json!(at);
            document["answers"] = json!(times.len());
            document
        };
        self.seconds.iter().enumerate().map(second).collect()
    }

    /// Answers and errors, the percentiles of all answers, and those of each second.
    pub fn document(&self) -> Map<String, Value> {
        let mut document = Map::new();
        document.insert("answers".to_owned(), json!(self.answers()));
        document.insert("errors".to_owned(), json!(self.failed));
        document.insert("error_kinds".to_owned(), json!(self.errors));
        document.insert("query".to_owned(), percentiles(&self.all));
        document.insert("by_second".to_owned(), json!(self.by_second()));
        document
    }
}

/// A table's cells for the percentiles in `document`.
pub fn cells(document: &Value) -> Vec<String> {
    PERCENTILES
        .iter()
        .map(|(key, _, _)| crate::results::number(document[*key].as_f64(), 2))
        .collect()
}

/// The header of a table of percentiles.
pub fn header(first: &str) -> Vec<String> {
    let names = PERCENTILES.iter().map(|(_, name, _)| (*name).to_owned());
    std::iter::once(first.to_owned()).chain(names).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn close(value: &Value, wanted: f64) -> bool {
        (value.as_f64().unwrap() / wanted - 1.0).abs() < 2e-3
    }

    #[test]
    fn percentiles_are_those_of_the_times() {
        let mut times = histogram();
        for n in 1..=1_000 {
            times.record(micros(MS * n)).unwrap();
        }
        let document = percentiles(&times);
        assert!(close(&document["p50_ms"], 500.0), "{document}");
        assert!(close(&document["p90_ms"], 900.0), "{document}");
        assert!(close(&document["p99_ms"], 990.0), "{document}");
        assert!(close(&document["p999_ms"], 999.0), "{document}");
        assert!(close(&document["max_ms"], 1_000.0), "{document}");
        assert!(percentiles(&histogram())["p50_ms"].is_null());
    }

    #[test]
    fn workers_times_add_up_by_kind_and_by_second() {
        let start = Instant::now();
        let (mut one, mut other) = (
            Times::new(&["a", "b"], start),
            Times::new(&["a", "b"], start),
        );
        one.answered_after(MS * 100, 0, MS * 2);
        other.answered_after(MS * 200, 1, MS * 4);
        other.answered_after(MS * 2_500, 1, MS * 400);
        other.failed("gone".to_owned());
        one.add(&other);
        assert_eq!((one.answers(), one.errors()), (3, 1));
        let kinds = one.by_kind();
        assert_eq!(kinds["a"]["answers"], 1);
        assert_eq!(kinds["b"]["answers"], 2);
        assert!(close(&kinds["b"]["max_ms"], 400.0));
        let counts: Vec<Value> = one
            .by_second()
            .iter()
            .map(|s| s["answers"].clone())
            .collect();
        assert_eq!(counts, [2, 0, 1]);
        let max = |second: usize| one.by_second()[second]["max_ms"].clone();
        assert!((3.9..4.1).contains(&max(0).as_f64().unwrap()), "{}", max(0));
        assert!(
            (395.0..405.0).contains(&max(2).as_f64().unwrap()),
            "{}",
            max(2)
        );
        assert!(max(1).is_null());
        assert_eq!(one.document()["error_kinds"], json!({"gone": 1}));
    }

    #[test]
    fn times_beyond_the_longest_count_as_the_longest() {
        let mut times = Times::new(&["a"], Instant::now());
        times.answered(0, Duration::MAX);
        assert_eq!(times.answers(), 1);
        assert!(times.quantile_ms(0.5).unwrap() >= 599_000.0);
    }
}
