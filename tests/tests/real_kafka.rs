//! Rows through a real Kafka while the server is killed again and again.
//!
//! Runs when `STRANDLINE_KAFKA` names a broker (host:port; `tests/kafka.sh start DIR` makes one).
//! `STRANDLINE_KAFKA_ROWS` (a partition: 15,000), `STRANDLINE_KAFKA_KILLS` (6) and `STRANDLINE_KAFKA_SEED` lengthen it;
//! `STRANDLINE_KAFKA_PROGRAM` names another build of `strandline-under-test`, say that of the release profile.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use strandline_tests::kills::{Plan, Progress, message, now_ms, run};

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}"))
    })
}

async fn create_topic(brokers: &str, topic: &str, partitions: u32) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a client can be made");
    let partitions = i32::try_from(partitions).expect("few partitions");
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let made = admin
        .create_topics(&[new], &AdminOptions::new())
        .await
        .expect("Kafka answers");
    for result in made {
        result.expect("the topic is made");
    }
}

async fn produce(
    producer: FutureProducer,
    topic: String,
    partition: u32,
    plan: Plan,
    progress: Arc<Progress>,
) {
    let mut sequence = 0;
    while sequence < plan.rows_per_partition {
        let until = (sequence + plan.batch_rows).min(plan.rows_per_partition);
        progress.sending(partition, until);
        let payloads: Vec<Vec<u8>> = (sequence..until).map(|s| message(partition, s)).collect();
        let sends: Vec<_> = payloads
            .iter()
            .map(|payload| {
                let record = FutureRecord::<(), [u8]>::to(&topic)
                    .partition(partition as i32)
                    .payload(payload.as_slice());
                producer.send(record, Duration::from_secs(30))
            })
            .collect();
        for sent in futures::future::join_all(sends).await {
            sent.expect("Kafka takes the message");
        }
        sequence = until;
        tokio::time::sleep(plan.pause).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_through_kafka_survive_kills_exactly() {
    let Ok(brokers) = std::env::var("STRANDLINE_KAFKA") else {
        eprintln!(
            "SKIPPED rows_through_kafka_survive_kills_exactly: STRANDLINE_KAFKA (host:port) is not set; see tests/kafka.sh"
        );
        return;
    };
    let plan = Plan {
        seed: number_from("STRANDLINE_KAFKA_SEED", 1),
        partitions: 4,
        rows_per_partition: number_from("STRANDLINE_KAFKA_ROWS", 15_000),
        kills: u32::try_from(number_from("STRANDLINE_KAFKA_KILLS", 6)).expect("few kills"),
        flush_rows: number_from("STRANDLINE_KAFKA_FLUSH_ROWS", 1_500),
        batch_rows: number_from("STRANDLINE_KAFKA_BATCH", 50),
        pause: Duration::from_millis(number_from("STRANDLINE_KAFKA_PAUSE_MS", 40)),
    };
    let topic = format!("strandline-kills-{}", now_ms());
    create_topic(&brokers, &topic, plan.partitions).await;
    let stream = json!({
        "streamType": "kafka",
        "stream.kafka.topic.name": topic,
        "stream.kafka.broker.list": brokers,
        "stream.kafka.decoder.class.name": "org.apache.pinot.plugin.stream.kafka.KafkaJSONMessageDecoder",
        "stream.kafka.consumer.prop.auto.offset.reset": "smallest",
        "realtime.segment.flush.threshold.rows": plan.flush_rows.to_string(),
        "realtime.segment.flush.threshold.time": "24h",
    });
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .create()
        .expect("a producer can be made");
    let data = tempfile::tempdir().expect("a folder");
    let program = std::env::var("STRANDLINE_KAFKA_PROGRAM")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_strandline-under-test").to_owned());
    let report = run(&program, data.path(), plan.clone(), &stream, {
        let (topic, producer, plan) = (topic.clone(), producer.clone(), plan.clone());
        move |_, progress| {
            (0..plan.partitions)
                .map(|partition| {
                    tokio::spawn(produce(
                        producer.clone(),
                        topic.clone(),
                        partition,
                        plan.clone(),
                        Arc::clone(&progress),
                    ))
                })
                .collect()
        }
    })
    .await;
    producer
        .flush(Duration::from_secs(5))
        .expect("nothing is left to send");
    println!(
        "{} rows {report}",
        plan.rows_per_partition * u64::from(plan.partitions)
    );
    assert!(report.answers > 0, "queries were answered meanwhile");
    assert!(
        !report.freshness_ms.is_empty(),
        "the producers ended before freshness was measured: give them more rows"
    );
}
