//! A schema changes step by step while rows come in and queries are asked.

use crate::engine::{Engine, EngineOptions};
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strandline_broker::QueryRequest;
use strandline_proto::v1::{AppendRequest, LoadOptions, Message};
use strandline_proto::{ErrorKind, Result};

const SCHEMA: &str = r#"{"schemaName": "t",
    "dimensionFieldSpecs": [{"name": "n", "dataType": "INT"}, {"name": "word", "dataType": "STRING"},
        {"name": "few", "dataType": "INT"}, {"name": "f", "dataType": "FLOAT"}],
    "dateTimeFieldSpecs": [{"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:DAYS"}]}"#;
const DAY_MS: i64 = 86_400_000;

fn config(half: &str) -> String {
    let stream = match half {
        "REALTIME" => {
            r#", "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [{"streamType": "log", "stream.log.topic.name": "t"}]}}"#
        }
        _ => "",
    };
    format!(
        r#"{{"tableName": "t", "tableType": "{half}", "segmentsConfig": {{"timeColumnName": "ms"}},
            "tableIndexConfig": {{"invertedIndexColumns": ["few"], "noDictionaryColumns": ["f"], "sortedColumn": ["n"],
            "starTreeIndexConfigs": [{{"dimensionsSplitOrder": ["few"], "functionColumnPairs": ["SUM__n"], "maxLeafRecords": 1}}]}}{stream}}}"#
    )
}

async fn text(engine: &Engine, sql: &str) -> Result<String> {
    let answer = engine.query(QueryRequest::new(sql)).await?;
    let batches: Vec<_> = answer.batches.try_collect().await?;
    let table = pretty_format_batches(&batches).unwrap().to_string();
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(1);
    let cells = lines.map(|line| line.replace(' ', "").trim_matches('|').to_owned());
    Ok(cells.collect::<Vec<_>>().join("\n"))
}

async fn ask(engine: &Engine, sql: &str) -> String {
    text(engine, sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

async fn append(engine: &Engine, rows: &[&str]) {
    let before: u64 = ask(engine, "SELECT next_offset FROM system.ingestion")
        .await
        .parse()
        .unwrap_or(0);
    let message = |row: &&str| Message {
        payload: row.as_bytes().to_vec().into(),
        ..Message::default()
    };
    let request = AppendRequest {
        topic: "t".to_owned(),
        partition: Some(0),
        messages: rows.iter().map(message).collect(),
        ..AppendRequest::default()
    };
    engine.append(request).await.unwrap();
    for _ in 0..500 {
        let now = ask(engine, "SELECT next_offset FROM system.ingestion").await;
        if now
            .parse::<u64>()
            .is_ok_and(|now| now >= before + rows.len() as u64)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("rows are not read");
}

async fn load(engine: &Engine, folder: &Path, rows: &str) {
    let path = folder.join("rows.json");
    std::fs::write(&path, rows).unwrap();
    engine
        .load_local("t", vec![path], LoadOptions::default(), |_| {})
        .await
        .unwrap();
}

async fn change(engine: &Engine, sql: &str) {
    ask(engine, &format!("ALTER TABLE t {sql}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_go_widen_and_change_names_without_a_failed_query() {
    let folder = tempfile::tempdir().unwrap();
    let options = || EngineOptions::new(folder.path().join("data"));
    let engine = Engine::open(options()).await.unwrap();
    engine.put_schema(SCHEMA).await.unwrap();
    for half in ["OFFLINE", "REALTIME"] {
        engine.create_table(&config(half)).await.unwrap();
    }
    let day = |n: i64| n * DAY_MS;
    let old = |n: i64, ms: i64| {
        format!(
            r#"{{"n": {n}, "word": "w{n}", "few": {}, "f": 0.5, "ms": {ms}}}"#,
            n % 3
        )
    };
    load(
        &engine,
        folder.path(),
        &format!("{}\n{}\n{}", old(1, day(0)), old(2, day(0)), old(3, day(9))),
    )
    .await;
    append(&engine, &[&old(4, day(20))]).await;
    engine.force_commit("t").await.unwrap();
    append(&engine, &[&old(5, day(21))]).await;

    // Whatever happens, this is asked and answered.
    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        async move {
            let mut answers = 0;
            while !stop.load(Ordering::SeqCst) {
                let counted: u64 = ask(&engine, "SELECT count(*) FROM t WHERE ms >= 0 AND n > 0")
                    .await
                    .parse()
                    .unwrap();
                assert!(counted >= 4);
                let grouped = ask(&engine, "SELECT few, sum(n) FROM t GROUP BY few").await;
                assert!(grouped.lines().count() >= 2, "{grouped}");
                answers += 1;
            }
            answers
        }
    });

    change(&engine, "ADD COLUMN extra LONG DEFAULT 7").await;
    change(&engine, "ADD COLUMN tags STRING ARRAY").await;
    assert_eq!(
        ask(
            &engine,
            "SELECT sum(extra), count(tags) FROM t WHERE extra = 7"
        )
        .await,
        "28|0"
    );
    append(&engine, &[r#"{"n": 6, "word": "w6", "few": 0, "f": 1.5, "ms": 1814400001, "extra": 100, "tags": ["a", "b"]}"#]).await;
    assert_eq!(
        ask(
            &engine,
            "SELECT n, extra, tags FROM t WHERE extra > 6 ORDER BY n"
        )
        .await,
        "1|7\n2|7\n4|7\n5|7\n6|100|[a,b]"
    );
    assert_eq!(
        ask(&engine, "SELECT count(*) FROM t WHERE tags = 'b'").await,
        "1"
    );
    assert_eq!(
        ask(&engine, "SELECT n FROM t WHERE extra IS NULL").await,
        ""
    );

    // INT to LONG, FLOAT to DOUBLE: by dictionary, index, sorted order and raw values.
    change(&engine, "ALTER COLUMN n TYPE BIGINT").await;
    change(&engine, "ALTER COLUMN f TYPE DOUBLE").await;
    append(
        &engine,
        &[r#"{"n": 5000000000, "word": "w7", "few": 1, "f": 0.1, "ms": 1814400002, "extra": 1}"#],
    )
    .await;
    assert_eq!(
        ask(&engine, "SELECT sum(n), max(n), min(f), sum(f) FROM t").await,
        "5000000018|5000000000|0.1|3.6"
    );
    assert_eq!(
        ask(
            &engine,
            "SELECT n FROM t WHERE n BETWEEN 2 AND 5 ORDER BY n DESC"
        )
        .await,
        "5\n4\n2"
    );
    assert_eq!(
        ask(&engine, "SELECT count(*) FROM t WHERE n IN (1, 4294967297)").await,
        "1"
    );
    assert_eq!(
        ask(&engine, "SELECT count(*) FROM t WHERE f = 0.5").await,
        "4"
    );
    assert_eq!(
        ask(
            &engine,
            "SELECT few, sum(n) FROM t GROUP BY few ORDER BY few"
        )
        .await,
        "0|6\n1|5000000005\n2|7"
    );

    // A name changes its column: what was word is text, and a new word comes.
    change(&engine, "RENAME COLUMN word TO text").await;
    assert_eq!(
        ask(
            &engine,
            "SELECT text FROM t WHERE text < 'w3' ORDER BY text"
        )
        .await,
        "w1\nw2"
    );
    change(&engine, "ADD COLUMN word STRING DEFAULT 'none'").await;
    assert_eq!(ask(&engine, "SELECT DISTINCT word FROM t").await, "none");
    assert_eq!(
        ask(&engine, "SELECT count(*) FROM t WHERE word = 'w1'").await,
        "0"
    );
    append(
        &engine,
        &[r#"{"n": 8, "word": "new", "text": "w8", "few": 2, "ms": 1814400003}"#],
    )
    .await;
    assert_eq!(
        ask(
            &engine,
            "SELECT text, word FROM t WHERE text IN ('w1', 'w8') ORDER BY 1"
        )
        .await,
        "w1|none\nw8|new"
    );
    // A column that was dropped comes back empty.
    change(&engine, "DROP COLUMN extra").await;
    let gone = text(&engine, "SELECT extra FROM t").await.unwrap_err();
    assert!(gone.message().contains("no column extra"), "{gone}");
    change(&engine, "ADD COLUMN extra STRING").await;
    assert_eq!(
        ask(&engine, "SELECT count(extra), count(*) FROM t").await,
        "0|7"
    );
    load(
        &engine,
        folder.path(),
        &format!(
            r#"{{"n": 9, "text": "w9", "few": 0, "extra": "e", "ms": {}}}"#,
            day(10)
        ),
    )
    .await;

    stop.store(true, Ordering::SeqCst);
    assert!(asking.await.unwrap() > 0);
    let all = "SELECT n, text, word, few, f, extra, tags FROM t ORDER BY n";
    let before = ask(&engine, all).await;
    assert_eq!(before.lines().count(), 8, "{before}");
    // The same when all is committed, and after a restart.
    engine.force_commit("t").await.unwrap();
    assert_eq!(ask(&engine, all).await, before);
    engine.shutdown().await;
    drop(engine);
    let engine = Engine::open(options()).await.unwrap();
    assert_eq!(ask(&engine, all).await, before);
    // Deleting writes segments anew, by the newest schema.
    ask(&engine, "DELETE FROM t WHERE n = 2").await;
    let expected: Vec<_> = before
        .lines()
        .filter(|line| !line.starts_with("2|"))
        .collect();
    assert_eq!(ask(&engine, all).await, expected.join("\n"));

    for (sql, kind) in [
        ("ALTER COLUMN n TYPE INT", ErrorKind::Unsupported),
        ("ALTER COLUMN text TYPE LONG", ErrorKind::Unsupported),
        ("RENAME COLUMN ms TO time", ErrorKind::Unsupported),
        ("DROP COLUMN few", ErrorKind::FailedPrecondition),
        ("DROP COLUMN nothing", ErrorKind::NotFound),
        ("ADD COLUMN text STRING", ErrorKind::AlreadyExists),
        (
            "ADD COLUMN late INT DEFAULT 'x'",
            ErrorKind::InvalidArgument,
        ),
    ] {
        let error = text(&engine, &format!("ALTER TABLE t {sql}"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{sql}: {error}");
    }
    assert_eq!(ask(&engine, all).await, expected.join("\n"));
}
