//! The statements with the answers that they must have.

use super::facts::{Groups, SUMMED, Sums, group};
use crate::rows::{self, difference, of_answer};
use crate::ssb::TABLE;
use crate::zipf::{KEYS_MAX, Zipf};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use strandline_tests::answer::Cell;
use strandline_tests::client::Client;

/// The column of point aggregations: enough keys at scale 1.
pub(super) const POINT_COLUMN: &str = "lo_partkey";
/// Kinds of statements.
pub(super) const KINDS: [&str; 2] = ["point", "group by"];
/// Point aggregations that are checked before the measurement, the most wanted first.
const POINTS_CHECKED: usize = 200;

/// A GROUP BY of low cardinality: columns that are held against a value each, and columns that are grouped by.
struct Template {
    filters: &'static [&'static str],
    keys: &'static [&'static str],
}

const fn template(filters: &'static [&'static str], keys: &'static [&'static str]) -> Template {
    Template { filters, keys }
}

/// What dashboards ask of a few dimensions; all of them in reach of the star-tree.
const TEMPLATES: [Template; 8] = [
    template(&[], &["s_region", "c_region", "d_year"]),
    template(&["s_region"], &["d_year"]),
    template(&["c_region"], &["c_nation"]),
    template(&["p_mfgr"], &["d_year", "p_category"]),
    template(&["p_category"], &["p_brand1"]),
    template(&["d_year"], &["c_nation", "s_nation"]),
    template(&["s_region", "c_region"], &["s_nation", "d_year"]),
    template(
        &["c_region", "s_region", "p_mfgr"],
        &["d_year", "s_nation", "p_category"],
    ),
];

/// A statement and its answer.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Index into [`KINDS`].
    pub(super) kind: usize,
    pub(super) sql: String,
    rows: Vec<Vec<Cell>>,
    digest: u64,
}

impl Question {
    fn new(kind: usize, sql: String, rows: Vec<Vec<Cell>>) -> Self {
        let digest = rows::digest(&rows);
        Self {
            kind,
            sql,
            rows,
            digest,
        }
    }

    /// Whether these are the answer's rows.
    pub(super) fn is_answer(&self, rows: &[Vec<Cell>]) -> bool {
        rows::digest(rows) == self.digest
    }

    /// What is wrong with a server's answer.
    pub(super) async fn check(&self, client: &mut Client) -> Result<(), String> {
        let (answer, _) = client.ask(&self.sql).await?;
        if self.is_answer(&answer.rows) {
            return Ok(());
        }
        let difference = difference(&of_answer(&answer), &rows::text(&self.rows));
        let difference = difference.unwrap_or_else(|| "cells of other types".to_owned());
        Err(format!("wrong answer: {difference}: {}", self.sql))
    }
}

/// How statements are drawn.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Mix {
    /// The part of point aggregations, from 0 to 1; the rest are GROUP BYs of low-cardinality dimensions
    #[arg(long, default_value_t = 0.8, value_parser = part)]
    pub(super) points: f64,
    #[command(flatten)]
    pub(super) keys: Keys,
}

/// How keys are drawn.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Keys {
    /// How strongly the parts that are asked for are preferred to others: the exponent of Zipf's distribution
    #[arg(long, default_value_t = 1.0, value_parser = exponent)]
    exponent: f64,
    /// Statements follow from it
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
}

fn part(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if (0.0..=1.0).contains(&part) => Ok(part),
        _ => Err("a number from 0 to 1".to_owned()),
    }
}

fn exponent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(exponent),
        _ => Err("a number from 0 to 10".to_owned()),
    }
}

/// All statements that may be asked.
#[derive(Debug)]
pub(super) struct Workload {
    /// Keys of the point aggregations, the most wanted first.
    points: Vec<(i128, Sums)>,
    zipf: Zipf,
    grouped: Vec<Question>,
    points_part: f64,
}

impl Workload {
    /// Reads the answers from the files in `folder`.
    pub(super) fn new(
        folder: &Path,
        points_part: f64,
        keys: &Keys,
    ) -> Result<Self, Box<dyn Error>> {
        let columns: Vec<Vec<&str>> = std::iter::once(vec![POINT_COLUMN])
            .chain(TEMPLATES.iter().map(|t| [t.filters, t.keys].concat()))
            .collect();
        let columns: Vec<&[&str]> = columns.iter().map(Vec::as_slice).collect();
        let mut groups = group(folder, &columns)?.into_iter();
        let mut points: Vec<(i128, Sums)> = groups
            .next()
            .into_iter()
            .flatten()
            .filter_map(|(key, sums)| match key.first() {
                Some(Cell::Number(key, 0)) => Some((*key, sums)),
                _ => None,
            })
            .collect();
        // Which keys are wanted has nothing to do with their order or their place.
        points.sort_unstable_by_key(|point| point.0);
        points.shuffle(&mut StdRng::seed_from_u64(keys.seed));
        points.truncate(KEYS_MAX);
        if points.is_empty() {
            return Err(format!("{} has no rows", folder.display()).into());
        }
        let grouped = TEMPLATES
            .iter()
            .zip(groups)
            .flat_map(|(template, groups)| questions(template, groups))
            .collect();
        Ok(Self {
            zipf: Zipf::new(points.len(), keys.exponent),
            points,
            grouped,
            points_part,
        })
    }

    /// How many keys and how many GROUP BYs there are.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.points.len(), self.grouped.len())
    }

    fn point(&self, rank: usize) -> Option<Question> {
        let (key, sums) = self.points.get(rank)?;
        let sql = format!(
            "SELECT {} FROM {TABLE} WHERE {POINT_COLUMN} = {key}",
            aggregates()
        );
        Some(Question::new(0, sql, vec![sums.cells().collect()]))
    }

    /// The next statement.
    pub(super) fn draw(&self, random: &mut StdRng) -> Question {
        // The files have rows (`new` sees to it), so neither list is empty.
        let question = match random.random_bool(self.points_part) {
            true => self.point(self.zipf.draw(random)),
            false => self.grouped.choose(random).cloned(),
        };
        question.unwrap_or_else(|| unreachable!("a workload of no statements"))
    }

    /// Checks every GROUP BY, and the most wanted point aggregations.
    pub(super) async fn check(&self, client: &mut Client) -> Result<(), String> {
        for question in &self.grouped {
            question.check(client).await?;
        }
        for question in (0..POINTS_CHECKED).map_while(|rank| self.point(rank)) {
            question.check(client).await?;
        }
        Ok(())
    }
}

fn aggregates() -> String {
    let sums = SUMMED.map(|column| format!("sum({column})")).join(", ");
    format!("count(*), {sums}")
}

fn literal(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}

/// The statements of a template: one for each combination of the values that it filters by.
fn questions(template: &Template, groups: Groups) -> Vec<Question> {
    let mut answers: BTreeMap<Vec<String>, Vec<Vec<Cell>>> = BTreeMap::new();
    for (mut key, sums) in groups {
        let rest = key.split_off(template.filters.len());
        let filter = template.filters.iter().zip(&key);
        let filter = filter.map(|(column, value)| format!("{column} = {}", literal(value)));
        let row = rest.into_iter().chain(sums.cells()).collect();
        answers.entry(filter.collect()).or_default().push(row);
    }
    let question = |(filter, rows): (Vec<String>, Vec<Vec<Cell>>)| {
        let filter = match filter.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", filter.join(" AND ")),
        };
        let keys = template.keys.join(", ");
        let sql = format!(
            "SELECT {keys}, {} FROM {TABLE}{filter} GROUP BY {keys}",
            aggregates()
        );
        Question::new(1, sql, rows)
    };
    answers.into_iter().map(question).collect()
}

/// Groups by a customer and a way of shipping that no index helps with: every row is read, and the largest ten groups are
/// the answer.
pub(super) fn full_scan(folder: &Path) -> Result<Question, Box<dyn Error>> {
    const KEYS: [&str; 2] = ["c_name", "lo_shipmode"];
    let groups = group(folder, &[&KEYS])?.into_iter().next();
    let mut groups = groups.unwrap_or_default();
    let name = |key: &[Cell]| key.iter().map(literal).collect::<Vec<_>>();
    groups.sort_by_cached_key(|(key, sums)| (std::cmp::Reverse(sums.sums[0]), name(key)));
    groups.truncate(10);
    let keys = KEYS.join(", ");
    let sql = format!(
        "SELECT {keys}, {} FROM {TABLE} GROUP BY {keys} ORDER BY sum({}) DESC, {keys} LIMIT 10",
        aggregates(),
        SUMMED[0]
    );
    let row = |(key, sums): (Vec<Cell>, Sums)| key.into_iter().chain(sums.cells()).collect();
    Ok(Question::new(0, sql, groups.into_iter().map(row).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssb::data::generate;

    fn workload(points_part: f64) -> Workload {
        let folder = tempfile::tempdir().unwrap();
        generate(folder.path(), 0.002, 3).unwrap();
        let keys = Keys {
            exponent: 1.0,
            seed: 1,
        };
        Workload::new(folder.path(), points_part, &keys).unwrap()
    }

    #[test]
    fn the_mix_is_kept_and_statements_follow_from_the_seed() {
        let workload = workload(0.75);
        assert_eq!(workload.sizes().0, 1_000);
        let drawn = |seed: u64| -> Vec<Question> {
            let mut random = StdRng::seed_from_u64(seed);
            (0..2_000).map(|_| workload.draw(&mut random)).collect()
        };
        let (one, again) = (drawn(1), drawn(1));
        let points = one.iter().filter(|q| q.kind == 0).count();
        assert!((1_400..1_600).contains(&points), "{points} of 2,000");
        assert!(one.iter().zip(&again).all(|(a, b)| a.sql == b.sql));
        assert!(one.iter().zip(drawn(2)).any(|(a, b)| a.sql != b.sql));
        for (part, kind) in [(0.0, 1), (1.0, 0)] {
            let workload = self::workload(part);
            let mut random = StdRng::seed_from_u64(1);
            assert!((0..100).all(|_| workload.draw(&mut random).kind == kind));
        }
    }

    #[test]
    fn a_wrong_sum_or_a_missing_row_is_no_answer() {
        let workload = workload(1.0);
        let mut random = StdRng::seed_from_u64(1);
        for question in (0..20)
            .map(|_| workload.draw(&mut random))
            .chain(workload.grouped.clone())
        {
            assert!(question.is_answer(&question.rows), "{}", question.sql);
            assert!(!question.is_answer(&question.rows[1..]), "{}", question.sql);
            let mut wrong = question.rows.clone();
            let last = wrong[0].len() - 1;
            wrong[0][last] = Cell::Number(1, 0);
            assert!(!question.is_answer(&wrong), "{}", question.sql);
        }
    }

    #[test]
    fn statements_filter_by_what_their_answers_are_of() {
        let workload = workload(0.5);
        let (_, grouped) = workload.sizes();
        assert!(grouped > 100, "{grouped}");
        let first = &workload.grouped[0];
        assert!(
            first
                .sql
                .ends_with("FROM lineorder GROUP BY s_region, c_region, d_year")
        );
        let has = |text: &str| workload.grouped.iter().any(|q| q.sql.contains(text));
        assert!(has("WHERE s_region = 'ASIA' GROUP BY d_year"));
        assert!(has("WHERE d_year = 1994 GROUP BY c_nation, s_nation"));
    }
}
