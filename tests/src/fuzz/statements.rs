//! Statements: parsed, bound to a catalog and planned, and not run.

use super::SCHEMA;
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_broker::transport::CatalogSource;
use strandline_broker::{Broker, BrokerOptions, QueryRequest, ReadOnly};
use strandline_proto::catalog::{CatalogSnapshot, TableSnapshot};
use strandline_proto::coverage::{Coverage, Interval};
use strandline_proto::ids::CatalogVersion;
use strandline_server::host::Registry;
use strandline_server::leaf::{LocalLeaf, ScanPool, SegmentHost};
use strandline_storage::config::parse_schema;
use tokio::runtime::{Builder, Runtime};

#[derive(Debug)]
struct Catalog(Arc<CatalogSnapshot>);

impl CatalogSource for Catalog {
    fn snapshot(&self) -> Arc<CatalogSnapshot> {
        Arc::clone(&self.0)
    }
}

fn catalog() -> Catalog {
    let schema = parse_schema(SCHEMA, 1).expect("the schema is right").0;
    let table = |name: &str, is_hybrid| TableSnapshot {
        name: Arc::from(name),
        schema: Arc::new(schema.clone()),
        lineage: Arc::default(),
        time_column: Some("day".to_owned()),
        has_offline: true,
        has_realtime: is_hybrid,
        segments: Vec::new(),
        tails: Vec::new(),
        coverage: Coverage::new([Interval {
            start_ms: 0,
            end_ms: 86_400_000,
        }]),
        shared: Coverage::default(),
        gaps: Vec::new(),
        pinned: false,
        pushed: None,
        text: BTreeMap::new(),
    };
    let tables = [("t", true), ("Other", false)];
    let tables =
        tables.map(|(name, is_hybrid)| (name.to_owned(), Arc::new(table(name, is_hybrid))));
    Catalog(Arc::new(CatalogSnapshot {
        version: CatalogVersion(1),
        tables: tables.into(),
    }))
}

thread_local! {
    static PLANNER: (Broker, Runtime) = {
        let leaf = LocalLeaf::new(
            Arc::new(Registry::default()) as Arc<dyn SegmentHost>,
            ScanPool::new(1),
        );
        let broker = Broker::new(
            Arc::new(catalog()),
            Arc::new(leaf),
            Arc::new(ReadOnly),
            Arc::new(ReadOnly),
            BrokerOptions::default(),
        );
        let runtime = Builder::new_current_thread().enable_all().build();
        (broker, runtime.expect("a runtime"))
    };
}

/// The text is explained.
pub fn statements(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    PLANNER.with(|(broker, runtime)| {
        runtime.block_on(async {
            let request = QueryRequest::new(format!("EXPLAIN {text}"));
            match broker.query(request).await {
                Ok(answer) => answer.batches.try_collect::<Vec<_>>().await.is_ok(),
                Err(_) => false,
            }
        })
    })
}

/// Statements of many kinds.
pub fn seeds_of_statements() -> Vec<Vec<u8>> {
    [
        "SELECT name, count(*), sum(n), avg(ratio) FROM t WHERE day BETWEEN 1 AND 9 AND name LIKE 'a%' GROUP BY name HAVING count(*) > 2 ORDER BY 2 DESC LIMIT 10",
        "SELECT * FROM t JOIN Other o ON t.n = o.n WHERE o.flag AND t.tags = 'x' OR NOT (t.price > 1.5)",
        "WITH a AS (SELECT n, row_number() OVER (PARTITION BY name ORDER BY ts) r FROM t_OFFLINE) SELECT max(r) FROM a",
        "SELECT DISTINCTCOUNTHLL(name), approx_distinct(n), count(DISTINCT codes) FILTER (WHERE n IN (1, 2, 3)) FROM t_REALTIME",
        "SELECT CASE WHEN n IS NULL THEN 'none' ELSE upper(name) END, date_trunc('month', ts), CAST(ratio AS BIGINT) FROM t WHERE ts >= TIMESTAMP '2026-01-01 00:00:00'",
        "SELECT JSON_MATCH(doc, '\"$.a\" = 1'), TEXT_MATCH(name, 'a AND \"b c\"~2') FROM t WHERE regexp_like(name, '^a.*b$')",
        "SELECT n FROM t UNION ALL SELECT n FROM Other EXCEPT SELECT 1 ORDER BY n NULLS FIRST OFFSET 3",
        "SELECT a.n FROM t a, t b WHERE a.n = b.n AND EXISTS (SELECT 1 FROM Other WHERE n = a.n) AND a.n > (SELECT avg(n) FROM t)",
        "SELECT name, n FROM t GROUP BY GROUPING SETS ((name), (n), ()) ORDER BY 1",
        "SELECT arrayLength(tags), unnest(codes), jsonExtractScalar(doc, '$.a[0].b', 'LONG', 0) FROM t WHERE codes IN (1, 2) AND name <> ''",
        "SELECT -n % 3 ^ 2, n || name, 'it''s', 1e40, .5, E'\\n', INTERVAL '1 day' FROM \"t\"",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
