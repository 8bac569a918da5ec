//! Ranges rebuilt of the archive, against rows that are counted by hand.

use crate::engine::{Engine, EngineOptions};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strandline_broker::QueryRequest;
use strandline_proto::Error;
use strandline_proto::v1::{AppendRequest, LoadOptions, Message};
use strandline_storage::environment::Environment;
use strandline_storage::stream::log::{EmbeddedLog, LogMessage, LogOptions};

const HOUR_MS: i64 = 3_600_000;
const SCHEMA: &str = r#"{"schemaName": "t", "dimensionFieldSpecs": [{"name": "n", "dataType": "LONG"}],
    "dateTimeFieldSpecs": [{"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:DAYS"}]}"#;
const OFFLINE: &str =
    r#"{"tableName": "t", "tableType": "OFFLINE", "segmentsConfig": {"timeColumnName": "ms"}}"#;
const LETTERS: &str = "SELECT count(*) FROM system.dead_letters";

/// How rows come in: `n` is the value times a factor, and values from some one up to another are left out.
#[derive(Clone, Copy)]
struct Rules {
    factor: i64,
    left_out: (i64, i64),
}

const OLD: Rules = Rules {
    factor: 1,
    left_out: (0, 0),
};
const NEW: Rules = Rules {
    factor: 10,
    left_out: (30, 60),
};

fn realtime(rules: Rules, more: &str) -> String {
    let Rules {
        factor,
        left_out: (from, to),
    } = rules;
    format!(
        r#"{{"tableName": "t", "tableType": "REALTIME", "segmentsConfig": {{"timeColumnName": "ms"}},
            "ingestionConfig": {{"filterConfig": {{"filterFunction": "value >= {from} AND value < {to}"}},
                "transformConfigs": [{{"columnName": "n", "transformFunction": "value * {factor}"}}],
                "streamIngestionConfig": {{"streamConfigMaps": [
                {{"streamType": "log", "stream.log.topic.name": "t", "stream.log.partitions": "2", {more}
                  "realtime.segment.flush.threshold.rows": "25"}}]}}}}}}"#
    )
}

const ARCHIVED: &str = r#""stream.log.archive": "true","#;

/// The value of a message, and the time of its event: values go through 40 hours over and over.
fn event(value: i64) -> (i64, i64) {
    (value, value * 7 % 40 * HOUR_MS + value)
}

/// Rows and their sum: those of a range by some rules, and those of other times by others.
fn expected(
    values: std::ops::Range<i64>,
    range: (i64, i64),
    (inside, outside): (Rules, Rules),
) -> (i64, i64) {
    let (mut rows, mut sum) = (0, 0);
    for (value, ms) in values.filter(|value| value % 9 != 8).map(event) {
        let rules = match range.0 <= ms && ms < range.1 {
            true => inside,
            false => outside,
        };
        if value < rules.left_out.0 || rules.left_out.1 <= value {
            rows += 1;
            sum += value * rules.factor;
        }
    }
    (rows, sum)
}

struct Server(Arc<Engine>);

impl Server {
    async fn new(folder: &Path, configs: &[&str]) -> Self {
        let engine = Engine::open(EngineOptions::new(folder.join("data"))).await;
        let engine = engine.unwrap();
        engine.put_schema(SCHEMA).await.unwrap();
        for config in configs {
            engine.create_table(config).await.unwrap();
        }
        Self(engine)
    }

    /// Appends values, every ninth of which is wrong, to both partitions.
    async fn append(&self, values: std::ops::Range<i64>) {
        for value in values {
            let (_, ms) = event(value);
            let payload = match value % 9 {
                8 => format!("wrong {value}"),
                _ => format!(r#"{{"value": {value}, "ms": {ms}}}"#),
            };
            let request = AppendRequest {
                topic: "t".to_owned(),
                partition: Some((value % 2) as u32),
                messages: vec![Message {
                    payload: payload.into(),
                    ..Message::default()
                }],
                ..AppendRequest::default()
            };
            self.0.append(request).await.unwrap();
        }
    }

    async fn rows(&self, sql: &str) -> Result<Vec<Vec<i64>>, Error> {
        let answer = self.0.query(QueryRequest::new(sql)).await?;
        let batches: Vec<_> = answer.batches.try_collect().await?;
        let mut rows = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let columns = batch.columns().iter();
                let numbers = columns.filter_map(|c| c.as_primitive_opt::<Int64Type>());
                rows.push(numbers.map(|c| c.value(row)).collect());
            }
        }
        Ok(rows)
    }

    async fn number(&self, sql: &str) -> i64 {
        self.rows(sql).await.unwrap()[0][0]
    }

    /// The number of rows of the table, and their sum.
    async fn total(&self) -> (i64, i64) {
        let row = &self
            .rows("SELECT count(*), coalesce(sum(n), 0) FROM t")
            .await
            .unwrap()[0];
        (row[0], row[1])
    }

    /// Waits until so many messages are read.
    async fn until_read(&self, messages: i64) {
        let sql = "SELECT coalesce(sum(messages_read), 0) FROM system.ingestion";
        for _ in 0..3_000 {
            if self.number(sql).await >= messages {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("messages are not read");
    }

    async fn rebuild(&self, from: i64, to: i64) -> Result<super::Rebuilt, Error> {
        self.0.rebuild("t", from, to).await
    }

    async fn is_exact(&self) {
        let audit = self.0.audit("t").await.unwrap();
        assert!(audit.exact, "{audit:?}");
    }

    async fn refusal(&self, from: i64, to: i64) -> String {
        let refused = self.rebuild(from, to).await.unwrap_err();
        assert!(!self.is_rebuilding());
        refused.to_string()
    }

    /// Whether there are files of a range in the making.
    fn is_rebuilding(&self) -> bool {
        let staging = self.0.data_dir.staging();
        let mut entries = std::fs::read_dir(staging).unwrap();
        entries.any(|e| {
            e.unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with("rebuild")
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_of_the_present_config_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(folder.path(), &[&realtime(OLD, ARCHIVED), OFFLINE]).await;
    // Some are committed and some are not.
    server.append(0..330).await;
    server.until_read(330).await;
    let all = (i64::MIN, i64::MAX);
    assert_eq!(server.total().await, expected(0..330, all, (OLD, OLD)));
    let letters = server.number(LETTERS).await;
    server
        .0
        .update_table(&realtime(NEW, ARCHIVED))
        .await
        .unwrap();

    // Within a minute, too: rows of one hour have times some milliseconds apart.
    let range = (10 * HOUR_MS + 40, 20 * HOUR_MS + 100);
    let rebuilt = server.rebuild(range.0, range.1).await.unwrap();
    let new = expected(0..330, range, (NEW, OLD));
    assert_eq!(server.total().await, new);
    assert_eq!(rebuilt.messages, 330);
    assert_eq!(rebuilt.failed, 330 / 9);
    let filtered = (30..60).filter(|value| value % 9 != 8).count() as u64;
    assert_eq!(rebuilt.filtered, filtered);
    assert_eq!(
        rebuilt.rows + rebuilt.outside + rebuilt.filtered + rebuilt.failed,
        330
    );
    let offline = server.number("SELECT count(*) FROM t_OFFLINE").await;
    assert_eq!(offline as u64, rebuilt.rows);
    // They were dead letters before.
    assert_eq!(server.number(LETTERS).await, letters);
    server.is_exact().await;

    // A second range that overlaps, and the first one again: nothing is doubled.
    let second = (15 * HOUR_MS, 25 * HOUR_MS);
    let both = (range.0, second.1);
    let undone = server.rebuild(second.0, second.1).await.unwrap();
    assert_eq!(server.total().await, expected(0..330, both, (NEW, OLD)));
    server.0.revert_push("t", &undone.push_id).await.unwrap();
    assert_eq!(server.total().await, new);
    let again = server.rebuild(range.0, range.1).await.unwrap();
    assert_eq!(server.total().await, new);
    server.0.revert_push("t", &again.push_id).await.unwrap();
    assert_eq!(server.total().await, new);
    server.is_exact().await;

    // After a restart, and reverted.
    server.0.shutdown().await;
    drop(server);
    let server = Server(
        Engine::open(EngineOptions::new(folder.path().join("data")))
            .await
            .unwrap(),
    );
    assert_eq!(server.total().await, new);
    server.is_exact().await;
    server.0.revert_push("t", &rebuilt.push_id).await.unwrap();
    assert_eq!(server.total().await, expected(0..330, all, (OLD, OLD)));
    server.is_exact().await;
    server.0.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_seen_never_go_while_ranges_are_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(folder.path(), &[&realtime(OLD, ARCHIVED), OFFLINE]).await;
    let server = Arc::new(server);
    let done = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn({
        let (server, done) = (Arc::clone(&server), Arc::clone(&done));
        async move {
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let (rows, _) = server.total().await;
                assert!(rows >= last, "{last} rows were seen, and then {rows}");
                last = rows;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let appending = tokio::spawn({
        let server = Arc::clone(&server);
        async move {
            for start in 0..60 {
                server.append(start * 20..start * 20 + 20).await;
            }
        }
    });
    let mut hours = [(0, 40), (5, 30), (8, 12), (0, 40)].into_iter();
    while !appending.is_finished() {
        if let Some((from, to)) = hours.next() {
            server.rebuild(from * HOUR_MS, to * HOUR_MS).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    appending.await.unwrap();
    server.until_read(1_200).await;
    // What came late is hidden, and counted.
    let all = (i64::MIN, i64::MAX);
    let (rows, _) = expected(0..1_200, all, (OLD, OLD));
    let boundary = server.0.boundary("t").await.unwrap();
    assert!(boundary.hidden_offline_rows == 0 && boundary.realtime_rows == rows as u64);
    server.is_exact().await;
    // Until the range is rebuilt once more.
    server.rebuild(0, 40 * HOUR_MS).await.unwrap();
    done.store(true, Ordering::Release);
    watching.await.unwrap();
    assert_eq!(server.total().await, expected(0..1_200, all, (OLD, OLD)));
    server.is_exact().await;
    server.0.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_see_the_old_rows_or_the_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(folder.path(), &[&realtime(OLD, ARCHIVED), OFFLINE]).await;
    let server = Arc::new(server);
    server.append(0..400).await;
    server.until_read(400).await;
    let range = (3 * HOUR_MS, 31 * HOUR_MS);
    let old = expected(0..400, range, (OLD, OLD));
    let new = expected(0..400, range, (NEW, OLD));
    server
        .0
        .update_table(&realtime(NEW, ARCHIVED))
        .await
        .unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn({
        let (server, done) = (Arc::clone(&server), Arc::clone(&done));
        async move {
            while !done.load(Ordering::Acquire) {
                let total = server.total().await;
                assert!(
                    total == old || total == new,
                    "{total:?} is neither {old:?} nor {new:?}"
                );
            }
        }
    });
    for _ in 0..5 {
        let rebuilt = server.rebuild(range.0, range.1).await.unwrap();
        assert_eq!(server.total().await, new);
        server.0.revert_push("t", &rebuilt.push_id).await.unwrap();
        assert_eq!(server.total().await, old);
    }
    done.store(true, Ordering::Release);
    watching.await.unwrap();
    server.0.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_archived_is_named_and_what_was_lost_is_not_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let plain = realtime(OLD, "");
    let server = Server::new(folder.path(), &[&plain, OFFLINE]).await;
    server.append(0..40).await;
    server.until_read(40).await;
    let refused = server.refusal(0, HOUR_MS).await;
    let told = [
        "offsets 0 to 20 were read and are not in the archive",
        "stream.log.archive",
    ];
    assert!(told.iter().all(|told| refused.contains(told)), "{refused}");
    // From here on messages are archived; those before stay missing.
    server
        .0
        .update_table(&realtime(OLD, ARCHIVED))
        .await
        .unwrap();
    server.append(40..80).await;
    server.until_read(80).await;
    let refused = server.refusal(0, HOUR_MS).await;
    let told = ["offsets 0 to 20 were read", "drop t_REALTIME"];
    assert!(told.iter().all(|told| refused.contains(told)), "{refused}");
    server.0.drop_table("t_REALTIME").await.unwrap();
    server
        .0
        .create_table(&realtime(OLD, ARCHIVED))
        .await
        .unwrap();
    server.until_read(80).await;
    server.rebuild(0, HOUR_MS).await.unwrap();
    let all = (i64::MIN, i64::MAX);
    assert_eq!(server.total().await, expected(0..80, all, (OLD, OLD)));
    server.0.shutdown().await;

    // A file of the archive goes: its offsets are missing, in the middle.
    let archive = folder.path().join("data/deep/.archive/t/log/t/1");
    let mut files: Vec<_> = std::fs::read_dir(&archive)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 1, "{files:?}");
    std::fs::remove_file(&files[0]).unwrap();
    drop(server);
    let server = Server(
        Engine::open(EngineOptions::new(folder.path().join("data")))
            .await
            .unwrap(),
    );
    let refused = server.refusal(0, 40 * HOUR_MS).await;
    assert!(refused.contains("t/1: offsets 0 to"), "{refused}");
    assert!(refused.contains("from a backup"), "{refused}");
    // Those of that partition had no row of the first hour, as the ledger knows.
    server.rebuild(0, HOUR_MS).await.unwrap();
    assert_eq!(server.total().await, expected(0..80, all, (OLD, OLD)));
    server.0.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_rebuilt_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(folder.path(), &[&realtime(OLD, ARCHIVED)]).await;
    assert!(
        server
            .refusal(0, HOUR_MS)
            .await
            .contains("it has no OFFLINE half")
    );
    server.0.create_table(OFFLINE).await.unwrap();
    assert!(server.refusal(5, 5).await.contains("is empty"));
    server.0.pin_boundary("t", HOUR_MS).await.unwrap();
    assert!(
        server
            .refusal(0, HOUR_MS)
            .await
            .contains("RELEASE BOUNDARY")
    );
    server.0.release_boundary("t").await.unwrap();
    // An empty range of a table without rows is no error.
    let rebuilt = server.rebuild(0, HOUR_MS).await.unwrap();
    assert_eq!((rebuilt.rows, rebuilt.segments), (0, 0));
    server.append(0..30).await;
    server.until_read(30).await;
    let strict = realtime(OLD, &format!("{ARCHIVED} \"stream.log.strict\": \"true\","));
    server.0.update_table(&strict).await.unwrap();
    let refused = server.refusal(0, HOUR_MS).await;
    assert!(
        refused.contains("offset 4") && refused.contains("strict"),
        "{refused}"
    );
    server.0.drop_table("t_REALTIME").await.unwrap();
    assert!(
        server
            .refusal(0, HOUR_MS)
            .await
            .contains("it has no REALTIME half")
    );
    let sql = "ALTER TABLE u REBUILD FROM '2026-01-01' TO '2026-01-02'";
    let missing = server.rows(sql).await.unwrap_err();
    assert!(missing.message().contains("no table u"), "{missing}");
    server.0.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changes_meanwhile_is_left_as_it_is() {
    for change in ["config", "schema", "drop", "pin"] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::new(folder.path(), &[&realtime(OLD, ARCHIVED), OFFLINE]).await;
        let server = Arc::new(server);
        server.append(0..60).await;
        server.until_read(60).await;
        let before = server.total().await;
        // The change waits for its turn first, and the range's last step for its own after it.
        let turn = server.0.tables_change.lock().await;
        let changing = tokio::spawn({
            let server = Arc::clone(&server);
            async move {
                match change {
                    "config" => server
                        .0
                        .update_table(&realtime(NEW, ARCHIVED))
                        .await
                        .map(|_| ()),
                    "schema" => {
                        let schema = SCHEMA.replace(
                            r#"[{"name": "n""#,
                            r#"[{"name": "m", "dataType": "LONG"}, {"name": "n""#,
                        );
                        server.0.put_schema(&schema).await.map(|_| ())
                    }
                    "drop" => server.0.drop_table("t").await.map(|_| ()),
                    _ => Ok(()),
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let rebuilding = tokio::spawn({
            let server = Arc::clone(&server);
            async move { server.rebuild(0, 40 * HOUR_MS).await }
        });
        while !server.is_rebuilding() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if change == "pin" {
            server.0.pin_boundary("t", 0).await.unwrap();
        }
        drop(turn);
        changing.await.unwrap().unwrap();
        let refused = rebuilding.await.unwrap().unwrap_err().to_string();
        match change {
            "pin" => assert!(refused.contains("is pinned"), "{refused}"),
            _ => assert!(refused.contains("was changed while"), "{change}: {refused}"),
        }
        if change == "drop" {
            assert!(server.0.tables().is_empty());
        } else {
            assert_eq!(server.total().await, before, "{change}");
            assert_eq!(server.number("SELECT count(*) FROM t_OFFLINE").await, 0);
            server.is_exact().await;
            // Consumers go on.
            server.append(60..100).await;
            server.until_read(100).await;
        }
        server.0.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boundary_that_is_inferred_stays_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(folder.path(), &[&realtime(OLD, ARCHIVED), OFFLINE]).await;
    // Days 0 to 2 were pushed by somebody else; the stream has hours 0 to 40.
    let pushed: Vec<_> = (0..60)
        .map(|n| format!(r#"{{"ms": {}, "n": 1}}"#, n * HOUR_MS))
        .collect();
    let path = folder.path().join("rows.json");
    std::fs::write(&path, pushed.join("\n")).unwrap();
    let loaded = server
        .0
        .load_local("t", vec![path], LoadOptions::default(), |_| {});
    loaded.await.unwrap();
    server.append(0..100).await;
    server.until_read(100).await;
    let is_there = async || server.0.boundary("t").await.unwrap().boundary_ms == 48 * HOUR_MS;
    assert!(is_there().await);
    let before = server.total().await;
    assert_eq!(before, (48, 48));
    // Among what it goes by are the rows that are replaced.
    let range = (30 * HOUR_MS, 60 * HOUR_MS);
    let rebuilt = server.rebuild(range.0, range.1).await.unwrap();
    let (rows, sum) = expected(
        0..100,
        range,
        (
            OLD,
            Rules {
                left_out: (i64::MIN, i64::MAX),
                ..OLD
            },
        ),
    );
    assert_eq!(server.total().await, (30 + rows, 30 + sum));
    let covered = server.0.boundary("t").await.unwrap();
    assert_eq!(covered.boundary_ms, 60 * HOUR_MS);
    server.0.revert_push("t", &rebuilt.push_id).await.unwrap();
    assert_eq!(server.total().await, before);
    assert!(is_there().await);
    // A range far behind it covers nothing in between.
    let range = (100 * HOUR_MS, 101 * HOUR_MS);
    server.rebuild(range.0, range.1).await.unwrap();
    assert_eq!(server.total().await, before);
    server.is_exact().await;
    server.0.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_the_stream_lost_are_not_missing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(folder.path(), &[&realtime(OLD, ARCHIVED), OFFLINE]).await;
    server.append(0..20).await;
    server.until_read(20).await;
    server.0.shutdown().await;
    drop(server);
    let data = folder.path().join("data");
    let options = LogOptions {
        file_bytes_max: 300,
    };
    let log = EmbeddedLog::open_with(&data.join("log"), Environment::real(), options).await;
    let log = log.unwrap();
    for value in 20..120 {
        let message = LogMessage {
            key: None,
            payload: format!(r#"{{"value": {value}, "ms": {value}}}"#).into(),
            timestamp_ms: 0,
        };
        let appended = log.append("t", Some(0), vec![message], "", 0);
        appended.await.unwrap();
    }
    let held = log.trim_before("t", 0, 80).await.unwrap();
    assert!(held > 30, "{held}");
    drop(log);
    let server = Server(Engine::open(EngineOptions::new(&data)).await.unwrap());
    let lost = "SELECT sum(lost_offsets) FROM system.ingestion WHERE next_offset >= 110";
    for _ in 0..1_000 {
        if server
            .rows(lost)
            .await
            .is_ok_and(|rows| rows[0].first() > Some(&0))
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let total = server.total().await;
    assert!(total.0 < 110, "{total:?}");
    let rebuilt = server.rebuild(0, 100).await.unwrap();
    assert!(rebuilt.rows > 0);
    assert_eq!(server.total().await, total);
    server.is_exact().await;
    server.0.shutdown().await;
}
