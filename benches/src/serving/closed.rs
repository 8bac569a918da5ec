//! A closed loop: each connection asks its next statement when it has the answer to the last.

use super::drive::drive;
use super::workload::{KINDS, Mix, POINT_COLUMN, Workload};
use crate::plot;
use crate::results::{Results, Table, thousands};
use crate::ssb::table::TableOptions;
use crate::times::{cells, header};
use serde_json::{Value, json};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    table: TableOptions,
    #[command(flatten)]
    mix: Mix,
    /// Connections
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Seconds to measure, after two that are not
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    #[command(flatten)]
    results: Results,
}

/// Loads the table when it is not there, checks answers, measures, writes the results.
pub async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let (mut target, loaded) = options.table.open(&[POINT_COLUMN]).await?;
    let workload = Arc::new(Workload::new(
        &options.table.files,
        options.mix.points,
        &options.mix.keys,
    )?);
    workload.check(&mut target.client).await?;
    let (keys, grouped) = workload.sizes();
    eprintln!("answers are right; {keys} keys, {grouped} GROUP BYs");
    let mut clients = Vec::new();
    for _ in 0..options.connections {
        clients.push(target.connect().await?);
    }
    let lasting = Duration::from_secs(options.seconds);
    let driven = drive(clients, &workload, lasting, options.mix.keys.seed).await?;
    let times = &driven.times;
    let mut document = times.document();
    for (key, value) in [
        ("kinds", json!(times.by_kind())),
        ("rows", json!(loaded.rows)),
        ("connections", json!(options.connections)),
        ("points_part", json!(options.mix.points)),
        ("keys", json!(keys)),
        ("grouped_statements", json!(grouped)),
        ("seconds", json!(driven.elapsed.as_secs_f64())),
        ("answers_per_s", json!(driven.answers_per_s())),
        ("wrong_answers", json!(driven.wrong)),
        ("debug_build", json!(cfg!(debug_assertions))),
    ] {
        document.insert(key.to_owned(), value);
    }
    let mut table = Table::new(header("statement"));
    for (name, percentiles) in KINDS
        .iter()
        .map(|kind| (*kind, &document["kinds"][*kind]))
        .chain([("any", &document["query"])])
    {
        table.row(std::iter::once(name.to_owned()).chain(cells(percentiles)));
    }
    let text = format!(
        "# Closed loop, {} rows\n\n\
         {} connections over gRPC, each with one statement at a time; {:.0} % point aggregations of {} {POINT_COLUMN} drawn by Zipf, \
         the rest GROUP BYs of low-cardinality dimensions ({grouped} statements), every answer checked; {:.0} s, {:.0} answers a second, {} errors. Milliseconds.\n\n\
         {}\n![latencies](closed.svg)\n",
        thousands(loaded.rows),
        options.connections,
        options.mix.points * 100.0,
        thousands(keys as u64),
        driven.elapsed.as_secs_f64(),
        driven.answers_per_s(),
        times.errors(),
        table.text(),
    );
    let document = Value::from(document);
    refuse(&driven)?;
    let picture = plot::latencies("Closed loop", &document["kinds"], &document["by_second"])?;
    options.results.draw("closed", &picture)?;
    options.results.write("closed", &document, &text)?;
    print!("{text}");
    Ok(())
}

/// Wrong answers are no result.
pub(super) fn refuse(driven: &super::drive::Driven) -> Result<(), String> {
    match driven.wrong {
        0 => Ok(()),
        wrong => Err(format!(
            "{wrong} answers were wrong; nothing is written: {}",
            Value::from(driven.times.document())["error_kinds"]
        )),
    }
}
