//! `GET /metrics`: what was counted, and gauges taken at the moment of the scrape.

use super::{Failure, State};
use crate::front::metrics::resident_memory_bytes;
use axum::extract;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use strandline_proto::Error;

#[expect(clippy::cast_precision_loss, reason = "Prometheus values are f64")]
pub(super) async fn metrics(
    extract::State(state): extract::State<State>,
) -> Result<Response, Failure> {
    let recorder = state.recorder.ok_or_else(|| {
        Error::unavailable("metrics are not recorded: the process has another metrics recorder")
    })?;
    if let Some(bytes) = resident_memory_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    metrics::gauge!("process_uptime_seconds").set(state.started.elapsed().as_secs_f64());
    let (used, limit) = state.engine.consuming_memory();
    metrics::gauge!("strandline_consuming_memory_bytes").set(used as f64);
    metrics::gauge!("strandline_consuming_memory_limit_bytes").set(limit as f64);
    for table in state.engine.tables() {
        // A table dropped since the list was made has no gauges.
        let (Ok(segments), Ok(description)) =
            (state.engine.segments(&table), state.engine.table(&table))
        else {
            continue;
        };
        for (kind, consuming) in [("immutable", false), ("consuming", true)] {
            let of_kind = || {
                segments
                    .iter()
                    .filter(|segment| segment.consuming == consuming)
            };
            let labels = [("table", table.clone()), ("kind", kind.to_owned())];
            metrics::gauge!("strandline_segments", &labels).set(of_kind().count() as f64);
            metrics::gauge!("strandline_segment_rows", &labels)
                .set(of_kind().map(|s| s.rows).sum::<u64>() as f64);
            metrics::gauge!("strandline_segment_bytes", &labels)
                .set(of_kind().map(|s| s.bytes).sum::<u64>() as f64);
        }
        for partition in &description.partitions {
            let labels = [
                ("table", table.clone()),
                ("stream", partition.stream.clone()),
                ("partition", partition.partition.to_string()),
            ];
            metrics::gauge!("strandline_stream_next_offset", &labels)
                .set(partition.next_offset as f64);
            metrics::gauge!("strandline_stream_committed_offset", &labels)
                .set(partition.committed_offset as f64);
        }
    }
    let text = recorder.render();
    Ok((
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response())
}
