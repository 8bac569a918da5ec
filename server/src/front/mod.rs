//! The network's side: gRPC and HTTP over one engine.
//!
//! *Invariant*: both front ends reach rows through [`Engine`] alone and run statements through
//! [`answer`], so that a query gives the same rows, errors and statistics whichever way it comes.

pub(crate) mod answer;
pub mod cells;
pub mod grpc;
pub mod http;
pub(crate) mod ingest;
pub mod json;
pub(crate) mod metrics;
pub(crate) mod staging;
pub mod values;

use crate::engine::Engine;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strandline_proto::{Error, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The two sockets, bound before anything else is opened so that a port in use costs nothing.
#[derive(Debug)]
pub struct Listeners {
    http: TcpListener,
    grpc: TcpListener,
    /// Where HTTP answers.
    pub http_address: SocketAddr,
    /// Where gRPC answers.
    pub grpc_address: SocketAddr,
}

/// What serving needs beside the engine.
#[derive(Clone, Debug)]
pub struct FrontOptions {
    /// Folder for uploads on their way in; its contents are removed at the start.
    pub staging_dir: PathBuf,
    /// Bytes of the largest upload.
    pub upload_bytes_max: u64,
    /// How long open requests may go on after the server was told to stop.
    pub drain: Duration,
}

impl Listeners {
    /// Binds both sockets; port 0 picks a free one.
    pub async fn bind(http: SocketAddr, grpc: SocketAddr) -> Result<Self> {
        let http = bind(http, "http", "HTTP").await?;
        let grpc = bind(grpc, "grpc", "gRPC").await?;
        let address = |listener: &TcpListener| {
            listener.local_addr().map_err(|error| {
                Error::unavailable(format!("a bound socket has no address: {error}"))
            })
        };
        Ok(Self {
            http_address: address(&http)?,
            grpc_address: address(&grpc)?,
            http,
            grpc,
        })
    }

    /// Answers until `stop` fires, then lets open requests end, at most for `options.drain`.
    pub async fn serve(
        self,
        engine: Arc<Engine>,
        options: FrontOptions,
        stop: CancellationToken,
    ) -> Result<()> {
        let recorder = metrics::install();
        let staging = staging::Staging::open(options.staging_dir, options.upload_bytes_max)?;
        // One side's failure stops the other, too.
        let stop = stop.child_token();
        let http = http::serve(
            self.http,
            http::State {
                engine: Arc::clone(&engine),
                staging: staging.clone(),
                recorder,
                started: Instant::now(),
                draining: stop.clone(),
            },
            stop.clone(),
        );
        let grpc = grpc::serve(self.grpc, engine, staging, stop.clone());
        let stopping = stop.clone();
        let both = async move {
            tokio::try_join!(
                async { http.await.inspect_err(|_| stopping.cancel()) },
                async { grpc.await.inspect_err(|_| stopping.cancel()) },
            )
        };
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(options.drain).await;
        };
        tokio::select! {
            ended = both => ended.map(|_| ()),
            () = late => {
                tracing::warn!("requests still open after {} ms are cut off", options.drain.as_millis());
                Ok(())
            }
        }
    }
}

async fn bind(address: SocketAddr, flag: &str, name: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Error::precondition(format!(
            "{address} ({name}) is in use by another program; stop that one, or give another port with --{flag} {}:PORT (0 picks a free one)",
            address.ip()
        )),
        std::io::ErrorKind::PermissionDenied => {
            Error::precondition(format!("{address} ({name}) may not be used by this user; ports below 1024 need rights, give another with --{flag}"))
        }
        _ => Error::precondition(format!("{address} ({name}) can't be listened on: {error}; give another address with --{flag}")),
    })
}
