//! The benchmark's statements on Strandline and on DuckDB, one after the other in the same run.

use crate::peer::Peer;
use crate::rows::{difference, of_answer};
use crate::ssb;
use crate::target::{Source, Target, parquet_files};
use serde_json::{Value, json};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What to run on what.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// The folder that `ssb generate` wrote
    #[arg(long)]
    files: PathBuf,
    /// Timed runs of each statement, after one that is not
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// A Python that has duckdb
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The folder for ssb.json and ssb.md
    #[arg(long, default_value = "benches/results")]
    out: PathBuf,
}

struct Line {
    name: &'static str,
    ours_ms: f64,
    peer_ms: f64,
    difference: Option<String>,
    cached: bool,
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Loads the table when it is not there, runs every statement, writes the results.
pub async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut target = Target::open(&options.source).await?;
    if target.rows("lineorder").await.unwrap_or(0) == 0 {
        let files = parquet_files(&options.files)?;
        let loaded = target
            .load("lineorder", &ssb::schema_json(), &ssb::table_json(), &files)
            .await?;
        eprintln!(
            "Strandline loaded {} rows in {:.1} s",
            loaded.rows,
            loaded.elapsed.as_secs_f64()
        );
    }
    let rows = target.rows("lineorder").await.ok_or("no table lineorder")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("duckdb_ssb.py");
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut peer = Peer::start(&options.python, &script, &options.files, threads)?;
    let mut lines = Vec::new();
    for (name, sql) in ssb::queries() {
        let line = measure(&mut target, &mut peer, name, sql, options.runs).await?;
        eprintln!(
            "{name:>5} {:9.2} ms, DuckDB {:9.2} ms, ratio {:6.2}{}",
            line.ours_ms,
            line.peer_ms,
            line.ours_ms / line.peer_ms,
            line.difference
                .as_ref()
                .map_or(String::new(), |d| format!("  WRONG: {d}"))
        );
        lines.push(line);
    }
    write_results(&options.out, rows, options.runs, &lines)?;
    if lines.iter().any(|line| line.difference.is_some()) {
        return Err("answers differ from DuckDB's".into());
    }
    Ok(())
}

async fn measure(
    target: &mut Target,
    peer: &mut Peer,
    name: &'static str,
    sql: &str,
    runs: usize,
) -> Result<Line, Box<dyn Error>> {
    let (answer, _) = target.client.ask(sql).await?;
    let mut times = Vec::new();
    let mut cached = false;
    for _ in 0..runs {
        let start = Instant::now();
        let (_, statistics) = target.client.ask(sql).await?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        cached = statistics.plan_cached;
    }
    let theirs = peer.ask(sql, runs)?;
    Ok(Line {
        name,
        ours_ms: median(times),
        peer_ms: median(theirs.times_ms),
        difference: difference(&of_answer(&answer), &theirs.rows),
        cached,
    })
}

fn write_results(
    out: &Path,
    rows: i128,
    runs: usize,
    lines: &[Line],
) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(out)?;
    let logs: f64 = lines.iter().map(|l| (l.ours_ms / l.peer_ms).ln()).sum();
    let mean = (logs / lines.len() as f64).exp();
    let queries: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "query": line.name,
                "strandline_ms": line.ours_ms,
                "duckdb_ms": line.peer_ms,
                "ratio": line.ours_ms / line.peer_ms,
                "plan_cached": line.cached,
                "difference": line.difference,
            })
        })
        .collect();
    let document = json!({
        "rows": rows as u64,
        "runs": runs,
        "geometric_mean_ratio": mean,
        "debug_build": cfg!(debug_assertions),
        "queries": queries,
    });
    std::fs::write(out.join("ssb.json"), format!("{document:#}\n"))?;
    let mut text = format!(
        "# Star Schema Benchmark, flat, {rows} rows\n\nStrandline over gRPC and DuckDB in process, one statement at a time in the same run; median of {runs} after the first, milliseconds.\n\n| query | Strandline | DuckDB | ratio |\n|---|---|---|---|\n"
    );
    for line in lines {
        writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.2} |",
            line.name,
            line.ours_ms,
            line.peer_ms,
            line.ours_ms / line.peer_ms
        )?;
    }
    writeln!(text, "\nGeometric mean of the ratios: {mean:.2}")?;
    std::fs::write(out.join("ssb.md"), text)?;
    eprintln!(
        "geometric mean of the ratios: {mean:.2}; written to {}",
        out.display()
    );
    Ok(())
}
