//! Loads that end before all of their segments are there leave none of them.

use crate::engine::{Engine, EngineOptions};
use parking_lot::Mutex;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use strandline_proto::v1::LoadOptions;

const SCHEMA: &str =
    r#"{"schemaName": "t", "metricFieldSpecs": [{"name": "n", "dataType": "INT"}]}"#;
const TABLE: &str = r#"{"tableName": "t", "tableType": "OFFLINE", "segmentsConfig": {"replication": "1"},
    "tableIndexConfig": {}, "tenants": {}, "metadata": {}}"#;

async fn engine(folder: &Path) -> Arc<Engine> {
    let engine = Engine::open(EngineOptions::new(folder.join("data")))
        .await
        .unwrap();
    engine.put_schema(SCHEMA).await.unwrap();
    engine.create_table(TABLE).await.unwrap();
    engine
}

/// A file of so many rows, and `last` behind them.
fn rows(folder: &Path, count: usize, last: &str) -> std::path::PathBuf {
    let mut text = String::new();
    for n in 0..count {
        writeln!(text, r#"{{"n": {n}}}"#).unwrap();
    }
    let path = folder.join("rows.json");
    std::fs::write(&path, text + last).unwrap();
    path
}

fn options() -> LoadOptions {
    LoadOptions {
        segment_rows_max: 10_000,
        ..LoadOptions::default()
    }
}

/// Files below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let below = |path: std::path::PathBuf| match path.is_dir() {
        true => files(&path),
        false => 1,
    };
    entries.map(|entry| below(entry.path())).sum()
}

async fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}, after 10 seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_given_up_leaves_nothing_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path()).await;
    let path = rows(folder.path(), 50_000, "");
    let deep = folder.path().join("data/deep/t");
    // Two segments are made, and then none until the load is given up.
    let (gate, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let loading = tokio::spawn({
        let (engine, path) = (Arc::clone(&engine), path.clone());
        async move {
            let progress = move |count: strandline_proto::v1::LoadCount| {
                if count.segments_built >= 2 {
                    let _ = held.lock().recv();
                }
            };
            engine
                .load_local("t", vec![path], options(), progress)
                .await
        }
    });
    until("no segment was stored while others are made", || {
        files(&deep) > 0
    })
    .await;
    loading.abort();
    assert!(loading.await.unwrap_err().is_cancelled());
    drop(gate);
    until("segments of a load that was given up are left", || {
        files(&deep) == 0
    })
    .await;
    assert_eq!(engine.segments("t").unwrap().len(), 0);
    let loaded = engine
        .load_local("t", vec![path], options(), |_| {})
        .await
        .unwrap();
    assert_eq!((loaded.rows, loaded.segments), (50_000, 5));
    assert_eq!((files(&deep), engine.segments("t").unwrap().len()), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_with_a_bad_row_at_its_end_names_it_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path()).await;
    let path = rows(folder.path(), 50_000, "{\"n\": \"many\"}\n");
    let error = engine
        .load_local("t", vec![path], options(), |_| {})
        .await
        .unwrap_err();
    let message = error.message();
    assert!(
        message.contains("rows.json") && message.contains("50001"),
        "{message}"
    );
    assert_eq!(files(&folder.path().join("data/deep/t")), 0);
    assert_eq!(files(&folder.path().join("data/staging")), 0);
    assert_eq!(engine.segments("t").unwrap().len(), 0);
}
