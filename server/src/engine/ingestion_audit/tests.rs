//! Each row adds up after every step, and says what a naive model says.

use crate::engine::{Engine, EngineOptions};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strandline_broker::QueryRequest;
use strandline_proto::ids::{OffsetRange, StreamPartition};
use strandline_proto::v1::{AppendRequest, AuditReport, LoadOptions, Message, TimeInterval};
use strandline_storage::environment::{Clock, Environment, ManualClock};
use strandline_storage::meta::minutes::{MinuteCounts, SPANS_MS};
use strandline_storage::meta::{
    ChangeReason, ChangeSegments, IngestCounts, LeftRows, Metastore, SkipOffsets,
};

const MINUTE_MS: i64 = SPANS_MS[0];
const DAY_MS: i64 = 86_400_000;
/// Noon of day 20,000.
const NOW: i64 = 20_000 * DAY_MS + DAY_MS / 2;
const SCHEMA: &str = r#"{"schemaName": "t", "primaryKeyColumns": ["k"],
    "dimensionFieldSpecs": [{"name": "k", "dataType": "LONG"}, {"name": "n", "dataType": "LONG"}],
    "dateTimeFieldSpecs": [{"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:DAYS"}]}"#;

fn realtime(more: &str) -> String {
    format!(
        r#"{{"tableName": "t", "tableType": "REALTIME", "segmentsConfig": {{"timeColumnName": "ms",
                "retentionTimeUnit": "DAYS", "retentionTimeValue": "10"}}, {more}
            "ingestionConfig": {{"streamIngestionConfig": {{"streamConfigMaps": [
                    {{"streamType": "log", "stream.log.topic.name": "t", "stream.log.partitions": "2"}}]}},
                "complexTypeConfig": {{"fieldsToUnnest": ["rows"], "prefixesToRename": {{"rows.": ""}}}},
                "filterConfig": {{"filterFunction": "n = 7"}}}}}}"#
    )
}

const TAKE_OVER: &str = r#""task": {"taskTypeConfigsMap": {"RealtimeToOfflineSegmentsTask": {"bucketTimePeriod": "1d", "bufferTimePeriod": "1d"}}},"#;
const OFFLINE: &str =
    r#"{"tableName": "t", "tableType": "OFFLINE", "segmentsConfig": {"timeColumnName": "ms"}}"#;

/// Counts of one row of the system table, by the names of its columns.
type Counts = BTreeMap<String, i64>;
/// By partition and minute.
type Shown = BTreeMap<(u32, Option<i64>), Counts>;

/// Where a row of the model is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Consuming,
    Committed,
    Moved,
    Deleted,
    Expired,
}

struct Row {
    partition: u32,
    ms: i64,
    k: i64,
    n: i64,
    place: Place,
}

/// A server, and what is to be found of what was sent to it.
struct Server {
    engine: Arc<Engine>,
    clock: Arc<ManualClock>,
    rows: Vec<Row>,
    /// Messages and rows by partition, minute and column.
    counts: Shown,
}

fn minute(ms: i64) -> i64 {
    ms.div_euclid(MINUTE_MS) * MINUTE_MS
}

impl Server {
    async fn open(folder: &Path) -> (Arc<Engine>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(NOW));
        let mut options = EngineOptions::new(folder.join("data"));
        options.environment = Environment {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ..Environment::real()
        };
        (Engine::open(options).await.unwrap(), clock)
    }

    async fn new(folder: &Path, configs: &[String]) -> Self {
        let (engine, clock) = Self::open(folder).await;
        engine.put_schema(SCHEMA).await.unwrap();
        for config in configs {
            engine.create_table(config).await.unwrap();
        }
        Self {
            engine,
            clock,
            rows: Vec::new(),
            counts: Shown::new(),
        }
    }

    /// Lets time pass, in steps in which all that waits can go on.
    async fn pass(&self, time: Duration) {
        let step = Duration::from_millis(250);
        for _ in 0..time.as_millis() / step.as_millis() {
            self.clock.advance(step);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until(&self, what: &str, mut is: impl AsyncFnMut() -> bool) {
        for _ in 0..600 {
            if is().await {
                return;
            }
            self.pass(Duration::from_secs(1)).await;
        }
        panic!("{what}; upkeep says {:?}", self.engine.upkeep.notes());
    }

    /// Lets time pass until something is done.
    async fn during<T>(&self, doing: impl Future<Output = T>) -> T {
        tokio::pin!(doing);
        loop {
            tokio::select! {
                done = &mut doing => return done,
                () = self.pass(Duration::from_millis(250)) => {}
            }
        }
    }

    async fn audit(&self) -> AuditReport {
        self.during(self.engine.audit("t")).await.unwrap()
    }

    async fn commit(&mut self) {
        self.during(self.engine.force_commit("t")).await.unwrap();
        self.change(Place::Consuming, Place::Committed, |_| true);
    }

    /// Has the offline half take over what is committed of times before `end_ms`.
    async fn take_over(&mut self, end_ms: i64) {
        let config = realtime(TAKE_OVER);
        let change = self.engine.update_table(&config);
        self.during(change).await.unwrap();
        self.change(Place::Committed, Place::Moved, |row| row.ms < end_ms);
        let moved = self.rows.iter().filter(|row| row.place == Place::Moved);
        let moved = moved.count() as i64;
        self.until("rows are not taken over", async || {
            self.number("SELECT count(*) FROM t_OFFLINE").await == moved
        })
        .await;
        let config = realtime("");
        let change = self.engine.update_table(&config);
        self.during(change).await.unwrap();
    }

    fn change(&mut self, from: Place, to: Place, of: impl Fn(&Row) -> bool) {
        let rows = self.rows.iter_mut();
        for row in rows.filter(|row| row.place == from && of(row)) {
            row.place = to;
        }
    }

    fn count(&mut self, partition: u32, ms: i64, column: &str, number: i64) {
        let of_minute = self
            .counts
            .entry((partition, Some(minute(ms))))
            .or_default();
        *of_minute.entry(column.to_owned()).or_default() += number;
    }

    /// Sends a message of the rows (ms, k, n); those whose n is 7 are filtered.
    async fn send(&mut self, partition: u32, sent_ms: i64, rows: &[(i64, i64, i64)]) {
        let of_row =
            |(ms, k, n): &(i64, i64, i64)| format!(r#"{{"ms": {ms}, "k": {k}, "n": {n}}}"#);
        let of_rows: Vec<_> = rows.iter().map(of_row).collect();
        let payload = format!(r#"{{"rows": [{}]}}"#, of_rows.join(", "));
        self.append(partition, sent_ms, payload).await;
        let first = rows.iter().find(|(.., n)| *n != 7);
        self.count(
            partition,
            first.map_or(sent_ms, |r| r.0),
            "messages_read",
            1,
        );
        self.count(
            partition,
            first.map_or(sent_ms, |r| r.0),
            "rows_unnested",
            -1,
        );
        for (ms, k, n) in rows {
            if *n == 7 {
                self.count(partition, sent_ms, "rows_filtered", 1);
                self.count(partition, sent_ms, "rows_unnested", 1);
                continue;
            }
            self.count(partition, *ms, "rows_unnested", 1);
            self.rows.push(Row {
                partition,
                ms: *ms,
                k: *k,
                n: *n,
                place: Place::Consuming,
            });
        }
    }

    /// Sends a message that is no document.
    async fn send_wrong(&mut self, partition: u32, sent_ms: i64) {
        self.append(partition, sent_ms, "{".to_owned()).await;
        self.count(partition, sent_ms, "messages_read", 1);
        self.count(partition, sent_ms, "dead_letters", 1);
    }

    async fn append(&self, partition: u32, timestamp_ms: i64, payload: String) {
        let message = Message {
            payload: payload.into_bytes().into(),
            timestamp_ms,
            ..Message::default()
        };
        let request = AppendRequest {
            topic: "t".to_owned(),
            partition: Some(partition),
            messages: vec![message],
            ..AppendRequest::default()
        };
        let end = self.engine.append(request).await.unwrap().next_offset;
        let read = format!(
            "SELECT count(*) FROM system.ingestion WHERE \"partition\" LIKE '%/{partition}' AND next_offset >= {end}"
        );
        self.until("a message is not read", async || {
            self.number(&read).await == 1
        })
        .await;
    }

    async fn number(&self, sql: &str) -> i64 {
        // It may look again after a while.
        let asked = self.engine.query(QueryRequest::new(sql));
        let answer = self.during(asked).await;
        let answer = answer.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let batches: Vec<_> = answer.batches.try_collect().await.unwrap();
        let batch = batches.iter().find(|b| b.num_rows() > 0).unwrap();
        batch.column(0).as_primitive::<Int64Type>().value(0)
    }

    /// The rows of the system table, of which each adds up.
    async fn shown(&self) -> Shown {
        let sql = "SELECT * FROM system.ingestion_audit";
        let asked = self.engine.query(QueryRequest::new(sql));
        let answer = self.during(asked).await.unwrap();
        let batches: Vec<_> = answer.batches.try_collect().await.unwrap();
        let mut shown = Shown::new();
        for batch in batches {
            let text = |name: &str, row: usize| {
                let texts = batch.column_by_name(name).unwrap().as_string::<i32>();
                texts.value(row).to_owned()
            };
            for row in 0..batch.num_rows() {
                assert_eq!(text("table_name", row), "t");
                let partition = text("partition", row).chars().last().unwrap();
                let minutes = batch.column_by_name("event_minute").unwrap();
                let minutes = minutes.as_primitive::<TimestampMillisecondType>();
                let minute = minutes.is_valid(row).then(|| minutes.value(row));
                let schema = batch.schema();
                let numbers = schema.fields().iter().zip(batch.columns()).skip(3);
                let numbers: Counts = numbers
                    .map(|(field, column)| {
                        let column = column.as_primitive::<Int64Type>();
                        (field.name().clone(), column.value(row))
                    })
                    .collect();
                let of = |names: &[&str]| names.iter().map(|name| numbers[*name]).sum::<i64>();
                for (left, right) in [
                    (
                        of(&["messages_read", "rows_unnested"]),
                        of(&[
                            "rows_indexed",
                            "rows_filtered",
                            "rows_deduplicated",
                            "dead_letters",
                        ]),
                    ),
                    (
                        of(&["rows_indexed"]),
                        of(&[
                            "rows_committed",
                            "rows_consuming",
                            "rows_moved",
                            "rows_deleted",
                            "rows_expired",
                            "rows_compacted",
                        ]),
                    ),
                    (
                        of(&["rows_committed", "rows_consuming"]),
                        of(&["rows_counted", "rows_superseded", "rows_hidden"]),
                    ),
                ] {
                    assert_eq!(left, right, "{minute:?}: {numbers:?}");
                }
                let at = (partition.to_digit(10).unwrap(), minute);
                assert!(shown.insert(at, numbers).is_none());
            }
        }
        shown
    }

    /// Whether the system table says what the model does. `counts`: whether a row that is there counts, or is hidden, or superseded.
    async fn check(&self, counts: impl Fn(&Row) -> &'static str) {
        let mut expected = self.counts.clone();
        for row in &self.rows {
            let at = (row.partition, Some(minute(row.ms)));
            let of_minute = expected.entry(at).or_default();
            let mut add = |column: &str| *of_minute.entry(column.to_owned()).or_default() += 1;
            add("rows_indexed");
            match row.place {
                Place::Consuming => add("rows_consuming"),
                Place::Committed => add("rows_committed"),
                Place::Moved => add("rows_moved"),
                Place::Deleted => add("rows_deleted"),
                Place::Expired => add("rows_expired"),
            }
            if matches!(row.place, Place::Consuming | Place::Committed) {
                add(counts(row));
            }
        }
        let mut shown = self.shown().await;
        for of_minute in shown.values_mut() {
            of_minute.remove("span_ms");
            of_minute.retain(|_, number| *number != 0);
        }
        for of_minute in expected.values_mut() {
            of_minute.retain(|_, number| *number != 0);
        }
        shown.retain(|_, of_minute| !of_minute.is_empty());
        expected.retain(|_, of_minute| !of_minute.is_empty());
        assert_eq!(shown, expected);
        let audit = self.audit().await;
        assert!(audit.exact, "{audit:?}");
    }

    /// Where in the stream the partition 0 is.
    fn partition(&self) -> StreamPartition {
        let mut tails = self.engine.registry.table("t").tails().into_iter();
        let tail = tails.find(|tail| tail.partition().partition == 0);
        tail.unwrap().partition().clone()
    }

    async fn problem(&self) -> String {
        let audit = self.audit().await;
        assert!(!audit.exact);
        audit.problems.join("; ")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_minute_adds_up_while_rows_come_move_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let configs = [OFFLINE.to_owned(), realtime("")];
    let mut server = Server::new(folder.path(), &configs).await;
    let (old, new) = (19_996 * DAY_MS, 19_999 * DAY_MS);
    let at = |day: i64, minute: i64| day + minute * MINUTE_MS + minute * 7 % MINUTE_MS;
    let counted = |_: &Row| "rows_counted";
    // Messages of several rows over several minutes, of two days and two partitions, some of whose rows are filtered.
    for number in 0..40 {
        let day = if number % 3 == 0 { new } else { old };
        let row = |more: i64| {
            (
                at(day, number % 7 + more * 2),
                number * 10 + more,
                number * 10 + more,
            )
        };
        let rows: Vec<_> = (0..1 + number % 4).map(row).collect();
        server
            .send((number % 2) as u32, at(new, 100 + number % 3), &rows)
            .await;
    }
    server.send(0, at(new, 200), &[(old, 1, 7)]).await;
    server
        .send(
            0,
            at(new, 201),
            &[(old, 1, 7), (old, 2, 7), (at(old, 9), 3, 3)],
        )
        .await;
    server.send_wrong(0, at(new, 200)).await;
    server.send_wrong(1, at(new, 300)).await;
    server.check(counted).await;
    server.commit().await;
    server.check(counted).await;
    // Late rows, which are not committed when the others are taken over.
    server
        .send(1, at(new, 400), &[(at(old, 3), 900, 900)])
        .await;
    server.check(counted).await;
    server.take_over(new).await;
    server.check(counted).await;
    server.commit().await;
    server.check(counted).await;
    server.take_over(new).await;
    server.check(counted).await;

    server
        .engine
        .delete_rows("t", Some("n % 4 = 0"))
        .await
        .unwrap();
    server.change(Place::Committed, Place::Deleted, |row| row.n % 4 == 0);
    server.check(counted).await;

    // A push covers some hours of the day, and hides them; more rows come to both sides.
    let boundary = at(new, 5);
    let options = LoadOptions {
        declared_coverage: Some(TimeInterval {
            start_ms: new,
            end_ms: boundary,
        }),
        ..LoadOptions::default()
    };
    let mut text = String::new();
    writeln!(text, r#"{{"ms": {new}, "k": 1, "n": 1}}"#).unwrap();
    let path = folder.path().join("rows.json");
    std::fs::write(&path, text).unwrap();
    let loaded = server.engine.load_local("t", vec![path], options, |_| {});
    loaded.await.unwrap();
    let hidden = |row: &Row| match (new..boundary).contains(&row.ms) {
        true => "rows_hidden",
        false => "rows_counted",
    };
    server.check(hidden).await;
    server
        .send(
            0,
            new,
            &[(at(new, 2), 1_000, 1_000), (at(new, 6), 1_001, 1_001)],
        )
        .await;
    server.check(hidden).await;
    server.commit().await;

    // All of it is there after a restart.
    server.engine.shutdown().await;
    let Server {
        engine,
        rows,
        counts,
        ..
    } = server;
    drop(engine);
    let (engine, clock) = Server::open(folder.path()).await;
    let server = Server {
        engine,
        clock,
        rows,
        counts,
    };
    server.check(hidden).await;

    // A ledger that tells of a row that did not leave, or of offsets that nobody read.
    let partition = server.partition();
    let mut counts = MinuteCounts::default();
    let deleted = IngestCounts {
        deleted: 1,
        ..IngestCounts::default()
    };
    counts.add(Some(new), deleted);
    let state = server.engine.metastore.state().await.unwrap();
    let segments = &state.table("t").unwrap().segments;
    let of_partition = segments.iter().filter_map(|segment| {
        let (of, range) = segment.origin.as_ref()?;
        (*of == partition).then_some(*range)
    });
    let range = of_partition.max_by_key(|range| range.start).unwrap();
    let damage = ChangeSegments {
        table: "t".to_owned(),
        removed: Vec::new(),
        added: Vec::new(),
        reason: ChangeReason::Deleted,
        left: vec![LeftRows {
            partition: partition.clone(),
            range,
            counts,
        }],
    };
    server
        .engine
        .metastore
        .change_segments(damage)
        .await
        .unwrap();
    let problem = server.problem().await;
    let OffsetRange { start, end } = range;
    let expected = format!(
        "offsets {start} to {end}: 2 rows were put into segments, 1 of them left on purpose"
    );
    assert!(problem.contains(&expected), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_rows_and_offsets_without_rows_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::new(folder.path(), &[realtime("")]).await;
    let counted = |_: &Row| "rows_counted";
    let day = 19_995 * DAY_MS;
    for number in 0..6 {
        let ms = day + number * MINUTE_MS;
        server
            .send(
                0,
                ms,
                &[(ms, number, number), (ms + 90_000, number, number)],
            )
            .await;
    }
    server.commit().await;
    server.send(0, day, &[(19_999 * DAY_MS, 1, 1)]).await;
    server.commit().await;
    server.send_wrong(0, day).await;
    server.commit().await;
    server.check(counted).await;
    server.clock.advance(Duration::from_secs(7 * 86_400));
    server
        .until("old rows are not given up", async || {
            server.number("SELECT count(*) FROM t").await == 1
        })
        .await;
    server.change(Place::Committed, Place::Expired, |row| {
        row.ms < day + DAY_MS
    });
    server.check(counted).await;
    // Offsets of which the ledger says that nothing was made.
    let partition = server.partition();
    let state = server.engine.metastore.state().await.unwrap();
    let record = state
        .table("t")
        .unwrap()
        .partitions
        .iter()
        .find(|p| p.partition == partition);
    let next = record.unwrap().next_offset;
    let skip = SkipOffsets {
        table: "t".to_owned(),
        partition,
        from_offset: next,
        to_offset: next + 2,
        counts: IngestCounts {
            read: 2,
            dead_lettered: 1,
            ..IngestCounts::default()
        }
        .into(),
        dead_letters: Vec::new(),
    };
    server.engine.metastore.skip_offsets(skip).await.unwrap();
    let ledger = server.engine.metastore.ledger("t").await.unwrap();
    let problem = ledger[0].first_problem(&[(OffsetRange { start: 6, end: 7 }, 1)]);
    let problem = problem.unwrap();
    assert_eq!((problem.range.start, problem.range.end), (next, next + 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn superseded_and_deduplicated_rows_are_told_by_their_minutes() {
    let upsert = r#""upsertConfig": {"mode": "FULL", "comparisonColumns": ["n"]},"#;
    let dedup = r#""dedupConfig": {"dedupEnabled": true},"#;
    for keys in [upsert, dedup] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::new(folder.path(), &[realtime(keys)]).await;
        let day = 19_999 * DAY_MS;
        for number in 0..30_i64 {
            let row = |more| {
                (
                    day + (number + more * 3) % 11 * 20_000,
                    (number + more) % 8,
                    number + 100,
                )
            };
            let rows: Vec<_> = (0..2).map(row).collect();
            let before = server.rows.len();
            server.send((number % 2) as u32, day, &rows).await;
            if keys == dedup {
                for row in server.rows.split_off(before) {
                    match server.rows.iter().any(|known| known.k == row.k) {
                        true => server.count(row.partition, row.ms, "rows_deduplicated", 1),
                        false => server.rows.push(row),
                    }
                }
            }
            if number == 15 {
                server.commit().await;
            }
        }
        let mut newest: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for row in &server.rows {
            let rank = (row.n, row.ms);
            let known = newest.entry(row.k).or_insert(rank);
            if known.0 < row.n {
                *known = rank;
            }
        }
        let counts = |row: &Row| match newest[&row.k] == (row.n, row.ms) {
            true => "rows_counted",
            false => "rows_superseded",
        };
        server.check(counts).await;
        server.commit().await;
        server.check(counts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_minute_adds_up_at_any_moment_while_rows_come() {
    let folder = tempfile::tempdir().unwrap();
    let upsert = r#""upsertConfig": {"mode": "FULL", "comparisonColumns": ["n"]},"#;
    let server = Server::new(folder.path(), &[realtime(upsert)]).await;
    let messages = 30_i64;
    let engine = Arc::clone(&server.engine);
    let looks = Arc::new(AtomicU64::new(0));
    let looked = Arc::clone(&looks);
    let coming = tokio::spawn(async move {
        let mut round = 0_i64;
        while round < 200 || looked.load(Ordering::SeqCst) < 3 {
            let message = |number: i64| {
                let ms = 19_999 * DAY_MS + (round + number) % 50 * 10_000;
                let n = round * messages + number;
                let row = format!(r#"{{"ms": {ms}, "k": {}, "n": {n}}}"#, n % 97);
                Message {
                    payload: format!(r#"{{"rows": [{row}, {row}]}}"#).into_bytes().into(),
                    ..Message::default()
                }
            };
            let request = AppendRequest {
                topic: "t".to_owned(),
                partition: Some(u32::from(round % 2 == 0)),
                messages: (0..messages).map(message).collect(),
                ..AppendRequest::default()
            };
            engine.append(request).await.unwrap();
            if round % 60 == 59 {
                engine.force_commit("t").await.unwrap();
            }
            round += 1;
        }
        round
    });
    // The filter leaves out the rows of one message.
    let filtered = 2;
    while !coming.is_finished() {
        server.shown().await;
        looks.fetch_add(1, Ordering::SeqCst);
    }
    let rounds = coming.await.unwrap();
    let all = format!(
        "SELECT count(*) FROM (SELECT sum(messages_read) AS read, sum(rows_indexed) AS indexed FROM system.ingestion_audit) WHERE read = {} AND indexed = {}",
        rounds * messages,
        2 * rounds * messages - filtered,
    );
    server
        .until("not all rows are counted", async || {
            server.number(&all).await == 1
        })
        .await;
}
