//! Times of answers by question, and errors.

use super::page::QUESTIONS;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Kinds of errors that are kept.
const ERRORS_MAX: usize = 10;

/// The longest time that is told from longer ones, in microseconds.
const LONGEST: u64 = 600_000_000;

/// Times in microseconds, three digits exact.
#[derive(Clone, Debug)]
pub struct Times {
    questions: Vec<Histogram<u64>>,
    all: Histogram<u64>,
    pages: Histogram<u64>,
    errors: BTreeMap<String, u64>,
    failed: u64,
}

/// No times yet.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3)
        .unwrap_or_else(|e| unreachable!("these bounds make a histogram: {e}"))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// The percentiles of times as milliseconds.
pub fn percentiles(times: &Histogram<u64>) -> Value {
    let ms = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
    json!({
        "p50_ms": ms(0.5),
        "p90_ms": ms(0.9),
        "p95_ms": ms(0.95),
        "p99_ms": ms(0.99),
        "p999_ms": ms(0.999),
        "max_ms": times.max() as f64 / 1e3,
    })
}

impl Default for Times {
    fn default() -> Self {
        Self {
            questions: QUESTIONS.iter().map(|_| histogram()).collect(),
            all: histogram(),
            pages: histogram(),
            errors: BTreeMap::new(),
            failed: 0,
        }
    }
}

impl Times {
    /// Notes one answer.
    pub fn answered(&mut self, question: usize, time: Duration) {
        if let Some(of_question) = self.questions.get_mut(question) {
            of_question.saturating_record(micros(time));
        }
        self.all.saturating_record(micros(time));
    }

    /// Notes that all answers of a page are there.
    pub fn page(&mut self, time: Duration) {
        self.pages.saturating_record(micros(time));
    }

    /// Notes an error.
    pub fn failed(&mut self, error: String) {
        self.failed += 1;
        if self.errors.len() < ERRORS_MAX || self.errors.contains_key(&error) {
            *self.errors.entry(error).or_default() += 1;
        }
    }

    /// Adds what another worker noted.
    pub fn add(&mut self, other: &Self) {
        let pairs = self.questions.iter_mut().zip(&other.questions);
        for (mine, theirs) in
            pairs.chain([(&mut self.all, &other.all), (&mut self.pages, &other.pages)])
        {
            // They have the same precision, and grow as they must.
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

    /// All of it.
    pub fn document(&self) -> Map<String, Value> {
        let questions: Map<String, Value> = QUESTIONS
            .iter()
            .zip(&self.questions)
            .map(|(name, times)| ((*name).to_owned(), percentiles(times)))
            .collect();
        let mut document = Map::new();
        document.insert("answers".to_owned(), json!(self.answers()));
        document.insert("pages".to_owned(), json!(self.pages.len()));
        document.insert("errors".to_owned(), json!(self.failed));
        document.insert("error_kinds".to_owned(), json!(self.errors));
        document.insert("query".to_owned(), percentiles(&self.all));
        document.insert("page".to_owned(), percentiles(&self.pages));
        document.insert("questions".to_owned(), json!(questions));
        document
    }
}
