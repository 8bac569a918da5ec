//! A table with upsert: how fast rows of many keys that wait in a Kafka topic are taken in, what memory that takes, and how
//! long the server takes to answer again after it was killed.

use crate::results::{Results, Table, number, thousands};
use crate::target::{Source, Target};
use crate::topics;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::producer::Producer;
use serde_json::{Value, json};
use std::error::Error;
use std::time::{Duration, Instant};
use strandline_tests::answer::Cell;
use strandline_tests::client::Client;

/// How often it is asked what was taken in.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// A Kafka broker, as in 127.0.0.1:9092 (`tests/kafka.sh start DIR` makes one)
    #[arg(long, value_name = "HOST:PORT")]
    kafka: String,
    /// Keys, of which each comes once
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    keys: u64,
    /// Rows behind those, each of a key drawn at random
    #[arg(long, default_value_t = 2_000_000)]
    updates: u64,
    /// Partitions of the topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
    /// Rows at which a segment is sealed
    #[arg(long, default_value_t = 500_000)]
    flush_rows: u64,
    /// Rows follow from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    results: Results,
}

struct Measured {
    bytes: u64,
    first: Duration,
    all: Duration,
    peak_bytes: Option<u64>,
    restart: Option<Duration>,
    restart_peak_bytes: Option<u64>,
}

fn schema_json(table: &str) -> String {
    json!({
        "schemaName": table,
        "primaryKeyColumns": ["k"],
        "dimensionFieldSpecs": [{"name": "k", "dataType": "STRING"}, {"name": "state", "dataType": "STRING"}],
        "metricFieldSpecs": [{"name": "n", "dataType": "LONG"}],
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
        "upsertConfig": {"mode": "FULL", "comparisonColumns": ["ms"]},
        "tableIndexConfig": {"noDictionaryColumns": ["k"]},
        "ingestionConfig": topics::ingestion_config(&options.kafka, table, options.flush_rows),
    })
    .to_string()
}

/// A row: keys have 36 characters.
fn message(key: u64, number: u64) -> Vec<u8> {
    let key = format!("order-{:030}", key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let state = ["new", "paid", "sent", "gone"][(number % 4) as usize];
    json!({
        "k": key,
        "state": state,
        "n": number,
        "ms": 1_700_000_000_000_u64 + number,
    })
    .to_string()
    .into_bytes()
}

/// Fills a topic, makes a table of it, measures, kills the server and measures again.
pub async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut target = Target::open(&options.source).await?;
    let table = format!("bench_upsert_{:08x}", rand::random::<u32>());
    let measured = measure(options, &mut target, &table).await;
    let dropped = target.drop_tables([&table]).await;
    let deleted = topics::delete(&options.kafka, &table).await;
    let measured = measured?;
    dropped?;
    deleted?;
    let text = markdown(options, &measured);
    options
        .results
        .write("upsert", &document(options, &measured), &text)?;
    print!("{text}");
    Ok(())
}

async fn one(client: &mut Client, sql: &str) -> Result<Vec<Cell>, String> {
    let (mut answer, _) = client.ask(sql).await?;
    Ok(answer.rows.swap_remove(0))
}

async fn measure(
    options: &Options,
    target: &mut Target,
    table: &str,
) -> Result<Measured, Box<dyn Error>> {
    let producer = topics::new_topic(&options.kafka, table, options.partitions).await?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let rows = options.keys + options.updates;
    let (mut bytes, mut sum) = (0, 0_i128);
    let mut newest = vec![0_u32; usize::try_from(options.keys)?];
    for n in 0..rows {
        let key = match n < options.keys {
            true => n,
            false => random.random_range(0..options.keys),
        };
        if let Some(newest) = newest.get_mut(usize::try_from(key)?) {
            sum += i128::from(n) - i128::from(*newest);
            *newest = u32::try_from(n)?;
        }
        let payload = message(key, n);
        bytes += payload.len() as u64;
        let partition = (n % u64::from(options.partitions)) as u32;
        topics::send(&producer, table, partition, &payload)?;
    }
    producer.flush(Duration::from_secs(120))?;
    drop(newest);
    eprintln!(
        "{} rows of {} bytes in the topic",
        thousands(rows),
        bytes / rows
    );
    let mut client = target.connect().await?;
    let started = Instant::now();
    target
        .create(&schema_json(table), &table_json(table, options))
        .await?;
    let all_rows = format!("SET skipUpsert = true; SELECT count(*) FROM {table}");
    let mut first = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let taken = match one(&mut client, &all_rows).await?.first() {
            Some(Cell::Number(taken, 0)) => *taken,
            _ => 0,
        };
        if first.is_none() && taken >= i128::from(options.keys) {
            first = Some(started.elapsed());
        }
        if taken >= i128::from(rows) {
            break;
        }
    }
    let all = started.elapsed();
    let sql = format!("SELECT count(*), sum(n) FROM {table}");
    let expected = [Cell::Number(options.keys.into(), 0), Cell::Number(sum, 0)];
    let counted = one(&mut client, &sql).await?;
    if counted != expected {
        return Err(format!("{sql} gave {counted:?}, not {expected:?}").into());
    }
    let peak_bytes = target.peak_bytes();
    eprintln!("{:.1} s, then a restart", all.as_secs_f64());
    let killed = Instant::now();
    let restart = match target.restart().await? {
        true => {
            let mut client = target.connect().await?;
            // Consuming segments are read again.
            loop {
                let counted = one(&mut client, &sql).await?;
                if counted == expected {
                    break Some(killed.elapsed());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        false => None,
    };
    Ok(Measured {
        bytes,
        first: first.unwrap_or(all),
        all,
        peak_bytes,
        restart,
        restart_peak_bytes: restart.and_then(|_| target.peak_bytes()),
    })
}

fn rate(rows: u64, time: Duration) -> f64 {
    rows as f64 / time.as_secs_f64()
}

fn document(options: &Options, measured: &Measured) -> Value {
    let rows = options.keys + options.updates;
    json!({
        "keys": options.keys,
        "rows": rows,
        "bytes_per_row": measured.bytes / rows,
        "partitions": options.partitions,
        "flush_rows": options.flush_rows,
        "new_keys_per_second": rate(options.keys, measured.first),
        "rows_per_second": rate(rows, measured.all),
        "seconds": measured.all.as_secs_f64(),
        "peak_bytes": measured.peak_bytes,
        "restart_seconds": measured.restart.map(|r| r.as_secs_f64()),
        "restart_peak_bytes": measured.restart_peak_bytes,
        "debug_build": cfg!(debug_assertions),
    })
}

fn markdown(options: &Options, measured: &Measured) -> String {
    let rows = options.keys + options.updates;
    let mib = |bytes: Option<u64>| number(bytes.map(|b| b as f64 / f64::from(1 << 20)), 0);
    let mut table = Table::new(["what", "measured"]);
    let new = thousands(rate(options.keys, measured.first) as u64);
    table.row(["rows/s while each is of a new key", &new]);
    let all = thousands(rate(rows, measured.all) as u64);
    table.row(["rows/s, updates included", &all]);
    table.row([
        "the server's largest memory, MiB",
        &mib(measured.peak_bytes),
    ]);
    let restart = measured.restart.map(|restart| restart.as_secs_f64());
    table.row(["killed to the whole answer, s", &number(restart, 1)]);
    table.row([
        "its largest memory then, MiB",
        &mib(measured.restart_peak_bytes),
    ]);
    format!(
        "# {} rows of {} keys that wait in a Kafka topic\n\n\
         JSON of {} bytes, upsert by a text of 36 bytes with a comparison column, {} partitions, segments sealed at {} rows; the broker runs on the \
         same machine. All rows are in when they are counted without regard to keys; then keys and a sum over the newest rows are checked, before and after \
         the restart.\n\n{}",
        thousands(rows),
        thousands(options.keys),
        measured.bytes / rows,
        options.partitions,
        thousands(options.flush_rows),
        table.text()
    )
}
