//! Talking to a server over gRPC.

use super::Failure;
use std::time::Duration;
use strandline_proto::Error;
use strandline_proto::v1::admin_service_client::AdminServiceClient;
use strandline_proto::v1::ingest_service_client::IngestServiceClient;
use strandline_proto::v1::query_service_client::QueryServiceClient;
use tonic::transport::{Channel, Endpoint};

/// Bytes of the largest message that a server may send.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which server a command talks to.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// The server's gRPC address, as in 127.0.0.1:8098 or http://db.example:8098.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "STRANDLINE_SERVER",
        default_value = "http://127.0.0.1:8098"
    )]
    pub server: String,
}

/// A connection to a server.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Channel,
}

impl Connection {
    /// Connects; an address without a scheme is taken as `http://`.
    pub async fn open(address: &str) -> Result<Self, Failure> {
        let url = match address {
            url if url.contains("://") => url.to_owned(),
            port if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("http://127.0.0.1:{port}")
            }
            host => format!("http://{host}"),
        };
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|_| {
                Failure::Usage(Error::invalid(format!(
                    "\"{address}\" is not a server address; write HOST:PORT"
                )))
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|error| {
            Failure::Usage(Error::unavailable(format!(
                "no server answers at {url} ({}); start one with `strandline serve`, or give its gRPC address with --server",
                innermost(&error)
            )))
        })?;
        Ok(Self { channel })
    }

    /// The query service.
    pub fn queries(&self) -> QueryServiceClient<Channel> {
        QueryServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The ingest service.
    pub fn ingest(&self) -> IngestServiceClient<Channel> {
        IngestServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The admin service.
    pub fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// The cause at the bottom of an error: the others only say "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// A server's refusal, or the loss of the connection to it.
pub fn refused(status: &tonic::Status) -> Failure {
    let error = Error::invalid(status.message());
    // A status made of a broken transport has a source; one that the server sent has none.
    match std::error::Error::source(status) {
        Some(source) => Failure::Usage(Error::unavailable(format!(
            "the connection to the server broke: {}",
            innermost(source)
        ))),
        None => Failure::Refused(error),
    }
}

/// Prints what a config has and the server does not honour.
pub(crate) fn print_warnings(warnings: &[strandline_proto::v1::ConfigWarning]) {
    for warning in warnings {
        eprintln!("warning: {}: {}", warning.path, warning.message);
    }
}
