//! The benchmark's statements on Strandline and on its peers, one after the other in the same run.

use crate::peer::{Engine, Peer};
use crate::rows::{difference, of_answer};
use crate::ssb;
use crate::target::{Source, Target, parquet_files};
use serde_json::{Map, Value, json};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Times below this are taken for it in ratios, in milliseconds: what is left then is the call.
const FLOOR_MS: f64 = 0.5;

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
    /// The engines to compare with
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Engine::Duckdb])]
    peers: Vec<Engine>,
    /// A Python that has the peers: duckdb, chdb, datafusion
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The folder for ssb.json and ssb.md
    #[arg(long, default_value = "benches/results")]
    out: PathBuf,
}

struct Line {
    name: &'static str,
    ours_ms: f64,
    peers: Vec<PeerTime>,
    cached: bool,
}

struct PeerTime {
    engine: Engine,
    ms: f64,
    difference: Option<String>,
}

impl Line {
    /// The fastest peer's time.
    fn best_ms(&self) -> f64 {
        self.peers
            .iter()
            .map(|p| p.ms)
            .fold(f64::INFINITY, f64::min)
    }

    fn is_wrong(&self) -> bool {
        self.peers.iter().any(|p| p.difference.is_some())
    }
}

/// Our time as a part of a peer's.
fn ratio(ours_ms: f64, peer_ms: f64) -> f64 {
    ours_ms.max(FLOOR_MS) / peer_ms.max(FLOOR_MS)
}

fn geometric_mean(ratios: impl Iterator<Item = f64>) -> f64 {
    let logs: Vec<f64> = ratios.map(f64::ln).collect();
    (logs.iter().sum::<f64>() / logs.len() as f64).exp()
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
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut peers = Vec::new();
    for &engine in &options.peers {
        peers.push(Peer::start(
            engine,
            &options.python,
            &options.files,
            threads,
        )?);
    }
    let mut lines = Vec::new();
    for (name, sql) in ssb::queries() {
        let line = measure(&mut target, &mut peers, name, sql, options.runs).await?;
        let mut text = format!("{name:>5} {:9.2} ms", line.ours_ms);
        for peer in &line.peers {
            write!(text, ", {} {:9.2} ms", peer.engine.name(), peer.ms)?;
            if let Some(difference) = &peer.difference {
                write!(text, "  WRONG: {difference}")?;
            }
        }
        eprintln!("{text}, ratio {:6.2}", ratio(line.ours_ms, line.best_ms()));
        lines.push(line);
    }
    write_results(&options.out, rows, options.runs, &peers, &lines)?;
    if lines.iter().any(Line::is_wrong) {
        return Err("answers differ from a peer's; see WRONG above".into());
    }
    Ok(())
}

async fn measure(
    target: &mut Target,
    peers: &mut [Peer],
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
    let ours = of_answer(&answer);
    let mut compared = Vec::new();
    for peer in peers {
        let theirs = peer.ask(sql, runs)?;
        compared.push(PeerTime {
            engine: peer.engine,
            ms: median(theirs.times_ms),
            difference: difference(&ours, &theirs.rows),
        });
    }
    Ok(Line {
        name,
        ours_ms: median(times),
        peers: compared,
        cached,
    })
}

fn write_results(
    out: &Path,
    rows: i128,
    runs: usize,
    peers: &[Peer],
    lines: &[Line],
) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(out)?;
    let mean = geometric_mean(lines.iter().map(|l| ratio(l.ours_ms, l.best_ms())));
    let mut queries = Map::new();
    for line in lines {
        let times: Map<String, Value> = line
            .peers
            .iter()
            .map(|p| (p.engine.key().to_owned(), json!(p.ms)))
            .collect();
        let document = json!({
            "strandline_ms": line.ours_ms,
            "peers_ms": times,
            "ratio_to_best": ratio(line.ours_ms, line.best_ms()),
            "plan_cached": line.cached,
        });
        queries.insert(line.name.to_owned(), document);
    }
    let versions: Map<String, Value> = peers
        .iter()
        .map(|p| (p.engine.key().to_owned(), json!(p.version)))
        .collect();
    let document = json!({
        "rows": rows as u64,
        "runs": runs,
        "peers": versions,
        "geometric_mean_ratio_to_best": mean,
        "answers_agree": !lines.iter().any(Line::is_wrong),
        "debug_build": cfg!(debug_assertions),
        "queries": queries,
    });
    std::fs::write(out.join("ssb.json"), format!("{document:#}\n"))?;
    let named: Vec<String> = peers
        .iter()
        .map(|p| format!("{} {}", p.engine.name(), p.version))
        .collect();
    let mut text = format!(
        "# Star Schema Benchmark, flat, {rows} rows\n\nStrandline over gRPC, in process {}; one statement at a time in the same run; median of {runs} after the first, milliseconds.\nThe ratio is Strandline's time by that of the fastest peer for the statement, times below {FLOOR_MS} ms taken for {FLOOR_MS} ms.\n\n| query | Strandline |",
        named.join(", ")
    );
    for peer in peers {
        write!(text, " {} |", peer.engine.name())?;
    }
    writeln!(
        text,
        " ratio |\n|---|---|{}---|",
        "---|".repeat(peers.len())
    )?;
    for line in lines {
        write!(text, "| {} | {:.2} |", line.name, line.ours_ms)?;
        for peer in &line.peers {
            write!(text, " {:.2} |", peer.ms)?;
        }
        writeln!(text, " {:.2} |", ratio(line.ours_ms, line.best_ms()))?;
    }
    writeln!(text, "\nGeometric mean of the ratios: {mean:.2}")?;
    std::fs::write(out.join("ssb.md"), text)?;
    eprintln!(
        "geometric mean of the ratios: {mean:.2}; written to {}",
        out.display()
    );
    Ok(())
}
