//! Backups made under load, restored, and metastores made again: the same answers.

use super::rebuild;
use crate::engine::{Engine, EngineOptions};
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strandline_broker::QueryRequest;
use strandline_proto::ErrorKind;
use strandline_proto::v1::{AppendRequest, LoadOptions, Message, PushMode};
use strandline_storage::backup::restore;
use strandline_storage::environment::Environment;

const SCHEMA: &str = r#"{"schemaName": "t",
    "dimensionFieldSpecs": [{"name": "n", "dataType": "LONG"}],
    "dateTimeFieldSpecs": [{"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:DAYS"}]}"#;
const DAY_MS: i64 = 86_400_000;

fn config(half: &str) -> String {
    let stream = match half {
        "REALTIME" => {
            r#", "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [{"streamType": "log", "stream.log.topic.name": "t",
                "realtime.segment.flush.threshold.rows": "40"}]}}"#
        }
        _ => "",
    };
    format!(
        r#"{{"tableName": "t", "tableType": "{half}", "segmentsConfig": {{"timeColumnName": "ms", "deletedSegmentsRetentionPeriod": "0d"}}{stream}}}"#
    )
}

async fn open(data: &Path) -> Arc<Engine> {
    Engine::open(EngineOptions::new(data)).await.unwrap()
}

async fn create(data: &Path) -> Arc<Engine> {
    let engine = open(data).await;
    engine.put_schema(SCHEMA).await.unwrap();
    for half in ["OFFLINE", "REALTIME"] {
        engine.create_table(&config(half)).await.unwrap();
    }
    engine
}

async fn ask(engine: &Engine, sql: &str) -> String {
    let answer = engine.query(QueryRequest::new(sql)).await.unwrap();
    let batches: Vec<_> = answer.batches.try_collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

const ALL: &str = "SELECT count(*), sum(n), min(ms), max(ms) FROM t";

async fn until_same(engine: &Engine, expected: &str) {
    for _ in 0..1_000 {
        if ask(engine, ALL).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{}\nexpected\n{expected}", ask(engine, ALL).await);
}

async fn load(engine: &Engine, folder: &Path, value: i64, mode: PushMode) {
    let mut text = String::new();
    for n in 0..100 {
        writeln!(text, r#"{{"n": {value}, "ms": {}}}"#, n * DAY_MS / 10).unwrap();
    }
    let path = folder.join(format!("rows{value}.json"));
    std::fs::write(&path, text).unwrap();
    let options = LoadOptions {
        mode: mode.into(),
        ..LoadOptions::default()
    };
    engine
        .load_local("t", vec![path], options, |_| {})
        .await
        .unwrap();
}

async fn append(engine: &Engine, count: i64) {
    let message = |n: i64| Message {
        payload: format!(r#"{{"n": {n}, "ms": {}}}"#, 20 * DAY_MS + n)
            .into_bytes()
            .into(),
        ..Message::default()
    };
    let request = AppendRequest {
        topic: "t".to_owned(),
        partition: Some(0),
        messages: (0..count).map(message).collect(),
        ..AppendRequest::default()
    };
    engine.append(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_one_state_and_restores_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let engine = create(&folder.path().join("data")).await;
    load(&engine, folder.path(), 1, PushMode::Append).await;
    append(&engine, 100).await;
    // While backups are made, the past is replaced over and over.
    let stop = Arc::new(AtomicBool::new(false));
    let replacing = tokio::spawn({
        let (engine, stop, folder) = (
            Arc::clone(&engine),
            Arc::clone(&stop),
            folder.path().to_owned(),
        );
        async move {
            let mut value = 1;
            while !stop.load(Ordering::SeqCst) {
                value += 1;
                load(&engine, &folder, value, PushMode::Refresh).await;
            }
            value
        }
    });
    for number in 0..4 {
        let (place, manifest) = engine.backup(&format!("b{number}")).await.unwrap();
        assert!(manifest.files.iter().any(|f| f.path == "meta.sqlite"));
        let data = folder.path().join(format!("restored{number}"));
        restore(&place, &data).unwrap();
        let restored = open(&data).await;
        // Each row of the past has the value of the version.
        let whole = "SELECT count(*), min(n) = max(n) FROM t_OFFLINE";
        let answer = ask(&restored, whole).await;
        assert!(
            answer.contains("| 100") && answer.contains("true"),
            "{answer}"
        );
        for _ in 0..1_000 {
            if ask(&restored, "SELECT count(*) FROM t_REALTIME")
                .await
                .contains("| 100")
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let streamed = ask(&restored, "SELECT count(*), sum(n) FROM t_REALTIME").await;
        assert!(
            streamed.contains("| 100") && streamed.contains("| 4950"),
            "{streamed}"
        );
        restored.shutdown().await;
    }
    stop.store(true, Ordering::SeqCst);
    assert!(replacing.await.unwrap() > 1);
    let again = engine.backup("b0").await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        engine.backup("../x").await.unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_metastore_is_made_again_of_its_copy() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let engine = create(&data).await;
    load(&engine, folder.path(), 1, PushMode::Append).await;
    load(&engine, folder.path(), 2, PushMode::Refresh).await;
    append(&engine, 130).await;
    engine.force_commit("t").await.unwrap();
    append(&engine, 5).await;
    for _ in 0..1_000 {
        if ask(&engine, "SELECT count(*) FROM t_REALTIME")
            .await
            .contains("135")
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let expected = ask(&engine, ALL).await;
    engine.shutdown().await;
    drop(engine);
    let refused = rebuild(&data, Environment::real()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    for name in ["meta.sqlite", "meta.sqlite-wal", "meta.sqlite-shm"] {
        let _ = std::fs::remove_file(data.join(name));
    }
    // A server that is started without noticing must not take the segments for what no table names.
    let gone = Engine::open(EngineOptions::new(&data)).await.unwrap_err();
    assert!(gone.message().contains("strandline rebuild"), "{gone}");
    let rebuilt = rebuild(&data, Environment::real()).await.unwrap();
    assert_eq!(
        (
            rebuilt.tables.as_slice(),
            rebuilt.missing.len(),
            rebuilt.aside.len()
        ),
        (&["t".to_owned()][..], 0, 0)
    );
    let engine = open(&data).await;
    until_same(&engine, &expected).await;
    load(&engine, folder.path(), 3, PushMode::Append).await;
    engine.shutdown().await;
    drop(engine);

    // With the copy before the last push, that push is told and put aside.
    let copies = super::copies(&data.join("deep/.metastore"));
    assert_eq!(copies.len(), 2);
    std::fs::remove_file(&copies[1]).unwrap();
    std::fs::remove_file(data.join("meta.sqlite")).unwrap();
    let rebuilt = rebuild(&data, Environment::real()).await.unwrap();
    assert!(
        rebuilt.missing.is_empty() && rebuilt.aside.len() <= 1,
        "{rebuilt:?}"
    );
    let engine = open(&data).await;
    if let Some(file) = rebuilt.aside.first() {
        until_same(&engine, &expected).await;
        engine
            .push_segments("t", vec![file.clone()], LoadOptions::default())
            .await
            .unwrap();
    }
    assert!(
        ask(&engine, "SELECT count(*) FROM t_OFFLINE")
            .await
            .contains("200")
    );
    engine.shutdown().await;
    drop(engine);

    for name in ["meta.sqlite", "meta.sqlite-wal", "meta.sqlite-shm"] {
        let _ = std::fs::remove_file(data.join(name));
    }
    std::fs::remove_dir_all(data.join("deep/.metastore")).unwrap();
    let nothing = rebuild(&data, Environment::real()).await.unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::NotFound);
}
