//! What a run of drawn queries covered: printed at the end, and asserted to be enough.

use crate::predicate::Use;
use crate::query::Query;
use std::collections::BTreeMap;
use std::fmt;

/// Counts over a run.
#[derive(Debug, Default)]
pub struct Tally {
    /// Queries held against the oracle.
    pub queries: u64,
    /// Runs of them: variants, cached and uncached.
    pub runs: u64,
    /// Queries that both sides refused.
    pub errors: u64,
    /// Queries with no row in the answer.
    pub empty: u64,
    /// Queries whose tables' scans did all the filtering and aggregating that a leaf can do.
    pub by_leaf: u64,
    /// Queries for which that is known.
    pub explained: u64,
    /// Runs that took a cached plan.
    pub cached: u64,
    kinds: BTreeMap<&'static str, u64>,
    uses: BTreeMap<Use, u64>,
}

impl Tally {
    /// Counts one query.
    pub fn add(&mut self, query: &Query, error: bool, empty: bool) {
        self.queries += 1;
        self.errors += u64::from(error);
        self.empty += u64::from(empty);
        *self.kinds.entry(query.kind).or_default() += 1;
        if !error {
            for used in &query.uses {
                *self.uses.entry(used.clone()).or_default() += 1;
            }
        }
    }

    /// Errors and empty answers among a hundred queries.
    pub fn barren_percent(&self) -> f64 {
        100.0 * (self.errors + self.empty) as f64 / self.queries.max(1) as f64
    }

    /// Queries answered by the leaf among a hundred.
    pub fn leaf_percent(&self) -> f64 {
        100.0 * self.by_leaf as f64 / self.explained.max(1) as f64
    }

    /// Pairs of an operator and a type that were used, with how often.
    pub fn operators_on_types(&self) -> BTreeMap<(&'static str, String), u64> {
        let mut pairs = BTreeMap::new();
        for (used, count) in &self.uses {
            *pairs
                .entry((used.operator, used.data_type.clone()))
                .or_default() += count;
        }
        pairs
    }

    /// How often the rarest combination of operator, type and storage was used, and how many there are.
    pub fn rarest(&self) -> (u64, usize) {
        (
            self.uses.values().copied().min().unwrap_or(0),
            self.uses.len(),
        )
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} queries in {} runs ({} with a cached plan), {} errors and {} empty answers ({:.1} %), {:.1} % answered by the leaf",
            self.queries,
            self.runs,
            self.cached,
            self.errors,
            self.empty,
            self.barren_percent(),
            self.leaf_percent()
        )?;
        let kinds: Vec<String> = self
            .kinds
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        writeln!(f, "kinds: {}", kinds.join(", "))?;
        let mut by_operator: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ((operator, data_type), count) in self.operators_on_types() {
            by_operator
                .entry(operator)
                .or_default()
                .push(format!("{data_type} {count}"));
        }
        for (operator, types) in by_operator {
            writeln!(f, "  {operator:<20} {}", types.join(", "))?;
        }
        let mut by_storage: BTreeMap<String, u64> = BTreeMap::new();
        for (used, count) in &self.uses {
            *by_storage.entry(format!("{:?}", used.storage)).or_default() += count;
        }
        let storages: Vec<String> = by_storage
            .iter()
            .map(|(storage, count)| format!("{storage} {count}"))
            .collect();
        let (rarest, combinations) = self.rarest();
        writeln!(
            f,
            "storage: {}; {combinations} combinations of operator, type and storage, the rarest {rarest} times",
            storages.join(", ")
        )
    }
}
