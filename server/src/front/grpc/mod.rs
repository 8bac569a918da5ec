//! The `strandline.v1` services over gRPC, with reflection and health.

mod admin;
mod ingest;
mod query;

use super::staging::Staging;
use crate::engine::Engine;
use std::sync::Arc;
use strandline_proto::v1::admin_service_server::AdminServiceServer;
use strandline_proto::v1::ingest_service_server::IngestServiceServer;
use strandline_proto::v1::query_service_server::QueryServiceServer;
use strandline_proto::{Error, Result, v1};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Bytes of the largest message that is taken.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Requests that one connection may have open.
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;

/// Serves until `stop` fires, then until the open requests have ended.
pub(super) async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    staging: Staging,
    stop: CancellationToken,
) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::internal(format!("gRPC server: {error}"));
    let queries = QueryServiceServer::new(query::Queries {
        engine: Arc::clone(&engine),
    })
    .max_decoding_message_size(MESSAGE_BYTES_MAX)
    .accept_compressed(CompressionEncoding::Zstd);
    let ingest = IngestServiceServer::new(ingest::Ingest {
        engine: Arc::clone(&engine),
        staging,
    })
    .max_decoding_message_size(MESSAGE_BYTES_MAX)
    .accept_compressed(CompressionEncoding::Zstd);
    let admin = AdminServiceServer::new(admin::Admin { engine })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Zstd);
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_serving::<QueryServiceServer<query::Queries>>()
        .await;
    health
        .set_serving::<IngestServiceServer<ingest::Ingest>>()
        .await;
    health
        .set_serving::<AdminServiceServer<admin::Admin>>()
        .await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let draining = async move {
        stop.cancelled().await;
        health
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
        health
            .set_not_serving::<QueryServiceServer<query::Queries>>()
            .await;
        health
            .set_not_serving::<IngestServiceServer<ingest::Ingest>>()
            .await;
        health
            .set_not_serving::<AdminServiceServer<admin::Admin>>()
            .await;
    };
    Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_service(health_service)
        .add_service(queries)
        .add_service(ingest)
        .add_service(admin)
        .add_service(reflection().build_v1().map_err(|error| failed(&error))?)
        .add_service(
            reflection()
                .build_v1alpha()
                .map_err(|error| failed(&error))?,
        )
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            draining,
        )
        .await
        .map_err(|error| failed(&error))
}
