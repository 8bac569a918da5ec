//! librdkafka's clients: how they are configured, what they log, and their errors in our words.

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::ids::OffsetRange;
use strandline_proto::{Error, ErrorKind, Result};

/// How long a question to the brokers may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long what a client has told is taken in, after a question that failed.
const TOLD_WITHIN: Duration = Duration::from_millis(20);

/// Properties unless the table config says otherwise.
const DEFAULTS: [(&str, &str); 11] = [
    ("client.id", "strandline"),
    // librdkafka assigns partitions only to a consumer that names a group; none is joined.
    ("group.id", "strandline"),
    ("isolation.level", "read_committed"),
    ("check.crcs", "true"),
    // Messages fetched ahead, per partition.
    ("queued.max.messages.kbytes", "16384"),
    // When so many are there, no more are asked for until this time has passed: by then most of them may be used up.
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.wait.max.ms", "100"),
    // A broker that has stopped, or that a network no longer reaches, says nothing. This is when it is given up and another
    // one is asked who leads the partition now.
    ("socket.timeout.ms", "10000"),
    ("socket.connection.setup.timeout.ms", "10000"),
    ("socket.keepalive.enable", "true"),
    // How soon one is noticed that is back.
    ("reconnect.backoff.max.ms", "2000"),
];

/// Properties that this reader depends on.
const FORCED: [(&str, &str); 4] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    // Being overtaken by retention must be noticed, not papered over.
    ("auto.offset.reset", "error"),
];

/// A topic and how to reach it.
pub(super) struct Target {
    brokers: String,
    pub(super) topic: Arc<str>,
    /// Whether messages come with their headers.
    pub(super) with_headers: bool,
    config: ClientConfig,
}

impl Target {
    pub(super) fn new(
        brokers: &str,
        topic: &str,
        properties: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut config = ClientConfig::new();
        for (key, value) in DEFAULTS {
            config.set(key, value);
        }
        for (key, value) in properties {
            config.set(key, value);
        }
        for (key, value) in FORCED {
            config.set(key, value);
        }
        config.set("bootstrap.servers", brokers);
        config.set_log_level(RDKafkaLogLevel::Info);
        let target = Self {
            brokers: brokers.to_owned(),
            topic: Arc::from(topic),
            with_headers: false,
            config,
        };
        target
            .config
            .create_native_config()
            .map_err(|e| target.error(&e, None))?;
        Ok(target)
    }

    /// Cluster and topic, as errors name them.
    pub(super) fn place(&self) -> String {
        format!("kafka {} topic {}", self.brokers, self.topic)
    }

    /// A consumer; blocks, and contacts nothing yet.
    pub(super) fn consumer(&self, reports: Reports) -> Result<StreamConsumer<Reports>> {
        self.config
            .create_with_context(reports)
            .map_err(|e| self.error(&e, None))
    }

    /// How many partitions the topic has; blocks.
    pub(super) fn partitions(&self) -> Result<u32> {
        self.ask(|client| {
            let metadata = client.fetch_metadata(Some(&self.topic), ANSWER_MAX)?;
            let topic = metadata
                .topics()
                .iter()
                .find(|topic| topic.name() == &*self.topic);
            match topic.map(|topic| (topic.error(), topic.partitions().len())) {
                Some((Some(error), _)) => Err(KafkaError::MetadataFetch(error.into())),
                None | Some((None, 0)) => {
                    Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic))
                }
                Some((None, partitions)) => Ok(u32::try_from(partitions).unwrap_or(u32::MAX)),
            }
        })
    }

    /// The offsets a partition holds; blocks.
    pub(super) fn offsets(&self, partition: i32) -> Result<OffsetRange> {
        self.ask(|client| client.fetch_watermarks(&self.topic, partition, ANSWER_MAX))
            .and_then(|range| self.range(partition, range))
    }

    /// The first offset of a message written at `timestamp_ms` or later; blocks. None when there is no such message.
    pub(super) fn offset_at(&self, partition: i32, timestamp_ms: i64) -> Result<Option<u64>> {
        let found = self.ask(|client| {
            let mut asked = TopicPartitionList::new();
            asked.add_partition_offset(&self.topic, partition, Offset::Offset(timestamp_ms))?;
            let answer = client.offsets_for_times(asked, ANSWER_MAX)?;
            let element = answer.find_partition(&self.topic, partition);
            element.map_or(Ok(Offset::End), |element| {
                element.error().map(|()| element.offset())
            })
        })?;
        match found {
            Offset::Offset(offset) => Ok(u64::try_from(offset).ok()),
            _ => Ok(None),
        }
    }

    /// [`Self::offsets`] through a consumer that is there.
    pub(super) fn offsets_through(
        &self,
        consumer: &StreamConsumer<Reports>,
        partition: i32,
    ) -> Result<OffsetRange> {
        let range = consumer.fetch_watermarks(&self.topic, partition, ANSWER_MAX);
        let reason = consumer.context().reason();
        range
            .map_err(|e| self.error(&e, reason.as_ref()))
            .and_then(|range| self.range(partition, range))
    }

    fn range(&self, partition: i32, (low, high): (i64, i64)) -> Result<OffsetRange> {
        match (u64::try_from(low), u64::try_from(high)) {
            (Ok(start), Ok(end)) => Ok(OffsetRange { start, end }),
            _ => Err(Error::unavailable(format!(
                "{}/{partition}: the broker gave the offsets {low} to {high}",
                self.place()
            ))),
        }
    }

    /// Asks with a client of its own, which leaves nothing behind.
    fn ask<T>(
        &self,
        question: impl FnOnce(&BaseConsumer<Reports>) -> Result<T, KafkaError>,
    ) -> Result<T> {
        let mut config = self.config.clone();
        // Without a group nothing has to be left at the end.
        config.remove("group.id");
        let client: BaseConsumer<Reports> = config
            .create_with_context(Reports::new(self.place()))
            .map_err(|e| self.error(&e, None))?;
        question(&client).map_err(|e| {
            // What went wrong with the connection is told as events. A poll without time would end at a line for the log.
            while let Some(event) = client.poll(TOLD_WITHIN) {
                drop(event);
            }
            self.error(&e, client.context().reason().as_ref())
        })
    }

    /// librdkafka's error as a user meets it.
    pub(super) fn error(&self, error: &KafkaError, reason: Option<&Reason>) -> Error {
        use RDKafkaErrorCode as Code;
        let place = self.place();
        if let KafkaError::ClientConfig(_, description, key, _) = error {
            // The value may be a secret.
            return Error::invalid(format!(
                "{place}: the property {key:?} was refused: {description}"
            ));
        }
        // That nobody answered says less than why.
        let code = match (error.rdkafka_error_code(), reason.and_then(|r| r.code)) {
            (
                Some(
                    Code::AllBrokersDown
                    | Code::BrokerTransportFailure
                    | Code::MessageTimedOut
                    | Code::OperationTimedOut,
                ),
                Some(why @ (Code::Authentication | Code::SSL)),
            ) => Some(why),
            (code, _) => code,
        };
        let kind = match code {
            Some(
                Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::InvalidTopic,
            ) => ErrorKind::NotFound,
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::SaslAuthenticationFailed
                | Code::Authentication,
            ) => ErrorKind::FailedPrecondition,
            Some(Code::BadMessage) => ErrorKind::DataLoss,
            _ => match error {
                KafkaError::ClientCreation(_) | KafkaError::Nul(_) => ErrorKind::InvalidArgument,
                _ => ErrorKind::Unavailable,
            },
        };
        let what = match (code, reason) {
            (Some(code), Some(reason)) => format!("{code}: {}", reason.text),
            (Some(code), None) => code.to_string(),
            (None, _) => error.to_string(),
        };
        let remedy = match (kind, code) {
            (ErrorKind::NotFound, _) => "; create the topic, or correct the table config",
            (ErrorKind::FailedPrecondition, _) => "; check the credentials in the table config",
            (ErrorKind::Unavailable, Some(Code::SSL)) => {
                "; check the properties ssl.* in the table config; trying again"
            }
            (ErrorKind::Unavailable, _) => "; trying again",
            _ => "",
        };
        Error::new(kind, format!("{place}: {what}{remedy}"))
    }
}

/// What a client tells besides messages: log lines go to tracing, and what errors say is kept.
pub(super) struct Reports {
    place: String,
    said: Mutex<Said>,
}

/// Why a connection fails, as librdkafka tells it.
#[derive(Clone)]
pub(super) struct Reason {
    code: Option<RDKafkaErrorCode>,
    pub(super) text: String,
}

#[derive(Default)]
struct Said {
    reason: Option<Reason>,
    /// Where the partition was said to end.
    end: Option<u64>,
}

impl Reports {
    pub(super) fn new(place: String) -> Self {
        Self {
            place,
            said: Mutex::default(),
        }
    }

    /// Why the connection failed last.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.said.lock().reason.clone()
    }

    /// Forgets why it failed.
    pub(super) fn recovered(&self) {
        self.said.lock().reason = None;
    }

    /// The offset of the end that was just reached.
    pub(super) fn take_end(&self) -> Option<u64> {
        self.said.lock().end.take()
    }
}

/// The offset in librdkafka's sentence about the end of a partition. It is past transaction markers, which no
/// message shows; the Rust binding passes on only the sentence.
pub(super) fn end_offset(sentence: &str) -> Option<u64> {
    let (_, after) = sentence.split_once("end of partition at offset ")?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let stream = self.place.as_str();
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(stream, facility, "{message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(stream, facility, "{message}")
            }
            RDKafkaLogLevel::Debug => tracing::debug!(stream, facility, "{message}"),
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let mut said = self.said.lock();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => said.end = end_offset(reason),
            // "All brokers are down" says less than what went before it.
            Some(RDKafkaErrorCode::AllBrokersDown) if said.reason.is_some() => {}
            _ => {
                tracing::debug!(stream = self.place, %error, "{reason}");
                said.reason = Some(Reason {
                    code: error.rdkafka_error_code(),
                    text: reason.to_owned(),
                });
            }
        }
    }
}

impl ConsumerContext for Reports {}
