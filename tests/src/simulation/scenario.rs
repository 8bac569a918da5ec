//! Which table it is: drawn once, at the beginning.

use super::machine::Machine;
use serde_json::{Value, json};
use strandline_proto::ids::Half;

/// What is drawn.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    /// Whether the stream is elsewhere; else it is the server's own log.
    pub(super) is_remote: bool,
    pub(super) partitions: u32,
    pub(super) is_hybrid: bool,
    pub(super) retention_ms: Option<i64>,
    takes_over: bool,
    flush_rows: u64,
    flush_age: &'static str,
    buffer: &'static str,
    kept: &'static str,
    sorted: bool,
    inverted: bool,
    /// Whether messages are archived.
    pub(super) archives: bool,
    /// Bytes of a file of the log.
    pub(super) file_bytes_max: u64,
    /// Memory of consuming segments.
    pub(super) memory_bytes_max: usize,
}

impl Scenario {
    pub(super) fn draw(machine: &Machine) -> Self {
        let is_hybrid = !machine.once_in(4);
        Self {
            is_remote: machine.once_in(2),
            partitions: 1 + machine.below(3) as u32,
            is_hybrid,
            retention_ms: machine.once_in(3).then_some(6 * 3_600_000),
            takes_over: is_hybrid && !machine.once_in(4),
            flush_rows: 2 + machine.below(20),
            flush_age: machine.one_of(&["5s", "1m", "30m"]),
            buffer: machine.one_of(&["1m", "30m"]),
            kept: machine.one_of(&["0d", "1h"]),
            sorted: machine.once_in(2),
            inverted: machine.once_in(3),
            archives: machine.once_in(3),
            file_bytes_max: machine.one_of(&[600, 2_000, 100_000]),
            memory_bytes_max: machine.one_of(&[1 << 30, 1 << 30, 60_000]),
        }
    }

    /// Realtime-only tables and hybrid ones have names of their own, because plans are kept by table.
    pub(super) fn table(&self) -> &'static str {
        match self.is_hybrid {
            true => "h",
            false => "r",
        }
    }

    pub(super) fn schema_json(&self) -> String {
        json!({
            "schemaName": self.table(),
            "dimensionFieldSpecs": [{"name": "n", "dataType": "LONG"}],
            "dateTimeFieldSpecs": [
                {"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"},
            ],
        })
        .to_string()
    }

    pub(super) fn halves(&self) -> Vec<Half> {
        match self.is_hybrid {
            true => vec![Half::Offline, Half::Realtime],
            false => vec![Half::Realtime],
        }
    }

    pub(super) fn table_json(&self, half: Half) -> String {
        let mut segments = json!({
            "timeColumnName": "ms",
            "deletedSegmentsRetentionPeriod": self.kept,
        });
        if self.retention_ms.is_some() {
            segments["retentionTimeUnit"] = json!("HOURS");
            segments["retentionTimeValue"] = json!("6");
        }
        let mut index = json!({});
        if self.sorted {
            index["sortedColumn"] = json!(["n"]);
        }
        if self.inverted {
            index["invertedIndexColumns"] = json!(["n"]);
        }
        let mut config = json!({
            "tableName": self.table(),
            "tableType": half.as_str(),
            "segmentsConfig": segments,
            "tableIndexConfig": index,
        });
        if half == Half::Realtime {
            config["ingestionConfig"] =
                json!({"streamIngestionConfig": {"streamConfigMaps": [self.stream()]}});
            if self.takes_over {
                config["task"] = json!({"taskTypeConfigsMap": {"RealtimeToOfflineSegmentsTask":
                    {"bucketTimePeriod": "1h", "bufferTimePeriod": self.buffer}}});
            }
        }
        config.to_string()
    }

    fn stream(&self) -> Value {
        let mut stream = match self.is_remote {
            true => json!({
                "streamType": "kafka",
                "stream.kafka.topic.name": "t",
                "stream.kafka.broker.list": "elsewhere:9092",
            }),
            false => json!({
                "streamType": "log",
                "stream.log.topic.name": "t",
                "stream.log.partitions": self.partitions.to_string(),
            }),
        };
        let kind = if self.is_remote { "kafka" } else { "log" };
        stream[format!("stream.{kind}.consumer.prop.auto.offset.reset")] = json!("smallest");
        if self.archives {
            stream[format!("stream.{kind}.archive")] = json!("true");
        }
        stream["realtime.segment.flush.threshold.rows"] = json!(self.flush_rows.to_string());
        stream["realtime.segment.flush.threshold.time"] = json!(self.flush_age);
        stream
    }
}
