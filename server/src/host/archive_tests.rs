//! Tables made again of what was archived, and an archive that can't be written.

use crate::engine::{Engine, EngineOptions};
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use strandline_broker::QueryRequest;
use strandline_proto::ids::OffsetRange;
use strandline_proto::v1::{AppendRequest, Message};
use strandline_storage::archive::Archive;
use strandline_storage::backup::restore;
use strandline_storage::deep_store::DeepStore;
use strandline_storage::environment::{Environment, FaultyFiles, RealFiles};
use strandline_storage::stream::log::{EmbeddedLog, LogMessage, LogOptions};

const SCHEMA: &str = r#"{"schemaName": "t", "dimensionFieldSpecs": [{"name": "n", "dataType": "LONG"}],
    "dateTimeFieldSpecs": [{"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:DAYS"}]}"#;
const ALL: &str = "SELECT count(*), sum(n), min(ms), max(ms), count(DISTINCT n) FROM t";
const LETTERS: &str =
    r#"SELECT "offset", reason, payload FROM system.dead_letters ORDER BY "offset""#;
const COUNTS: &str = "SELECT messages_read, rows_filtered, dead_letters, lost_offsets, rows_committed + rows_consuming FROM system.ingestion";

fn config(archive: bool, factor: i64) -> String {
    format!(
        r#"{{"tableName": "t", "tableType": "REALTIME", "segmentsConfig": {{"timeColumnName": "ms"}},
            "ingestionConfig": {{"filterConfig": {{"filterFunction": "ms < 1000"}},
                "transformConfigs": [{{"columnName": "n", "transformFunction": "value * {factor}"}}],
                "streamIngestionConfig": {{"streamConfigMaps": [
                {{"streamType": "log", "stream.log.topic.name": "t", "stream.log.archive": "{archive}",
                  "realtime.segment.flush.threshold.rows": "40"}}]}}}}}}"#
    )
}

async fn open(data: &Path) -> Arc<Engine> {
    Engine::open(EngineOptions::new(data)).await.unwrap()
}

async fn close(engine: Arc<Engine>) {
    engine.shutdown().await;
    drop(engine);
}

/// The log of a server that does not run, in small files.
async fn log(data: &Path) -> Arc<EmbeddedLog> {
    let options = LogOptions {
        file_bytes_max: 500,
    };
    EmbeddedLog::open_with(&data.join("log"), Environment::real(), options)
        .await
        .unwrap()
}

/// Messages of these numbers: every ninth is wrong, every seventh is filtered out.
async fn append(log: &EmbeddedLog, numbers: std::ops::Range<i64>) {
    let message = |n: i64| LogMessage {
        key: None,
        payload: match n {
            _ if n % 9 == 8 => format!("wrong {n}"),
            _ if n % 7 == 6 => format!(r#"{{"value": -1, "ms": {n}}}"#),
            _ => format!(r#"{{"value": {n}, "ms": {}}}"#, n * 3_600_000),
        }
        .into(),
        timestamp_ms: 0,
    };
    for n in numbers {
        let appended = log.append("t", Some(0), vec![message(n)], "", 0);
        appended.await.unwrap();
    }
}

async fn ask(engine: &Engine, sql: &str) -> String {
    let answer = engine.query(QueryRequest::new(sql)).await.unwrap();
    let batches: Vec<_> = answer.batches.try_collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    for _ in 0..3_000 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

/// Waits until all messages before `end` are read and committed.
async fn until_committed(engine: &Engine, end: u64) {
    let sql = format!("SELECT count(*) FROM system.ingestion WHERE committed_offset >= {end}");
    until("not all is committed", async || {
        engine.force_commit("t").await.unwrap();
        ask(engine, &sql).await.contains(" 1 ")
    })
    .await;
}

async fn objects(data: &Path) -> Vec<OffsetRange> {
    let deep_store = DeepStore::local(&data.join("deep"), Environment::real()).await;
    let archive = Archive::new(Arc::new(deep_store.unwrap()), "t", "log", "t");
    let objects = archive.objects(0).await.unwrap();
    objects.iter().map(|o| o.offsets()).collect()
}

/// A folder with a table whose messages 0 to 400 are committed and archived, the last ten of them without a row.
async fn archived(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    let engine = open(&data).await;
    engine.put_schema(SCHEMA).await.unwrap();
    engine.create_table(&config(true, 1)).await.unwrap();
    close(engine).await;
    for numbers in [0..150, 150..390] {
        let end = numbers.end as u64;
        let log = log(&data).await;
        append(&log, numbers).await;
        drop(log);
        let engine = open(&data).await;
        until_committed(&engine, end).await;
        close(engine).await;
    }
    let log = log(&data).await;
    for _ in 0..10 {
        append(&log, 8..9).await;
    }
    drop(log);
    let engine = open(&data).await;
    until_committed(&engine, 400).await;
    close(engine).await;
    data
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_is_made_again_of_its_archive_and_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let data = archived(folder.path()).await;
    let kept = objects(&data).await;
    let mut next = 0;
    for range in &kept {
        assert_eq!(range.start, next, "{kept:?}");
        next = range.end;
    }
    assert_eq!(next, 400);
    let log = log(&data).await;
    append(&log, 400..430).await;
    let start = log.trim_before("t", 0, 300).await.unwrap();
    assert!(start > 200 && start <= 300);
    drop(log);

    let engine = open(&data).await;
    until_committed(&engine, 430).await;
    let before = [
        ask(&engine, ALL).await,
        ask(&engine, LETTERS).await,
        ask(&engine, COUNTS).await,
    ];
    let backup = engine.backup("b").await.unwrap().0;
    engine.drop_table("t").await.unwrap();
    engine.create_table(&config(true, 1)).await.unwrap();
    until_committed(&engine, 430).await;
    let same = async |engine: &Engine| {
        assert_eq!(ask(engine, ALL).await, before[0]);
        assert_eq!(ask(engine, LETTERS).await, before[1]);
        assert_eq!(ask(engine, COUNTS).await, before[2]);
        let audit = engine.audit("t").await.unwrap();
        assert!(audit.exact, "{audit:?}");
    };
    same(&engine).await;
    // What came from the archive is not archived again.
    let again = objects(&data).await;
    assert_eq!(again.len(), kept.len() + 1, "{again:?}");

    // Another config makes other rows of the same messages.
    engine.drop_table("t").await.unwrap();
    engine.create_table(&config(true, 2)).await.unwrap();
    until_committed(&engine, 430).await;
    let doubled = "SELECT sum(n) / 2 AS s FROM t";
    let single = "SELECT sum(n) / 2 AS s FROM (SELECT 2 * n AS n FROM t)";
    let sum = ask(&engine, doubled).await;
    engine.drop_table("t").await.unwrap();
    engine.create_table(&config(true, 1)).await.unwrap();
    until_committed(&engine, 430).await;
    assert_eq!(ask(&engine, single).await, sum);
    same(&engine).await;

    // Without the archive there is what the stream has.
    engine.drop_table("t").await.unwrap();
    engine.create_table(&config(false, 1)).await.unwrap();
    until_committed(&engine, 430).await;
    assert_ne!(ask(&engine, ALL).await, before[0]);
    let first = ask(&engine, "SELECT first_offset FROM system.ingestion").await;
    assert!(first.contains(&format!(" {start} ")), "{first}");
    close(engine).await;

    // The archive is in the backup.
    let restored = folder.path().join("restored");
    restore(&backup, &restored).unwrap();
    assert_eq!(objects(&restored).await, again);
    let engine = open(&restored).await;
    same(&engine).await;
    engine.drop_table("t").await.unwrap();
    engine.create_table(&config(true, 1)).await.unwrap();
    until_committed(&engine, 430).await;
    same(&engine).await;
    close(engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_begins_and_ends_with_the_config() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let engine = open(&data).await;
    engine.put_schema(SCHEMA).await.unwrap();
    engine.create_table(&config(false, 1)).await.unwrap();
    // Rows of one segment, with the option off, on and off.
    let mut end = 0;
    for (count, archive) in [(10, None), (5, Some(true)), (5, Some(false))] {
        if let Some(archive) = archive {
            engine.update_table(&config(archive, 1)).await.unwrap();
        }
        let message = Message {
            payload: r#"{"value": 1, "ms": 5000}"#.into(),
            ..Message::default()
        };
        let request = AppendRequest {
            topic: "t".to_owned(),
            partition: Some(0),
            messages: vec![message; count],
            ..AppendRequest::default()
        };
        end = engine.append(request).await.unwrap().next_offset;
        let read = format!("SELECT count(*) FROM system.ingestion WHERE next_offset >= {end}");
        until("rows are not read", async || {
            ask(&engine, &read).await.contains(" 1 ")
        })
        .await;
    }
    until_committed(&engine, end).await;
    close(engine).await;
    assert_eq!(objects(&data).await, [OffsetRange { start: 10, end: 15 }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_up_the_commit_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let engine = open(&data).await;
    engine.put_schema(SCHEMA).await.unwrap();
    engine.create_table(&config(true, 1)).await.unwrap();
    close(engine).await;
    let messages = log(&data).await;
    append(&messages, 0..20).await;
    drop(messages);
    let files = FaultyFiles::new(Arc::new(RealFiles));
    files.set(|_, path| {
        let is_archive = path.components().any(|c| c.as_os_str() == ".archive");
        is_archive.then(|| io::Error::from(io::ErrorKind::StorageFull))
    });
    let mut options = EngineOptions::new(&data);
    options.environment = Environment::real().with_files(Arc::new(files.clone()));
    let engine = Engine::open(options).await.unwrap();
    let read = "SELECT count(*) FROM system.ingestion WHERE next_offset >= 20";
    until("rows are not read", async || {
        ask(&engine, read).await.contains(" 1 ")
    })
    .await;
    let committing = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.force_commit("t").await }
    });
    let told = "SELECT last_error FROM system.ingestion";
    until("the error is not told", async || {
        let error = ask(&engine, told).await;
        error.contains(".archive") && error.contains("commit of t__0__0")
    })
    .await;
    let committed = "SELECT committed_offset FROM system.ingestion";
    assert!(ask(&engine, committed).await.contains(" 0 "));
    assert_eq!(objects(&data).await, []);
    files.clear();
    committing.await.unwrap().unwrap();
    until_committed(&engine, 20).await;
    let kept = objects(&data).await;
    assert_eq!(kept, [OffsetRange { start: 0, end: 20 }]);
    let audit = engine.audit("t").await.unwrap();
    assert!(audit.exact, "{audit:?}");
    close(engine).await;
}
