//! Tables kept in order while they are read: what is there never changes by it.

use crate::engine::{Engine, EngineOptions};
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use strandline_broker::QueryRequest;
use strandline_proto::v1::{AppendRequest, LoadOptions, Message, TimeInterval};
use strandline_storage::environment::{Clock, Environment, ManualClock};

const DAY_MS: i64 = 86_400_000;
/// Noon of day 20,000.
const NOW: i64 = 20_000 * DAY_MS + DAY_MS / 2;
const SCHEMA: &str = r#"{"schemaName": "t",
    "dimensionFieldSpecs": [{"name": "n", "dataType": "LONG"}],
    "dateTimeFieldSpecs": [{"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:DAYS"}]}"#;

fn offline(more: &str) -> String {
    format!(
        r#"{{"tableName": "t", "tableType": "OFFLINE", "segmentsConfig": {{"timeColumnName": "ms"{more}}}}}"#
    )
}

fn realtime(more: &str, task: &str) -> String {
    format!(
        r#"{{"tableName": "t", "tableType": "REALTIME", "segmentsConfig": {{"timeColumnName": "ms"{more}}},
            "task": {{"taskTypeConfigsMap": {{{task}}}}},
            "ingestionConfig": {{"streamIngestionConfig": {{"streamConfigMaps": [
                {{"streamType": "log", "stream.log.topic.name": "t"}}]}}}}}}"#
    )
}

const TAKE_OVER: &str =
    r#""RealtimeToOfflineSegmentsTask": {"bucketTimePeriod": "1d", "bufferTimePeriod": "1d"}"#;

struct Server {
    engine: Arc<Engine>,
    clock: Arc<ManualClock>,
    sequence: u64,
}

impl Server {
    async fn new(folder: &Path, configs: &[String]) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let mut options = EngineOptions::new(folder.join("data"));
        options.environment = Environment {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ..Environment::real()
        };
        let engine = Engine::open(options).await.unwrap();
        engine.put_schema(SCHEMA).await.unwrap();
        for config in configs {
            engine.create_table(config).await.unwrap();
        }
        Self {
            engine,
            clock,
            sequence: 0,
        }
    }

    /// Lets time pass, in steps in which all that waits can go on.
    async fn pass(&self, time: Duration) {
        let step = Duration::from_millis(250);
        let mut passed = Duration::ZERO;
        while passed < time {
            self.clock.advance(step);
            passed += step;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Lets time pass until `is`, for ten minutes at most.
    async fn until(&self, what: &str, mut is: impl AsyncFnMut() -> bool) {
        for _ in 0..600 {
            if is().await {
                return;
            }
            self.pass(Duration::from_secs(1)).await;
        }
        panic!("{what}; upkeep says {:?}", self.engine.upkeep.notes());
    }

    /// The numbers of a statement's rows.
    async fn ask(&self, sql: &str) -> Vec<Vec<Option<i64>>> {
        let answer = self.engine.query(QueryRequest::new(sql)).await;
        let answer = answer.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let batches: Vec<_> = answer.batches.try_collect().await.unwrap();
        let mut rows = Vec::new();
        for batch in batches {
            for row in 0..batch.num_rows() {
                let cell = |column: &Arc<dyn Array>| {
                    let numbers = column.as_primitive::<Int64Type>();
                    numbers.is_valid(row).then(|| numbers.value(row))
                };
                rows.push(batch.columns().iter().map(cell).collect());
            }
        }
        rows
    }

    async fn number(&self, sql: &str) -> i64 {
        self.ask(sql).await[0][0].unwrap()
    }

    /// The number of rows of the table, and the sum of `n`.
    async fn total(&self) -> (i64, i64) {
        let row = &self.ask("SELECT count(*), sum(n) FROM t").await[0];
        (row[0].unwrap(), row[1].unwrap_or(0))
    }

    async fn append(&mut self, rows: &[(i64, i64)]) {
        let message = |(ms, n): &(i64, i64)| Message {
            payload: format!(r#"{{"ms": {ms}, "n": {n}}}"#).into_bytes().into(),
            ..Message::default()
        };
        let request = AppendRequest {
            topic: "t".to_owned(),
            partition: Some(0),
            messages: rows.iter().map(message).collect(),
            producer_id: "p".to_owned(),
            first_sequence: self.sequence,
        };
        self.sequence += rows.len() as u64;
        let end = self.engine.append(request).await.unwrap().next_offset;
        let sql = "SELECT next_offset FROM system.ingestion";
        self.until(
            "rows are not read",
            async || matches!(self.ask(sql).await.first(), Some(row) if row[0] >= Some(end as i64)),
        )
        .await;
    }

    async fn commit(&self) {
        self.passing(self.engine.force_commit("t")).await.unwrap();
    }

    /// Lets time pass until something is done.
    async fn passing<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.pass(Duration::from_millis(250)) => {}
            }
        }
    }

    async fn load(&self, folder: &Path, rows: &[(i64, i64)], options: LoadOptions) {
        let mut text = String::new();
        for (ms, n) in rows {
            writeln!(text, r#"{{"ms": {ms}, "n": {n}}}"#).unwrap();
        }
        let path = folder.join("rows.json");
        std::fs::write(&path, text).unwrap();
        let loaded = self.engine.load_local("t", vec![path], options, |_| {});
        loaded.await.unwrap();
    }

    fn segments(&self, table: &str) -> usize {
        let segments = self.engine.segments(table).unwrap();
        segments.iter().filter(|s| !s.consuming).count()
    }
}

/// Rows of a day, numbered from `from`.
fn day(day: i64, from: i64, rows: i64) -> Vec<(i64, i64)> {
    let row = |n: i64| (day * DAY_MS + n * 997 % DAY_MS, n);
    (from..from + rows).map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn days_of_the_stream_are_taken_over_and_late_rows_still_count() {
    let folder = tempfile::tempdir().unwrap();
    let configs = [offline(""), realtime("", TAKE_OVER)];
    let mut server = Server::new(folder.path(), &configs).await;
    // Days 19,995 to 19,999; the last one is not old enough.
    for number in 0..5 {
        server
            .append(&day(19_995 + number, number * 100, 100))
            .await;
        if number % 2 == 0 {
            server.commit().await;
        }
    }
    server.commit().await;
    let (rows, sum) = (500, (0..500).sum::<i64>());
    assert_eq!(server.total().await, (rows, sum));
    let boundary = "SELECT boundary FROM system.tables WHERE boundary = '2024-10-03 00:00:00'";
    server
        .until("four days are not taken over", async || {
            assert_eq!(server.total().await, (rows, sum));
            server.number("SELECT count(*) FROM t_OFFLINE").await == 400
        })
        .await;
    assert_eq!(
        server
            .number(&boundary.replace("boundary FROM", "count(*) FROM"))
            .await,
        1
    );
    assert_eq!(server.number("SELECT count(*) FROM t_REALTIME").await, 100);
    assert_eq!(server.total().await, (rows, sum));

    // Late rows, of a day that was taken over: in memory, committed, taken over as well.
    server.append(&day(19_996, 1_000, 10)).await;
    let (rows, sum) = (510, sum + (1_000..1_010).sum::<i64>());
    assert_eq!(server.total().await, (rows, sum));
    server.commit().await;
    assert_eq!(server.total().await, (rows, sum));
    server
        .until("late rows are not taken over", async || {
            assert_eq!(server.total().await, (rows, sum));
            server.number("SELECT count(*) FROM t_OFFLINE").await == 410
        })
        .await;
    // The accounts of the partition say where its rows are.
    let moved = server
        .ask("SELECT messages_read, rows_committed, rows_moved FROM system.ingestion")
        .await;
    assert_eq!(moved, [[Some(510), Some(100), Some(410)]]);

    let audit = server.engine.audit("t").await.unwrap();
    assert!(audit.exact, "{audit:?}");
    assert_eq!(
        (audit.offline_rows, audit.partitions[0].rows_moved),
        (410, 410)
    );

    // A push that declares a day complete takes the place of what was taken over, and of late rows.
    let options = LoadOptions {
        declared_coverage: Some(TimeInterval {
            start_ms: 19_996 * DAY_MS,
            end_ms: 19_997 * DAY_MS,
        }),
        ..LoadOptions::default()
    };
    server.append(&day(19_996, 2_000, 5)).await;
    server
        .load(folder.path(), &day(19_996, 0, 7), options)
        .await;
    let of_day = format!(
        "SELECT count(*) FROM t WHERE ms >= {} AND ms < {}",
        19_996 * DAY_MS,
        19_997 * DAY_MS
    );
    assert_eq!(server.number(&of_day).await, 7);
    assert_eq!(server.total().await.0, 407);
    // Without that, its rows would count beside those that were taken over.
    let path = folder.path().join("more.json");
    std::fs::write(&path, format!(r#"{{"ms": {}, "n": 1}}"#, 19_995 * DAY_MS)).unwrap();
    let refused = server
        .engine
        .load_local("t", vec![path], LoadOptions::default(), |_| {})
        .await;
    assert!(
        refused
            .unwrap_err()
            .message()
            .contains("taken over from the stream")
    );
    assert_eq!(server.total().await.0, 407);

    // All of it is there after a restart.
    let before = server.total().await;
    server.engine.shutdown().await;
    drop(server);
    let server = Server::new(folder.path(), &[]).await;
    server
        .until("rows are not read again", async || {
            server.total().await == before
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_of_which_a_push_has_rows_is_not_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let configs = [offline(""), realtime("", TAKE_OVER)];
    let mut server = Server::new(folder.path(), &configs).await;
    // The pushed rows of the largest day are hidden: inference does not take it for complete.
    server
        .load(folder.path(), &day(19_996, 0, 3), LoadOptions::default())
        .await;
    server.append(&day(19_996, 100, 10)).await;
    server.append(&day(19_997, 200, 10)).await;
    server.commit().await;
    let expected = (20, (100..110).chain(200..210).sum::<i64>());
    assert_eq!(server.total().await, expected);
    server
        .until("the next day is not taken over", async || {
            assert_eq!(server.total().await, expected);
            server.number("SELECT count(*) FROM t_OFFLINE").await == 13
        })
        .await;
    server.pass(Duration::from_secs(60)).await;
    assert_eq!(server.total().await, expected);
    assert_eq!(server.number("SELECT count(*) FROM t_REALTIME").await, 10);
    let waits = "SELECT count(*) FROM system.upkeep WHERE task = 'TAKE_OVER' AND message LIKE '%has pushed rows of it%'";
    assert_eq!(server.number(waits).await, 1);
    // What the stream does not have any more is not given back to it.
    let (start, end) = (19_997 * DAY_MS, 19_998 * DAY_MS);
    let refused = server.engine.drop_offline("t", start, end).await;
    assert!(refused.unwrap_err().message().contains("taken over"));
    assert_eq!(server.total().await, expected);
    // Once the rows are deleted, the day is taken over.
    server
        .engine
        .delete_rows("t_OFFLINE", Some("n < 3"))
        .await
        .unwrap();
    server
        .until("the day is not taken over", async || {
            assert_eq!(server.total().await, expected);
            server.number("SELECT count(*) FROM t_REALTIME").await == 0
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_segments_become_one_and_a_push_is_still_known() {
    let folder = tempfile::tempdir().unwrap();
    let configs = [offline(""), realtime("", "")];
    let mut server = Server::new(folder.path(), &configs).await;
    let options = |number: i64| LoadOptions {
        push_id: format!("push {number}"),
        ..LoadOptions::default()
    };
    for number in 0..6 {
        server
            .load(
                folder.path(),
                &day(19_000 + number, number * 50, 50),
                options(number),
            )
            .await;
        server
            .append(&day(19_900 + number, 10_000 + number, 3))
            .await;
        server.commit().await;
    }
    assert_eq!(
        (server.segments("t_OFFLINE"), server.segments("t_REALTIME")),
        (6, 6)
    );
    let before = (
        server.total().await,
        server.ask("SELECT n, ms FROM t ORDER BY n, ms").await,
    );
    server
        .until("segments are not merged", async || {
            assert_eq!(server.total().await, before.0);
            // What came last rests longer than the others, and then there are too few of them.
            let segments = [server.segments("t_OFFLINE"), server.segments("t_REALTIME")];
            segments.iter().all(|segments| *segments <= 3)
        })
        .await;
    assert_eq!(
        server.ask("SELECT n, ms FROM t ORDER BY n, ms").await,
        before.1
    );
    let offsets = server.ask("SELECT start_offset, end_offset FROM system.segments WHERE table_name = 't_REALTIME' AND NOT consuming ORDER BY 1").await;
    let ends: Vec<_> = offsets.iter().map(|range| range[1]).collect();
    let starts: Vec<_> = offsets.iter().map(|range| range[0]).collect();
    assert_eq!((starts[0], ends.last()), (Some(0), Some(&Some(18))));
    assert_eq!(starts[1..], ends[..ends.len() - 1]);
    let deep = folder.path().join("data/deep/t");
    server
        .until("files of what was merged are left", async || {
            let folders = std::fs::read_dir(&deep).unwrap().flatten();
            let files = folders.flat_map(|segment| std::fs::read_dir(segment.path()).unwrap());
            files.count() == server.segments("t")
        })
        .await;
    server
        .load(folder.path(), &day(19_003, 150, 50), options(3))
        .await;
    assert_eq!(server.total().await, before.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_are_given_up_but_not_before_offline_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let kept = r#", "retentionTimeUnit": "DAYS", "retentionTimeValue": "10""#;
    let configs = [offline(kept), realtime(kept, "")];
    let mut server = Server::new(folder.path(), &configs).await;
    for (number, of_day) in [19_980, 19_985, 19_999].into_iter().enumerate() {
        server.append(&day(of_day, number as i64 * 10, 10)).await;
        server.commit().await;
    }
    let options = |from: i64, to: i64| LoadOptions {
        declared_coverage: Some(TimeInterval {
            start_ms: from * DAY_MS,
            end_ms: to * DAY_MS,
        }),
        ..LoadOptions::default()
    };
    server
        .load(folder.path(), &day(19_980, 0, 4), options(19_980, 19_981))
        .await;
    server
        .until("what offline covers is not given up", async || {
            (server.segments("t_OFFLINE"), server.segments("t_REALTIME")) == (0, 2)
        })
        .await;
    server.pass(Duration::from_secs(60)).await;
    // Day 19,985 is too old as well, and nothing but the stream has it.
    assert_eq!(server.segments("t_REALTIME"), 2);
    let waits =
        "SELECT count(*) FROM system.upkeep WHERE message LIKE '1 realtime segments are older%'";
    assert_eq!(server.number(waits).await, 1);
    assert_eq!(
        server
            .ask("SELECT rows_committed, rows_expired FROM system.ingestion")
            .await,
        [[Some(20), Some(10)]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_table_reads_nothing_until_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::new(folder.path(), &[realtime("", "")]).await;
    server.append(&day(19_000, 0, 5)).await;
    server.engine.set_paused("t", true).await.unwrap();
    server
        .until("what was read is not committed", async || {
            server.segments("t") == 1
        })
        .await;
    let message = Message {
        payload: r#"{"ms": 1, "n": 99}"#.into(),
        ..Message::default()
    };
    let request = AppendRequest {
        topic: "t".to_owned(),
        partition: Some(0),
        messages: vec![message],
        ..AppendRequest::default()
    };
    server.engine.append(request).await.unwrap();
    server.pass(Duration::from_secs(10)).await;
    assert_eq!(server.total().await.0, 5);
    let paused = "SELECT count(*) FROM system.ingestion WHERE state = 'PAUSED'";
    assert_eq!(server.number(paused).await, 1);
    // A pause holds over restarts, and a commit that is asked for meanwhile ends.
    server.commit().await;
    server.engine.shutdown().await;
    drop(server);
    let server = Server::new(folder.path(), &[]).await;
    server
        .until("it is not paused", async || {
            server.number(paused).await == 1
        })
        .await;
    assert_eq!(server.total().await.0, 5);
    server.engine.set_paused("t", false).await.unwrap();
    server
        .until("it is not read on", async || server.total().await.0 == 6)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn days_that_were_taken_over_are_rebuilt_with_their_late_rows() {
    let folder = tempfile::tempdir().unwrap();
    let stream = r#""streamType": "log","#;
    let archived = realtime("", TAKE_OVER).replace(
        stream,
        &format!("{stream} \"stream.log.archive\": \"true\","),
    );
    let mut server = Server::new(folder.path(), &[offline(""), archived]).await;
    for number in 0..3 {
        server
            .append(&day(19_995 + number, number * 100, 100))
            .await;
    }
    server.commit().await;
    server
        .until("days are not taken over", async || {
            server.number("SELECT count(*) FROM t_OFFLINE").await == 300
        })
        .await;
    // Late rows of such a day: some are taken over as well, some are not yet.
    server.append(&day(19_996, 1_000, 10)).await;
    let all = (310, (0..300).chain(1_000..1_010).sum::<i64>());
    assert_eq!(server.total().await, all);
    let rebuild = async || {
        let rebuilding = server.engine.rebuild("t", 19_996 * DAY_MS, 19_998 * DAY_MS);
        server.passing(rebuilding).await.unwrap()
    };
    let rebuilt = rebuild().await;
    assert_eq!((rebuilt.messages, rebuilt.rows), (310, 210));
    assert_eq!(server.total().await, all);
    assert_eq!(server.number("SELECT count(*) FROM t_OFFLINE").await, 310);
    let audit = server.engine.audit("t").await.unwrap();
    assert!(audit.exact, "{audit:?}");
    let boundary = server.engine.boundary("t").await.unwrap();
    assert_eq!(boundary.hidden_realtime_rows, boundary.realtime_rows);

    // The reversal brings back what was taken over, beside which late rows count.
    let push_id = &rebuilt.push_id;
    server.engine.revert_push("t", push_id).await.unwrap();
    assert_eq!(server.total().await, all);
    server
        .until("late rows are not taken over", async || {
            assert_eq!(server.total().await, all);
            server.number("SELECT count(*) FROM t_REALTIME").await == 0
        })
        .await;
    let audit = server.engine.audit("t").await.unwrap();
    assert!(audit.exact, "{audit:?}");

    // What comes behind a rebuilt range is hidden, of it and of no other day.
    rebuild().await;
    assert_eq!(server.total().await, all);
    let mut late = day(19_996, 2_000, 5);
    late.extend(day(19_995, 3_000, 5));
    server.append(&late).await;
    let (rows, sum) = (all.0 + 5, all.1 + (3_000..3_005).sum::<i64>());
    assert_eq!(server.total().await, (rows, sum));
    let boundary = server.engine.boundary("t").await.unwrap();
    assert_eq!(boundary.hidden_realtime_rows, 5);
    let audit = server.engine.audit("t").await.unwrap();
    assert!(audit.exact, "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_messages_go_with_their_age_and_later_days_are_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let stream = r#""streamType": "log","#;
    let options = r#""stream.log.archive": "true", "stream.log.archive.retention": "2d12h","#;
    let archived = realtime("", "").replace(stream, &format!("{stream} {options}"));
    let mut server = Server::new(folder.path(), &[offline(""), archived]).await;
    let files = || {
        let partition = folder.path().join("data/deep/.archive/t/log/t/0");
        std::fs::read_dir(partition).unwrap().count()
    };
    // Each day brings rows of its own and one of the day before.
    let mut sum = 0;
    for number in 0..6 {
        let of_day = 20_000 + number;
        let mut rows = day(of_day, number * 100, 10);
        rows.extend(day(of_day - 1, number * 100 + 50, 1));
        sum += rows.iter().map(|(_, n)| n).sum::<i64>();
        server.append(&rows).await;
        server.commit().await;
        server.clock.advance(Duration::from_secs(86_400));
    }
    server
        .until("nothing is given up", async || files() == 2)
        .await;
    assert_eq!(server.total().await, (66, sum));
    let note = "SELECT count(*) FROM system.upkeep WHERE task = 'TRIM_ARCHIVE'";
    assert_eq!(server.number(note).await, 1);
    let rebuild = async |from: i64, to: i64| {
        let rebuilding = server.engine.rebuild("t", from * DAY_MS, to * DAY_MS);
        server.passing(rebuilding).await
    };
    // The third day from the end has rows that are not archived any more, and those behind it have not.
    let refused = rebuild(20_003, 20_006).await.unwrap_err();
    let told = "offsets 0 to 44 were read and are not in the archive";
    assert!(refused.message().contains(told), "{refused}");
    let rebuilt = rebuild(20_004, 20_006).await.unwrap();
    assert_eq!((rebuilt.messages, rebuilt.rows), (22, 21));
    assert_eq!(server.total().await, (66, sum));
    let audit = server.engine.audit("t").await.unwrap();
    assert!(audit.exact, "{audit:?}");
}
