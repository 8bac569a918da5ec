//! Whether cheap statements stay cheap beside an expensive one: the same stream of them alone, then while every row is
//! grouped over and over.

use super::closed::refuse;
use super::drive::{Driven, drive};
use super::workload::{Keys, POINT_COLUMN, Workload, full_scan};
use crate::results::{Results, Table, number, thousands};
use crate::ssb::table::TableOptions;
use crate::target::Target;
use crate::times::{PERCENTILES, histogram, micros, percentiles};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    table: TableOptions,
    #[command(flatten)]
    keys: Keys,
    /// Connections that ask cheap statements
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Seconds to measure, twice, after two that are not
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    #[command(flatten)]
    results: Results,
}

/// Loads the table when it is not there, checks answers, measures, writes the results.
pub async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let (mut target, loaded) = options.table.open(&[POINT_COLUMN]).await?;
    let workload = Arc::new(Workload::new(&options.table.files, 1.0, &options.keys)?);
    workload.check(&mut target.client).await?;
    let scan = full_scan(&options.table.files)?;
    scan.check(&mut target.client).await?;
    eprintln!("answers are right");
    let alone = drive_cheap(options, &target, &workload).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let mut client = target.connect().await?;
    let stopping = Arc::clone(&stop);
    let statement = scan.sql.clone();
    let scanning = tokio::spawn(async move {
        let mut times = histogram();
        while !stopping.load(Ordering::Acquire) {
            let since = Instant::now();
            let (answer, _) = client.ask(&scan.sql).await?;
            if !scan.is_answer(&answer.rows) {
                return Err(format!("wrong answer: {}", scan.sql));
            }
            times.saturating_record(micros(since.elapsed()));
        }
        Ok::<Histogram<u64>, String>(times)
    });
    let beside = drive_cheap(options, &target, &workload).await;
    stop.store(true, Ordering::Release);
    let (beside, scans) = (beside?, scanning.await??);
    for driven in [&alone, &beside] {
        refuse(driven)?;
    }
    let report = Report {
        rows: loaded.rows,
        connections: options.connections,
        alone,
        beside,
        scans,
        statement,
    };
    let text = report.markdown();
    options.results.write("fair", &report.document(), &text)?;
    print!("{text}");
    Ok(())
}

async fn drive_cheap(
    options: &Options,
    target: &Target,
    workload: &Arc<Workload>,
) -> Result<Driven, Box<dyn Error>> {
    let mut clients = Vec::new();
    for _ in 0..options.connections {
        clients.push(target.connect().await?);
    }
    let lasting = Duration::from_secs(options.seconds);
    drive(clients, workload, lasting, options.keys.seed).await
}

struct Report {
    rows: u64,
    connections: u16,
    alone: Driven,
    beside: Driven,
    scans: Histogram<u64>,
    statement: String,
}

impl Report {
    /// A percentile of the cheap statements alone, beside the scan, and the second by the first.
    fn compared(&self, quantile: f64) -> [Option<f64>; 3] {
        let alone = self.alone.times.quantile_ms(quantile);
        let beside = self.beside.times.quantile_ms(quantile);
        [
            alone,
            beside,
            alone.zip(beside).map(|(alone, beside)| beside / alone),
        ]
    }

    fn document(&self) -> Value {
        let side = |driven: &Driven| {
            let mut document = driven.times.document();
            document.insert("answers_per_s".to_owned(), json!(driven.answers_per_s()));
            document
        };
        let ratios: Map<String, Value> = PERCENTILES
            .iter()
            .map(|(key, _, quantile)| {
                let name = key.trim_end_matches("_ms");
                (name.to_owned(), json!(self.compared(*quantile)[2]))
            })
            .collect();
        let mut scan = percentiles(&self.scans);
        scan["sql"] = json!(self.statement);
        scan["answers"] = json!(self.scans.len());
        json!({
            "rows": self.rows,
            "connections": self.connections,
            "alone": side(&self.alone),
            "beside_scan": side(&self.beside),
            "ratio": ratios,
            "scan": scan,
            "debug_build": cfg!(debug_assertions),
        })
    }

    fn markdown(&self) -> String {
        let mut table = Table::new(["percentile", "alone", "beside the scan", "ratio"]);
        for (_, name, quantile) in PERCENTILES {
            let numbers = self.compared(quantile).map(|value| number(value, 2));
            table.row(std::iter::once(name.to_owned()).chain(numbers));
        }
        format!(
            "# A cheap stream beside a full scan, {} rows\n\n\
             Point aggregations one after the other on each of {} connections, alone and beside one connection that asks this over and over:\n\n\
             ```sql\n{}\n```\n\n\
             {:.0} cheap answers a second alone, {:.0} beside {} scans of {} ms (p50); {} errors. Milliseconds.\n\n{}",
            thousands(self.rows),
            self.connections,
            self.statement,
            self.alone.answers_per_s(),
            self.beside.answers_per_s(),
            self.scans.len(),
            number(percentiles(&self.scans)["p50_ms"].as_f64(), 1),
            self.alone.times.errors() + self.beside.times.errors(),
            table.text()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::Times;

    #[test]
    fn the_ratio_is_of_the_same_percentile_beside_and_alone() {
        let driven = |ms: &[u64]| {
            let mut times = Times::new(&["point"], Instant::now());
            for ms in ms {
                times.answered(0, Duration::from_millis(*ms));
            }
            Driven {
                times,
                elapsed: Duration::from_secs(2),
                wrong: 0,
            }
        };
        let report = Report {
            rows: 10,
            connections: 1,
            alone: driven(&[2, 2, 2, 10]),
            beside: driven(&[4, 4, 4, 100]),
            scans: histogram(),
            statement: "SELECT 1".to_owned(),
        };
        let document = report.document();
        let ratio = |key: &str| document["ratio"][key].as_f64().unwrap();
        assert!((ratio("p50") - 2.0).abs() < 0.01, "{document}");
        assert!((ratio("p99") - 10.0).abs() < 0.05, "{document}");
        assert_eq!(document["alone"]["answers_per_s"], 2.0);
        assert!(document["scan"]["p50_ms"].is_null());
        assert!(report.markdown().contains("| p50 | 2.00 | 4.00 | 2.00 |"));
    }
}
