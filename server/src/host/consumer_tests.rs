use super::*;
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use async_trait::async_trait;
use std::collections::BTreeMap;
use strandline_proto::ids::StreamPartition;
use strandline_proto::schema::{Column, DataType, Schema};
use strandline_storage::config::{parse_schema, parse_table};
use strandline_storage::deep_store::DeepStore;
use strandline_storage::meta::sql::SqlMetastore;
use strandline_storage::segment::spec::SegmentSpec;
use strandline_storage::stream::PartitionReader;
use strandline_storage::stream::log::{EmbeddedLog, LogMessage};

fn spec() -> Arc<SegmentSpec> {
    let schema = Schema {
        name: "t".to_owned(),
        version: 1,
        columns: vec![Column::dimension("n", DataType::Long)],
        primary_key: Vec::new(),
    };
    Arc::new(SegmentSpec {
        schema: Arc::new(schema),
        columns: BTreeMap::new(),
        sorted_column: None,
        time_column: None,
        star_trees: Vec::new(),
    })
}

fn partition(partition: u32) -> StreamPartition {
    StreamPartition {
        stream: Arc::from("log"),
        topic: Arc::from("t"),
        partition,
    }
}

fn segment(number: u32, start: u64) -> Arc<ConsumingSegment> {
    let name = format!("t__{number}__{start}");
    Arc::new(ConsumingSegment::new(&name, spec(), partition(number), start).unwrap())
}

fn append(segment: &ConsumingSegment, rows: u64) {
    let from = segment.next_offset();
    let offsets: Vec<u64> = (from..from + rows).collect();
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(
        offsets.iter().map(|&o| o as i64),
    ));
    let batch = RecordBatch::try_new(segment_schema(), vec![values]).unwrap();
    segment.append(&batch, &offsets, from + rows).unwrap();
}

fn segment_schema() -> arrow::datatypes::SchemaRef {
    spec().schema.arrow()
}

/// A registry with one tail for each number of rows.
fn registry(rows: &[u64]) -> Arc<Registry> {
    let registry = Arc::new(Registry::default());
    for (number, &rows) in (0..).zip(rows) {
        let active = segment(number, 0);
        append(&active, rows);
        registry
            .table("t")
            .add_tail(Arc::new(Tail::new(partition(number), active)));
    }
    registry
}

#[test]
fn memory_is_what_the_segments_have() {
    let registry = registry(&[10_000, 100_000]);
    let budget = ConsumingBudget::new(Arc::clone(&registry), usize::MAX);
    let tails = registry.table("t").tails();
    assert_eq!(budget.used(), tails[0].bytes() + tails[1].bytes());
    assert!(budget.used() >= 110_000 * 8);
    registry.table("t").clear_tails();
    assert_eq!(budget.used(), 0);
}

#[test]
fn with_no_memory_left_the_large_segments_are_sealed_and_the_small_ones_wait() {
    let registry = registry(&[0, 1_000, 200_000]);
    let tails = registry.table("t").tails();
    let budget = |bytes_max| ConsumingBudget::new(Arc::clone(&registry), bytes_max);
    let pressures = |budget: ConsumingBudget| -> Vec<Pressure> {
        let active = tails.iter().map(|t| t.active().bytes());
        active.map(|bytes| budget.pressure(bytes)).collect()
    };
    let used = budget(0).used();
    assert_eq!(pressures(budget(used + 1)), [Pressure::None; 3]);
    assert_eq!(
        pressures(budget(used)),
        [Pressure::Wait, Pressure::Wait, Pressure::Seal]
    );
    // What is sealed counts until it has left memory, and takes part in no comparison.
    let large = &tails[2];
    large.seal(segment(2, large.watermark()));
    assert_eq!(
        budget(used).pressure(tails[1].active().bytes()),
        Pressure::Seal
    );
    large.retire(0);
    assert_eq!(
        budget(used).pressure(tails[1].active().bytes()),
        Pressure::None
    );
}

#[test]
fn only_an_empty_segment_is_replaced() {
    let tail = Tail::new(partition(0), segment(0, 7));
    let fresh = segment(0, 7);
    tail.replace_empty(Arc::clone(&fresh));
    assert!(Arc::ptr_eq(&tail.active(), &fresh));
    append(&fresh, 3);
    tail.replace_empty(segment(0, 7));
    assert!(Arc::ptr_eq(&tail.active(), &fresh));
    assert_eq!(tail.watermark(), 10);
}

/// A stream that is read, and does not tell where it ends.
struct Endless(Arc<dyn Stream>);

#[async_trait]
impl Stream for Endless {
    fn id(&self) -> Arc<str> {
        self.0.id()
    }
    fn topic(&self) -> Arc<str> {
        self.0.topic()
    }
    async fn partitions(&self) -> Result<u32> {
        self.0.partitions().await
    }
    async fn offsets(&self, _: u32) -> Result<OffsetRange> {
        std::future::pending().await
    }
    async fn offset_at(&self, partition: u32, timestamp_ms: i64) -> Result<u64> {
        self.0.offset_at(partition, timestamp_ms).await
    }
    async fn open(&self, partition: u32, from: u64) -> Result<Box<dyn PartitionReader>> {
        self.0.open(partition, from).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_does_not_wait_until_it_is_told_where_the_stream_ends() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment::real();
    let log = EmbeddedLog::open(&folder.path().join("log"), environment.clone()).await;
    let log = log.unwrap();
    log.create_topic("t", 1).await.unwrap();
    let (schema, _) = parse_schema(
        r#"{"schemaName": "t", "dimensionFieldSpecs": [{"name": "n", "dataType": "LONG"}]}"#,
        1,
    )
    .unwrap();
    let config = r#"{"tableName": "t", "tableType": "REALTIME", "ingestionConfig": {"streamIngestionConfig":
        {"streamConfigMaps": [{"streamType": "log", "stream.log.topic.name": "t"}]}}}"#;
    let (config, _) = parse_table(config, &Arc::new(schema)).unwrap();
    let path = folder.path().join("meta.sqlite");
    let metastore = SqlMetastore::open(&path, Arc::clone(&environment.clock)).await;
    let metastore: Arc<dyn Metastore> = Arc::new(metastore.unwrap());
    let deep_store = DeepStore::local(&folder.path().join("deep"), environment.clone()).await;
    let registry = Arc::new(Registry::default());
    let publisher = Publisher::new(
        Arc::clone(&registry),
        Arc::clone(&metastore),
        Arc::new(deep_store.unwrap()),
        environment.clone(),
    );
    let first = segment(0, 0);
    let tail = Arc::new(Tail::new(partition(0), first));
    let (commits, _queue) = CommitQueue::new();
    let (_pause, paused) = watch::channel(false);
    let stop = CancellationToken::new();
    let consumer = Consumer {
        table: Arc::from("t"),
        stream_config: (0, Arc::clone(&config.streams[0])),
        config: Arc::new(config),
        publisher: Arc::new(publisher),
        stream: Arc::new(Endless(log.stream("t").unwrap())),
        schemas: None,
        rate: None,
        tail: Arc::clone(&tail),
        metastore,
        commits,
        staging: folder.path().to_owned(),
        budget: Arc::new(ConsumingBudget::new(registry, usize::MAX)),
        steps: Arc::new(Steps::new(None)),
        environment,
        paused,
        stop: stop.clone(),
    };
    let running = tokio::spawn(consumer.run());
    for n in 0..3_u64 {
        let message = LogMessage {
            key: None,
            payload: format!(r#"{{"n": {n}}}"#).into(),
            timestamp_ms: 0,
        };
        let appended = log.append("t", Some(0), vec![message], "", 0);
        appended.await.unwrap();
        let visible = async {
            while tail.watermark() <= n {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let soon = tokio::time::timeout(Duration::from_secs(30), visible);
        soon.await.expect("the row is visible");
        // By then it has been asked.
        tokio::time::sleep(END_PERIOD).await;
    }
    stop.cancel();
    running.await.unwrap();
}
