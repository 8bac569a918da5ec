#[path = "keys_deleted_tests.rs"]
mod deleted;
#[path = "keys_hybrid_tests.rs"]
mod hybrid;

use crate::engine::{Engine, EngineOptions};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strandline_broker::QueryRequest;
use strandline_proto::ErrorKind;
use strandline_proto::v1::{AppendRequest, Message};
use strandline_storage::environment::{Clock, Environment, ManualClock};

const SCHEMA: &str = r#"{"schemaName": "t", "primaryKeyColumns": ["k"],
    "dimensionFieldSpecs": [{"name": "k", "dataType": "LONG"}, {"name": "gone", "dataType": "BOOLEAN"}],
    "metricFieldSpecs": [{"name": "v", "dataType": "LONG"}],
    "dateTimeFieldSpecs": [{"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"}]}"#;
const UPSERT: &str =
    r#""upsertConfig": {"mode": "FULL", "comparisonColumns": ["v"], "deleteRecordColumn": "gone"}"#;
const KEYS: i64 = 200;

fn config(half: &str, keys: &str) -> String {
    let stream = r#""ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [{"streamType": "log",
        "stream.log.topic.name": "t", "stream.log.partitions": "2", "realtime.segment.flush.threshold.rows": "1500"}]}}"#;
    format!(
        r#"{{"tableName": "t", "tableType": "{half}", "segmentsConfig": {{"timeColumnName": "ms"}},
            "tableIndexConfig": {{"invertedIndexColumns": ["k"]}}, {keys}, {stream}}}"#
    )
}

/// Options of a server whose time passes some hundred times as fast, and what stops it.
fn fast(folder: &Path) -> (EngineOptions, Arc<AtomicBool>) {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let mut options = EngineOptions::new(folder);
    options.environment = Environment {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        ..Environment::real()
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    tokio::spawn(async move {
        while !stopped.load(Ordering::SeqCst) {
            clock.advance(Duration::from_millis(250));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    (options, stop)
}

async fn create(folder: &Path, keys: &str) -> Arc<Engine> {
    create_with(EngineOptions::new(folder), keys).await
}

async fn create_with(options: EngineOptions, keys: &str) -> Arc<Engine> {
    let engine = Engine::open(options).await.unwrap();
    engine.put_schema(SCHEMA).await.unwrap();
    engine
        .create_table(&config("REALTIME", keys))
        .await
        .unwrap();
    engine
}

/// The one row of an answer of whole numbers.
async fn numbers(engine: &Engine, sql: &str) -> Vec<i64> {
    let answer = engine.query(QueryRequest::new(sql)).await;
    let answer = answer.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await.unwrap();
    let batch = batches.iter().find(|b| b.num_rows() > 0).unwrap();
    let longs = batch.columns().iter();
    longs
        .map(|c| c.as_primitive::<Int64Type>().value(0))
        .collect()
}

async fn append(engine: &Engine, partition: u32, rows: impl Iterator<Item = String>) {
    let messages = rows.map(|row| Message {
        payload: row.into_bytes().into(),
        ..Message::default()
    });
    let request = AppendRequest {
        topic: "t".to_owned(),
        partition: Some(partition),
        messages: messages.collect(),
        ..AppendRequest::default()
    };
    engine.append(request).await.unwrap();
}

/// Has each key hold the number of the round; a key's rows come from any partition.
async fn round(engine: &Engine, round: i64) {
    for partition in 0..2 {
        let of_partition = |k: &i64| (k + round) % 2 == i64::from(partition);
        let row = |k| format!(r#"{{"k": {k}, "v": {round}, "ms": {round}}}"#);
        append(engine, partition, (0..KEYS).filter(of_partition).map(row)).await;
    }
}

async fn until(engine: &Engine, sql: &str, wanted: &[i64]) {
    let mut last = Vec::new();
    for _ in 0..1_000 {
        last = numbers(engine, sql).await;
        if last == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{sql}: {last:?}, not {wanted:?}");
}

const ALL: &str = "SELECT count(*), count(DISTINCT k), sum(v) FROM t";

#[tokio::test(flavor = "multi_thread")]
async fn a_query_sees_each_key_once_while_all_of_them_change() {
    let folder = tempfile::tempdir().unwrap();
    let engine = create(folder.path(), UPSERT).await;
    round(&engine, 0).await;
    until(&engine, ALL, &[KEYS, KEYS, 0]).await;
    let (stop, asking) = ask(&engine, KEYS);
    let rounds = 60;
    for number in 1..=rounds {
        round(&engine, number).await;
        if number % 20 == 0 {
            engine.force_commit("t").await.unwrap();
        }
    }
    until(&engine, ALL, &[KEYS, KEYS, KEYS * rounds]).await;
    stop.store(true, Ordering::SeqCst);
    assert!(asking.await.unwrap() > 0);
    let every = "SET skipUpsert = true; SELECT count(*) FROM t";
    assert_eq!(numbers(&engine, every).await, [KEYS * (rounds + 1)]);
    // A late row does not count, a deleted key is not seen, and both hold after a restart and with the keys' store lost.
    let late = format!(r#"{{"k": 1, "v": {}, "ms": 1}}"#, rounds - 1);
    append(&engine, 0, [late].into_iter()).await;
    let gone = |k| {
        format!(
            r#"{{"k": {k}, "v": {}, "gone": true, "ms": 1}}"#,
            rounds + 1
        )
    };
    append(&engine, 1, [gone(2), gone(3)].into_iter()).await;
    let left = [KEYS - 2, KEYS - 2, (KEYS - 2) * rounds];
    until(&engine, ALL, &left).await;
    engine.force_commit("t").await.unwrap();
    append(&engine, 0, [gone(4)].into_iter()).await;
    let left = [KEYS - 3, KEYS - 3, (KEYS - 3) * rounds];
    until(&engine, ALL, &left).await;
    engine.shutdown().await;
    drop(engine);
    for is_lost in [false, true] {
        let engine = open_again(folder.path(), is_lost, &left).await;
        assert_eq!(
            numbers(&engine, "SELECT count(*) FROM t WHERE k = 4").await,
            [0]
        );
        assert_eq!(
            numbers(&engine, "SELECT max(v) FROM t WHERE k = 1").await,
            [rounds]
        );
        engine.shutdown().await;
    }
}

/// A server over the folder of one that has ended, with its keys or without, once it answers as expected.
async fn open_again(folder: &Path, is_lost: bool, all: &[i64]) -> Arc<Engine> {
    if is_lost {
        std::fs::remove_dir_all(folder.join("keys")).unwrap();
    }
    let engine = Engine::open(EngineOptions::new(folder)).await.unwrap();
    until(&engine, ALL, all).await;
    engine
}

const HELD: &str = "SELECT CAST(sum(rows) AS BIGINT) FROM system.segments";

/// Asks without a pause until it is stopped: each of so many keys is there once, and none goes back.
fn ask(engine: &Arc<Engine>, keys: i64) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (asking, stopped) = (Arc::clone(engine), Arc::clone(&stop));
    let asking = tokio::spawn(async move {
        let (mut asked, mut largest) = (0, 0);
        while !stopped.load(Ordering::SeqCst) {
            let seen = numbers(&asking, ALL).await;
            assert_eq!(&seen[..2], [keys, keys], "after {asked} answers");
            assert!(seen[2] >= largest, "{} after {largest}", seen[2]);
            largest = seen[2];
            let joined = "SELECT count(*), sum(a.v - b.v) FROM t a JOIN t b ON a.k = b.k";
            assert_eq!(numbers(&asking, joined).await, [keys, 0]);
            asked += 1;
        }
        asked
    });
    (stop, asking)
}

#[tokio::test(flavor = "multi_thread")]
async fn superseded_rows_are_left_out_in_time_and_deleted_keys_stay_away() {
    let folder = tempfile::tempdir().unwrap();
    let (options, time) = fast(folder.path());
    let engine = create_with(options, UPSERT).await;
    round(&engine, 0).await;
    until(&engine, ALL, &[KEYS, KEYS, 0]).await;
    // Its newest row is one that deletes it, which must outlive what it deletes.
    append(
        &engine,
        1,
        [r#"{"k": 7, "v": 100, "gone": true, "ms": 1}"#.to_owned()].into_iter(),
    )
    .await;
    let keys = KEYS - 1;
    until(&engine, "SELECT count(*) FROM t", &[keys]).await;
    let (stop, asking) = ask(&engine, keys);
    let rounds = 12;
    for number in 1..=rounds {
        round(&engine, number).await;
        engine.force_commit("t").await.unwrap();
    }
    until(&engine, ALL, &[keys, keys, keys * rounds]).await;
    // What came after a partition was told to commit is committed, too.
    engine.force_commit("t").await.unwrap();
    // Hours go by; rows of the newest round are needed, and what deletes.
    for _ in 0..2_000 {
        let held = numbers(&engine, HELD).await[0];
        assert!(held > keys);
        if held < keys * 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        numbers(&engine, HELD).await[0] < keys * 2,
        "{:?}",
        engine.upkeep.notes()
    );
    let counted = "SELECT CAST(sum(rows_committed + rows_consuming + rows_compacted) AS BIGINT) FROM system.ingestion";
    assert_eq!(numbers(&engine, counted).await, [KEYS * (rounds + 1) + 1]);
    let audit = engine.audit("t").await.unwrap();
    assert!(audit.exact, "{audit:?}");
    stop.store(true, Ordering::SeqCst);
    assert!(asking.await.unwrap() > 0);
    // A late row of the deleted key, and of another one.
    let late = |k| format!(r#"{{"k": {k}, "v": 1, "ms": 1}}"#);
    append(&engine, 0, [late(7), late(8)].into_iter()).await;
    engine.force_commit("t").await.unwrap();
    until(&engine, ALL, &[keys, keys, keys * rounds]).await;
    // A statement deletes keys with all of their rows, wherever these are.
    assert_eq!(engine.delete_rows("t", Some("k < 20")).await.unwrap(), 19);
    let keys = KEYS - 20;
    let left = [keys, keys, keys * rounds];
    until(&engine, ALL, &left).await;
    append(&engine, 0, [late(9)].into_iter()).await;
    engine.force_commit("t").await.unwrap();
    until(&engine, ALL, &left).await;
    let audit = engine.audit("t").await.unwrap();
    assert!(audit.exact, "{audit:?}");
    let per_minute = "SELECT count(*) FROM system.ingestion_audit
        WHERE rows_indexed <> rows_committed + rows_consuming + rows_moved + rows_deleted + rows_expired + rows_compacted
           OR rows_committed + rows_consuming <> rows_counted + rows_superseded + rows_hidden";
    assert_eq!(numbers(&engine, per_minute).await, [0]);
    append(
        &engine,
        1,
        [format!(r#"{{"k": 9, "v": {rounds}, "ms": 1}}"#)].into_iter(),
    )
    .await;
    let left = [keys + 1, keys + 1, (keys + 1) * rounds];
    until(&engine, ALL, &left).await;
    time.store(true, Ordering::SeqCst);
    engine.shutdown().await;
    drop(engine);
    for is_lost in [false, true] {
        open_again(folder.path(), is_lost, &left)
            .await
            .shutdown()
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_consuming_ones_superseded_are_left_out_once_these_are_committed() {
    let folder = tempfile::tempdir().unwrap();
    let (options, time) = fast(folder.path());
    let engine = create_with(options, UPSERT).await;
    round(&engine, 0).await;
    until(&engine, ALL, &[KEYS, KEYS, 0]).await;
    engine.force_commit("t").await.unwrap();
    round(&engine, 1).await;
    until(&engine, ALL, &[KEYS, KEYS, KEYS]).await;
    // Upkeep looks at the committed segments, all of whose rows are needed until those of the second round are committed.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(numbers(&engine, HELD).await, [KEYS * 2]);
    engine.force_commit("t").await.unwrap();
    until(&engine, HELD, &[KEYS]).await;
    until(&engine, ALL, &[KEYS, KEYS, KEYS]).await;
    time.store(true, Ordering::SeqCst);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_merged_segments_are_known_and_those_of_deleted_rows_are_new() {
    let folder = tempfile::tempdir().unwrap();
    let (options, _time) = fast(folder.path());
    let engine = create_with(options, r#""dedupConfig": {"dedupEnabled": true}"#).await;
    let rows =
        |keys: std::ops::Range<i64>| keys.map(|k| format!(r#"{{"k": {k}, "v": 1, "ms": 1}}"#));
    for part in 0..8 {
        append(&engine, 0, rows(part * 10..part * 10 + 10)).await;
        until(&engine, "SELECT count(*) FROM t", &[part * 10 + 10]).await;
        engine.force_commit("t").await.unwrap();
    }
    let few = "SELECT CAST(count(*) < 5 AS BIGINT) FROM system.segments WHERE NOT consuming";
    until(&engine, few, &[1]).await;
    append(&engine, 1, rows(0..90)).await;
    let counted = "SELECT count(*), CAST((SELECT sum(rows_deduplicated) FROM system.ingestion) AS BIGINT) FROM t";
    until(&engine, counted, &[90, 80]).await;
    assert_eq!(
        engine
            .delete_rows("t", Some("k >= 40 AND k < 50"))
            .await
            .unwrap(),
        10
    );
    until(&engine, counted, &[80, 80]).await;
    append(&engine, 1, rows(30..60)).await;
    until(&engine, counted, &[90, 100]).await;
    let audit = engine.audit("t").await.unwrap();
    assert!(audit.exact, "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keys_do_not_go_with_is_refused_and_a_dropped_table_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let engine = create(folder.path(), UPSERT).await;
    round(&engine, 1).await;
    until(&engine, ALL, &[KEYS, KEYS, KEYS]).await;
    let sorted = r#""tableIndexConfig": {"sortedColumn": ["v"]}, "query": {}"#;
    let offline = config("OFFLINE", sorted).replace(
        r#""tableIndexConfig": {"invertedIndexColumns": ["k"]}, "#,
        "",
    );
    let mut refused = vec![engine.create_table(&offline).await.unwrap_err()];
    let changed = config("REALTIME", r#""upsertConfig": {"mode": "FULL"}"#);
    refused.push(engine.update_table(&changed).await.unwrap_err());
    let wider = SCHEMA.replace(
        r#""name": "v", "dataType": "LONG""#,
        r#""name": "v", "dataType": "DOUBLE""#,
    );
    refused.push(engine.put_schema(&wider).await.unwrap_err());
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    engine.drop_table("t").await.unwrap();
    engine
        .create_table(&config(
            "REALTIME",
            r#""dedupConfig": {"dedupEnabled": true}"#,
        ))
        .await
        .unwrap();
    let offline = config("OFFLINE", r#""query": {}"#);
    let error = engine.create_table(&offline).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    // The stream is read again from its beginning; of each key there is one row, and the others are counted.
    round(&engine, 2).await;
    let distinct = "SELECT count(*), count(DISTINCT k) FROM t";
    until(&engine, distinct, &[KEYS, KEYS]).await;
    let counted = "SELECT CAST(sum(rows_committed + rows_consuming) AS BIGINT), CAST(sum(rows_deduplicated) AS BIGINT) FROM system.ingestion";
    until(&engine, counted, &[KEYS, KEYS]).await;
    engine.force_commit("t").await.unwrap();
    round(&engine, 3).await;
    until(&engine, counted, &[KEYS, 2 * KEYS]).await;
    assert_eq!(numbers(&engine, distinct).await, [KEYS, KEYS]);
    let audit = engine.audit("t").await.unwrap();
    assert!(audit.exact, "{audit:?}");
}
