//! Kills while rows stream in: a server is killed at any moment and at named steps of its commits, started
//! again each time, and must come to hold exactly the stream's rows.
//!
//! Every message carries its partition and its number there. Queries run all the while: within one life of the
//! server counts never go back, and no answer ever shows a row twice or more rows than were sent.

use crate::answer::Cell;
use crate::client::Client;
use crate::process::Process;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// The table's name.
pub const TABLE: &str = "kills";

/// What is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides when and where to kill.
    pub seed: u64,
    /// Partitions of the stream.
    pub partitions: u32,
    /// Rows in each.
    pub rows_per_partition: u64,
    /// Kills in all.
    pub kills: u32,
    /// Rows at which a partition's consuming segment is sealed.
    pub flush_rows: u64,
    /// Messages that a producer sends at once.
    pub batch_rows: u64,
    /// How long a producer rests between batches.
    pub pause: Duration,
    /// Whether rows have a key, and each is sent twice: the second one counts.
    pub keyed: bool,
    /// Kills before and after each step of a commit; none: kills at any moment and at random steps.
    pub each_step: Option<u32>,
    /// Times that the disk is full for a while.
    pub full_disks: u32,
}

impl Plan {
    /// Rows that count of so many messages of a partition.
    fn rows_of(&self, messages: u64) -> u64 {
        match self.keyed {
            true => messages.div_ceil(2),
            false => messages,
        }
    }

    /// The message of a number in a partition.
    pub fn message(&self, partition: u32, number: u64) -> Vec<u8> {
        message(partition, if self.keyed { number / 2 } else { number })
    }

    /// The places of the kills, where they are not random.
    fn places(&self) -> Vec<String> {
        let steps = STEPS
            .into_iter()
            .filter(|step| self.keyed || *step != "keys");
        let places =
            steps.flat_map(|step| ["before", "after"].map(|side| format!("{step}.{side}")));
        let places: Vec<String> = places.collect();
        let times = self.each_step.unwrap_or(0) as usize;
        (0..times).flat_map(|_| places.clone()).collect()
    }
}

/// The steps of a commit; the last one where rows have a key.
const STEPS: [&str; 7] = [
    "seal", "archive", "build", "upload", "commit", "swap", "keys",
];

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Where kills fell: `any moment` or a step of the commit.
    pub places: Vec<String>,
    /// Answers that queries got meanwhile.
    pub answers: u64,
    /// Milliseconds from sending to the first answer that holds the row, sorted; of times without kills.
    pub freshness_ms: Vec<u64>,
    /// The longest time from a kill to the first answer after it.
    pub longest_silence: Duration,
    /// Committed segments at the end.
    pub segments: usize,
}

impl Report {
    /// Kills that fell before or after a step of a commit.
    pub fn kills_in_commits(&self) -> usize {
        self.places.iter().filter(|p| *p != "any moment").count()
    }

    /// The freshness that `percent` of the rows were seen within.
    pub fn freshness_percentile(&self, percent: usize) -> Option<u64> {
        let last = self.freshness_ms.len().checked_sub(1)?;
        Some(self.freshness_ms[last * percent / 100])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exact after {} kills, {} of them inside a commit ({}); {} answers meanwhile, the first one after a kill within {} ms, {} segments",
            self.places.len(),
            self.kills_in_commits(),
            self.places.join(", "),
            self.answers,
            self.longest_silence.as_millis(),
            self.segments,
        )?;
        match (self.freshness_percentile(50), self.freshness_percentile(99)) {
            (Some(p50), Some(p99)) => write!(f, "; freshness p50 {p50} ms, p99 {p99} ms"),
            _ => write!(f, "; freshness was not measured"),
        }
    }
}

/// The schema document of the table.
pub fn schema_json(keyed: bool) -> String {
    let key: &[&str] = if keyed { &["part", "seq"] } else { &[] };
    json!({
        "schemaName": TABLE,
        "primaryKeyColumns": key,
        "dimensionFieldSpecs": [
            {"name": "part", "dataType": "INT"},
            {"name": "seq", "dataType": "LONG"},
            {"name": "word", "dataType": "STRING"},
        ],
        "dateTimeFieldSpecs": [
            {"name": "sent_ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"},
        ],
    })
    .to_string()
}

/// The table config over a stream.
pub fn table_json(stream: &Value, keyed: bool) -> String {
    let mode = if keyed { "FULL" } else { "NONE" };
    let sorted: &[&str] = if keyed { &[] } else { &["seq"] };
    json!({
        "tableName": TABLE,
        "tableType": "REALTIME",
        "segmentsConfig": {"timeColumnName": "sent_ms", "replication": "1"},
        "tableIndexConfig": {"invertedIndexColumns": ["word"], "sortedColumn": sorted},
        "upsertConfig": {"mode": mode},
        "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [archived(stream)]}},
        "tenants": {},
        "metadata": {},
    })
    .to_string()
}

/// A stream's config with which its messages are archived.
fn archived(stream: &Value) -> Value {
    let mut stream = stream.clone();
    let kind = stream["streamType"].as_str().unwrap_or_default().to_owned();
    stream[format!("stream.{kind}.archive")] = json!("true");
    stream
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

/// The message of one row.
pub fn message(partition: u32, sequence: u64) -> Vec<u8> {
    let word = ["one", "two", "three", "four"][(sequence % 4) as usize];
    json!({"part": partition, "seq": sequence, "word": word, "sent_ms": now_ms()})
        .to_string()
        .into_bytes()
}

/// Where the server is now; empty while it is down.
pub type Address = watch::Receiver<String>;

/// What producers and queries share.
#[derive(Debug)]
pub struct Progress {
    /// Rows sent, a partition each.
    pub sent: Vec<AtomicU64>,
    /// When each row was sent, in milliseconds, a partition each.
    pub sent_at: Vec<Mutex<Vec<u64>>>,
    /// When the server was killed last, until it answers again.
    killed: Mutex<Option<Instant>>,
}

impl Progress {
    /// Nothing sent yet.
    pub fn new(partitions: u32) -> Arc<Self> {
        Arc::new(Self {
            sent: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            sent_at: (0..partitions).map(|_| Mutex::default()).collect(),
            killed: Mutex::default(),
        })
    }

    /// Kills the server.
    fn kill(&self, server: &mut Process) {
        *self.killed.lock().expect("no holder panics") = Some(Instant::now());
        server.kill();
    }

    /// Says that rows of `partition` up to `until` are being sent now.
    pub fn sending(&self, partition: u32, until: u64) {
        let mut times = self.sent_at[partition as usize]
            .lock()
            .expect("no holder panics");
        let rows = times.len().max(until as usize);
        times.resize(rows, now_ms());
        self.sent[partition as usize].fetch_max(until, Ordering::SeqCst);
    }
}

/// Sends a partition's rows to the embedded log of whatever server is up, each until it is acknowledged.
pub async fn produce_to_log(
    mut address: Address,
    topic: String,
    partition: u32,
    plan: Plan,
    progress: Arc<Progress>,
) {
    let producer = format!("producer-{partition}");
    let mut sequence = 0;
    let mut client: Option<Client> = None;
    while sequence < plan.rows_per_partition {
        let until = (sequence + plan.batch_rows).min(plan.rows_per_partition);
        let numbers = sequence..until;
        let payloads: Vec<Vec<u8>> = numbers.map(|n| plan.message(partition, n)).collect();
        progress.sending(partition, until);
        loop {
            let url = address.borrow_and_update().clone();
            if client.is_none() && !url.is_empty() {
                client = Client::connect(&url).await.ok();
            }
            if let Some(open) = &mut client {
                match open
                    .append(&topic, partition, &payloads, &producer, sequence)
                    .await
                {
                    Ok(_) => break,
                    Err(status) => {
                        assert!(
                            !matches!(
                                status.code(),
                                tonic::Code::InvalidArgument | tonic::Code::Internal
                            ),
                            "append refused: {status}"
                        );
                        client = None;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sequence = until;
        tokio::time::sleep(plan.pause).await;
    }
}

fn whole(cell: &Cell) -> u64 {
    match cell {
        Cell::Number(digits, 0) => u64::try_from(*digits).expect("a count"),
        other => panic!("a whole number was expected, not {other}"),
    }
}

/// What was seen by asking all along.
#[derive(Default)]
struct Seen {
    answers: u64,
    /// While it was calm, in milliseconds.
    freshness_ms: Vec<u64>,
    longest_silence: Duration,
}

/// Asks again and again, and checks each answer.
async fn query_all_along(
    mut address: Address,
    plan: Plan,
    progress: Arc<Progress>,
    calm: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
) -> Seen {
    let sql =
        format!("SELECT part, count(*), count(DISTINCT seq), max(seq) FROM {TABLE} GROUP BY part");
    // Where freshness is measured most questions are cheap ones, so that rows do not wait for a question.
    let cheap = format!("SELECT part, count(*), count(*), max(seq) FROM {TABLE} GROUP BY part");
    let mut seen = Seen::default();
    let mut visible = vec![0_u64; plan.partitions as usize];
    let mut connected_to = String::new();
    let mut client: Option<Client> = None;
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(if calm.load(Ordering::SeqCst) {
            3
        } else {
            25
        }))
        .await;
        let url = address.borrow_and_update().clone();
        if url != connected_to || client.is_none() {
            client = if url.is_empty() {
                None
            } else {
                Client::connect(&url).await.ok()
            };
            connected_to = url;
            visible.fill(0);
        }
        let Some(open) = &mut client else { continue };
        let ask = if calm.load(Ordering::SeqCst) && seen.answers % 20 != 0 {
            &cheap
        } else {
            &sql
        };
        let Ok((answer, _)) = open.ask(ask).await else {
            client = None;
            continue;
        };
        let now = now_ms();
        seen.answers += 1;
        let killed = progress.killed.lock().expect("no holder panics").take();
        if let Some(killed) = killed {
            seen.longest_silence = seen.longest_silence.max(killed.elapsed());
        }
        for row in &answer.rows {
            let (partition, count, distinct) =
                (whole(&row[0]) as usize, whole(&row[1]), whole(&row[2]));
            let sent = plan.rows_of(progress.sent[partition].load(Ordering::SeqCst));
            assert_eq!(
                count, distinct,
                "a row of partition {partition} is seen twice"
            );
            assert_eq!(
                count,
                whole(&row[3]) + 1,
                "partition {partition} has a hole"
            );
            assert!(
                count <= sent,
                "{count} rows of partition {partition}, {sent} sent"
            );
            assert!(
                count >= visible[partition],
                "partition {partition} went back from {} to {count} rows within one life",
                visible[partition]
            );
            if calm.load(Ordering::SeqCst) && visible[partition] > 0 && !plan.keyed {
                let times = progress.sent_at[partition]
                    .lock()
                    .expect("no holder panics");
                seen.freshness_ms.extend(
                    times[visible[partition] as usize..count as usize]
                        .iter()
                        .map(|sent| now.saturating_sub(*sent)),
                );
            }
            visible[partition] = count;
        }
    }
    seen
}

/// Where the next kill falls.
fn kill_place(random: &mut StdRng) -> Option<String> {
    if random.random_range(0..100) < 55 {
        return None;
    }
    let step = STEPS[random.random_range(0..6)];
    let side = ["before", "after"][random.random_range(0..2)];
    Some(format!("{step}.{side}:{}", random.random_range(1..=3)))
}

/// Runs the plan against `program` in `data`. `produce` starts the producers; `create` makes the table once.
///
/// # Panics
/// When an answer is wrong, or the server does not come back.
pub async fn run(
    program: &str,
    data: &Path,
    plan: Plan,
    stream: &serde_json::Value,
    produce: impl FnOnce(Address, Arc<Progress>) -> Vec<tokio::task::JoinHandle<()>>,
) -> Report {
    println!("kill test: {plan:?}");
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut report = Report::default();
    let progress = Progress::new(plan.partitions);
    let (publish, address) = watch::channel(String::new());
    let calm = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));

    let start = |place: Option<&str>| -> Process {
        Process::start(program, data, place).unwrap_or_else(|error| panic!("start: {error}"))
    };
    let mut server = start(None);
    let mut client = Client::connect(&server.grpc).await.expect("it is up");
    client
        .create(&schema_json(plan.keyed), &table_json(stream, plan.keyed))
        .await
        .expect("the table is made");
    publish.send_replace(server.grpc.clone());
    let producers = produce(address.clone(), Arc::clone(&progress));
    let asking = tokio::spawn(query_all_along(
        address.clone(),
        plan.clone(),
        Arc::clone(&progress),
        Arc::clone(&calm),
        Arc::clone(&stop),
    ));

    tokio::time::sleep(Duration::from_millis(1000)).await;
    for place in plan.places() {
        publish.send_replace(String::new());
        progress.kill(&mut server);
        let at = format!("{place}:{}", random.random_range(1..=2));
        server = match Process::start(program, data, Some(&at)) {
            Ok(started) => started,
            // It was reached before the server was ready.
            Err(ended) if ended.contains("SIGABRT") => {
                report.places.push(place);
                continue;
            }
            Err(error) => panic!("start: {error}"),
        };
        publish.send_replace(server.grpc.clone());
        let since = Instant::now();
        while server.ended().is_none() {
            let patience = Duration::from_secs(60);
            assert!(
                since.elapsed() < patience,
                "{at} was not reached: send more rows"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        report.places.push(place);
    }
    for number in 0..plan.full_disks {
        let pause = Duration::from_millis(random.random_range(300..1_500));
        fill_disk(&server.grpc, data, (number, pause)).await;
    }
    if plan.each_step.is_some() {
        progress.kill(&mut server);
        server = start(None);
        publish.send_replace(server.grpc.clone());
    }
    for _ in 0..plan.kills {
        let place = kill_place(&mut random);
        if place.is_some() {
            // A kill at a step needs a life that knows of it.
            publish.send_replace(String::new());
            progress.kill(&mut server);
            server = start(place.as_deref());
            publish.send_replace(server.grpc.clone());
        }
        let patience = match &place {
            Some(_) => Duration::from_secs(4),
            None => Duration::from_millis(random.random_range(0..700)),
        };
        let since = Instant::now();
        while since.elapsed() < patience && server.ended().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let by_itself = server.ended().is_some();
        publish.send_replace(String::new());
        progress.kill(&mut server);
        report.places.push(match place {
            Some(place) if by_itself => place,
            _ => {
                assert!(!by_itself, "the server ended by itself");
                "any moment".to_owned()
            }
        });
        server = start(None);
        publish.send_replace(server.grpc.clone());
    }
    // What piled up while the server was down is read by then.
    tokio::time::sleep(Duration::from_millis(3000)).await;
    calm.store(true, Ordering::SeqCst);
    for producer in producers {
        producer.await.expect("the producer ends well");
    }
    calm.store(false, Ordering::SeqCst);
    let mut client = Client::connect(&server.grpc).await.expect("it is up");
    wait_for_rows(&mut client, &plan).await;
    stop.store(true, Ordering::SeqCst);
    let seen = asking.await.expect("every answer was right");
    report.answers = seen.answers;
    report.longest_silence = seen.longest_silence;
    report.freshness_ms = seen.freshness_ms;
    report.freshness_ms.sort_unstable();
    check_partitions(&mut client, &plan).await;
    report.segments = check_tiling(&mut client).await;
    // What is committed must be there without the stream's help, too.
    server.kill();
    server = start(None);
    let mut client = Client::connect(&server.grpc).await.expect("it is up");
    wait_for_rows(&mut client, &plan).await;
    check_partitions(&mut client, &plan).await;
    check_accounts(&mut client, &plan).await;
    report
}

/// Fills the disk of a folder for a while, during which what is there is answered; rows must come again afterwards.
async fn fill_disk(server: &str, data: &Path, (number, pause): (u32, Duration)) {
    let mut client = Client::connect(server).await.expect("it is up");
    let sql = format!("SELECT count(*) FROM {TABLE}");
    let mut count = async || {
        let (answer, _) = client.ask(&sql).await.expect("what is there is answered");
        whole(&answer.rows[0][0])
    };
    let before = count().await;
    let path = data.join("ballast");
    let mut ballast = std::fs::File::create(&path).expect("a file");
    let mut block = vec![1_u8; 1 << 20];
    while !block.is_empty() {
        if ballast.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
    let since = Instant::now();
    while since.elapsed() < pause {
        assert!(count().await >= before, "full disk {number}: rows are gone");
        // What was freed meanwhile is taken as well.
        let _ = ballast.write_all(&[1; 4096]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let full = count().await;
    drop(ballast);
    std::fs::remove_file(&path).expect("removed");
    let since = Instant::now();
    while count().await < full + 100 {
        let patience = Duration::from_secs(60);
        assert!(
            since.elapsed() < patience,
            "full disk {number}: no rows come in a minute after there is room again"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The server's own accounts must say the same.
async fn check_accounts(client: &mut Client, plan: &Plan) {
    let request = strandline_proto::v1::AuditRequest {
        table: TABLE.to_owned(),
    };
    let audit = client.admin.audit(request).await;
    let audit = audit.expect("the accounts are read").into_inner();
    assert!(audit.exact, "{:?}", audit.problems);
    let read: u64 = audit.partitions.iter().map(|p| p.messages_read).sum();
    let sent = plan.rows_per_partition * u64::from(plan.partitions);
    // The last rows may be seen, and the second ones of their keys be still to come.
    assert!(
        read == sent || plan.keyed && read < sent,
        "{read} of {sent} messages were read"
    );
}

async fn wait_for_rows(client: &mut Client, plan: &Plan) {
    let expected = plan.rows_of(plan.rows_per_partition) * u64::from(plan.partitions);
    let since = Instant::now();
    let sql = format!("SELECT count(*) FROM {TABLE}");
    loop {
        let (answer, _) = client.ask(&sql).await.expect("the server answers");
        let count = whole(&answer.rows[0][0]);
        if count == expected {
            return;
        }
        assert!(count < expected, "{count} rows of {expected}");
        assert!(
            since.elapsed() < Duration::from_secs(120),
            "only {count} of {expected} rows after two minutes"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn check_partitions(client: &mut Client, plan: &Plan) {
    let sql = format!(
        "SELECT part, count(*), count(DISTINCT seq), min(seq), max(seq) FROM {TABLE} GROUP BY part ORDER BY part"
    );
    let (answer, _) = client.ask(&sql).await.expect("the server answers");
    assert_eq!(answer.rows.len(), plan.partitions as usize);
    for (partition, row) in answer.rows.iter().enumerate() {
        let row: Vec<u64> = row.iter().map(whole).collect();
        let rows = plan.rows_of(plan.rows_per_partition);
        assert_eq!(row, [partition as u64, rows, rows, 0, rows - 1]);
    }
}

/// The committed segments' offsets must follow each other without hole or overlap; gives their number.
async fn check_tiling(client: &mut Client) -> usize {
    let request = strandline_proto::v1::ListSegmentsRequest {
        table: TABLE.to_owned(),
    };
    let segments = client
        .admin
        .list_segments(request)
        .await
        .expect("segments are listed")
        .into_inner()
        .segments;
    let mut ranges: Vec<(String, u64, u64)> = segments
        .iter()
        .filter(|s| !s.consuming)
        .map(|s| (s.partition.clone(), s.start_offset, s.end_offset))
        .collect();
    ranges.sort();
    let mut before: Option<&(String, u64, u64)> = None;
    for range in &ranges {
        match before {
            Some(last) if last.0 == range.0 => assert_eq!(
                last.2, range.1,
                "{}: segments do not tile at {}",
                range.0, range.1
            ),
            _ => assert_eq!(range.1, 0, "{}: the first segment starts late", range.0),
        }
        before = Some(range);
    }
    ranges.len()
}
