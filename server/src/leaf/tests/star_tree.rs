//! Random aggregations that star-trees answer: the answers are the naive ones.

use super::differential::{hold, seeds};
use super::generate::{self, Rows, Table};
use super::memory::{MemoryHost, Storage};
use super::stored::ToStore;
use crate::leaf::{LocalLeaf, ScanPool};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_broker::transport::LeafTransport;
use strandline_proto::ids::Half;
use strandline_proto::leaf::{AggregateFunction, LeafExpr, LeafOutput};
use strandline_proto::schema::{Column, DataType, Schema};
use strandline_proto::value::Value;

/// Dimensions of few values, then what is measured.
fn schema() -> Arc<Schema> {
    let columns = [
        ("time", DataType::Long),
        ("text", DataType::String),
        ("flag", DataType::Boolean),
        ("number", DataType::Int),
        ("float", DataType::Double),
        ("int", DataType::Int),
        ("long", DataType::Long),
        ("single", DataType::Float),
        ("double", DataType::Double),
        ("other", DataType::String),
    ];
    let column = |(name, data_type): (&str, DataType)| Column {
        not_null: true,
        ..Column::dimension(name, data_type)
    };
    let lists = [
        ("ints", DataType::Int),
        ("longs", DataType::Long),
        ("singles", DataType::Float),
        ("doubles", DataType::Double),
    ];
    let list = |(name, data_type): (&str, DataType)| Column {
        multi_value: true,
        ..Column::dimension(name, data_type)
    };
    let columns = columns.into_iter().map(column);
    Arc::new(Schema {
        name: "t".to_owned(),
        version: 1,
        columns: columns.chain(lists.into_iter().map(list)).collect(),
        primary_key: Vec::new(),
    })
}

/// Three segments of the schema's rows, each with two trees.
fn table(rng: &mut StdRng) -> Table {
    let schema = schema();
    let mut host = MemoryHost::default();
    let mut segments = Vec::new();
    for (number, half) in [Half::Offline, Half::Offline, Half::Realtime]
        .into_iter()
        .enumerate()
    {
        let docs = rng.random_range(0..400);
        let nulls = if rng.random_bool(0.5) { 0.1 } else { 0.0 };
        let few = rng.random_range(1..5);
        let mut columns = Vec::new();
        for (i, column) in schema.columns.iter().enumerate() {
            let of_few: Vec<Value> = (0..few)
                .map(|_| generate::stored(rng, column, 0.0))
                .collect();
            let value = |rng: &mut StdRng| match i {
                // Dimensions of either tree.
                0..5 | 9 if !rng.random_bool(nulls) => of_few[rng.random_range(0..few)].clone(),
                _ => generate::stored(rng, column, nulls),
            };
            let values: Vec<Value> = (0..docs).map(|_| value(rng)).collect();
            let storage = Storage {
                dictionary: rng.random_bool(0.6),
                sorted_dictionary: true,
                inverted: false,
                range: false,
                bloom: false,
                json: rng.random_bool(0.5),
                text: false,
            };
            columns.push((column.clone(), storage, values));
        }
        let rows = (0..docs)
            .map(|doc| {
                let values = columns.iter().map(|(.., values)| values[doc].clone());
                values.collect()
            })
            .collect();
        let name = format!("segment_{number}");
        let stored = ToStore {
            name: name.clone(),
            half,
            origin: None,
            columns,
            sorted_column: None,
            docs,
        };
        host.segments.push((half, stored.immutable()));
        segments.push(Rows {
            half,
            name,
            partition: None,
            start_offset: 0,
            rows,
            invalid: Vec::new(),
        });
    }
    Table {
        schema,
        segments,
        host,
    }
}

#[tokio::test]
async fn star_trees_give_the_naive_answers() {
    let pool = ScanPool::new(2);
    let (mut queries, mut segments) = (0u64, 0);
    let mut functions: BTreeMap<String, u64> = BTreeMap::new();
    let (mut grouped, mut filtered) = (0, 0);
    let seeds = seeds(20);
    for seed in seeds.clone() {
        let mut rng = StdRng::seed_from_u64(seed);
        let table = table(&mut rng);
        let host = Arc::new(MemoryHost {
            segments: table.host.segments.clone(),
            tails: Vec::new(),
        });
        let leaf = LocalLeaf::new(host, pool.clone());
        for number in 0..1_500 {
            let query = generate::query(&mut rng, &table);
            let LeafOutput::Aggregate { group, aggregates } = &query.work.output else {
                continue;
            };
            let explained = leaf.explain(&query).unwrap();
            if !explained
                .lines
                .iter()
                .any(|line| line.starts_with("star-tree: "))
            {
                continue;
            }
            let place = format!("seed {seed}, query {number}: {query:#?}");
            segments += hold(&leaf, &table, &query, &place).await;
            queries += 1;
            grouped += u64::from(!group.is_empty());
            filtered += u64::from(aggregates.iter().any(|a| a.filter.is_some()));
            for aggregate in aggregates {
                let name = match (aggregate.function, &aggregate.argument) {
                    (AggregateFunction::Count, None) => "Count(*)".to_owned(),
                    (_, Some(LeafExpr::Call { function, .. })) if function.starts_with("mv_") => {
                        function.clone()
                    }
                    (function, _) => format!("{function:?}"),
                };
                *functions.entry(name).or_default() += 1;
            }
        }
    }
    println!(
        "{queries} queries, {segments} segments by star-tree; {functions:?}, {grouped} grouped, {filtered} with FILTER"
    );
    assert!(queries >= 10 * (seeds.end - seeds.start), "{queries}");
    assert_eq!(functions.len(), 14);
    assert!(
        functions
            .values()
            .all(|&count| count >= (seeds.end - seeds.start) / 4),
        "{functions:?}"
    );
    assert!(grouped >= seeds.end - seeds.start && filtered >= (seeds.end - seeds.start) / 4);
}
