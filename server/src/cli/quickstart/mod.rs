//! `strandline quickstart`: a hybrid table of real flights, made before your eyes and left to play with.
//!
//! Everything that it writes lies in one folder, a temporary one unless `--data` names it. With `--data` a
//! second run finds the first one's rows: the push has an id and the stream's producer numbers its
//! messages, so nothing is added twice.

mod data;
mod show;
mod stream;

use super::client::Connection;
use super::config::{Address, GRPC_PORT_DEFAULT, HTTP_PORT_DEFAULT};
use super::grid::Format;
use super::shell::{Session, millis};
use super::{Failure, Outcome, client, logging, signals};
use crate::engine::{Engine, EngineOptions};
use crate::front::{FrontOptions, Listeners};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use strandline_proto::v1::{LoadOptions, TimeInterval};
use strandline_proto::{Error, ErrorKind};
use tokio_util::sync::CancellationToken;

/// How long open requests may go on when the quickstart ends.
const DRAIN: Duration = Duration::from_secs(2);

/// Arguments of `strandline quickstart`.
#[derive(Debug, clap::Args)]
pub struct QuickstartArgs {
    /// End after the queries instead of serving on.
    #[arg(long)]
    exit: bool,
    /// Keep the data in this folder; without it nothing is left behind.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Rows a second at which the present streams in.
    #[arg(long, value_name = "N", default_value_t = 700, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// HTTP address or port [default: 127.0.0.1:8099, or a free port when that is taken]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<Address>,
    /// gRPC address or port [default: 127.0.0.1:8098, or a free port when that is taken]
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<Address>,
}

/// Runs the command.
pub(crate) async fn run(arguments: QuickstartArgs) -> Outcome {
    logging::init("warn", logging::LogFormat::Text)?;
    let stop = signals::stop_on_signal()
        .map_err(|error| Error::unavailable(format!("signals can't be listened for: {error}")))?;
    let listeners = bind(&arguments).await.map_err(Failure::Usage)?;
    // Dropped, and with that removed, however the command ends.
    let temporary = tempfile::Builder::new()
        .prefix("strandline-quickstart-")
        .tempdir()
        .map_err(|error| {
            Error::unavailable(format!("a temporary folder can't be made: {error}"))
        })?;
    let data_dir = arguments
        .data
        .clone()
        .unwrap_or_else(|| temporary.path().join("data"));
    let mut out = std::io::stdout();
    writeln!(
        out,
        "Strandline quickstart: flights of January 2014, data in {}",
        data_dir.display()
    )?;
    if arguments.data.is_none() {
        writeln!(out, "(removed at the end; keep it with --data DIR)")?;
    }
    let (http, grpc) = (listeners.http_address, listeners.grpc_address);
    let engine = Engine::open(EngineOptions::new(&data_dir)).await?;
    let options = FrontOptions {
        staging_dir: data_dir.join("staging").join("uploads"),
        upload_bytes_max: 1 << 30,
        drain: DRAIN,
    };
    let serving_ends = CancellationToken::new();
    let server = tokio::spawn(listeners.serve(Arc::clone(&engine), options, serving_ends.clone()));
    let toured = tokio::select! {
        toured = tour(&engine, &arguments, temporary.path(), http, grpc) => toured,
        () = stop.cancelled() => Err(Failure::Refused(Error::cancelled("interrupted"))),
    };
    if toured.is_err() {
        // The tour may have been left while it held the boundary; a table without one has nothing to release.
        let _ = engine.release_boundary(data::TABLE).await;
    }
    if toured.is_ok() && !arguments.exit {
        stop.cancelled().await;
        writeln!(out, "\nstopping")?;
    }
    serving_ends.cancel();
    let served = server
        .await
        .unwrap_or_else(|error| Err(Error::internal(format!("the server ended: {error}"))));
    engine.shutdown().await;
    drop(engine);
    temporary.close().map_err(|error| {
        Error::unavailable(format!("the temporary folder was not removed: {error}"))
    })?;
    toured?;
    Ok(served?)
}

/// Binds the given addresses, or the default ports, or free ones when the defaults are taken.
async fn bind(arguments: &QuickstartArgs) -> strandline_proto::Result<Listeners> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let http = arguments
        .http
        .map_or(local(HTTP_PORT_DEFAULT), |address| address.0);
    let grpc = arguments
        .grpc
        .map_or(local(GRPC_PORT_DEFAULT), |address| address.0);
    let chosen =
        |address: Option<Address>, default| if address.is_some() { default } else { local(0) };
    match Listeners::bind(http, grpc).await {
        Err(error) if error.kind() == ErrorKind::FailedPrecondition => {
            let free = (chosen(arguments.http, http), chosen(arguments.grpc, grpc));
            if free == (http, grpc) {
                return Err(error);
            }
            let listeners = Listeners::bind(free.0, free.1).await?;
            eprintln!("note: {error}; taking free ports this time");
            Ok(listeners)
        }
        other => other,
    }
}

async fn tour(
    engine: &Arc<Engine>,
    arguments: &QuickstartArgs,
    temporary: &Path,
    http: SocketAddr,
    grpc: SocketAddr,
) -> Outcome {
    let mut out = std::io::stdout();
    create_table(engine).await?;
    writeln!(
        out,
        "table   {} with an offline and a realtime half",
        data::TABLE
    )?;

    let files = data::write_offline_files(temporary)?;
    let options = LoadOptions {
        push_id: "quickstart-2014-01".to_owned(),
        declared_coverage: Some(TimeInterval {
            start_ms: data::COVERAGE_MS.0,
            end_ms: data::COVERAGE_MS.1,
        }),
        ..LoadOptions::default()
    };
    let started = Instant::now();
    let loaded = engine
        .load_local(data::TABLE, files, options, |_| {})
        .await?;
    writeln!(
        out,
        "offline {} rows of 2014-01-01 to 2014-01-24 from Parquet, {}",
        show::thousands(loaded.rows),
        if loaded.already_done {
            "there already".to_owned()
        } else {
            format!("loaded in {}", millis(started.elapsed()))
        }
    )?;

    // A run that was killed may have left the boundary held.
    if engine
        .boundary(data::TABLE)
        .await?
        .coverage
        .is_some_and(|coverage| coverage.pinned)
    {
        engine.release_boundary(data::TABLE).await?;
    }
    let session = Session::new(Connection::open(&grpc.to_string()).await?, Format::Table);
    stream::run(engine, &session, arguments.rate).await?;
    show::split(engine, &session).await?;
    show::queries(&session).await?;
    show::pins(engine, &session).await?;
    if !arguments.exit {
        show::how_to_connect(http, grpc)?;
    }
    Ok(())
}

/// Creates what is missing: all of it, or what an interrupted run left open.
async fn create_table(engine: &Engine) -> Outcome {
    let there = engine.table(data::TABLE).ok();
    if there.is_none() {
        let (_, warnings) = engine.put_schema(data::SCHEMA).await?;
        client::print_warnings(&warnings);
    }
    let lacks = |config: Option<&String>| config.is_none_or(String::is_empty);
    let halves = [
        (
            there.as_ref().map(|table| &table.offline_config_json),
            data::OFFLINE_CONFIG,
        ),
        (
            there.as_ref().map(|table| &table.realtime_config_json),
            data::REALTIME_CONFIG,
        ),
    ];
    for (stored, config) in halves {
        if lacks(stored) {
            let (_, warnings) = engine.create_table(config).await?;
            client::print_warnings(&warnings);
        }
    }
    Ok(())
}
