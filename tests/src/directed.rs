//! Statements whose predicates follow from a number instead of chance, so that a round goes through every operator on
//! every column of its table.

use crate::combination::operators;
use crate::predicate::Draw;
use crate::query::Query;
use crate::sql::Sql;
use crate::table::{Column, Table};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Predicates in each of these statements.
pub const PREDICATES: usize = 12;

/// All pairs of a column and an operator on it, mixed, in the same order for the same columns.
fn pairs(table: &Table) -> Vec<(&Column, &'static str)> {
    let mut pairs: Vec<_> = table
        .columns
        .iter()
        .flat_map(|column| {
            operators(column.data_type, column.multi_value)
                .into_iter()
                .map(move |operator| (column, operator))
        })
        .collect();
    let seed = pairs.len() as u64;
    pairs.shuffle(&mut StdRng::seed_from_u64(seed));
    pairs
}

/// How many of these statements go through all pairs of `table` once.
pub fn statements_for_all(table: &Table) -> usize {
    pairs(table).len().div_ceil(PREDICATES)
}

impl Draw<'_> {
    /// Statement `number`: the predicates that come after those of statement `number - 1`, counted round.
    pub(crate) fn directed(&mut self, number: usize) -> Query {
        let all = pairs(self.t);
        let predicates: Vec<Sql> = (number * PREDICATES..(number + 1) * PREDICATES)
            .map(|at| {
                let (column, operator) = all[at % all.len()];
                if column.multi_value {
                    self.multi(column, operator)
                } else {
                    self.single(column, operator)
                }
            })
            .collect();
        match self.below(4) {
            0 => Self::filtered_aggregates(&predicates),
            1 => Self::scans(&predicates),
            2 => self.filtered_groups(&predicates),
            _ => self.truth_values(&predicates),
        }
    }

    /// Each predicate in an aggregate of its own, beside a WHERE.
    fn filtered_aggregates(predicates: &[Sql]) -> Query {
        let (counted, filter) = predicates.split_at(8);
        let counts = numbered(counted, "count(*) FILTER (WHERE @)");
        let filter = Sql::fill("@ OR NOT @ OR (@ AND NOT @)", &each(filter));
        let sql = Sql::fill(
            "SELECT count(*), sum(t_id), min(t_id), @ FROM {t} WHERE @",
            &[&counts, &filter],
        );
        Query::of(sql, vec![])
    }

    /// Scans with one predicate or two.
    fn scans(predicates: &[Sql]) -> Query {
        let mut rest = predicates.iter();
        let scans: Vec<Sql> = [
            "@",
            "@",
            "@",
            "@",
            "@ AND @",
            "@ OR @",
            "@ AND NOT @",
            "NOT @ OR @",
        ]
        .iter()
        .enumerate()
        .map(|(n, filter)| {
            let parts: Vec<&Sql> = rest.by_ref().take(filter.matches('@').count()).collect();
            let template =
                format!("SELECT {n} AS n, count(*) AS c, sum(t_id) AS s FROM {{t}} WHERE {filter}");
            Sql::fill(&template, &parts)
        })
        .collect();
        Query::of(Sql::join(&scans, " UNION ALL "), vec![])
    }

    fn filtered_groups(&mut self, predicates: &[Sql]) -> Query {
        let (counted, filter) = predicates.split_at(6);
        let counts = numbered(counted, "sum(t_id) FILTER (WHERE @)");
        let filter = Sql::fill("(@ OR @ OR NOT @) AND (NOT @ OR @ OR @)", &each(filter));
        let key = self.key();
        let body = Sql::fill(
            "SELECT @ AS k, count(*) AS n, @ FROM {t} WHERE @ GROUP BY @",
            &[&key, &counts, &filter, &key],
        );
        self.ordered(body, 8, 40, 20)
    }

    /// Rows with what the predicates are on them: true, false or null.
    fn truth_values(&mut self, predicates: &[Sql]) -> Query {
        let (shown, filter) = predicates.split_at(8);
        let shown = numbered(shown, "(@)");
        let filter = Sql::fill("@ OR @ OR (@ AND @)", &each(filter));
        let body = Sql::fill("SELECT t_id, @ FROM {t} WHERE @", &[&shown, &filter]);
        self.ordered(body, 9, 60, 50)
    }
}

fn each(parts: &[Sql]) -> Vec<&Sql> {
    parts.iter().collect()
}

/// Each of `parts` in `template`, under a name of its own.
fn numbered(parts: &[Sql], template: &str) -> Sql {
    let named: Vec<Sql> = parts
        .iter()
        .enumerate()
        .map(|(i, part)| Sql::fill(&format!("{template} AS c{i}"), &[part]))
        .collect();
    Sql::join(&named, ", ")
}
