//! Random queries over random tables: the engine's answer is the naive one.

use super::generate::{self, Table};
use super::memory::MemoryHost;
use super::naive::{Whole, text};
use crate::leaf::{LocalLeaf, ScanPool};
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
use futures::TryStreamExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::ops::Range;
use std::sync::Arc;
use strandline_broker::transport::{LeafContext, LeafTransport};
use strandline_proto::Result;
use strandline_proto::leaf::{AggregateFunction, LeafOutput, LeafQuery};
use strandline_proto::stats::LeafStats;
use tokio_util::sync::CancellationToken;

/// The seeds to draw from: LEAF_SEEDS or `count` of them, from LEAF_SEED or 1 on.
pub(super) fn seeds(count: u64) -> Range<u64> {
    let setting = |name: &str| std::env::var(name).ok()?.parse().ok();
    let first = setting("LEAF_SEED").unwrap_or(1);
    first..first + setting("LEAF_SEEDS").unwrap_or(count)
}

pub(super) fn context() -> LeafContext {
    let memory: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    LeafContext {
        stats: Arc::new(LeafStats::default()),
        cancel: CancellationToken::new(),
        deadline: None,
        memory,
    }
}

pub(super) async fn run(
    leaf: &LocalLeaf,
    query: &LeafQuery,
    context: LeafContext,
) -> Result<Vec<RecordBatch>> {
    leaf.run(query.clone(), context).await?.try_collect().await
}

/// The batches' rows as text, held to the query's schema and batch size.
pub(super) fn texts(query: &LeafQuery, batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for batch in batches {
        assert_eq!(batch.schema(), query.work.schema);
        assert!(batch.num_rows() <= query.batch_rows_max);
        for row in 0..batch.num_rows() {
            rows.push(
                batch
                    .columns()
                    .iter()
                    .map(|column| text(column, row))
                    .collect::<Vec<_>>(),
            );
        }
    }
    rows
}

/// Makes the order of distinct values and the sign of sums that are no numbers the same on both sides.
fn settle(query: &LeafQuery, rows: &mut [Vec<String>]) {
    let LeafOutput::Aggregate { group, aggregates } = &query.work.output else {
        return;
    };
    let mut column = group.len();
    for aggregate in aggregates {
        for row in rows.iter_mut() {
            match aggregate.function {
                AggregateFunction::CountDistinct => {
                    if let Some(inner) = row[column]
                        .strip_prefix('[')
                        .and_then(|s| s.strip_suffix(']'))
                    {
                        let mut parts: Vec<_> = split(inner);
                        parts.sort();
                        row[column] = parts.join(", ");
                    }
                }
                AggregateFunction::Sum | AggregateFunction::FinalAvg => {
                    row[column] = row[column].replace("-NaN", "NaN");
                }
                AggregateFunction::Avg => row[column + 1] = row[column + 1].replace("-NaN", "NaN"),
                _ => {}
            }
        }
        column += if aggregate.function == AggregateFunction::Avg {
            2
        } else {
            1
        };
    }
}

/// The columns of sums and means of doubles: how those round depends on the order in which rows are added, which is free.
fn float_sums(query: &LeafQuery) -> Vec<usize> {
    let LeafOutput::Aggregate { group, aggregates } = &query.work.output else {
        return Vec::new();
    };
    let (mut column, mut sums) = (group.len(), Vec::new());
    for aggregate in aggregates {
        match aggregate.function {
            AggregateFunction::Sum | AggregateFunction::FinalAvg => sums.push(column),
            AggregateFunction::Avg => {
                column += 1;
                sums.push(column);
            }
            _ => {}
        }
        column += 1;
    }
    sums.retain(|&i| *query.work.schema.field(i).data_type() == DataType::Float64);
    sums
}

/// Whether two sums of the same doubles differ by no more than rounding.
fn sums_agree(found: &str, expected: &str) -> bool {
    let number = |text: &str| -> Option<f64> {
        let digits = text.strip_prefix("Float64(")?.strip_suffix(')')?;
        digits.parse().ok().filter(|v: &f64| v.is_finite())
    };
    match (number(found), number(expected)) {
        (Some(found), Some(expected)) => {
            (found - expected).abs() <= 1e-12 * found.abs().max(expected.abs())
        }
        _ => false,
    }
}

/// Puts rows in the order of their columns but `sums`, and takes the expected sums for those found where they agree.
fn settle_sums(sums: &[usize], found: &mut [Vec<String>], expected: &mut [Vec<String>]) {
    let exact = |row: &[String]| -> Vec<String> {
        let columns = row.iter().enumerate().filter(|(i, _)| !sums.contains(i));
        columns.map(|(_, text)| text.clone()).collect()
    };
    let order = |a: &Vec<String>, b: &Vec<String>| exact(a).cmp(&exact(b)).then_with(|| a.cmp(b));
    found.sort_by(order);
    expected.sort_by(order);
    for (found, expected) in found.iter_mut().zip(expected) {
        for &i in sums {
            if sums_agree(&found[i], &expected[i]) {
                found[i].clone_from(&expected[i]);
            }
        }
    }
}

/// Splits at commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// Holds an answer against the naive one; gives how many segments star-trees answered for.
pub(super) async fn hold(leaf: &LocalLeaf, whole: &Table, query: &LeafQuery, place: &str) -> u64 {
    let context = context();
    let stats = Arc::clone(&context.stats);
    let answer = match run(leaf, query, context).await {
        Ok(answer) => answer,
        Err(error) => panic!("{error}\n{place}"),
    };
    let naive = Whole::new(whole, query.coverage.as_ref());
    let mut found = texts(query, &answer);
    let (mut expected, limit) = naive.answer(query);
    if let (LeafOutput::Rows { project, order, .. }, Some(limit)) = (&query.work.output, limit) {
        assert_eq!(found.len(), expected.len().min(limit), "{place}");
        if !order.is_empty() {
            // Ties are free: the sort keys must be those of the first rows, where they can be seen.
            let keys: Vec<_> = order.iter().map(|k| k.expr.clone()).collect();
            if let Some(shown) = keys
                .iter()
                .map(|k| project.iter().position(|p| p == k))
                .collect::<Option<Vec<_>>>()
            {
                let mut best = naive.texts(&keys, query, &naive.top(query, order, limit));
                let mut got: Vec<Vec<String>> = found
                    .iter()
                    .map(|row| shown.iter().map(|&i| row[i].clone()).collect())
                    .collect();
                best.sort();
                got.sort();
                assert_eq!(got, best, "{place}");
            }
        }
        for row in &found {
            assert!(
                expected.contains(row),
                "a row that does not pass: {row:?}\n{place}"
            );
        }
        return stats.counts().star_tree_segments;
    }
    settle(query, &mut found);
    settle(query, &mut expected);
    settle_sums(&float_sums(query), &mut found, &mut expected);
    assert_eq!(found, expected, "{place}");
    let counts = stats.counts();
    assert_eq!(
        counts.docs_total,
        whole
            .segments
            .iter()
            .map(|s| s.rows.len() as u64)
            .sum::<u64>(),
        "{place}"
    );
    leaf.explain(query).unwrap();
    counts.star_tree_segments
}

/// Gives how many queries a timestamp index was asked for.
async fn check(seed: u64, pool: &ScanPool) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let Table {
        schema,
        segments,
        host,
    } = generate::table(&mut rng);
    let table = Table {
        schema,
        segments,
        host: MemoryHost::default(),
    };
    let whole = Table { host, ..table };
    let host = Arc::new(MemoryHost {
        segments: whole.host.segments.clone(),
        tails: whole.host.tails.clone(),
    });
    let leaf = LocalLeaf::new(host, pool.clone());
    let mut truncated = 0;
    for number in 0..8 {
        let query = generate::query(&mut rng, &whole);
        let place = format!("seed {seed}, query {number}: {query:#?}");
        hold(&leaf, &whole, &query, &place).await;
        let lines = leaf.explain(&query).unwrap().lines;
        let is_index = |line: &String| line.starts_with("timestamp index: ");
        truncated += usize::from(lines.iter().any(is_index));
    }
    truncated
}

#[tokio::test]
async fn answers_are_those_of_the_naive_evaluator() {
    let pool = ScanPool::new(2);
    let (seeds, mut truncated) = (seeds(120), 0);
    for seed in seeds.clone() {
        truncated += check(seed, &pool).await;
    }
    assert!(truncated >= seeds.count() / 4, "{truncated}");
}
