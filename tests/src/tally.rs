//! What a run of drawn queries covered: printed at the end, and asserted to be enough.

use crate::combination::{Combination, possible};
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
    /// Runs in which a star-tree answered for some segment.
    pub by_star_tree: u64,
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

    /// How often each possible combination was used, also those that never were.
    pub fn combinations(&self) -> BTreeMap<Combination, u64> {
        let mut counts: BTreeMap<Combination, u64> =
            possible().into_iter().map(|c| (c, 0)).collect();
        for (used, count) in &self.uses {
            *counts.entry(used.combination.clone()).or_default() += count;
        }
        counts
    }

    /// The combination that was used least, with how often.
    pub fn rarest(&self) -> Option<(Combination, u64)> {
        self.combinations()
            .into_iter()
            .min_by_key(|(_, count)| *count)
    }

    /// The combination that was used least when columns with nulls and columns without are told apart.
    pub fn rarest_by_nulls(&self) -> Option<(Use, u64)> {
        possible()
            .into_iter()
            .flat_map(|combination| {
                [false, true].map(|nullable| Use {
                    combination: combination.clone(),
                    nullable,
                })
            })
            .map(|used| {
                let count = self.uses.get(&used).copied().unwrap_or(0);
                (used, count)
            })
            .min_by_key(|(_, count)| *count)
    }
}

/// Counts a table of operators by types, and of storages by types.
fn table<'a>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    rows: impl Iterator<Item = (String, &'a str, u64)>,
) -> fmt::Result {
    let mut cells: BTreeMap<String, BTreeMap<&str, (u64, u64)>> = BTreeMap::new();
    for (row, column, count) in rows {
        let cell = cells
            .entry(row)
            .or_default()
            .entry(column)
            .or_insert((0, u64::MAX));
        *cell = (cell.0 + count, cell.1.min(count));
    }
    writeln!(
        f,
        "{title} (the rarest combination of each in parentheses):"
    )?;
    for (row, counts) in cells {
        let counts: Vec<String> = counts
            .iter()
            .map(|(column, (sum, least))| format!("{column} {sum} ({least})"))
            .collect();
        writeln!(f, "  {row:<20} {}", counts.join(", "))?;
    }
    Ok(())
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} queries in {} runs ({} with a cached plan, {} by star-trees), {} errors and {} empty answers ({:.1} %), {:.1} % answered by the leaf",
            self.queries,
            self.runs,
            self.cached,
            self.by_star_tree,
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
        let combinations = self.combinations();
        let by_operator = combinations
            .iter()
            .map(|(c, count)| (c.operator.to_owned(), c.data_type.as_str(), *count));
        table(f, "operators by type", by_operator)?;
        let by_storage = combinations
            .iter()
            .map(|(c, count)| (format!("{:?}", c.storage), c.data_type.as_str(), *count));
        table(f, "storages by type", by_storage)?;
        let name = |c: &Combination| format!("{} on {} {:?}", c.operator, c.data_type, c.storage);
        if let Some((rarest, count)) = self.rarest() {
            writeln!(
                f,
                "{} combinations of operator, type and storage; the rarest, {}, {count} times",
                combinations.len(),
                name(&rarest)
            )?;
        }
        if let Some((rarest, count)) = self.rarest_by_nulls() {
            let nulls = if rarest.nullable { "with" } else { "without" };
            writeln!(
                f,
                "{} of them with nulls and without; the rarest, {} {nulls} nulls, {count} times",
                combinations.len() * 2,
                name(&rarest.combination)
            )?;
        }
        Ok(())
    }
}
