//! The keys of a table by themselves: rows of so many keys from memory, without a server or a stream, and the store of keys
//! opened again.

use crate::results::{Results, Table, number, thousands};
use crate::target;
use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strandline_proto::ids::{SegmentName, StreamPartition};
use strandline_proto::schema::Schema;
use strandline_storage::config::{TableConfig, parse_schema, parse_table};
use strandline_storage::keys::{CommittedSegment, KeyStore, PlaceReader, TableKeys};
use strandline_storage::segment::SegmentReader;
use strandline_storage::segment::consuming::ConsumingSegment;

/// Rows that come together.
const BATCH_ROWS: u64 = 8_192;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rows, each of a key of its own
    #[arg(long, default_value_t = 50_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    rows: u64,
    /// Characters of a key
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(20..=1_000))]
    key_bytes: u64,
    /// Rows of a segment, whose keys go to disk when it is full
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    segment_rows: u64,
    /// MiB of memory for what the store has read
    #[arg(long, default_value_t = 512)]
    cache_mib: u64,
    /// The folder to put the store in; a temporary one unless given
    #[arg(long)]
    folder: Option<std::path::PathBuf>,
    #[command(flatten)]
    results: Results,
}

struct Measured {
    seconds: f64,
    /// Rows of keys that were there.
    again: (u64, f64),
    disk_bytes: u64,
    peak_bytes: Option<u64>,
    opened: Duration,
    opened_peak_bytes: Option<u64>,
}

/// No row is read that came earlier.
struct NoPlaces;

impl PlaceReader for NoPlaces {
    fn segment(
        &self,
        name: &SegmentName,
        _: &Schema,
    ) -> strandline_proto::Result<Arc<dyn SegmentReader>> {
        Err(strandline_proto::Error::internal(format!(
            "segment {name} is not needed"
        )))
    }
}

fn config() -> Result<Arc<TableConfig>, Box<dyn Error>> {
    let schema = json!({
        "schemaName": "t",
        "primaryKeyColumns": ["k"],
        "dimensionFieldSpecs": [{"name": "k", "dataType": "STRING"}],
        "dateTimeFieldSpecs": [
            {"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"},
        ],
    });
    let table = json!({
        "tableName": "t",
        "tableType": "REALTIME",
        "segmentsConfig": {"timeColumnName": "ms"},
        "upsertConfig": {"mode": "FULL", "comparisonColumns": ["ms"]},
        "tableIndexConfig": {"noDictionaryColumns": ["k", "ms"]},
        "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [{"streamType": "log", "stream.log.topic.name": "t"}]}},
    });
    let (schema, _) = parse_schema(&schema.to_string(), 1)?;
    let (config, _) = parse_table(&table.to_string(), &Arc::new(schema))?;
    Ok(Arc::new(config))
}

/// Has the largest memory count from now on.
fn forget_peak() {
    // Where it can't be done, the figure is the whole process's.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn folder_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => folder_bytes(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

fn batch(
    schema: &Schema,
    keys: std::ops::Range<u64>,
    at: u64,
    key_bytes: u64,
) -> Result<RecordBatch, Box<dyn Error>> {
    let width = key_bytes as usize;
    let text = |key: u64| format!("{:0width$}", key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let column = |name: &str| -> ArrayRef {
        match name {
            "k" => Arc::new(StringArray::from_iter_values(keys.clone().map(text))),
            _ => Arc::new(Int64Array::from_iter_values(
                keys.clone()
                    .map(|key| (1_700_000_000_000 + at + key) as i64),
            )),
        }
    };
    let columns = schema.columns.iter().map(|c| column(&c.name));
    Ok(RecordBatch::try_new(schema.arrow(), columns.collect())?)
}

/// Rows for one table, from one partition.
struct Taking {
    config: Arc<TableConfig>,
    partition: StreamPartition,
    keys: TableKeys,
    segments: Vec<SegmentName>,
    offset: u64,
}

impl Taking {
    /// Takes in a row of each of `keys`; segments are let go once their keys are on disk.
    fn take(
        &mut self,
        keys: std::ops::Range<u64>,
        options: &Options,
    ) -> Result<(), Box<dyn Error>> {
        let mut next = keys.start;
        while next < keys.end {
            let name = format!("s{}", self.segments.len());
            let spec = Arc::clone(&self.config.spec);
            let segment = ConsumingSegment::new(&name, spec, self.partition.clone(), self.offset)?;
            let end = keys.end.min(next + options.segment_rows);
            while next < end {
                let rows = next..end.min(next + BATCH_ROWS);
                let count = rows.end - rows.start;
                next = rows.end;
                let schema = &self.config.spec.schema;
                let batch = batch(schema, rows, self.offset, options.key_bytes)?;
                let offsets: Vec<u64> = (self.offset..self.offset + count).collect();
                self.offset += count;
                let rows = (&batch, &offsets[..], self.offset);
                self.keys.append(&segment, 0, rows, &NoPlaces)?;
            }
            self.keys.settle(segment.name(), &*segment.view(), 0)?;
            self.segments.push(segment.name().clone());
        }
        Ok(())
    }
}

/// Measures.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let temporary;
    let folder = match &options.folder {
        Some(folder) => folder.clone(),
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().join("keys")
        }
    };
    if folder.exists() {
        return Err(format!("{} is there already", folder.display()).into());
    }
    let measured = measure(options, &folder)?;
    let text = markdown(options, &measured);
    options
        .results
        .write("keys", &document(options, &measured), &text)?;
    print!("{text}");
    Ok(())
}

fn measure(options: &Options, folder: &Path) -> Result<Measured, Box<dyn Error>> {
    let config = config()?;
    let of_keys = config.keys.clone().ok_or("a table without keys")?;
    let cache = options.cache_mib << 20;
    let open_store = || KeyStore::open(folder, cache, [7; 16]).map(Arc::new);
    let schema = Arc::clone(&config.spec.schema);
    let partition = StreamPartition {
        stream: Arc::from("log"),
        topic: Arc::from("t"),
        partition: 0,
    };
    let open = |store: &Arc<KeyStore>, segments: &[CommittedSegment]| {
        TableKeys::open(store, ("t", &schema), &of_keys, segments, |_| 0)
    };
    let store = open_store()?;
    let mut table = Taking {
        keys: open(&store, &[])?,
        config: Arc::clone(&config),
        partition: partition.clone(),
        segments: Vec::new(),
        offset: 0,
    };
    forget_peak();
    let started = Instant::now();
    table.take(0..options.rows, options)?;
    let seconds = started.elapsed().as_secs_f64();
    let again = options.rows / 10;
    let started = Instant::now();
    table.take(0..again, options)?;
    let again = (again, started.elapsed().as_secs_f64());
    let superseded: u64 = (table.segments.iter())
        .filter_map(|name| table.keys.docs(name))
        .map(|docs| docs.superseded())
        .sum();
    if superseded != again.0 {
        return Err(format!("{superseded} rows do not count, not {}", again.0).into());
    }
    let peak_bytes = target::peak_bytes(std::process::id());
    let segments = std::mem::take(&mut table.segments);
    drop((table, store));
    let disk_bytes = folder_bytes(folder)?;
    forget_peak();
    // What is whole on disk is not read from segments.
    let spec = Arc::clone(&config.spec);
    let empty = ConsumingSegment::new("none", spec, partition, 0)?.view();
    let readers: Vec<_> = (segments.iter())
        .map(|name| (name.clone(), Some(Arc::clone(&empty))))
        .collect();
    let started = Instant::now();
    let store = open_store()?;
    let keys = open(&store, &readers)?;
    let opened = started.elapsed();
    let restored: u64 = (segments.iter())
        .filter_map(|name| keys.docs(name))
        .map(|docs| docs.superseded())
        .sum();
    if restored != superseded {
        return Err(format!("opened again, {restored} rows do not count, not {superseded}").into());
    }
    Ok(Measured {
        seconds,
        again,
        disk_bytes,
        peak_bytes,
        opened,
        opened_peak_bytes: target::peak_bytes(std::process::id()),
    })
}

fn document(options: &Options, measured: &Measured) -> Value {
    json!({
        "rows": options.rows,
        "key_bytes": options.key_bytes,
        "segment_rows": options.segment_rows,
        "cache_bytes": options.cache_mib << 20,
        "seconds": measured.seconds,
        "rows_per_second": options.rows as f64 / measured.seconds,
        "known_keys_rows": measured.again.0,
        "known_keys_rows_per_second": measured.again.0 as f64 / measured.again.1,
        "disk_bytes": measured.disk_bytes,
        "peak_bytes": measured.peak_bytes,
        "open_seconds": measured.opened.as_secs_f64(),
        "open_peak_bytes": measured.opened_peak_bytes,
        "debug_build": cfg!(debug_assertions),
    })
}

fn markdown(options: &Options, measured: &Measured) -> String {
    let mib = |bytes: Option<u64>| number(bytes.map(|b| b as f64 / f64::from(1 << 20)), 0);
    let rate = |rows: u64, seconds: f64| thousands((rows as f64 / seconds) as u64);
    let mut table = Table::new(["what", "measured"]);
    table.row(["rows/s, new keys", &rate(options.rows, measured.seconds)]);
    let (rows, seconds) = measured.again;
    table.row(["rows/s, keys that are there", &rate(rows, seconds)]);
    table.row(["largest memory, MiB", &mib(measured.peak_bytes)]);
    table.row(["on disk, MiB", &mib(Some(measured.disk_bytes))]);
    let opened = measured.opened.as_secs_f64();
    table.row(["opened again, s", &number(Some(opened), 2)]);
    table.row(["largest memory then, MiB", &mib(measured.opened_peak_bytes)]);
    format!(
        "# {} keys of {} characters, without a server\n\n\
         One thread makes rows, appends them to segments of {} rows and has the table's keys take them in, in memory first and on disk when a segment is \
         full, waiting for that; a tenth of the keys comes again. The store may keep {} MiB of what it has read.\n\n{}",
        thousands(options.rows),
        options.key_bytes,
        thousands(options.segment_rows),
        options.cache_mib,
        table.text()
    )
}
