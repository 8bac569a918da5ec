//! Topics of a Kafka broker, and messages for them.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use serde_json::{Value, json};
use std::error::Error;
use std::time::Duration;

/// Sends messages in the background.
pub type Sender = ThreadedProducer<DefaultProducerContext>;

/// Makes a topic at a broker, and what sends to it.
pub async fn new_topic(
    broker: &str,
    topic: &str,
    partitions: u32,
) -> Result<Sender, Box<dyn Error>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker)
        .set("linger.ms", "1");
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let partitions = i32::try_from(partitions)?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for made in admin.create_topics(&[new], &AdminOptions::new()).await? {
        made.map_err(|(topic, code)| format!("topic {topic}: {code}"))?;
    }
    Ok(config.create()?)
}

/// Deletes a topic, which takes as much of the disk as was sent to it.
pub async fn delete(broker: &str, topic: &str) -> Result<(), Box<dyn Error>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    for deleted in admin.delete_topics(&[topic], &AdminOptions::new()).await? {
        deleted.map_err(|(topic, code)| format!("topic {topic}: {code}"))?;
    }
    Ok(())
}

/// A table's `ingestionConfig` that takes in a topic's JSON from its beginning, and seals segments by their rows.
pub fn ingestion_config(broker: &str, topic: &str, flush_rows: u64) -> Value {
    json!({"streamIngestionConfig": {"streamConfigMaps": [{
        "streamType": "kafka",
        "stream.kafka.topic.name": topic,
        "stream.kafka.broker.list": broker,
        "stream.kafka.decoder.class.name": "JSONMessageDecoder",
        "stream.kafka.consumer.prop.auto.offset.reset": "smallest",
        "realtime.segment.flush.threshold.rows": flush_rows.to_string(),
        "realtime.segment.flush.threshold.time": "24h",
    }]}})
}

/// Sends a message, waiting for room.
///
/// # Errors
/// When the client refuses it.
pub fn send(
    producer: &Sender,
    topic: &str,
    partition: u32,
    payload: &[u8],
) -> Result<(), KafkaError> {
    let mut record = BaseRecord::<(), [u8]>::to(topic)
        .partition(i32::try_from(partition).unwrap_or(0))
        .payload(payload);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error),
        }
    }
}
