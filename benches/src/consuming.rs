//! What it costs to ask rows that have just arrived: the same rows as one immutable segment and as one consuming segment.

use crate::ratios::{FLOOR_MS, geometric_mean, ratio};
use crate::results::{Table, number, thousands};
use crate::rows::{difference, of_answer};
use crate::ssb::run::{Timing, check, time};
use crate::ssb::table::{Indexing, offline_json, realtime_json, schema_json};
use crate::ssb::{self, data};
use crate::target::{Source, Target, parquet_files};
use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value, json};
use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use strandline_proto::v1::LoadOptions;

/// Rows of one append.
const APPEND_ROWS: usize = 2_000;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// Rows of the segments, about
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    rows: u64,
    /// Rows follow from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    timing: Timing,
}

/// The two tables, each with one half.
struct Tables {
    immutable: String,
    consuming: String,
}

impl Tables {
    /// Names of this run's own: what a stream holds of an earlier run would be consumed again.
    fn new() -> Self {
        let run: u32 = rand::random();
        Self {
            immutable: format!("bench_immutable_{run:08x}"),
            consuming: format!("bench_consuming_{run:08x}"),
        }
    }
}

/// A statement's times in milliseconds.
struct Line {
    name: &'static str,
    immutable_ms: f64,
    consuming_ms: f64,
}

/// Makes both segments, compares their answers, times each statement on both, writes the results.
pub async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut target = Target::open(&options.source).await?;
    let folder = tempfile::tempdir()?;
    let (file, rows) = one_file(folder.path(), options)?;
    let tables = Tables::new();
    let measured = measure(options, &mut target, &tables, &file, rows).await;
    // Whatever came of it, the tables go; a server that was started for this goes altogether.
    let dropped = target.drop_tables([&tables.immutable, &tables.consuming]);
    let dropped = dropped.await;
    let lines = measured?;
    dropped?;
    let text = markdown(rows, options.timing.runs, &lines);
    let document = document(rows, options.timing.runs, &lines);
    options
        .timing
        .results
        .write("consuming", &document, &text)?;
    print!("{text}");
    Ok(())
}

/// All rows in one file, as one load makes one segment only of one file.
fn one_file(folder: &Path, options: &Options) -> Result<(PathBuf, u64), Box<dyn Error>> {
    let parts = folder.join("parts");
    let scale = options.rows as f64 / data::ROWS_PER_SCALE;
    let (_, rows) = data::generate(&parts, scale, options.seed)?;
    let path = folder.join(format!("{}-all.parquet", ssb::TABLE));
    let mut writer = ArrowWriter::try_new(File::create(&path)?, data::schema(), None)?;
    for part in parquet_files(&parts)? {
        for batch in ParquetRecordBatchReaderBuilder::try_new(File::open(part)?)?.build()? {
            writer.write(&batch?)?;
        }
    }
    writer.close()?;
    Ok((path, rows))
}

/// Rows as JSON messages.
fn messages(batch: &RecordBatch) -> Result<Vec<Vec<u8>>, arrow::error::ArrowError> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    let lines = writer.into_inner();
    let lines = lines.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
    Ok(lines.filter(|line| !line.is_empty()).collect())
}

async fn fill(
    target: &mut Target,
    tables: &Tables,
    file: &Path,
    rows: u64,
) -> Result<(), Box<dyn Error>> {
    let indexing = Indexing::default();
    let offline = offline_json(&tables.immutable, &indexing);
    target
        .create(&schema_json(&tables.immutable), &offline)
        .await?;
    let options = LoadOptions {
        segment_rows_max: rows + 1,
        ..LoadOptions::default()
    };
    target
        .client
        .upload(&tables.immutable, file, options)
        .await?;

    let realtime = realtime_json(&tables.consuming, &indexing, 2 * rows);
    target
        .create(&schema_json(&tables.consuming), &realtime)
        .await?;
    let mut sequence = 0;
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?;
    for batch in reader.with_batch_size(APPEND_ROWS).build()? {
        let messages = messages(&batch?)?;
        let topic = &tables.consuming;
        let appended = target.client.append(topic, 0, &messages, "bench", sequence);
        appended.await?;
        sequence += messages.len() as u64;
    }
    Target::arrived(&mut target.client, &tables.consuming, rows).await?;

    for (table, consuming) in [(&tables.immutable, false), (&tables.consuming, true)] {
        let segments = target.segments(table).await?;
        let is_one = match segments.as_slice() {
            [one] => one.rows == rows && one.consuming == consuming,
            _ => false,
        };
        if !is_one {
            return Err(format!(
                "{table} has {} segments instead of one of {rows} rows; try fewer --rows",
                segments.len()
            )
            .into());
        }
    }
    Ok(())
}

async fn measure(
    options: &Options,
    target: &mut Target,
    tables: &Tables,
    file: &Path,
    rows: u64,
) -> Result<Vec<Line>, Box<dyn Error>> {
    fill(target, tables, file, rows).await?;
    let folder = file.parent().ok_or("a file without a folder")?;
    let mut peers = options.timing.peers.start(folder, rows)?;
    for (name, sql) in ssb::queries() {
        let immutable = ssb::over(sql, &tables.immutable);
        check(target, &mut peers, name, &immutable, sql).await?;
        let (of_immutable, _) = target.client.ask(&immutable).await?;
        let consuming = ssb::over(sql, &tables.consuming);
        let (of_consuming, _) = target.client.ask(&consuming).await?;
        let (a, b) = (of_answer(&of_consuming), of_answer(&of_immutable));
        if let Some(difference) = difference(&a, &b) {
            return Err(format!(
                "{name} on the consuming segment differs from the immutable one's: {difference}: {sql}"
            )
            .into());
        }
    }
    drop(peers);
    eprintln!("{rows} rows, all answers agree");
    let mut lines = Vec::new();
    for (name, sql) in ssb::queries() {
        let immutable_ms = time(
            target,
            &ssb::over(sql, &tables.immutable),
            options.timing.runs,
        )
        .await?
        .ms;
        let consuming_ms = time(
            target,
            &ssb::over(sql, &tables.consuming),
            options.timing.runs,
        )
        .await?
        .ms;
        eprintln!("{name:>5} {immutable_ms:9.2} ms, consuming {consuming_ms:9.2} ms");
        lines.push(Line {
            name,
            immutable_ms,
            consuming_ms,
        });
    }
    Ok(lines)
}

impl Line {
    fn ratio(&self) -> f64 {
        ratio(self.consuming_ms, self.immutable_ms)
    }
}

fn document(rows: u64, runs: u32, lines: &[Line]) -> Value {
    let query = |line: &Line| {
        let document = json!({
            "immutable_ms": line.immutable_ms,
            "consuming_ms": line.consuming_ms,
            "ratio": line.ratio(),
        });
        (line.name.to_owned(), document)
    };
    json!({
        "rows": rows,
        "runs": runs,
        "floor_ms": FLOOR_MS,
        "geometric_mean_ratio": geometric_mean(lines.iter().map(Line::ratio)),
        "debug_build": cfg!(debug_assertions),
        "queries": lines.iter().map(query).collect::<Map<_, _>>(),
    })
}

fn markdown(rows: u64, runs: u32, lines: &[Line]) -> String {
    let mut table = Table::new(["query", "immutable", "consuming", "ratio"]);
    for line in lines {
        let times = [line.immutable_ms, line.consuming_ms, line.ratio()];
        let cells = times.map(|value| number(Some(value), 2));
        table.row(std::iter::once(line.name.to_owned()).chain(cells));
    }
    let mean = geometric_mean(lines.iter().map(Line::ratio));
    table.row(["mean of ratios", "", "", &number(mean, 2)]);
    format!(
        "# One consuming segment beside the same rows as one immutable segment, {} rows\n\n\
         The Star Schema Benchmark's statements over gRPC; median of {runs} after the first, milliseconds. \
         The ratio is the consuming segment's time by the immutable one's, times below {FLOOR_MS} ms taken for {FLOOR_MS} ms; the mean is geometric.\n\n{}",
        thousands(rows),
        table.text()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_consuming_segments_time_by_the_immutable_ones() {
        let line = |name, immutable_ms, consuming_ms| Line {
            name,
            immutable_ms,
            consuming_ms,
        };
        let lines = [line("Q1.1", 2.0, 8.0), line("P1", 0.1, 0.4)];
        let document = document(10, 7, &lines);
        assert_eq!(document["rows"], 10);
        assert_eq!(document["queries"]["Q1.1"]["ratio"], 4.0);
        assert_eq!(document["queries"]["P1"]["ratio"], 1.0);
        let mean = document["geometric_mean_ratio"].as_f64().unwrap();
        assert!((mean - 2.0).abs() < 1e-12);
        let text = markdown(10, 7, &lines);
        assert!(text.contains("| Q1.1 | 2.00 | 8.00 | 4.00 |"), "{text}");
    }

    #[test]
    fn each_row_is_one_message() {
        let folder = tempfile::tempdir().unwrap();
        let (files, rows) = data::generate(folder.path(), 0.002, 1).unwrap();
        let mut all = Vec::new();
        for file in files {
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap());
            for batch in reader.unwrap().build().unwrap() {
                all.extend(messages(&batch.unwrap()).unwrap());
            }
        }
        assert_eq!(all.len() as u64, rows);
        let first: Value = serde_json::from_slice(&all[0]).unwrap();
        assert_eq!(first["lo_orderdate"], 19_920_101);
        assert_eq!(first.as_object().unwrap().len(), 30);
    }
}
