//! Apache Kafka as a stream, through librdkafka.
//!
//! Each reader is a consumer of its own with one partition assigned at an offset. It joins no group and
//! commits nothing: offsets live in the metastore, with the segments. Reads are `read_committed` unless a
//! property says otherwise, and batch checksums are verified.
//!
//! While no broker answers, reads end with `Unavailable` (with the addresses and the reason) and the consumer
//! goes on trying by itself; the caller calls again, with a backoff. An offset that retention has overtaken is
//! reported as lost, exactly, and reading goes on at the earliest one; an offset past the end is an error.

mod client;
mod reader;
#[cfg(test)]
mod tests;

use crate::environment::{Environment, blocking};
use crate::stream::{PartitionReader, Stream};
use async_trait::async_trait;
use client::Target;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_proto::ids::OffsetRange;
use strandline_proto::{Error, Result};

/// A topic of a Kafka cluster.
pub struct KafkaStream {
    id: Arc<str>,
    target: Arc<Target>,
    environment: Environment,
}

impl KafkaStream {
    /// The topic at `brokers` (`host:port`, separated by commas), with librdkafka's properties as the table
    /// config gives them. Nothing is contacted yet.
    ///
    /// Errors: `InvalidArgument` for a property that librdkafka does not know, or a value that it refuses.
    pub fn new(
        brokers: &str,
        topic: &str,
        properties: &BTreeMap<String, String>,
        environment: Environment,
    ) -> Result<Self> {
        let target = Arc::new(Target::new(brokers, topic, properties)?);
        Ok(Self {
            id: Arc::from(stream_id(brokers)),
            target,
            environment,
        })
    }

    /// The same, with or without the headers of messages.
    pub fn with_headers(mut self, with_headers: bool) -> Self {
        if let Some(target) = Arc::get_mut(&mut self.target) {
            target.with_headers = with_headers;
        }
        self
    }
}

/// Kafka's numbers are signed.
fn partition_number(target: &Target, partition: u32) -> Result<i32> {
    i32::try_from(partition).map_err(|_| {
        Error::invalid(format!(
            "{}: there is no partition {partition}",
            target.place()
        ))
    })
}

/// What partitions of a cluster's topics name it by.
pub(crate) fn stream_id(brokers: &str) -> String {
    format!("kafka:{brokers}")
}

#[async_trait]
impl Stream for KafkaStream {
    fn id(&self) -> Arc<str> {
        self.id.clone()
    }

    fn topic(&self) -> Arc<str> {
        self.target.topic.clone()
    }

    async fn partitions(&self) -> Result<u32> {
        let target = self.target.clone();
        blocking(&self.environment.spawner, "kafka metadata", move || {
            target.partitions()
        })
        .await
    }

    async fn offsets(&self, partition: u32) -> Result<OffsetRange> {
        let (target, number) = (
            self.target.clone(),
            partition_number(&self.target, partition)?,
        );
        blocking(&self.environment.spawner, "kafka offsets", move || {
            target.offsets(number)
        })
        .await
    }

    async fn offset_at(&self, partition: u32, timestamp_ms: i64) -> Result<u64> {
        let (target, number) = (
            self.target.clone(),
            partition_number(&self.target, partition)?,
        );
        blocking(
            &self.environment.spawner,
            "kafka offsets",
            move || match target.offset_at(number, timestamp_ms)? {
                Some(offset) => Ok(offset),
                None => Ok(target.offsets(number)?.end),
            },
        )
        .await
    }

    async fn open(&self, partition: u32, from_offset: u64) -> Result<Box<dyn PartitionReader>> {
        let number = partition_number(&self.target, partition)?;
        i64::try_from(from_offset).map_err(|_| {
            Error::invalid(format!(
                "{}/{partition}: offset {from_offset} is too large",
                self.target.place()
            ))
        })?;
        Ok(Box::new(reader::KafkaReader::new(
            self.target.clone(),
            number,
            from_offset,
            self.environment.clone(),
        )))
    }
}
