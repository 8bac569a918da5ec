//! Prometheus metrics: counted where things happen, rendered by `GET /metrics`.
//!
//! The process has one recorder, also when it runs several servers (as tests do).

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use strandline_proto::{Error, ErrorKind};

/// Upper ends of the latency buckets, in seconds.
const LATENCY_BUCKETS_S: [f64; 16] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];
/// How often recorded samples are moved into their buckets, so that they don't pile up between scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder (once a process) and gives its handle; none when another recorder is in place.
pub(crate) fn install() -> Option<&'static PrometheusHandle> {
    RECORDER
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS_S)
                .ok()?
                .build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).ok()?;
            describe();
            let upkeep = handle.clone();
            std::thread::Builder::new()
                .name("metrics-upkeep".to_owned())
                .spawn(move || {
                    loop {
                        std::thread::sleep(UPKEEP_INTERVAL);
                        upkeep.run_upkeep();
                    }
                })
                .ok()?;
            Some(handle)
        })
        .as_ref()
}

fn describe() {
    metrics::describe_counter!(
        "strandline_queries_total",
        "Statements by front end and status."
    );
    metrics::describe_histogram!(
        "strandline_query_duration_seconds",
        metrics::Unit::Seconds,
        "From a statement's arrival to the end of its answer."
    );
    metrics::describe_gauge!(
        "strandline_queries_running",
        "Statements being answered now."
    );
    metrics::describe_counter!(
        "strandline_log_messages_total",
        "Messages appended to the embedded log, by topic."
    );
    metrics::describe_counter!(
        "strandline_loaded_rows_total",
        "Rows of finished loads and pushes, by table."
    );
    metrics::describe_counter!(
        "strandline_ingest_errors_total",
        "Appends, loads and pushes that failed."
    );
    metrics::describe_gauge!(
        "strandline_segments",
        "Segments by table and kind (immutable, consuming)."
    );
    metrics::describe_gauge!(
        "strandline_segment_rows",
        "Rows in segments by table and kind."
    );
    metrics::describe_gauge!(
        "strandline_segment_bytes",
        "Bytes of segments by table and kind."
    );
    metrics::describe_gauge!(
        "strandline_consuming_memory_bytes",
        "Memory of all consuming segments."
    );
    metrics::describe_gauge!(
        "strandline_consuming_memory_limit_bytes",
        "The most that consuming segments may take; at it the large ones are sealed."
    );
    metrics::describe_gauge!(
        "strandline_stream_next_offset",
        "The next offset to consume, by table and partition."
    );
    metrics::describe_gauge!(
        "strandline_stream_committed_offset",
        "The first offset that no committed segment holds."
    );
    metrics::describe_gauge!(
        "process_resident_memory_bytes",
        "Resident memory of the process."
    );
    metrics::describe_gauge!(
        "process_uptime_seconds",
        "Seconds since the server began to answer."
    );
}

/// Measures one statement; one that is neither finished nor failed when it is dropped was cancelled by its caller.
#[derive(Debug)]
pub(crate) struct QueryTimer {
    front: &'static str,
    started: Instant,
    status: &'static str,
}

impl QueryTimer {
    pub(crate) fn start(front: &'static str) -> Self {
        metrics::gauge!("strandline_queries_running").increment(1.0);
        Self {
            front,
            started: Instant::now(),
            status: "cancelled",
        }
    }

    pub(crate) fn finished(&mut self) {
        self.status = "ok";
    }

    pub(crate) fn failed(&mut self, error: &Error) {
        self.status = status_name(error.kind());
        if matches!(error.kind(), ErrorKind::Internal | ErrorKind::DataLoss) {
            tracing::error!(
                front = self.front,
                kind = self.status,
                "query failed: {error}"
            );
        }
    }
}

impl Drop for QueryTimer {
    fn drop(&mut self) {
        metrics::gauge!("strandline_queries_running").decrement(1.0);
        metrics::counter!("strandline_queries_total", "front" => self.front, "status" => self.status).increment(1);
        metrics::histogram!("strandline_query_duration_seconds", "front" => self.front)
            .record(self.started.elapsed().as_secs_f64());
    }
}

/// An error kind as a label.
pub(crate) fn status_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidArgument => "invalid_argument",
        ErrorKind::NotFound => "not_found",
        ErrorKind::AlreadyExists => "already_exists",
        ErrorKind::FailedPrecondition => "failed_precondition",
        ErrorKind::ResourceExhausted => "resource_exhausted",
        ErrorKind::DeadlineExceeded => "deadline_exceeded",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::SegmentGone => "segment_gone",
        ErrorKind::DataLoss => "data_loss",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Internal => "internal",
    }
}

/// Resident memory in bytes, where the system tells it.
pub(crate) fn resident_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}
