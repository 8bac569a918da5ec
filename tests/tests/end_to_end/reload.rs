//! Another config for a table that is there: its segments are rewritten while queries go on, and answers never change.

use super::{server, wait_for};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use strandline_proto::v1::{
    ForceCommitRequest, GetTableRequest, LoadOptions, ReloadStatus, ReloadTableRequest,
    TimeInterval, UpdateTableRequest,
};
use strandline_tests::client::Client;
use strandline_tests::pinot::log_stream;
use strandline_tests::process::Process;

const DAY_MS: i64 = 86_400_000;
const ROWS: i64 = 12_000;

fn row(i: i64) -> Value {
    json!({
        "ms": i * 10 * DAY_MS / ROWS,
        "carrier": format!("c{}", i % 50),
        "fare": i * 7 % 1_000,
        "doc": {"k": i % 20, "tags": [i % 3, i % 5]},
    })
}

/// A config whose storage is plain, or has every kind of index.
fn config(half: &str, indexed: bool) -> String {
    let mut config = json!({
        "tableName": "rides",
        "tableType": half,
        "segmentsConfig": {"timeColumnName": "ms", "replication": "1"},
    });
    if indexed {
        config["tableIndexConfig"] = json!({
            "invertedIndexColumns": ["carrier"],
            "rangeIndexColumns": ["fare"],
            "bloomFilterColumns": ["fare"],
            "noDictionaryColumns": ["fare"],
            "jsonIndexColumns": ["doc"],
            "sortedColumn": ["carrier"],
            "starTreeIndexConfigs": [{
                "dimensionsSplitOrder": ["carrier"],
                "functionColumnPairs": ["COUNT__*", "SUM__fare"],
                "maxLeafRecords": 1,
            }],
        });
        config["fieldConfigList"] = json!([
            {"name": "carrier", "indexTypes": ["FST"]},
            {"name": "doc", "indexes": {"text": {"stopWordsExclude": "a"}}},
        ]);
    }
    if half == "REALTIME" {
        let stream = log_stream("rides-topic", 2, 1_000);
        config["ingestionConfig"] =
            json!({"streamIngestionConfig": {"streamConfigMaps": [stream]}});
    }
    config.to_string()
}

/// Days 0 to 5 offline in segments of 500 rows, days 4 to 9 in the stream.
async fn load(client: &mut Client) {
    let schema = json!({
        "schemaName": "rides",
        "dimensionFieldSpecs": [
            {"name": "carrier", "dataType": "STRING"},
            {"name": "doc", "dataType": "JSON"},
        ],
        "metricFieldSpecs": [{"name": "fare", "dataType": "LONG"}],
        "dateTimeFieldSpecs": [
            {"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"},
        ],
    })
    .to_string();
    client
        .create(&schema, &config("OFFLINE", false))
        .await
        .expect("offline");
    client
        .create(&schema, &config("REALTIME", false))
        .await
        .expect("realtime");
    let lines: String = (0..ROWS * 6 / 10)
        .map(|i| format!("{}\n", row(i)))
        .collect();
    let options = LoadOptions {
        push_id: "rides".to_owned(),
        segment_rows_max: 500,
        declared_coverage: Some(TimeInterval {
            start_ms: 0,
            end_ms: 6 * DAY_MS,
        }),
        ..LoadOptions::default()
    };
    client
        .upload_as(
            "rides",
            "rides.jsonl",
            std::io::Cursor::new(lines.into_bytes()),
            options,
        )
        .await
        .expect("a file loads");
    let late: Vec<i64> = (ROWS * 4 / 10..ROWS).collect();
    for partition in 0..2 {
        let mine = late.iter().filter(|i| *i % 2 == partition);
        let payloads: Vec<Vec<u8>> = mine.map(|&i| row(i).to_string().into_bytes()).collect();
        client
            .append("rides-topic", partition as u32, &payloads, "", 0)
            .await
            .expect("rows are taken");
    }
    wait_for(client, "rides_REALTIME", i128::from(ROWS * 6 / 10)).await;
    let all = ForceCommitRequest {
        table: "rides".to_owned(),
    };
    client.admin.force_commit(all).await.expect("it commits");
}

const QUERIES: [&str; 6] = [
    "SELECT carrier, count(*), sum(fare), min(fare), max(fare) FROM rides GROUP BY carrier ORDER BY carrier",
    "SELECT count(*), sum(fare) FROM rides WHERE carrier IN ('c7', 'c8') AND fare BETWEEN 100 AND 700",
    r#"SELECT count(*), sum(fare) FROM rides WHERE JSON_MATCH(doc, '"$.k" = 3 OR "$.tags[1]" = 4')"#,
    r#"SELECT count(*), sum(fare) FROM rides WHERE TEXT_MATCH(doc, '"tags 2" AND NOT 17 AND 1*')"#,
    "SELECT carrier, count(*) FROM rides WHERE carrier ~ '^[a-d][12]$' GROUP BY 1 ORDER BY 1",
    "SELECT a.carrier, count(*) FROM rides_OFFLINE a JOIN rides_REALTIME b ON a.ms = b.ms AND a.fare = b.fare GROUP BY 1 ORDER BY 1",
];

async fn answers(client: &mut Client) -> Vec<String> {
    let mut answers = Vec::new();
    for sql in QUERIES {
        let (answer, _) = client
            .ask(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert!(!answer.rows.is_empty(), "{sql}");
        answers.push(format!("{:?}", answer.rows));
    }
    answers
}

async fn status(client: &mut Client) -> ReloadStatus {
    let request = GetTableRequest {
        table: "rides".to_owned(),
    };
    let table = client
        .admin
        .get_table(request)
        .await
        .expect("a table")
        .into_inner();
    table.reload.expect("a status")
}

async fn update(client: &mut Client, half: &str, indexed: bool) {
    let config_json = config(half, indexed);
    let request = UpdateTableRequest { config_json };
    client
        .admin
        .update_table(request)
        .await
        .expect("it is changed");
}

/// Waits until no more than `left` segments wait.
async fn wait_until(client: &mut Client, left: u64) {
    let since = Instant::now();
    loop {
        let now = status(client).await;
        assert!(now.errors.is_empty(), "{now:?}");
        if now.waiting <= left {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(120), "{now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn segment_files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let count = |entry: std::fs::DirEntry| match entry.path() {
        // Copies of the metastore.
        path if path.ends_with(".metastore") => 0,
        path if path.is_dir() => segment_files(&path),
        _ => 1,
    };
    entries.map(|entry| count(entry.expect("an entry"))).sum()
}

/// Old files go when no query reads them any more, which is looked at each second.
async fn wait_for_files(data: &Path, count: u64) {
    let since = Instant::now();
    while segment_files(&data.join("deep")) as u64 != count {
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "{} files for {count} segments",
            segment_files(&data.join("deep"))
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn explained(client: &mut Client, sql: &str) -> String {
    let (answer, _) = client.ask(&format!("EXPLAIN {sql}")).await.expect(sql);
    format!("{:?}", answer.rows)
}

/// Asks everything over and over until it is told to stop; gives how often.
fn keep_asking(
    process: &Process,
    expected: Vec<String>,
    stop: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<u64> {
    let url = process.grpc.clone();
    tokio::spawn(async move {
        let mut client = Client::connect(&url).await.expect("it is up");
        let count = AtomicU64::new(0);
        while !stop.load(Ordering::Relaxed) {
            assert_eq!(answers(&mut client).await, expected);
            count.fetch_add(1, Ordering::Relaxed);
        }
        count.into_inner()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_come_to_existing_segments_while_queries_go_on() {
    let data = tempfile::tempdir().expect("a folder");
    let (process, mut client) = server(data.path()).await;
    load(&mut client).await;
    let expected = answers(&mut client).await;
    let before = status(&mut client).await;
    assert!(before.segments >= 20 && before.waiting == 0, "{before:?}");

    let stop = Arc::new(AtomicBool::new(false));
    let asking = keep_asking(&process, expected.clone(), Arc::clone(&stop));
    update(&mut client, "OFFLINE", true).await;
    update(&mut client, "REALTIME", true).await;
    wait_until(&mut client, 0).await;
    stop.store(true, Ordering::Relaxed);
    let asked = asking.await.expect("every answer was the same");
    assert!(asked > 0, "queries were asked meanwhile");
    let after = status(&mut client).await;
    assert_eq!((after.segments, after.waiting), (before.segments, 0));
    wait_for_files(data.path(), after.segments).await;
    let text = explained(&mut client, QUERIES[2]).await;
    // All segments that coverage leaves.
    assert!(text.contains("by json (21 of 21 segments)"), "{text}");
    let text = explained(&mut client, QUERIES[3]).await;
    assert!(text.contains("by text (21 of 21 segments)"), "{text}");
    let text = explained(&mut client, QUERIES[1]).await;
    assert!(
        text.contains("by sorted") && text.contains("by range"),
        "{text}"
    );

    // Back to the first config, and killed in the middle.
    update(&mut client, "OFFLINE", false).await;
    update(&mut client, "REALTIME", false).await;
    wait_until(&mut client, after.segments - 3).await;
    drop(process);
    let (process, mut client) = server(data.path()).await;
    let resumed = status(&mut client).await;
    assert_eq!(resumed.segments, before.segments);
    assert_eq!(answers(&mut client).await, expected);
    wait_until(&mut client, 0).await;
    assert_eq!(answers(&mut client).await, expected);
    wait_for_files(data.path(), before.segments).await;
    let text = explained(&mut client, QUERIES[2]).await;
    assert!(!text.contains("by json"), "{text}");
    let text = explained(&mut client, QUERIES[3]).await;
    assert!(!text.contains("by text"), "{text}");

    // A reload has nothing to do, and what can't change is refused.
    let request = ReloadTableRequest {
        table: "rides_OFFLINE".to_owned(),
    };
    let status = client
        .admin
        .reload_table(request)
        .await
        .expect("a status")
        .into_inner();
    assert_eq!(status.waiting, 0);
    let stream = config("REALTIME", true).replace("rides-topic", "other-topic");
    for (config_json, part) in [
        (stream, "taking the stream log/rides-topic"),
        (
            config("OFFLINE", true).replace("\"ms\"", "\"fare\""),
            "fare",
        ),
        (
            config("OFFLINE", true).replace("rides", "walks"),
            "no table walks_OFFLINE",
        ),
    ] {
        let request = UpdateTableRequest { config_json };
        let error = client.admin.update_table(request).await.expect_err(part);
        assert!(error.message().contains(part), "{error}");
    }
    drop(process);
}
