//! From a Kafka topic to an answer: how fast rows that wait in the topic can be queried, whether that stands still at a commit, and
//! how long a single row takes, on an idle server and beside many others.

use crate::results::{Results, Table, number, thousands};
use crate::target::{Source, Target};
use crate::topics::{self, Sender};
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer;
use serde_json::{Value, json};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use strandline_tests::answer::Cell;
use strandline_tests::client::Client;
use tokio::runtime::Handle;

/// Columns that have an inverted index.
const INVERTED: [&str; 8] = ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"];
/// How often it is asked what can be queried.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two rows of which each is waited for.
const IDLE_EVERY: Duration = Duration::from_millis(50);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// A Kafka broker, as in 127.0.0.1:9092 (`tests/kafka.sh start DIR` makes one)
    #[arg(long, value_name = "HOST:PORT")]
    kafka: String,
    /// Rows in the topic before the table is made
    #[arg(long, default_value_t = 3_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    rows: u64,
    /// Partitions of the topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
    /// Rows at which a segment is sealed
    #[arg(long, default_value_t = 250_000)]
    flush_rows: u64,
    /// Single rows that are waited for, on the idle server
    #[arg(long, default_value_t = 200)]
    singles: u32,
    /// Rows a second that are sent while single rows are waited for again
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    busy_rate: u64,
    /// Rows follow from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    results: Results,
}

/// What was measured.
struct Measured {
    rows: u64,
    bytes: u64,
    seconds: f64,
    /// The longest time in which no further row could be queried.
    standstill: Duration,
    segments: usize,
    peak_bytes: Option<u64>,
    freshness: Histogram<u64>,
    /// The same while other rows are taken in.
    busy: Busy,
}

/// Single rows beside many others.
struct Busy {
    freshness: Histogram<u64>,
    /// Other rows that were sent, a second.
    rate: f64,
}

/// A row of 20 columns and about 500 bytes.
pub fn message(random: &mut StdRng, number: u64) -> Vec<u8> {
    let mut row = serde_json::Map::new();
    row.insert("n".into(), json!(number));
    row.insert("ms".into(), json!(1_700_000_000_000_u64 + number));
    for (at, name) in INVERTED.iter().enumerate() {
        let distinct = [10, 100, 1_000, 20, 50, 200, 500, 5_000][at];
        row.insert(
            (*name).into(),
            json!(format!(
                "dimension-value-{}",
                random.random_range(0..distinct)
            )),
        );
    }
    for at in 0..4 {
        row.insert(format!("i{at}"), json!(random.random_range(0..1_000_000)));
    }
    for at in 0..3 {
        row.insert(
            format!("d{at}"),
            json!(f64::from(random.random_range(0..1_000_000)) / 100.0),
        );
    }
    row.insert(
        "session".into(),
        json!(format!("{:032x}", random.random::<u128>())),
    );
    row.insert(
        "device".into(),
        json!(format!("device-{:016x}", random.random::<u64>())),
    );
    row.insert(
        "page".into(),
        json!(format!(
            "/shop/items/{}/details?from=search&ref=www.example.com&campaign={}",
            number % 10_000,
            number % 77
        )),
    );
    Value::Object(row).to_string().into_bytes()
}

fn schema_json(table: &str) -> String {
    let text = |name: &str| json!({"name": name, "dataType": "STRING"});
    let mut dimensions: Vec<Value> = INVERTED.iter().map(|name| text(name)).collect();
    dimensions.extend(["session", "device", "page"].map(text));
    dimensions.push(json!({"name": "n", "dataType": "LONG"}));
    let ints = (0..4).map(|at| json!({"name": format!("i{at}"), "dataType": "INT"}));
    let doubles = (0..3).map(|at| json!({"name": format!("d{at}"), "dataType": "DOUBLE"}));
    json!({
        "schemaName": table,
        "dimensionFieldSpecs": dimensions,
        "metricFieldSpecs": ints.chain(doubles).collect::<Vec<_>>(),
        "dateTimeFieldSpecs": [
            {"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"},
        ],
    })
    .to_string()
}

fn table_json(table: &str, options: &Options) -> String {
    json!({
        "tableName": table,
        "tableType": "REALTIME",
        "segmentsConfig": {"timeColumnName": "ms", "replication": "1"},
        "tableIndexConfig": {
            "invertedIndexColumns": INVERTED,
            "noDictionaryColumns": ["session", "device", "d0", "d1", "d2"],
        },
        "ingestionConfig": topics::ingestion_config(&options.kafka, table, options.flush_rows),
    })
    .to_string()
}

async fn fill(options: &Options, topic: &str) -> Result<(Sender, u64), Box<dyn Error>> {
    let producer = topics::new_topic(&options.kafka, topic, options.partitions).await?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut bytes = 0;
    for number in 0..options.rows {
        let payload = message(&mut random, number);
        bytes += payload.len() as u64;
        let partition = (number % u64::from(options.partitions)) as u32;
        topics::send(&producer, topic, partition, &payload)?;
    }
    producer.flush(Duration::from_secs(120))?;
    eprintln!(
        "{} rows of {} bytes in the topic",
        thousands(options.rows),
        bytes / options.rows
    );
    Ok((producer, bytes))
}

/// Fills a topic, makes a table of it, and measures until all can be queried; then row by row.
pub async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut target = Target::open(&options.source).await?;
    let table = format!("bench_ingest_{:08x}", rand::random::<u32>());
    let (producer, bytes) = fill(options, &table).await?;
    let measured = measure(options, &mut target, &table, &producer, bytes).await;
    let dropped = target.drop_tables([&table]).await;
    let deleted = topics::delete(&options.kafka, &table).await;
    let measured = measured?;
    dropped?;
    deleted?;
    let text = markdown(options, &measured);
    options
        .results
        .write("ingest", &document(options, &measured), &text)?;
    print!("{text}");
    Ok(())
}

/// The rows that can be queried.
async fn visible(client: &mut Client, table: &str) -> Result<u64, String> {
    let (answer, _) = client.ask(&format!("SELECT count(*) FROM {table}")).await?;
    Ok(match answer.rows[0][0] {
        Cell::Number(digits, 0) => u64::try_from(digits).unwrap_or(0),
        _ => 0,
    })
}

async fn measure(
    options: &Options,
    target: &mut Target,
    table: &str,
    producer: &Sender,
    bytes: u64,
) -> Result<Measured, Box<dyn Error>> {
    let mut client = target.connect().await?;
    let started = Instant::now();
    target
        .create(&schema_json(table), &table_json(table, options))
        .await?;
    let (mut rows, mut moved, mut standstill) = (0, started, Duration::ZERO);
    while rows < options.rows {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = visible(&mut client, table).await?;
        if now > rows {
            // Before the first row the consumers are still connecting.
            if rows > 0 {
                standstill = standstill.max(moved.elapsed());
            }
            (rows, moved) = (now, Instant::now());
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    // A wrong row is no fast row.
    let distinct = format!("SELECT count(DISTINCT n), sum(n) FROM {table}");
    let (answer, _) = client.ask(&distinct).await?;
    let expected = i128::from(options.rows);
    let sum = expected * (expected - 1) / 2;
    if answer.rows[0] != [Cell::Number(expected, 0), Cell::Number(sum, 0)] {
        return Err(format!("{distinct} gave {:?}", answer.rows[0]).into());
    }
    eprintln!("{:.1} s, then single rows", seconds);
    let freshness = singles(options, &mut client, table, producer, options.rows).await?;
    eprintln!("single rows among others");
    let busy = busy(options, &mut client, table, producer).await?;
    let segments = target
        .segments(table)
        .await?
        .iter()
        .filter(|s| !s.consuming)
        .count();
    Ok(Measured {
        rows,
        bytes,
        seconds,
        standstill,
        segments,
        peak_bytes: target.peak_bytes(),
        freshness,
        busy,
    })
}

/// Waits for single rows while others are sent as fast as is asked for.
async fn busy(
    options: &Options,
    client: &mut Client,
    table: &str,
    producer: &Sender,
) -> Result<Busy, Box<dyn Error>> {
    let mut random = StdRng::seed_from_u64(options.seed + 2);
    // Made before, so that making them takes nothing from the server.
    let others: Vec<Vec<u8>> = (0..20_000).map(|n| message(&mut random, n)).collect();
    let ends = AtomicBool::new(false);
    let started = Instant::now();
    let send = || {
        let mut sent = 0_u64;
        while !ends.load(Ordering::Relaxed) {
            let due = (started.elapsed().as_secs_f64() * options.busy_rate as f64) as u64;
            while sent < due {
                let payload = &others[(sent % others.len() as u64) as usize];
                let partition = (sent % u64::from(options.partitions)) as u32;
                topics::send(producer, table, partition, payload)?;
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok::<_, KafkaError>(sent as f64 / started.elapsed().as_secs_f64())
    };
    let (freshness, rate) = std::thread::scope(|scope| {
        let sending = scope.spawn(send);
        let first = options.rows + u64::from(options.singles);
        let singles = singles(options, client, table, producer, first);
        let freshness = tokio::task::block_in_place(|| Handle::current().block_on(singles));
        ends.store(true, Ordering::Relaxed);
        (freshness, sending.join())
    });
    let rate = rate.map_err(|_| "the thread that sends rows ended by a panic")??;
    Ok(Busy {
        freshness: freshness?,
        rate,
    })
}

/// Microseconds from sending a row to the first answer that holds it.
async fn singles(
    options: &Options,
    client: &mut Client,
    table: &str,
    producer: &Sender,
    first: u64,
) -> Result<Histogram<u64>, Box<dyn Error>> {
    let mut random = StdRng::seed_from_u64(options.seed + 1);
    let mut freshness = Histogram::new(3)?;
    for single in 0..options.singles {
        tokio::time::sleep(IDLE_EVERY).await;
        let number = first + u64::from(single);
        let payload = message(&mut random, number);
        let sent = Instant::now();
        topics::send(producer, table, single % options.partitions, &payload)?;
        let sql = format!(
            "SELECT max(n) FROM {table} WHERE ms >= {}",
            1_700_000_000_000_u64 + number
        );
        loop {
            let (answer, _) = client.ask(&sql).await?;
            if matches!(answer.rows[0][0], Cell::Number(..)) {
                break;
            }
            if sent.elapsed() > Duration::from_secs(30) {
                return Err("a row was not there after 30 seconds".into());
            }
        }
        freshness.record(u64::try_from(sent.elapsed().as_micros())?)?;
    }
    Ok(freshness)
}

fn ms(freshness: &Histogram<u64>, percentile: f64) -> f64 {
    freshness.value_at_percentile(percentile) as f64 / 1_000.0
}

fn document(options: &Options, measured: &Measured) -> Value {
    let percentiles = |freshness: &Histogram<u64>| json!({"p50": ms(freshness, 50.0), "p99": ms(freshness, 99.0)});
    json!({
        "rows": measured.rows,
        "bytes_per_row": measured.bytes / measured.rows,
        "partitions": options.partitions,
        "flush_rows": options.flush_rows,
        "seconds": measured.seconds,
        "rows_per_second": measured.rows as f64 / measured.seconds,
        "standstill_ms": measured.standstill.as_secs_f64() * 1_000.0,
        "segments": measured.segments,
        "peak_bytes": measured.peak_bytes,
        "freshness_idle_ms": percentiles(&measured.freshness),
        "freshness_busy_ms": percentiles(&measured.busy.freshness),
        "busy_rows_per_second": measured.busy.rate,
        "debug_build": cfg!(debug_assertions),
    })
}

fn markdown(options: &Options, measured: &Measured) -> String {
    let mut table = Table::new(["what", "measured"]);
    let rate = thousands((measured.rows as f64 / measured.seconds) as u64);
    table.row(["rows/s until all could be queried", &rate]);
    table.row(["seconds", &number(Some(measured.seconds), 1)]);
    let standstill = measured.standstill.as_secs_f64() * 1_000.0;
    table.row(["longest standstill, ms", &number(Some(standstill), 0)]);
    table.row([
        "segments committed meanwhile",
        &measured.segments.to_string(),
    ]);
    let peak = measured
        .peak_bytes
        .map(|bytes| bytes as f64 / f64::from(1 << 20));
    table.row(["the server's largest memory, MiB", &number(peak, 0)]);
    let busy = thousands(measured.busy.rate as u64);
    for (when, freshness) in [
        ("on the idle server".to_owned(), &measured.freshness),
        (format!("beside {busy} rows/s"), &measured.busy.freshness),
    ] {
        for percentile in [50.0, 99.0] {
            let what = format!("freshness of single rows {when}, p{percentile}, ms");
            table.row([&what, &number(Some(ms(freshness, percentile)), 1)]);
        }
    }
    format!(
        "# {} rows that wait in a Kafka topic\n\n\
         JSON of {} bytes and 20 columns, {} partitions, inverted indexes on {}, segments sealed at {} rows; the broker runs on the same machine. \
         From the table's creation until `count(*)` holds all rows, which are checked then; a standstill is a time in which that number did not grow.\n\n{}",
        thousands(measured.rows),
        measured.bytes / measured.rows,
        options.partitions,
        INVERTED.len(),
        thousands(options.flush_rows),
        table.text()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_twenty_columns_and_about_five_hundred_bytes() {
        let mut random = StdRng::seed_from_u64(1);
        let lengths: Vec<usize> = (0..100)
            .map(|n| message(&mut random, n * 31_337).len())
            .collect();
        assert!(
            lengths.iter().all(|len| (430..570).contains(len)),
            "{lengths:?}"
        );
        let row: Value = serde_json::from_slice(&message(&mut random, 5)).unwrap();
        assert_eq!(row.as_object().unwrap().len(), 20);
        let schema: Value = serde_json::from_str(&schema_json("t")).unwrap();
        let columns: usize = [
            "dimensionFieldSpecs",
            "metricFieldSpecs",
            "dateTimeFieldSpecs",
        ]
        .map(|list| schema[list].as_array().unwrap().len())
        .iter()
        .sum();
        assert_eq!(columns, 20);
    }
}
