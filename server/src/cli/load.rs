//! `strandline load`: files into the offline half of a table, through a server or, with `--data`, into a
//! data folder that no server has open.

use super::client::{Connection, ServerArgs, refused};
use super::push::{Chunks, stream_files};
use super::signals::ctrl_c;
use super::table::{parse_time, time_text};
use super::{Failure, Outcome};
use crate::engine::{Engine, EngineOptions};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;
use strandline_proto::Error;
use strandline_proto::v1::{
    LoadCount, LoadOptions, LoadRequest, LoadResult, PushMode, TimeInterval, UploadHeader,
    UploadRequest, load_progress, upload_request::Part,
};
use strandline_storage::input;

/// Arguments of `strandline load`.
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// The table.
    table: String,
    /// Files, or folders of them; by default they are uploaded.
    #[arg(required = true)]
    files: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
    /// Load into this data folder instead of through a server.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The files are on the server (paths under one of its load roots), which reads them itself.
    #[arg(long, conflicts_with = "data")]
    in_place: bool,
    #[command(flatten)]
    options: OptionArgs,
    /// Format of the files instead of what their names end in.
    #[arg(long, value_name = "FORMAT", value_parser = ["parquet", "avro", "json", "csv"])]
    format: Option<String>,
    /// Rows of a segment at most; 0: the server's default, 1,000,000. Larger segments take more memory to build, at most a
    /// sixteenth of the server's, and less time to query.
    #[arg(long, value_name = "N", default_value_t = 0)]
    segment_rows: u64,
}

/// How a push counts; shared with `strandline push`.
#[derive(Debug, clap::Args)]
pub struct OptionArgs {
    /// Replace all offline segments of the table in one transaction.
    #[arg(long)]
    refresh: bool,
    /// Times that these files hold completely, half-open, as in 2014-01-01..2014-01-25.
    #[arg(long, value_name = "FROM..TO")]
    coverage: Option<String>,
    /// Times whose offline rows these files take the place of, half-open; all of their rows lie within.
    #[arg(long, value_name = "FROM..TO", conflicts_with_all = ["refresh", "coverage"])]
    replace: Option<String>,
    /// Name of this push: repeating it adds nothing.
    #[arg(long, value_name = "ID")]
    push_id: Option<String>,
}

impl OptionArgs {
    /// The options of a push, under an id that a repetition can use when the answer is lost.
    pub(super) fn resolve(&self) -> Result<LoadOptions, Failure> {
        let interval = |text: &Option<String>| {
            let text = text.as_deref();
            text.map(parse_interval).transpose().map_err(Failure::Usage)
        };
        Ok(LoadOptions {
            push_id: self
                .push_id
                .clone()
                .unwrap_or_else(|| format!("cli-{}", uuid::Uuid::new_v4())),
            mode: if self.refresh {
                PushMode::Refresh
            } else {
                PushMode::Append
            }
            .into(),
            declared_coverage: interval(&self.coverage)?,
            replaced: interval(&self.replace)?,
            ..LoadOptions::default()
        })
    }
}

fn parse_interval(text: &str) -> Result<TimeInterval, Error> {
    let (start, end) = text.split_once("..").ok_or_else(|| {
        Error::invalid(format!(
            "\"{text}\" is not FROM..TO, as in 2014-01-01..2014-01-25"
        ))
    })?;
    let interval = TimeInterval {
        start_ms: parse_time(start)?,
        end_ms: parse_time(end)?,
    };
    if interval.start_ms >= interval.end_ms {
        return Err(Error::invalid(format!(
            "\"{text}\" is empty: its end must be after its start"
        )));
    }
    Ok(interval)
}

/// Runs the command.
pub(crate) async fn run(arguments: LoadArgs) -> Outcome {
    let mut options = arguments.options.resolve()?;
    options.input_format = arguments.format.clone().unwrap_or_default();
    options.segment_rows_max = arguments.segment_rows;
    let started = Instant::now();
    let push_id = options.push_id.clone();
    let loaded = match &arguments.data {
        Some(data_dir) => in_process(&arguments, data_dir.clone(), options).await,
        None if arguments.in_place => in_place(&arguments, options).await,
        None => upload(&arguments, options).await,
    };
    finish(&arguments.table, &push_id, loaded, started)
}

/// Prints what a push came to; an answer that was lost can be asked for again by the push's id.
pub(super) fn finish(
    table: &str,
    push_id: &str,
    loaded: Result<LoadResult, Failure>,
    started: Instant,
) -> Outcome {
    let result = loaded.inspect_err(|failure| {
        if let Failure::Usage(error) = failure
            && error.kind() == strandline_proto::ErrorKind::Unavailable
        {
            eprintln!("note: whether the load was done is not known; repeat it with --push-id {push_id}, which adds nothing twice");
        }
    })?;
    let mut out = std::io::stdout();
    if result.already_done {
        writeln!(
            out,
            "{table}: push {} was done before: {} rows in {} segments; nothing was added",
            result.push_id, result.rows, result.segments
        )?;
        return Ok(());
    }
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for reading")]
    let rate = result.rows as f64 / seconds.max(1e-9);
    writeln!(
        out,
        "{table}: {} rows in {} segments, {seconds:.2} s, {rate:.0} rows/s, push {}",
        result.rows, result.segments, result.push_id
    )?;
    if result.rows_filtered > 0 {
        writeln!(
            out,
            "{table}: {} rows were left out by the filter",
            result.rows_filtered
        )?;
    }
    for interval in result
        .coverage
        .iter()
        .flat_map(|coverage| &coverage.intervals)
    {
        writeln!(
            out,
            "{table}: offline is complete from {} until before {}",
            start_text(interval),
            time_text(interval.end_ms)
        )?;
    }
    Ok(())
}

fn start_text(interval: &TimeInterval) -> String {
    if interval.start_ms == i64::MIN {
        "the beginning".to_owned()
    } else {
        time_text(interval.start_ms)
    }
}

async fn in_process(
    arguments: &LoadArgs,
    data_dir: PathBuf,
    options: LoadOptions,
) -> Result<LoadResult, Failure> {
    if !data_dir.is_dir() {
        let error = Error::not_found(format!(
            "no data folder {}; create the table with `strandline table create` first",
            data_dir.display()
        ));
        return Err(Failure::Usage(error));
    }
    let engine = Engine::open(EngineOptions::new(data_dir)).await?;
    let bar = progress_bar();
    let shown = bar.clone();
    let files = arguments.files.iter().map(PathBuf::from).collect();
    let loaded = tokio::select! {
        loaded = engine.load_local(&arguments.table, files, options, move |count| show_count(&shown, &count)) => loaded,
        () = ctrl_c() => Err(Error::cancelled("interrupted; nothing was loaded")),
    };
    bar.finish_and_clear();
    engine.shutdown().await;
    Ok(loaded?)
}

async fn in_place(arguments: &LoadArgs, options: LoadOptions) -> Result<LoadResult, Failure> {
    let mut ingest = Connection::open(&arguments.server.server).await?.ingest();
    let request = LoadRequest {
        table: arguments.table.clone(),
        uris: arguments.files.clone(),
        options: Some(options),
    };
    let mut steps = ingest
        .load(request)
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    let bar = progress_bar();
    let mut result = None;
    while let Some(step) = steps.message().await.map_err(|status| refused(&status))? {
        match step.step {
            Some(load_progress::Step::Progress(count)) => show_count(&bar, &count),
            Some(load_progress::Step::Result(last)) => result = Some(last),
            None => {}
        }
    }
    bar.finish_and_clear();
    result.ok_or_else(|| {
        Failure::Usage(Error::unavailable(
            "the server ended the load without its result",
        ))
    })
}

async fn upload(arguments: &LoadArgs, options: LoadOptions) -> Result<LoadResult, Failure> {
    let paths: Vec<PathBuf> = arguments.files.iter().map(PathBuf::from).collect();
    let files = input::expand(&paths).map_err(Failure::Usage)?;
    let bar = progress_bar();
    bar.set_length(input::total_bytes(&files));
    let mut ingest = Connection::open(&arguments.server.server).await?.ingest();
    let header = UploadHeader {
        table: arguments.table.clone(),
        options: Some(options),
        ..UploadHeader::default()
    };
    let sent = bar.clone();
    let mut first = Some(header);
    let (requests, failed) = stream_files(files, move |chunk| {
        let part = match (chunk, first.take()) {
            (Chunks::File(name), Some(header)) => Part::Header(UploadHeader {
                file_name: name,
                ..header
            }),
            (Chunks::File(name), None) => Part::NextFile(name),
            (Chunks::Bytes(bytes), _) => {
                sent.inc(bytes.len() as u64);
                if sent.position() >= sent.length().unwrap_or(0) {
                    sent.set_message("the server loads");
                }
                Part::Chunk(bytes)
            }
        };
        UploadRequest { part: Some(part) }
    });
    let outcome = ingest.upload(requests).await;
    bar.finish_and_clear();
    match (outcome, failed.take()) {
        (_, Some(error)) => Err(Failure::Usage(error)),
        (Err(status), None) => Err(refused(&status)),
        (Ok(result), None) => Ok(result.into_inner()),
    }
}

/// A bar on standard error; nothing when that is no terminal.
pub(super) fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {elapsed}  {msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

pub(super) fn show_count(bar: &ProgressBar, count: &LoadCount) {
    bar.set_length(count.bytes_total);
    bar.set_position(count.bytes_read);
    #[expect(clippy::cast_precision_loss, reason = "a rate for reading")]
    let rate = count.rows as f64 / bar.elapsed().as_secs_f64().max(1e-9);
    bar.set_message(format!(
        "{} rows, {rate:.0} rows/s, {} segments",
        count.rows, count.segments_built
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_read_half_open_and_never_empty() {
        let interval = parse_interval("2014-01-01..2014-01-25").unwrap();
        assert_eq!(interval.end_ms - interval.start_ms, 24 * 86_400_000);
        for wrong in ["2014-01-01", "2014-01-25..2014-01-25", "..", "a..b"] {
            assert!(parse_interval(wrong).is_err(), "{wrong}");
        }
    }
}
