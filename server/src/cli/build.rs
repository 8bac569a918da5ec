//! `strandline build`: segment files on this machine, by the same library that the server loads with.

use super::load::{progress_bar, show_count};
use super::signals::ctrl_c;
use super::{Failure, Outcome};
use crate::host::build::{SEGMENT_ROWS_DEFAULT, SegmentBuild};
use crate::host::catalog::warning_messages;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use strandline_proto::ids::Half;
use strandline_proto::{Error, Result};
use strandline_storage::config::{self, TableConfig};
use strandline_storage::environment::{Environment, file_error};
use strandline_storage::input::{self, InputFormat};
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::sync::CancellationToken;

/// Arguments of `strandline build`.
#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// Files, or folders of them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Schema, as the server has it.
    #[arg(long, value_name = "FILE")]
    schema: PathBuf,
    /// Config of the offline table.
    #[arg(long = "config", value_name = "FILE")]
    config: PathBuf,
    /// Folder for the segment files, which come there when all are made; made when it is missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Format of the files instead of what their names end in.
    #[arg(long, value_name = "FORMAT", value_parser = ["parquet", "avro", "json", "csv"])]
    format: Option<String>,
    /// Rows of a segment at most.
    #[arg(long, value_name = "N", default_value_t = SEGMENT_ROWS_DEFAULT, value_parser = clap::value_parser!(u64).range(1..))]
    segment_rows: u64,
}

/// Runs the command.
pub(crate) async fn run(arguments: BuildArgs) -> Outcome {
    let started = Instant::now();
    let config = read_config(&arguments).map_err(Failure::Usage)?;
    let name = config.name.clone();
    let format = arguments
        .format
        .as_deref()
        .map(InputFormat::parse)
        .transpose()
        .map_err(Failure::Usage)?;
    let inputs = input::expand(&arguments.files).map_err(Failure::Usage)?;
    let unusable = |error| {
        Failure::Usage(Error::invalid(format!(
            "folder {}: {error}",
            arguments.out.display()
        )))
    };
    std::fs::create_dir_all(&arguments.out).map_err(unusable)?;
    // Segment files come to their folder when all are made, so that a part of them is never pushed as if it were all.
    let unfinished = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempdir_in(&arguments.out)
        .map_err(unusable)?;
    let bar = progress_bar();
    let shown = bar.clone();
    let stop = CancellationToken::new();
    let build = SegmentBuild {
        config: Arc::new(config),
        inputs,
        format,
        rows_max: arguments.segment_rows,
        dir: unfinished.path().to_owned(),
        progress: Arc::new(move |count| show_count(&shown, &count)),
        stop: stop.clone(),
    };
    let environment = Environment::real();
    let (made, mut segments) = unbounded_channel();
    let building = build.run(&environment, made);
    tokio::pin!(building);
    let built = tokio::select! {
        built = &mut building => built,
        () = ctrl_c() => {
            stop.cancel();
            building.await
        }
    };
    bar.finish_and_clear();
    let filtered = built?;
    let mut built = Vec::new();
    while let Some(segment) = segments.recv().await {
        built.push(segment);
    }
    let mut out = std::io::stdout();
    for segment in &built {
        let path = arguments.out.join(format!("{}.seg", segment.info.name));
        environment
            .files
            .publish(&segment.path, &path)
            .map_err(|e| file_error("write", &path, &e))?;
        writeln!(out, "{}", path.display())?;
    }
    if filtered > 0 {
        eprintln!("{filtered} rows were left out by the filter");
    }
    let run = built
        .first()
        .and_then(|segment| segment.info.name.0.rsplit_once('_'))
        .map_or("", |(run, _)| run);
    let rows: u64 = built.iter().map(|segment| segment.info.rows).sum();
    #[expect(clippy::cast_precision_loss, reason = "a rate for reading")]
    let rate = rows as f64 / started.elapsed().as_secs_f64().max(1e-9);
    eprintln!(
        "{rows} rows in {} segments, {rate:.0} rows/s; hand them over with `strandline push {name} {}`",
        built.len(),
        arguments.out.join(format!("{run}_*.seg")).display()
    );
    Ok(())
}

fn read_config(arguments: &BuildArgs) -> Result<TableConfig> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|error| Error::invalid(format!("file {}: {error}", path.display())))
    };
    let (schema, warnings) = config::parse_schema(&read(&arguments.schema)?, 1)
        .map_err(|error| error.at(arguments.schema.display()))?;
    super::client::print_warnings(&warning_messages(warnings));
    let (config, warnings) = config::parse_table(&read(&arguments.config)?, &Arc::new(schema))
        .map_err(|error| error.at(arguments.config.display()))?;
    super::client::print_warnings(&warning_messages(warnings));
    if config.half != Half::Offline {
        return Err(Error::invalid(format!(
            "{} is the config of a realtime table; segments are built for the offline half",
            arguments.config.display()
        )));
    }
    Ok(config)
}
