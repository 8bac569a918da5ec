//! How times grow with the rows: the benchmark's statements at several scale factors.

use crate::load::Loaded;
use crate::plot::{self, Across, Series};
use crate::results::{Table, number, thousands};
use crate::ssb::run::{Timing, check, time};
use crate::ssb::table::{Indexing, offline_json, schema_json};
use crate::ssb::{self, data};
use crate::target::{Source, Target, parquet_files};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// Scale factors, about 6 million rows each at 1
    #[arg(long, value_delimiter = ',', default_values_t = [1.0, 3.0, 10.0], value_parser = scale)]
    scales: Vec<f64>,
    /// A folder that keeps the generated files, ssb-SCALE each, and where they are taken from when they are there;
    /// temporary otherwise
    #[arg(long)]
    files: Option<PathBuf>,
    /// Rows follow from scale and seed alone
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    indexing: Indexing,
    #[command(flatten)]
    timing: Timing,
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if (0.0001..=1_000.0).contains(&scale) => Ok(scale),
        _ => Err("a number from 0.0001 to 1000".to_owned()),
    }
}

/// The times at one scale factor.
struct Point {
    scale: f64,
    loaded: Loaded,
    /// Milliseconds of each statement.
    times: Vec<(&'static str, f64)>,
}

/// At each scale: generates, loads, compares the answers, times them. Then writes the results.
pub async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut points = Vec::new();
    let mut scales = options.scales.clone();
    scales.sort_by(f64::total_cmp);
    scales.dedup();
    for scale in scales {
        points.push(at_scale(options, scale).await?);
    }
    let text = markdown(options.timing.runs, &points);
    let across = Across::Logarithmic("rows".to_owned());
    let title = "Star Schema Benchmark: milliseconds by rows";
    let picture = plot::lines(title, &across, &series(&points))?;
    options.timing.results.draw("growth", &picture)?;
    let document = document(options.timing.runs, &points);
    options.timing.results.write("growth", &document, &text)?;
    print!("{text}");
    Ok(())
}

async fn at_scale(options: &Options, scale: f64) -> Result<Point, Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let kept = options.files.as_ref();
    let folder = kept.map_or_else(|| temporary.path().to_owned(), Clone::clone);
    let folder = folder.join(format!("ssb-{scale}"));
    if parquet_files(&folder).is_err() {
        data::generate(&folder, scale, options.seed)?;
    }
    let mut target = Target::open(&options.source).await?;
    let table = format!("bench_growth_{:08x}", rand::random::<u32>());
    let measured = measure(options, &mut target, &table, &folder).await;
    // Whatever came of it, the table goes; a server that was started for this goes altogether.
    let dropped = target.drop_tables([&table]).await;
    let (loaded, times) = measured?;
    dropped?;
    Ok(Point {
        scale,
        loaded,
        times,
    })
}

async fn measure(
    options: &Options,
    target: &mut Target,
    table: &str,
    folder: &Path,
) -> Result<(Loaded, Vec<(&'static str, f64)>), Box<dyn Error>> {
    let files = parquet_files(folder)?;
    let config = offline_json(table, &options.indexing);
    let loaded = target
        .load(
            table,
            &schema_json(table),
            &config,
            &files,
            options.indexing.segment_rows,
        )
        .await?;
    eprintln!("Strandline holds {loaded}");
    let mut peers = options.timing.peers.start(folder, loaded.rows)?;
    for (name, sql) in ssb::queries() {
        check(target, &mut peers, name, &ssb::over(sql, table), sql).await?;
    }
    if peers.is_empty() {
        eprintln!("no peer to check answers with");
    }
    // What the peers hold in memory is not in the way of what is measured.
    drop(peers);
    let mut times = Vec::new();
    for (name, sql) in ssb::queries() {
        let ms = time(target, &ssb::over(sql, table), options.timing.runs)
            .await?
            .ms;
        eprintln!("{name:>5} {ms:9.2} ms");
        times.push((name, ms));
    }
    Ok((loaded, times))
}

/// By which power of the rows the time grows, from the first point to the last: 0 not at all, 1 as they do.
fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    let exponent = (last.1 / first.1).ln() / (last.0 / first.0).ln();
    exponent.is_finite().then_some(exponent)
}

/// Rows and milliseconds of each statement, in the statements' order.
fn series(points: &[Point]) -> Vec<Series> {
    let mut by_name: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for point in points {
        for (name, ms) in &point.times {
            let of_name = by_name.entry(name).or_default();
            of_name.push((point.loaded.rows as f64, *ms));
        }
    }
    let names = points.first().map_or(&[][..], |p| &p.times).iter();
    let one = |(name, _): &(&'static str, f64)| Series {
        name: (*name).to_owned(),
        points: by_name.remove(name).unwrap_or_default(),
    };
    names.map(one).collect()
}

fn document(runs: u32, points: &[Point]) -> Value {
    let exponents: Map<String, Value> = series(points)
        .into_iter()
        .map(|one| (one.name, json!(exponent(&one.points))))
        .collect();
    let point = |point: &Point| {
        let queries: Map<String, Value> = point
            .times
            .iter()
            .map(|(name, ms)| ((*name).to_owned(), json!({"strandline_ms": ms})))
            .collect();
        json!({
            "scale": point.scale,
            "rows": point.loaded.rows,
            "load": point.loaded.document(),
            "queries": queries,
        })
    };
    json!({
        "runs": runs,
        "points": points.iter().map(point).collect::<Vec<_>>(),
        "exponents": exponents,
        "debug_build": cfg!(debug_assertions),
    })
}

fn markdown(runs: u32, points: &[Point]) -> String {
    let rows = points
        .iter()
        .map(|p| format!("{} rows", thousands(p.loaded.rows)));
    let header = std::iter::once("query".to_owned())
        .chain(rows)
        .chain(["exponent".to_owned()]);
    let mut table = Table::new(header);
    for one in series(points) {
        let times = one.points.iter().map(|(_, ms)| number(Some(*ms), 2));
        let exponent = number(exponent(&one.points), 2);
        table.row(
            std::iter::once(one.name.clone())
                .chain(times)
                .chain([exponent]),
        );
    }
    format!(
        "# Times by rows\n\n\
         The Star Schema Benchmark's statements over gRPC, one at a time; median of {runs} after the first, milliseconds. \
         The exponent says by which power of the rows the time grows from the first column to the last: 0 not at all, 1 as they do.\n\n\
         {}\n![times by rows](growth.svg)\n",
        table.text()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(scale: f64, rows: u64, times: [f64; 2]) -> Point {
        Point {
            scale,
            loaded: Loaded {
                rows,
                seconds: Some(1.0),
                bytes: 8,
            },
            times: vec![("Q1.1", times[0]), ("P1", times[1])],
        }
    }

    #[test]
    fn the_exponent_tells_constant_from_linear() {
        assert_eq!(exponent(&[(1.0, 5.0), (10.0, 5.0)]), Some(0.0));
        let linear = exponent(&[(1.0, 5.0), (3.0, 7.0), (10.0, 50.0)]).unwrap();
        assert!((linear - 1.0).abs() < 1e-12);
        assert_eq!(exponent(&[(1.0, 5.0)]), None);
    }

    #[test]
    fn times_stand_by_rows_in_the_statements_order() {
        let points = [point(1.0, 100, [1.0, 3.0]), point(10.0, 1_000, [10.0, 3.0])];
        let text = markdown(7, &points);
        assert!(
            text.contains("| query | 100 rows | 1,000 rows | exponent |"),
            "{text}"
        );
        assert!(
            text.contains("| Q1.1 | 1.00 | 10.00 | 1.00 |\n| P1 | 3.00 | 3.00 | 0.00 |"),
            "{text}"
        );
        let document = document(7, &points);
        assert_eq!(document["points"][1]["rows"], 1_000);
        assert_eq!(
            document["points"][1]["queries"]["Q1.1"]["strandline_ms"],
            10.0
        );
        assert_eq!(document["exponents"]["P1"], 0.0);
    }
}
