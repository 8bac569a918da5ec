//! `strandline build`: segment files on this machine, by the same library that the server loads with.

use super::load::progress_bar;
use super::{Failure, Outcome};
use crate::host::catalog::warning_messages;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use strandline_proto::ids::Half;
use strandline_proto::{Error, Result};
use strandline_storage::config::{self, TableConfig};
use strandline_storage::environment::{Files, RealFiles};
use strandline_storage::input::{self, InputFormat};
use strandline_storage::segment::builder::SegmentBuilder;

/// Rows read together.
const BATCH_ROWS: usize = 8192;
/// What a segment in the making may hold in memory before it is cut, in bytes.
const SEGMENT_BUILD_BYTES_MAX: usize = 160 << 20;

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
    /// Folder for the segment files; made when it is missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Format of the files instead of what their names end in.
    #[arg(long, value_name = "FORMAT", value_parser = ["parquet", "avro", "json", "csv"])]
    format: Option<String>,
    /// Rows of a segment at most.
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    segment_rows: u64,
}

/// Runs the command.
pub(crate) async fn run(arguments: BuildArgs) -> Outcome {
    tokio::task::spawn_blocking(move || build(&arguments))
        .await
        .unwrap_or_else(|error| {
            Err(Error::internal(format!("the build ended early: {error}")).into())
        })
}

fn build(arguments: &BuildArgs) -> Outcome {
    let started = Instant::now();
    let config = read_config(arguments).map_err(Failure::Usage)?;
    let format = arguments
        .format
        .as_deref()
        .map(InputFormat::parse)
        .transpose()
        .map_err(Failure::Usage)?;
    let files = input::expand(&arguments.files).map_err(Failure::Usage)?;
    if files.is_empty() {
        return Err(Failure::Usage(Error::invalid(
            "no input files: name files, or folders that hold parquet, avro, json or csv files",
        )));
    }
    std::fs::create_dir_all(&arguments.out).map_err(|error| {
        Failure::Usage(Error::invalid(format!(
            "folder {}: {error}",
            arguments.out.display()
        )))
    })?;
    let mut segments = Segments {
        config: &config,
        out: &arguments.out,
        // Names are unique for all time, so that two builds can be pushed into one table.
        run: uuid::Uuid::new_v4()
            .simple()
            .to_string()
            .chars()
            .take(12)
            .collect(),
        rows_max: arguments.segment_rows,
        current: None,
        made: Vec::new(),
        files: Arc::new(RealFiles),
        rows: 0,
    };
    let bar = progress_bar();
    bar.set_length(
        files
            .iter()
            .filter_map(|file| std::fs::metadata(file).ok())
            .map(|metadata| metadata.len())
            .sum(),
    );
    let mut bytes_before = 0;
    for file in &files {
        let mut source = input::open(file, format, &config, BATCH_ROWS)?;
        while let Some(batch) = source.next_batch()? {
            segments.push(&batch)?;
            bar.set_position(bytes_before + source.bytes_read());
            bar.set_message(format!(
                "{} rows, {} segments",
                segments.rows,
                segments.made.len()
            ));
        }
        bytes_before += source.bytes_total();
    }
    segments.cut()?;
    bar.finish_and_clear();
    let mut out = std::io::stdout();
    for path in &segments.made {
        writeln!(out, "{}", path.display())?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for reading")]
    let rate = segments.rows as f64 / started.elapsed().as_secs_f64().max(1e-9);
    eprintln!(
        "{} rows in {} segments, {rate:.0} rows/s; hand them over with `strandline push {} {}/*.seg`",
        segments.rows,
        segments.made.len(),
        config.name,
        arguments.out.display()
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

/// The segments of one build: one in memory, the finished ones on disk.
struct Segments<'a> {
    config: &'a TableConfig,
    out: &'a Path,
    run: String,
    rows_max: u64,
    current: Option<SegmentBuilder>,
    made: Vec<PathBuf>,
    files: Arc<dyn Files>,
    rows: u64,
}

impl Segments<'_> {
    fn name(&self) -> String {
        format!("{}__{}_{}", self.config.name, self.run, self.made.len())
    }

    fn push(&mut self, batch: &arrow::array::RecordBatch) -> Result<()> {
        let mut from = 0;
        while from < batch.num_rows() {
            let builder = match &mut self.current {
                Some(builder) => builder,
                None => {
                    let builder = SegmentBuilder::new(
                        Arc::clone(&self.config.spec),
                        &self.name(),
                        Half::Offline,
                        None,
                    )?;
                    self.current.insert(builder)
                }
            };
            let room =
                usize::try_from(self.rows_max.saturating_sub(builder.rows())).unwrap_or(usize::MAX);
            let take = room.clamp(1, batch.num_rows() - from);
            builder.push(&batch.slice(from, take))?;
            from += take;
            self.rows += take as u64;
            if builder.rows() >= self.rows_max
                || builder.bytes_estimate() >= SEGMENT_BUILD_BYTES_MAX
            {
                self.cut()?;
            }
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<()> {
        if let Some(builder) = self.current.take() {
            let path = self.out.join(format!("{}.seg", self.name()));
            builder.finish(&self.files, &path)?;
            self.made.push(path);
        }
        Ok(())
    }
}
