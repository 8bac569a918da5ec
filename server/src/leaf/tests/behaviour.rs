//! What a query meets besides its answer: limits, cancellation, defects, versions.

use super::differential::{context, run};
use super::generate;
use super::memory::MemoryHost;
use crate::leaf::{LocalLeaf, ScanPool};
use arrow::datatypes::{DataType as ArrowType, Field, Schema as ArrowSchema};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Instant;
use strandline_broker::transport::LeafTransport;
use strandline_proto::ErrorKind;
use strandline_proto::leaf::*;

fn leaf_and_query() -> (LocalLeaf, LeafQuery) {
    let mut rng = StdRng::seed_from_u64(5);
    let table = loop {
        let table = generate::table(&mut rng);
        if table.segments.iter().all(|s| s.rows.len() > 10) {
            break table;
        }
    };
    let column = LeafExpr::Column("c7".to_owned());
    let schema = ArrowSchema::new(vec![
        Field::new("k", ArrowType::Utf8, true),
        Field::new("n", ArrowType::Int64, false),
    ]);
    let group = vec![GroupKey {
        expr: column,
        explode: false,
    }];
    let count = LeafAggregate {
        function: AggregateFunction::Count,
        argument: None,
        filter: None,
    };
    let work = LeafWork {
        filter: LeafFilter::And(Vec::new()),
        output: LeafOutput::Aggregate {
            group,
            aggregates: vec![count],
        },
        schema: Arc::new(schema),
    };
    let mut query = generate::query(&mut rng, &table);
    query.work = Arc::new(work);
    query.coverage = None;
    (
        LocalLeaf::new(Arc::new(table.host), ScanPool::new(2)),
        query,
    )
}

#[tokio::test]
async fn a_newer_query_is_refused() {
    let (leaf, mut query) = leaf_and_query();
    query.version = LEAF_QUERY_VERSION + 1;
    assert_eq!(
        run(&leaf, &query, context()).await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(
        leaf.explain(&query).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn a_segment_that_is_gone_is_said_to_be() {
    let leaf = LocalLeaf::new(Arc::new(MemoryHost::default()), ScanPool::new(1));
    let (_, mut query) = leaf_and_query();
    query.segments = vec![SegmentTask {
        name: strandline_proto::ids::SegmentName::new("gone"),
        checksum: 1,
        half: strandline_proto::ids::Half::Offline,
        schema_version: 1,
    }];
    assert_eq!(
        run(&leaf, &query, context()).await.unwrap_err().kind(),
        ErrorKind::SegmentGone
    );
}

#[tokio::test]
async fn memory_beyond_the_limit_is_refused() {
    let (leaf, query) = leaf_and_query();
    let mut context = context();
    context.memory = Arc::new(GreedyMemoryPool::new(100));
    let error = run(&leaf, &query, context).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    assert!(error.message().contains("memory limit"), "{error}");
}

#[tokio::test]
async fn cancelled_and_late_queries_end() {
    let (leaf, query) = leaf_and_query();
    let cancelled = context();
    cancelled.cancel.cancel();
    assert_eq!(
        run(&leaf, &query, cancelled).await.unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    let mut late = context();
    late.deadline = Some(Instant::now());
    assert_eq!(
        run(&leaf, &query, late).await.unwrap_err().kind(),
        ErrorKind::DeadlineExceeded
    );
}

#[tokio::test]
async fn memory_is_given_back() {
    let (leaf, query) = leaf_and_query();
    let context = context();
    let memory = Arc::clone(&context.memory);
    run(&leaf, &query, context).await.unwrap();
    // A worker may hold its states a moment longer than the answer takes.
    for _ in 0..200 {
        if memory.reserved() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{} bytes are still reserved", memory.reserved());
}
