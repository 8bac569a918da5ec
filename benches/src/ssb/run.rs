//! The statements on Strandline and on its peers, one after the other in the same run.

use super::report::Report;
use super::table::TableOptions;
use crate::load::Loaded;
use crate::peer::{Peer, PeerOptions, PinotOptions};
use crate::plot;
use crate::ratios::{median, ratio};
use crate::results::{Results, thousands};
use crate::rows::{difference, of_answer};
use crate::target::{Target, files_bytes, parquet_files};
use std::error::Error;
use std::fmt::Write as _;
use std::time::Instant;

/// What to run on what.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    table: TableOptions,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    pinot: PinotOptions,
}

/// How often statements are timed, beside whom, and where the figures go.
#[derive(Clone, Debug, clap::Args)]
pub struct Timing {
    /// Timed runs of each statement, after one that is not
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "its text would be shown in place of its options'"
    )]
    pub peers: PeerOptions,
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "its text would be shown in place of its options'"
    )]
    pub results: Results,
}

/// A statement's times, each the median of its runs.
#[derive(Clone, Debug)]
pub struct Line {
    /// The statement's name.
    pub name: String,
    /// Strandline's.
    pub ours: Timed,
    /// The peers', in their order.
    pub peers_ms: Vec<f64>,
}

/// What a statement took on Strandline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timed {
    /// From the request to the whole answer over gRPC, in milliseconds.
    pub ms: f64,
    /// The part of it within the process, as the statistics tell it: from the statement's text to its last rows.
    pub in_process_ms: f64,
    /// Whether the last run's plan was a kept one.
    pub plan_cached: bool,
    /// Segments that star-trees answered for.
    pub star_tree_segments: u64,
}

impl Line {
    /// Strandline's time by the fastest peer's.
    pub fn ratio_to_best(&self) -> f64 {
        let best = self.peers_ms.iter().copied().fold(f64::INFINITY, f64::min);
        ratio(self.ours.ms, best)
    }
}

/// Loads the table when it is not there, compares every answer, times every statement, writes the results.
pub async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if options.timing.peers.is_empty() && options.pinot.is_empty() {
        return Err("name a peer: answers are checked and times compared with it".into());
    }
    let (mut target, loaded) = options.table.open(&[]).await?;
    let mut peers = options
        .timing
        .peers
        .start(&options.table.files, loaded.rows)?;
    if let Some(pinot) = options.pinot.connect(loaded.rows)? {
        peers.push(Box::new(pinot));
    }
    for (name, sql) in super::queries() {
        check(&mut target, &mut peers, name, sql, sql).await?;
    }
    eprintln!("all answers agree");
    let mut lines = Vec::new();
    for (name, sql) in super::queries() {
        let line = measure(&mut target, &mut peers, name, sql, options.timing.runs).await?;
        let mut text = format!("{name:>5} {:9.2} ms", line.ours.ms);
        for (peer, ms) in peers.iter().zip(&line.peers_ms) {
            write!(text, ", {} {ms:9.2} ms", peer.key())?;
        }
        eprintln!("{text}, ratio {:6.2}", line.ratio_to_best());
        lines.push(line);
    }
    let loads: Vec<(&'static str, String, Loaded)> = peers
        .iter()
        .filter_map(|peer| Some((peer.key(), peer.title(), peer.loaded()?)))
        .collect();
    let report = Report {
        rows: loaded.rows,
        runs: options.timing.runs,
        peers: peers
            .iter()
            .map(|peer| (peer.key(), peer.title(), peer.version().to_owned()))
            .collect(),
        loaded,
        loads,
        parquet_bytes: files_bytes(parquet_files(&options.table.files)?)?,
        lines,
    };
    let results = &options.timing.results;
    let ratios = |line: &Line| (line.name.clone(), line.ratio_to_best());
    let bars: Vec<(String, f64)> = report.lines.iter().map(ratios).collect();
    let title = format!(
        "Star Schema Benchmark, flat, {} rows",
        thousands(report.rows)
    );
    results.draw("ssb", &plot::ratios(&title, &bars)?)?;
    results.write("ssb", &report.document(), &report.markdown())?;
    results.write("load", &report.load_document(), &report.load_markdown())?;
    print!("{}", report.markdown());
    Ok(())
}

/// Compares the answer to `sql` with that of every peer to `peers_sql`; an error when they differ.
pub async fn check(
    target: &mut Target,
    peers: &mut [Box<dyn Peer>],
    name: &str,
    sql: &str,
    peers_sql: &str,
) -> Result<(), Box<dyn Error>> {
    let (answer, _) = target.client.ask(sql).await?;
    let ours = of_answer(&answer);
    for peer in peers {
        if let Some(difference) = difference(&ours, &peer.answer(peers_sql)?) {
            let title = peer.title();
            return Err(
                format!("{name} differs from {title}'s answer: {difference}: {sql}").into(),
            );
        }
    }
    Ok(())
}

/// The medians of Strandline's times for a statement, after a run that is not timed.
pub async fn time(target: &mut Target, sql: &str, runs: u32) -> Result<Timed, Box<dyn Error>> {
    target.client.ask(sql).await?;
    let (mut times, mut in_process) = (Vec::new(), Vec::new());
    let mut timed = Timed::default();
    for _ in 0..runs {
        let start = Instant::now();
        let (_, statistics) = target.client.ask(sql).await?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        in_process.push(statistics.time_total_us as f64 / 1000.0);
        timed.plan_cached = statistics.plan_cached;
        timed.star_tree_segments = statistics.star_tree_segments;
    }
    timed.ms = median(times).ok_or("no runs")?;
    timed.in_process_ms = median(in_process).ok_or("no runs")?;
    Ok(timed)
}

async fn measure(
    target: &mut Target,
    peers: &mut [Box<dyn Peer>],
    name: &str,
    sql: &str,
    runs: u32,
) -> Result<Line, Box<dyn Error>> {
    let ours = time(target, sql, runs).await?;
    let mut peers_ms = Vec::new();
    for peer in peers {
        peers_ms.push(median(peer.times_ms(sql, runs as usize)?).ok_or("no runs")?);
    }
    Ok(Line {
        name: name.to_owned(),
        ours,
        peers_ms,
    })
}
