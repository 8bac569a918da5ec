//! Rows through a real Kafka: while the server is killed again and again, from topics of several kinds, and over TLS with a login.
//!
//! Runs when `STRANDLINE_KAFKA` names a broker (host:port; `tests/kafka.sh start DIR` makes one) and
//! `STRANDLINE_KAFKA_SECURE` the folder that says how to log in there (DIR/secure).
//! `STRANDLINE_KAFKA_PARTITIONS` (4), `STRANDLINE_KAFKA_ROWS` (a partition: 15,000), `STRANDLINE_KAFKA_KILLS` (6) and `STRANDLINE_KAFKA_SEED` lengthen it;
//! `STRANDLINE_KAFKA_EACH_STEP` kills so many times before and after each step of a commit, and `STRANDLINE_KAFKA_KEYED=1`
//! gives rows a key and sends each twice. `STRANDLINE_KAFKA_PROGRAM` names another build of `strandline-under-test`, say that of the release profile.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strandline_proto::v1::UpdateTableRequest;
use strandline_tests::answer::Cell;
use strandline_tests::client::Client;
use strandline_tests::kills::{Plan, Progress, now_ms, run};
use strandline_tests::process::Process;
use strandline_tests::process::number_from;

#[path = "real_kafka/secure.rs"]
mod secure;

/// How to reach brokers that everybody may reach.
fn open_to_all(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

async fn create_topic(config: &ClientConfig, topic: &str, partitions: u32) {
    let admin: AdminClient<DefaultClientContext> = config.create().expect("a client can be made");
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
        let payloads: Vec<Vec<u8>> = (sequence..until)
            .map(|n| plan.message(partition, n))
            .collect();
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
        partitions: u32::try_from(number_from("STRANDLINE_KAFKA_PARTITIONS", 4))
            .expect("few partitions"),
        rows_per_partition: number_from("STRANDLINE_KAFKA_ROWS", 15_000),
        kills: u32::try_from(number_from("STRANDLINE_KAFKA_KILLS", 6)).expect("few kills"),
        flush_rows: number_from("STRANDLINE_KAFKA_FLUSH_ROWS", 1_500),
        batch_rows: number_from("STRANDLINE_KAFKA_BATCH", 50),
        pause: Duration::from_millis(number_from("STRANDLINE_KAFKA_PAUSE_MS", 40)),
        keyed: number_from("STRANDLINE_KAFKA_KEYED", 0) > 0,
        full_disks: 0,
        each_step: match number_from("STRANDLINE_KAFKA_EACH_STEP", 0) {
            0 => None,
            times => Some(u32::try_from(times).expect("few times")),
        },
    };
    let topic = format!("strandline-kills-{}", now_ms());
    create_topic(&open_to_all(&brokers), &topic, plan.partitions).await;
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
        plan.keyed || !report.freshness_ms.is_empty(),
        "the producers ended before freshness was measured: give them more rows"
    );
}

async fn send(
    producer: &FutureProducer,
    topic: &str,
    partition: i32,
    payload: &[u8],
    timestamp_ms: i64,
) {
    let since = Instant::now();
    loop {
        let headers = OwnedHeaders::new().insert(Header {
            key: "app",
            value: Some("bench"),
        });
        let record = FutureRecord::<[u8], [u8]>::to(topic)
            .partition(partition)
            .key(b"k1")
            .headers(headers)
            .timestamp(timestamp_ms)
            .payload(payload);
        match producer.send(record, Duration::from_secs(30)).await {
            Ok(_) => return,
            // A producer hears of a new partition by and by.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition), _))
                if since.elapsed() < Duration::from_secs(30) => {}
            Err((error, _)) => panic!("Kafka refuses the message: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn wait_for(client: &mut Client, sql: &str, expected: &[i128]) {
    let expected: Vec<Cell> = expected.iter().map(|n| Cell::Number(*n, 0)).collect();
    let since = Instant::now();
    loop {
        let (answer, _) = client.ask(sql).await.expect("the server answers");
        if answer.rows[0] == expected {
            return;
        }
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "{sql}: {:?}",
            answer.rows
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One topic from a time on, with keys and headers; another one, compressed, from its end on, to which a partition is added.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_topics_into_one_table_and_a_partition_that_comes_later() {
    let Ok(brokers) = std::env::var("STRANDLINE_KAFKA") else {
        eprintln!("SKIPPED: STRANDLINE_KAFKA (host:port) is not set; see tests/kafka.sh");
        return;
    };
    let (plain, packed) = (
        format!("plain-{}", now_ms()),
        format!("packed-{}", now_ms()),
    );
    create_topic(&open_to_all(&brokers), &plain, 1).await;
    create_topic(&open_to_all(&brokers), &packed, 1).await;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .create()
        .expect("a producer can be made");
    let now = i64::try_from(now_ms()).expect("a time");
    for (n, age_ms) in [(1, 7_200_000), (2, 5_400_000), (4, 1_000), (8, 0)] {
        let message = format!(r#"{{"n": {n}}}"#);
        send(&producer, &plain, 0, message.as_bytes(), now - age_ms).await;
    }
    send(&producer, &packed, 0, b"before the table", now).await;
    let schema = json!({"schemaName": "both", "dimensionFieldSpecs": [
        {"name": "n", "dataType": "LONG"}, {"name": "__key", "dataType": "STRING"}, {"name": "__header$app", "dataType": "STRING"},
        {"name": "__metadata$offset", "dataType": "LONG"}, {"name": "__metadata$recordTimestamp", "dataType": "TIMESTAMP"}]});
    let stream = |topic: &str, start: &str, compression: &str, rate: &str| {
        json!({
            "streamType": "kafka",
            "stream.kafka.topic.name": topic,
            "stream.kafka.broker.list": brokers,
            "stream.kafka.metadata.populate": "true",
            "stream.kafka.decoder.prop.compression": compression,
            "stream.kafka.consumer.prop.auto.offset.reset": start,
            "topic.consumption.rate.limit": rate,
        })
    };
    let config = |rate: &str| {
        let streams = [
            stream(&plain, "1h", "none", rate),
            stream(&packed, "largest", "zstd", rate),
        ];
        json!({"tableName": "both", "tableType": "REALTIME",
            "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": streams}}})
        .to_string()
    };
    let data = tempfile::tempdir().expect("a folder");
    let program = env!("CARGO_BIN_EXE_strandline-under-test");
    let process = Process::start(program, data.path(), None).unwrap_or_else(|e| panic!("{e}"));
    let mut client = Client::connect(&process.grpc).await.expect("it is up");
    client
        .create(&schema.to_string(), &config("1000"))
        .await
        .expect("the table");
    // Messages 4 and 8 are of the last hour, at offsets 2 and 3.
    let plain_rows = "SELECT sum(n), min(\"__metadata$offset\"), count(*) FILTER (WHERE __key = 'k1' AND \"__header$app\" = 'bench'),
        max(CAST(\"__metadata$recordTimestamp\" AS BIGINT)) FROM both WHERE n < 100";
    wait_for(&mut client, plain_rows, &[12, 2, 2, i128::from(now)]).await;
    let ready =
        "SELECT count(*) FROM system.ingestion WHERE table_name = 'both' AND state = 'CONSUMING'";
    wait_for(&mut client, ready, &[2]).await;
    let pack =
        |n: i64| zstd::encode_all(format!(r#"{{"n": {n}}}"#).as_bytes(), 1).expect("it is packed");
    send(&producer, &packed, 0, &pack(100), now).await;
    let packed_rows = "SELECT sum(n), count(*), (SELECT count(*) FROM system.dead_letters) FROM both WHERE n >= 100";
    wait_for(&mut client, packed_rows, &[100, 1, 0]).await;

    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .create()
        .expect("a client can be made");
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("topic.metadata.refresh.interval.ms", "200")
        .create()
        .expect("a producer can be made");
    let more = [NewPartitions::new(&packed, 2)];
    let made = admin.create_partitions(&more, &AdminOptions::new()).await;
    made.expect("Kafka answers")
        .remove(0)
        .expect("the partition is made");
    for n in [1_000, 2_000] {
        send(&producer, &packed, 1, &pack(n), now).await;
    }
    // The stream is asked for its partitions at once where its consumers begin again.
    let config_json = config("2000");
    let update = UpdateTableRequest { config_json };
    client
        .admin
        .update_table(update)
        .await
        .expect("another config");
    wait_for(&mut client, packed_rows, &[3_100, 3, 0]).await;
}
