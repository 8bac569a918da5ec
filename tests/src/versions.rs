//! The past is corrected while it is asked for: days are replaced, the replacements reverted, rows deleted, days given back to
//! the stream, and the boundary moved, and every answer is that of exactly one version, in order.
//!
//! A model holds each day's rows of both halves and which days offline answers for. Each step changes the sum of the table,
//! and the sums of all versions are known before the step is begun.

use crate::answer::Cell;
use crate::client::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use strandline_proto::coverage::{Coverage, Interval};
use strandline_proto::v1::{AuditRequest, ForceCommitRequest, LoadOptions, TimeInterval};

/// The table's name.
const TABLE: &str = "daily";
const TOPIC: &str = "daily-topic";
const DAY_MS: i64 = 86_400_000;
/// Days that offline holds at first.
const OFFLINE_DAYS: i64 = 8;
/// Days of the stream.
const STREAM_DAYS: std::ops::Range<i64> = 4..12;

/// What is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides what is done.
    pub seed: u64,
    /// Versions to be made.
    pub steps: u32,
    /// Between two questions.
    pub pause: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// How often each kind of step was done.
    pub steps: BTreeMap<&'static str, u32>,
    /// Answers meanwhile.
    pub answers: u64,
    /// Versions that an answer showed.
    pub seen: usize,
}

/// One row: its number and its value.
type Row = (i64, i64);

/// What the table holds.
#[derive(Clone, Default)]
struct Model {
    offline: BTreeMap<i64, Vec<Row>>,
    stream: BTreeMap<i64, Vec<Row>>,
    covered: Coverage,
    pinned: Option<i64>,
}

fn interval(day: i64) -> Interval {
    Interval {
        start_ms: day * DAY_MS,
        end_ms: (day + 1) * DAY_MS,
    }
}

impl Model {
    /// Number and sum of the rows that count.
    fn version(&self) -> (i128, i128) {
        let covered = match self.pinned {
            Some(day) => self.covered.pinned_at(day * DAY_MS),
            None => self.covered.clone(),
        };
        let counts = |half: &BTreeMap<i64, Vec<Row>>, inside: bool| {
            let days = half
                .iter()
                .filter(|(day, _)| covered.contains(**day * DAY_MS) == inside);
            days.flat_map(|(_, rows)| rows.clone()).collect::<Vec<_>>()
        };
        let rows = [counts(&self.offline, true), counts(&self.stream, false)].concat();
        let sum = rows.iter().map(|(_, value)| i128::from(*value)).sum();
        (rows.len() as i128, sum)
    }
}

/// The versions that have been, in order, and the one that is being made.
#[derive(Default)]
struct Versions {
    all: Vec<(i128, i128)>,
    /// The newest one that is known to be there.
    done: usize,
}

fn message(day: i64, (n, value): Row, spread: i64) -> String {
    json!({"ms": day * DAY_MS + n * 7_919 % spread, "n": n, "value": value}).to_string()
}

fn draw(random: &mut StdRng) -> Vec<Row> {
    let rows = random.random_range(20..200);
    (0..rows)
        .map(|n| (n, random.random_range(1..1_000_000_000)))
        .collect()
}

fn schema_json() -> String {
    json!({
        "schemaName": TABLE,
        "dimensionFieldSpecs": [{"name": "n", "dataType": "LONG"}],
        "metricFieldSpecs": [{"name": "value", "dataType": "LONG"}],
        "dateTimeFieldSpecs": [
            {"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"},
        ],
    })
    .to_string()
}

fn table_json(half: &str) -> String {
    let mut config = json!({
        "tableName": TABLE,
        "tableType": half,
        "segmentsConfig": {"timeColumnName": "ms", "replication": "1"},
        "tableIndexConfig": {"invertedIndexColumns": ["n"], "sortedColumn": ["n"]},
    });
    if half == "REALTIME" {
        let stream = crate::pinot::log_stream(TOPIC, 2, 300);
        config["ingestionConfig"] =
            json!({"streamIngestionConfig": {"streamConfigMaps": [stream]}});
    }
    config.to_string()
}

fn number(cell: &Cell) -> i128 {
    match cell {
        Cell::Number(digits, 0) => *digits,
        Cell::Null => 0,
        other => panic!("a whole number was expected, not {other}"),
    }
}

async fn ask(client: &mut Client) -> (i128, i128) {
    let sql = format!("SELECT count(*), sum(value) FROM {TABLE}");
    let (answer, _) = client
        .ask(&sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    (number(&answer.rows[0][0]), number(&answer.rows[0][1]))
}

/// Asks again and again, and holds each answer against the versions that may be seen; gives how many answers there were, and
/// how many versions they showed.
async fn ask_all_along(
    mut client: Client,
    versions: Arc<Mutex<Versions>>,
    pause: Duration,
    stop: Arc<AtomicBool>,
) -> (u64, usize) {
    let (mut answers, mut seen, mut last) = (0, std::collections::BTreeSet::new(), 0);
    while !stop.load(Ordering::SeqCst) {
        let least = versions.lock().expect("no holder panics").done.max(last);
        let answer = ask(&mut client).await;
        let found = {
            let versions = versions.lock().expect("no holder panics");
            let mut possible = versions.all.iter().enumerate().skip(least);
            possible
                .find(|(_, version)| **version == answer)
                .map(|(at, _)| at)
        };
        last = found.unwrap_or_else(|| {
            let versions = versions.lock().expect("no holder panics");
            panic!(
                "{answer:?} is none of the versions {:?} from number {least} on; it is number {:?}",
                versions.all.get(least..),
                versions.all.iter().position(|version| *version == answer),
            )
        });
        seen.insert(last);
        answers += 1;
        tokio::time::sleep(pause).await;
    }
    (answers, seen.len())
}

/// Makes the table, and then version after version of it.
///
/// # Panics
/// When an answer is none of the versions that there may be.
pub async fn run(url: &str, plan: &Plan) -> Report {
    println!("versions: {plan:?}");
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut client = Client::connect(url).await.expect("it is up");
    let mut model = Model::default();
    create(&mut client, &mut model, &mut random).await;
    let versions = Arc::new(Mutex::new(Versions {
        all: vec![model.version()],
        done: 0,
    }));
    assert_eq!(ask(&mut client).await, model.version());
    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(ask_all_along(
        client.clone(),
        Arc::clone(&versions),
        plan.pause,
        Arc::clone(&stop),
    ));
    let mut report = Report::default();
    let mut undo: Option<(String, Model)> = None;
    for step in 0..plan.steps {
        let before = model.clone();
        let (kind, doing) = next_step(&mut random, &mut model, step, undo.take());
        if model.version() == before.version() {
            // What changes nothing that can be seen needs no version.
            doing_of(&mut client, &doing).await;
            *report.steps.entry("nothing to be seen").or_default() += 1;
            continue;
        }
        versions
            .lock()
            .expect("no holder panics")
            .all
            .push(model.version());
        doing_of(&mut client, &doing).await;
        {
            let mut versions = versions.lock().expect("no holder panics");
            versions.done = versions.all.len() - 1;
        }
        assert_eq!(
            ask(&mut client).await,
            model.version(),
            "after step {step}, {kind}"
        );
        *report.steps.entry(kind).or_default() += 1;
        if let Doing::Replace { push_id, .. } = doing {
            undo = Some((push_id, before));
        }
        assert!(!asking.is_finished(), "the questions ended early");
    }
    stop.store(true, Ordering::SeqCst);
    (report.answers, report.seen) = asking.await.expect("every answer was one version");
    let request = AuditRequest {
        table: TABLE.to_owned(),
    };
    let audit = client.admin.audit(request).await;
    let audit = audit.expect("the accounts are read").into_inner();
    assert!(audit.exact, "{:?}", audit.problems);
    report
}

/// A statement, or a push.
enum Doing {
    Sql(String),
    Replace {
        push_id: String,
        day: i64,
        rows: Vec<Row>,
    },
}

async fn doing_of(client: &mut Client, doing: &Doing) {
    match doing {
        Doing::Sql(sql) => {
            client
                .ask(sql)
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        Doing::Replace { push_id, day, rows } => {
            let interval = interval(*day);
            let options = LoadOptions {
                push_id: push_id.clone(),
                input_format: "json".to_owned(),
                replaced: Some(TimeInterval {
                    start_ms: interval.start_ms,
                    end_ms: interval.end_ms,
                }),
                ..LoadOptions::default()
            };
            upload(client, vec![(*day, rows.clone())], options).await;
        }
    }
}

async fn upload(client: &mut Client, days: Vec<(i64, Vec<Row>)>, options: LoadOptions) {
    let mut lines = String::new();
    for (day, rows) in days {
        for row in rows {
            writeln!(lines, "{}", message(day, row, DAY_MS)).expect("text is written");
        }
    }
    let content = std::io::Cursor::new(lines.into_bytes());
    client
        .upload_as(TABLE, "rows.json", content, options)
        .await
        .expect("the push is taken");
}

async fn create(client: &mut Client, model: &mut Model, random: &mut StdRng) {
    for half in ["OFFLINE", "REALTIME"] {
        client
            .create(&schema_json(), &table_json(half))
            .await
            .expect("the half is made");
    }
    let days: Vec<_> = (0..OFFLINE_DAYS).map(|day| (day, draw(random))).collect();
    model.offline.extend(days.clone());
    model.covered = Coverage::new((0..OFFLINE_DAYS).map(interval));
    let options = LoadOptions {
        declared_coverage: Some(TimeInterval {
            start_ms: 0,
            end_ms: OFFLINE_DAYS * DAY_MS,
        }),
        // Days are not cut where segments are.
        segment_rows_max: 150,
        ..LoadOptions::default()
    };
    upload(client, days, options).await;
    for day in STREAM_DAYS {
        let rows = draw(random);
        let payloads = rows
            .iter()
            .map(|row| message(day, *row, DAY_MS).into_bytes());
        let payloads: Vec<_> = payloads.collect();
        client
            .append(TOPIC, (day % 2) as u32, &payloads, "", 0)
            .await
            .expect("rows are taken");
        model.stream.insert(day, rows);
        if day % 3 == 0 {
            let request = ForceCommitRequest {
                table: TABLE.to_owned(),
            };
            client
                .admin
                .force_commit(request)
                .await
                .expect("it is committed");
        }
    }
    // All that was appended is to be seen before the first version.
    for _ in 0..500 {
        if ask(client).await == model.version() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!(
        "the stream's rows are not there: {:?}, not {:?}",
        ask(client).await,
        model.version()
    );
}

/// Decides what is done, and does it to the model.
fn next_step(
    random: &mut StdRng,
    model: &mut Model,
    step: u32,
    undo: Option<(String, Model)>,
) -> (&'static str, Doing) {
    if let Some((push_id, before)) = undo
        && random.random_bool(0.4)
    {
        *model = before;
        let sql = format!("ALTER TABLE {TABLE} REVERT PUSH '{push_id}'");
        return ("revert", Doing::Sql(sql));
    }
    let day = random.random_range(0..OFFLINE_DAYS);
    match random.random_range(0..10) {
        0..5 => {
            let rows = draw(random);
            model.offline.insert(day, rows.clone());
            model.covered = model.covered.with(interval(day));
            let push_id = format!("step-{step}");
            ("replace", Doing::Replace { push_id, day, rows })
        }
        5 | 6 => {
            let (from, to) = (day * DAY_MS, (day + 1) * DAY_MS);
            let most = random.random_range(1..100);
            for half in [&mut model.offline, &mut model.stream] {
                if let Some(rows) = half.get_mut(&day) {
                    rows.retain(|(n, _)| *n >= most);
                }
            }
            let sql =
                format!("DELETE FROM {TABLE} WHERE ms >= {from} AND ms < {to} AND n < {most}");
            ("delete", Doing::Sql(sql))
        }
        7 => {
            model.offline.remove(&day);
            model.covered = model.covered.without(interval(day));
            let (from, to) = (day * DAY_MS, (day + 1) * DAY_MS);
            let sql = format!("ALTER TABLE {TABLE} DROP OFFLINE FROM {from} TO {to}");
            ("drop offline", Doing::Sql(sql))
        }
        _ => match model.pinned.take() {
            Some(_) => (
                "release",
                Doing::Sql(format!("ALTER TABLE {TABLE} RELEASE BOUNDARY")),
            ),
            None => {
                let boundary = random.random_range(4..OFFLINE_DAYS);
                model.pinned = Some(boundary);
                let sql = format!("ALTER TABLE {TABLE} PIN BOUNDARY '{}'", boundary * DAY_MS);
                ("pin", Doing::Sql(sql))
            }
        },
    }
}
