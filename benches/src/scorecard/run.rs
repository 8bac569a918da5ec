//! Fills the table, checks the page's answers, and measures them at a fixed rate or in a closed loop.
//!
//! At a fixed rate a page's times run from when it was due, whether or not it could be sent then: a server that falls
//! behind is not asked less often.

use super::events::{self, DAY_MS, Event, FIRST_DAY, draw_carrier};
use super::page::{QUESTIONS, expected, statements};
use crate::plot;
use crate::results::{Results, Table, thousands};
use crate::rows::{difference, of_answer};
use crate::target::{Source, Target};
use crate::times::{Times, cells, header, histogram, micros, percentiles};
use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use strandline_proto::v1::{LoadOptions, TimeInterval};
use strandline_tests::client::Client;
use tokio::task::JoinSet;

const TABLE: &str = "milestones";
/// Days that are realtime.
const REALTIME_DAYS: u64 = 3;
/// Days that a page looks back.
const PAGE_DAYS: i64 = 28;
/// Partitions of the stream.
const PARTITIONS: u32 = 2;
/// Messages of one append while the table is filled.
const APPEND_ROWS: usize = 2_000;
/// Appends a second while it is measured.
const APPENDS_PER_S: u64 = 50;
/// Carriers whose answers are checked.
const CHECKED: usize = 20;
/// Pages that may be under way; more are errors.
const PAGES_MAX: usize = 4_000;
/// How often freshness is looked at.
const FRESHNESS_EVERY: Duration = Duration::from_millis(500);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// Days of milestones; the last three are realtime
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(4..))]
    days: u64,
    /// Milestones of a day
    #[arg(long, default_value_t = 100_000)]
    day_rows: u64,
    /// Rows and pages follow from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Pages of nine statements a second; 0: each connection asks one statement after the other
    #[arg(long, default_value_t = 40.0)]
    rate: f64,
    /// Connections
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Seconds to measure
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Milestones a second that stream in meanwhile
    #[arg(long, default_value_t = 20_000)]
    ingest: u64,
    #[command(flatten)]
    results: Results,
}

/// Appends days' milestones to the stream, in batches that go to one partition after the other.
struct Writer {
    client: Client,
    sequence: [u64; PARTITIONS as usize],
    next: u32,
    rows: u64,
}

impl Writer {
    /// Appends a batch; gives its partition and the offset behind its last message.
    async fn append(
        &mut self,
        events: &[Event],
    ) -> Result<(u32, u64), Box<dyn Error + Send + Sync>> {
        let partition = self.next;
        self.next = (partition + 1) % PARTITIONS;
        let payloads: Vec<Vec<u8>> = events.iter().map(Event::message).collect();
        let sequence = &mut self.sequence[partition as usize];
        let answer = self
            .client
            .append(TABLE, partition, &payloads, "scorecard", *sequence)
            .await?;
        *sequence += payloads.len() as u64;
        self.rows += payloads.len() as u64;
        Ok((partition, answer.next_offset))
    }
}

/// Fills the table, checks it, measures, writes the results.
pub async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut target = Target::open(&options.source).await?;
    if target.rows(TABLE).await.is_some() {
        return Err(format!("the server has a table {TABLE} already: drop it first").into());
    }
    let mut writer = Writer {
        client: target.client.clone(),
        sequence: [0; PARTITIONS as usize],
        next: 0,
        rows: 0,
    };
    let known = fill(options, &mut target, &mut writer).await?;
    let rows = target.rows(TABLE).await.unwrap_or(0);
    check(options, &mut target.client, &known).await?;
    eprintln!("{rows} rows; the answers for {CHECKED} carriers are right");
    let measured = measure(options, &mut target, writer).await?;
    write_results(options, rows, &measured)
}

fn period(options: &Options) -> (i64, i64) {
    let end = FIRST_DAY + options.days as i64;
    // The present goes on while it is measured.
    ((end - PAGE_DAYS) * DAY_MS, (end + 365) * DAY_MS)
}

fn checked_carriers(options: &Options) -> BTreeSet<u64> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut carriers = BTreeSet::new();
    while carriers.len() < CHECKED {
        carriers.insert(draw_carrier(&mut random));
    }
    carriers
}

/// Makes the table; gives the milestones of the carriers that are checked.
async fn fill(
    options: &Options,
    target: &mut Target,
    writer: &mut Writer,
) -> Result<Vec<Event>, Box<dyn Error>> {
    let carriers = checked_carriers(options);
    let mut known = Vec::new();
    let schema = events::schema_json(TABLE);
    let client = &mut target.client;
    client.create(&schema, &events::offline_json(TABLE)).await?;
    let config_json = events::realtime_json(TABLE, PARTITIONS, options.day_rows.max(1_000));
    let request = strandline_proto::v1::CreateTableRequest { config_json };
    client.admin.create_table(request).await?;
    let folder = tempfile::tempdir()?;
    for number in 0..options.days {
        let of_day = events::day(options.seed, number, options.day_rows);
        known.extend(
            of_day
                .iter()
                .filter(|e| carriers.contains(&e.carrier))
                .cloned(),
        );
        if number + REALTIME_DAYS < options.days {
            let file = folder.path().join(format!("day-{number:04}.parquet"));
            events::write(&file, &of_day)?;
            let start_ms = (FIRST_DAY + number as i64) * DAY_MS;
            let load = LoadOptions {
                declared_coverage: Some(TimeInterval {
                    start_ms,
                    end_ms: start_ms + DAY_MS,
                }),
                ..LoadOptions::default()
            };
            client.upload(TABLE, &file, load).await?;
            std::fs::remove_file(&file)?;
        } else {
            for batch in of_day.chunks(APPEND_ROWS) {
                writer.append(batch).await.map_err(|e| e.to_string())?;
            }
        }
    }
    Target::arrived(client, TABLE, writer.rows).await?;
    Ok(known)
}

async fn check(
    options: &Options,
    client: &mut Client,
    known: &[Event],
) -> Result<(), Box<dyn Error>> {
    let (from_ms, to_ms) = period(options);
    for carrier in checked_carriers(options) {
        let wanted = expected(known, carrier, from_ms, to_ms);
        for ((name, sql), wanted) in QUESTIONS
            .iter()
            .zip(statements(TABLE, carrier, from_ms, to_ms))
            .zip(&wanted)
        {
            let (answer, _) = client.ask(&sql).await?;
            if let Some(difference) = difference(&of_answer(&answer), wanted) {
                return Err(format!("{name} is wrong: {difference}: {sql}").into());
            }
        }
    }
    Ok(())
}

/// Times of answers, and of pages: until all answers of one are there.
#[derive(Clone)]
struct Pages {
    times: Times,
    whole: Histogram<u64>,
}

impl Pages {
    fn new(started: Instant) -> Self {
        Self {
            times: Times::new(&QUESTIONS, started),
            whole: histogram(),
        }
    }

    fn page(&mut self, time: Duration) {
        self.whole.saturating_record(micros(time));
    }

    fn add(&mut self, other: &Self) {
        self.times.add(&other.times);
        // They have the same bounds and precision.
        (self.whole.add(&other.whole)).unwrap_or_else(|e| unreachable!("{e}"));
    }
}

struct Measured {
    pages: Pages,
    freshness: Histogram<u64>,
    elapsed: Duration,
    ingested: u64,
}

async fn measure(
    options: &Options,
    target: &mut Target,
    writer: Writer,
) -> Result<Measured, Box<dyn Error>> {
    let mut clients = Vec::new();
    for _ in 0..options.connections.max(1) {
        clients.push(target.connect().await?);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let appended = Arc::new(AtomicU64::new(0));
    let writing = tokio::spawn(stream(
        options.clone(),
        writer,
        Arc::clone(&stop),
        Arc::clone(&appended),
    ));
    let watching = tokio::spawn(watch(target.connect().await?, Arc::clone(&stop), appended));
    let started = Instant::now();
    let pages = Arc::new(Mutex::new(Pages::new(started)));
    if options.rate > 0.0 {
        at_a_rate(options, &clients, &pages, started).await;
    } else {
        closed_loop(options, clients, &pages, started).await;
    }
    let elapsed = started.elapsed();
    stop.store(true, Ordering::Release);
    let ingested = writing.await?.map_err(|e| e.to_string())?;
    let freshness = watching.await??;
    let pages = locked(&pages).clone();
    Ok(Measured {
        pages,
        freshness,
        elapsed,
        ingested,
    })
}

/// What was noted so far, whatever became of who held it before.
fn locked(pages: &Mutex<Pages>) -> MutexGuard<'_, Pages> {
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pages when they are due.
async fn at_a_rate(
    options: &Options,
    clients: &[Client],
    pages: &Arc<Mutex<Pages>>,
    started: Instant,
) {
    let (from_ms, to_ms) = period(options);
    let mut random = StdRng::seed_from_u64(options.seed ^ 0x5eed);
    let mut under_way = JoinSet::new();
    let until = started + Duration::from_secs(options.seconds);
    for number in 0u64.. {
        let due = started + Duration::from_secs_f64(number as f64 / options.rate);
        if due >= until {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= PAGES_MAX {
            let error = format!("{PAGES_MAX} pages were under way: not asked");
            locked(pages).times.failed(error);
            continue;
        }
        let carrier = draw_carrier(&mut random);
        let client = clients[number as usize % clients.len()].clone();
        let pages = Arc::clone(pages);
        under_way.spawn(async move {
            let asks = statements(TABLE, carrier, from_ms, to_ms).into_iter();
            let asks = asks.enumerate().map(|(question, sql)| {
                let (mut client, pages) = (client.clone(), &pages);
                async move {
                    let answer = client.ask(&sql).await;
                    let times = &mut locked(pages).times;
                    match answer {
                        Ok(_) => times.answered(question, due.elapsed()),
                        Err(error) => times.failed(error),
                    }
                }
            });
            futures::future::join_all(asks).await;
            locked(&pages).page(due.elapsed());
        });
    }
    while under_way.join_next().await.is_some() {}
}

/// One statement after the other on each connection.
async fn closed_loop(
    options: &Options,
    clients: Vec<Client>,
    pages: &Arc<Mutex<Pages>>,
    started: Instant,
) {
    let (from_ms, to_ms) = period(options);
    let until = started + Duration::from_secs(options.seconds);
    let mut workers = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let mut random = StdRng::seed_from_u64(options.seed ^ number as u64);
        let pages = Arc::clone(pages);
        workers.spawn(async move {
            let mut own = Pages::new(started);
            while Instant::now() < until {
                let carrier = draw_carrier(&mut random);
                let page = Instant::now();
                for (question, sql) in statements(TABLE, carrier, from_ms, to_ms)
                    .into_iter()
                    .enumerate()
                {
                    let sent = Instant::now();
                    match client.ask(&sql).await {
                        Ok(_) => own.times.answered(question, sent.elapsed()),
                        Err(error) => own.times.failed(error),
                    }
                }
                own.page(page.elapsed());
            }
            locked(&pages).add(&own);
        });
    }
    while workers.join_next().await.is_some() {}
}

/// Appends at the rate that was asked for, days on end, until it is stopped; gives the rows.
async fn stream(
    options: Options,
    mut writer: Writer,
    stop: Arc<AtomicBool>,
    appended: Arc<AtomicU64>,
) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let before = writer.rows;
    let batch = (options.ingest / APPENDS_PER_S).max(1) as usize;
    let started = Instant::now();
    let mut batches = 0u64;
    for number in options.days.. {
        if options.ingest == 0 {
            break;
        }
        let (seed, rows) = (options.seed, options.day_rows);
        let of_day = tokio::task::spawn_blocking(move || events::day(seed, number, rows)).await?;
        for part in of_day.chunks(batch) {
            if stop.load(Ordering::Acquire) {
                return Ok(writer.rows - before);
            }
            let due = started
                + Duration::from_secs_f64(batches as f64 * batch as f64 / options.ingest as f64);
            tokio::time::sleep_until(due.into()).await;
            let (partition, next_offset) = writer.append(part).await?;
            batches += 1;
            if partition == 0 {
                appended.store(next_offset, Ordering::Release);
            }
        }
    }
    Ok(writer.rows - before)
}

/// How long it takes until what the stream has acknowledged can be queried, looked at now and then; in microseconds.
async fn watch(
    mut client: Client,
    stop: Arc<AtomicBool>,
    appended: Arc<AtomicU64>,
) -> Result<Histogram<u64>, String> {
    let mut freshness = histogram();
    let mut last = 0;
    while !stop.load(Ordering::Acquire) {
        let offset = appended.load(Ordering::Acquire);
        if offset == last {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        last = offset;
        let since = Instant::now();
        while Target::consumed(&mut client, TABLE)
            .await?
            .first()
            .copied()
            .unwrap_or(0)
            < offset
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        freshness.saturating_record(since.elapsed().as_micros() as u64);
        tokio::time::sleep(FRESHNESS_EVERY).await;
    }
    Ok(freshness)
}

fn write_results(options: &Options, rows: u64, measured: &Measured) -> Result<(), Box<dyn Error>> {
    let seconds = measured.elapsed.as_secs_f64();
    let times = &measured.pages.times;
    let answers_per_s = times.answers() as f64 / seconds;
    let ingested_per_s = measured.ingested as f64 / seconds;
    let mut document = times.document();
    for (key, value) in [
        ("questions", json!(times.by_kind())),
        ("page", percentiles(&measured.pages.whole)),
        ("pages", json!(measured.pages.whole.len())),
        ("rows", json!(rows)),
        ("days", json!(options.days)),
        ("pages_per_s_asked", json!(options.rate)),
        ("connections", json!(options.connections)),
        ("seconds", json!(seconds)),
        ("answers_per_s", json!(answers_per_s)),
        ("ingested_per_s", json!(ingested_per_s)),
        ("freshness", percentiles(&measured.freshness)),
        ("debug_build", json!(cfg!(debug_assertions))),
    ] {
        document.insert(key.to_owned(), value);
    }
    let how = match options.rate > 0.0 {
        true => format!(
            "{} pages a second, times from when each was due",
            options.rate
        ),
        false => format!(
            "{} connections, one statement after the other",
            options.connections
        ),
    };
    let mut table = Table::new(header("question"));
    let mut line = |name: &str, times: &Value| {
        table.row(std::iter::once(name.to_owned()).chain(cells(times)));
    };
    for name in QUESTIONS {
        line(name, &document["questions"][name]);
    }
    line("any", &document["query"]);
    line("all nine of a page", &document["page"]);
    line("until a milestone is seen", &document["freshness"]);
    let text = format!(
        "# Scorecard, {} rows of {} days\n\n{how}; {ingested_per_s:.0} milestones a second streamed in; {seconds:.0} s; {answers_per_s:.0} answers a second, {} errors. Milliseconds.\n\n{}\n![latencies](serve.svg)\n",
        thousands(rows),
        options.days,
        times.errors(),
        table.text(),
    );
    let document = Value::from(document);
    let picture = plot::latencies("Scorecard", &document["questions"], &document["by_second"])?;
    options.results.draw("serve", &picture)?;
    options.results.write("serve", &document, &text)?;
    print!("{text}");
    Ok(())
}
