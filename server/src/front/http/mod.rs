//! Pinot's HTTP interface: `/query/sql` and the table calls that its tools use, health, and metrics.

mod ingest;
pub mod pinot;
mod query;
mod scrape;
mod tables;

use super::staging::Staging;
use crate::engine::Engine;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;
use std::time::Instant;
use strandline_proto::{Error, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Bytes of the largest request body, uploads apart.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// What every handler reaches.
#[derive(Clone)]
pub(super) struct State {
    pub(super) engine: Arc<Engine>,
    pub(super) staging: Staging,
    pub(super) recorder: Option<&'static PrometheusHandle>,
    pub(super) started: Instant,
    pub(super) draining: CancellationToken,
}

/// Serves until `stop` fires, then until the open requests have ended.
pub(super) async fn serve(
    listener: TcpListener,
    state: State,
    stop: CancellationToken,
) -> Result<()> {
    let router = Router::new()
        .route("/query/sql", post(query::post_sql).get(query::get_sql))
        .route("/health", get(health))
        .route("/metrics", get(scrape::metrics))
        .route("/tables", get(tables::list).post(tables::create))
        .route(
            "/tables/{table}",
            get(tables::describe)
                .put(tables::update)
                .delete(tables::remove),
        )
        .route("/tables/{table}/schema", get(tables::schema))
        .route("/tables/{table}/segments", get(tables::segments))
        .route("/tables/{table}/boundary", get(tables::boundary))
        .route(
            "/segments/{table}/reload",
            get(tables::reload_status).post(tables::reload),
        )
        .route("/schemas", post(tables::put_schema))
        .route("/schemas/{schema}", delete(tables::remove_schema))
        .route("/topics/{topic}/messages", post(ingest::append))
        .route(
            "/ingestFromFile",
            post(ingest::from_file).layer(DefaultBodyLimit::disable()),
        )
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(|error| Error::internal(format!("HTTP server: {error}")))
}

async fn health(axum::extract::State(state): axum::extract::State<State>) -> Response {
    if state.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining").into_response()
    } else {
        (StatusCode::OK, "OK").into_response()
    }
}

async fn no_such_path(method: axum::http::Method, uri: axum::http::Uri) -> Failure {
    Failure(Error::not_found(format!(
        "nothing answers {method} {}; queries go to POST /query/sql",
        uri.path()
    )))
}

/// An error as HTTP answers it: `{"code": 404, "error": "..."}` under the kind's status.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind().http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json_response(
            status,
            serde_json::json!({ "code": status.as_u16(), "error": self.0.message() }).to_string(),
        )
    }
}

/// A request's whole body.
pub(super) struct WholeBody(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for WholeBody {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let text = format!(
                    "the request's body has more than {} MiB: send rows in several requests, and files to POST /ingestFromFile",
                    BODY_BYTES_MAX >> 20
                );
                let code = StatusCode::PAYLOAD_TOO_LARGE;
                let document = serde_json::json!({ "code": code.as_u16(), "error": text });
                Err(json_response(code, document.to_string()))
            }
            Err(error) => {
                let text = format!("the request's body can't be read: {error}");
                Err(Failure(Error::invalid(text)).into_response())
            }
        }
    }
}

/// A response whose body is JSON text.
pub(super) fn json_response(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

/// A JSON value under status 200.
pub(super) fn ok(value: &serde_json::Value) -> Response {
    json_response(StatusCode::OK, value.to_string())
}
