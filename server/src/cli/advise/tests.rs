//! Rules over a made-up log.

use super::suggest::*;
use crate::leaf::query_log::{Aggregated, Shape};
use std::collections::BTreeSet;
use std::sync::Arc;
use strandline_storage::config::{parse_schema, parse_table};

const SCHEMA: &str = r#"{"schemaName": "t",
    "dimensionFieldSpecs": [
        {"name": "region", "dataType": "STRING"}, {"name": "city", "dataType": "STRING"},
        {"name": "id", "dataType": "LONG"}, {"name": "tags", "dataType": "STRING", "singleValueField": false}],
    "metricFieldSpecs": [{"name": "price", "dataType": "INT"}, {"name": "weight", "dataType": "DOUBLE"}]}"#;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn sum(column: &str) -> Aggregated {
    Aggregated {
        function: "SUM".to_owned(),
        columns: set(&[column]),
        plain: true,
    }
}

fn asked(total_us: u64, shape: Shape) -> Asked {
    Asked {
        shape,
        queries: 10,
        total_us,
        docs: 1_000,
    }
}

fn advise(indexing: &str, asked: &[Asked]) -> (Vec<IndexAdvice>, Option<TreeAdvice>) {
    let schema = Arc::new(parse_schema(SCHEMA, 1).unwrap().0);
    let json = format!(
        r#"{{"tableName": "t", "tableType": "OFFLINE", "segmentsConfig": {{}}, "tableIndexConfig": {indexing}}}"#
    );
    let config = parse_table(&json, &schema).unwrap().0;
    let distinct = [
        ("region", 5),
        ("city", 250),
        ("id", 900_000),
        ("price", 1_000),
    ];
    let facts = Facts {
        schema: &schema,
        spec: &config.spec,
        rows: 1_000_000,
        distinct: distinct
            .map(|(name, values)| (name.to_owned(), values))
            .into(),
    };
    (indexes(asked, &facts), star_tree(asked, &facts))
}

#[test]
fn what_is_filtered_and_has_no_index_gets_one() {
    let log = [
        asked(
            600,
            Shape {
                equal: set(&["city"]),
                ..Shape::default()
            },
        ),
        asked(
            300,
            Shape {
                range: set(&["price"]),
                ..Shape::default()
            },
        ),
        asked(
            95,
            Shape {
                equal: set(&["id"]),
                ..Shape::default()
            },
        ),
        asked(
            5,
            Shape {
                equal: set(&["region"]),
                ..Shape::default()
            },
        ),
    ];
    let keys = |indexing| {
        let found = advise(indexing, &log).0.into_iter();
        found.map(|a| (a.key, a.column)).collect::<Vec<_>>()
    };
    let named = |list: &[(&'static str, &str)]| {
        list.iter()
            .map(|(key, column)| (*key, (*column).to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys("{}"),
        named(&[
            ("invertedIndexColumns", "city"),
            ("sortedColumn", "city"),
            ("invertedIndexColumns", "id")
        ])
    );
    assert_eq!(
        keys(
            r#"{"invertedIndexColumns": ["city"], "noDictionaryColumns": ["price", "id"], "sortedColumn": ["region"]}"#
        ),
        named(&[("rangeIndexColumns", "price"), ("bloomFilterColumns", "id")])
    );
    assert_eq!(
        keys(r#"{"sortedColumn": ["city"], "invertedIndexColumns": ["id"]}"#),
        []
    );
}

#[test]
fn a_tree_is_of_what_the_dear_aggregations_ask() {
    let group = |columns: &[&str], aggregate| Shape {
        equal: set(columns),
        group: set(&["region"]),
        aggregates: [aggregate].into(),
        ..Shape::default()
    };
    let log = [
        asked(10, group(&[], sum("weight"))),
        asked(500, group(&["city"], sum("price"))),
        // Too many values, a multi-value column, no plain argument, rows.
        asked(900, group(&["id"], sum("price"))),
        asked(900, group(&["tags"], sum("price"))),
        asked(
            900,
            group(
                &[],
                Aggregated {
                    plain: false,
                    ..sum("price")
                },
            ),
        ),
        asked(
            900,
            Shape {
                equal: set(&["city"]),
                ..Shape::default()
            },
        ),
    ];
    let tree = advise("{}", &log).1.unwrap();
    assert_eq!(tree.dimensions, ["city", "region"]);
    assert_eq!(tree.pairs, set(&["COUNT__*", "SUM__price", "SUM__weight"]));
    assert_eq!(tree.answers, [1, 0]);
    assert_eq!(advise("{}", &log[2..]).1, None);
    let has_one = r#"{"starTreeIndexConfigs": [{"dimensionsSplitOrder": ["city"], "functionColumnPairs": ["COUNT__*"]}]}"#;
    assert_eq!(advise(has_one, &log).1, None);
}
