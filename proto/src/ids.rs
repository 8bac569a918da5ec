//! Names and numbers that identify things, as newtypes so that they can't be mixed up.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// One of the two halves of a hybrid table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Half {
    /// Loaded from files.
    Offline,
    /// Consumed from a stream.
    Realtime,
}

impl Half {
    /// `OFFLINE` or `REALTIME`, as in table configs and in the names of whole halves.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "OFFLINE",
            Self::Realtime => "REALTIME",
        }
    }
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a segment, unique within its table for all time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentName(pub Arc<str>);

impl SegmentName {
    /// A segment's name from its text.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One partition of one topic of one stream: what offsets are counted in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamPartition {
    /// Which stream: `kafka:broker1:9092,broker2:9092`, or `log` for the embedded log.
    pub stream: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// The partition within the topic.
    pub partition: u32,
}

impl fmt::Display for StreamPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.stream, self.topic, self.partition)
    }
}

/// A half-open range of stream offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OffsetRange {
    /// The first offset.
    pub start: u64,
    /// The first offset that is not in the range.
    pub end: u64,
}

/// The version of the catalog: each change to segments, offsets or coverage makes a larger one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct CatalogVersion(pub u64);

impl fmt::Display for CatalogVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
