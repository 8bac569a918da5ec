//! `strandline serve`: bind, open, answer, drain.

use super::config::{Config, Layer};
use super::{Failure, Outcome, logging, signals};
use crate::allocator;
use crate::engine::{Engine, EngineOptions};
use crate::front::{FrontOptions, Listeners};
use std::io::Write as _;
use std::path::PathBuf;
use strandline_proto::Error;

/// Settings of the server; see `strandline serve --help`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// TOML file with the same settings, named as the flags with underscores (data_dir, load_roots) [env: STRANDLINE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Layer,
}

impl ServeArgs {
    fn resolve(self) -> strandline_proto::Result<Config> {
        let variable = |name: &str| std::env::var(name).ok();
        let path = self.config.or_else(|| {
            variable("STRANDLINE_CONFIG")
                .filter(|p| !p.is_empty())
                .map(PathBuf::from)
        });
        let file = path
            .map(|path| Layer::from_file(&path))
            .transpose()?
            .unwrap_or_default();
        self.flags
            .over(Layer::from_environment(variable)?)
            .over(file)
            .resolve()
    }
}

/// What an engine is opened with under these settings.
pub(crate) fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        load_roots: config.load_roots.clone(),
        backup_root: config.backup_root.clone(),
        memory_bytes_max: config.memory_bytes_max,
        query_memory_bytes_max: config.query_memory_bytes_max,
        query_timeout_ms_default: config.query_timeout_ms,
        scan_threads: config.scan_threads,
        ..EngineOptions::new(&config.data_dir)
    }
}

/// What the front ends serve with under these settings.
pub(crate) fn front_options(config: &Config) -> FrontOptions {
    FrontOptions {
        staging_dir: config.data_dir.join("staging").join("uploads"),
        upload_bytes_max: config.upload_bytes_max,
        drain: config.drain,
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: ServeArgs) -> Outcome {
    let config = arguments.resolve().map_err(Failure::Usage)?;
    logging::init(&config.log, config.log_format).map_err(Failure::Usage)?;
    if config.huge_pages {
        allocator::allow_huge_pages(true);
    }
    let stop = signals::stop_on_signal()
        .map_err(|error| Error::unavailable(format!("signals can't be listened for: {error}")))?;
    let listeners = Listeners::bind(config.http, config.grpc)
        .await
        .map_err(Failure::Usage)?;
    let (http, grpc) = (listeners.http_address, listeners.grpc_address);
    let engine = tokio::select! {
        opened = Engine::open(engine_options(&config)) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    writeln!(
        std::io::stdout(),
        "strandline {}: HTTP http://{http}, gRPC http://{grpc}, data in {}",
        env!("CARGO_PKG_VERSION"),
        config.data_dir.display()
    )?;
    tracing::info!(%http, %grpc, data_dir = %config.data_dir.display(), "ready");
    let served = listeners
        .serve(engine.clone(), front_options(&config), stop)
        .await;
    tracing::info!("draining");
    engine.shutdown().await;
    tracing::info!("stopped");
    Ok(served?)
}
