//! The reader against librdkafka's own mock cluster, and, where `STRANDLINE_KAFKA` names one (host:port), a real
//! server: only that has transactions.

use super::client::end_offset;
use super::*;
use crate::stream::contract;
use bytes::Bytes;
use futures::future::BoxFuture;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord, Producer};
use std::time::Duration;
use strandline_proto::ErrorKind;

struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    producer: FutureProducer,
}

impl Cluster {
    fn new(partitions: i32) -> Self {
        Self::of(1, partitions)
    }

    fn of(brokers: i32, partitions: i32) -> Self {
        let mock = MockCluster::new(brokers).unwrap();
        mock.create_topic("t", partitions, 1).unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .create()
            .unwrap();
        Self { mock, producer }
    }

    fn stream(&self, topic: &str) -> KafkaStream {
        KafkaStream::new(
            &self.mock.bootstrap_servers(),
            topic,
            &BTreeMap::new(),
            Environment::real(),
        )
        .unwrap()
    }
}

fn produce_to(
    topic: &str,
    producer: &FutureProducer,
    partition: u32,
    pairs: Vec<(Option<Bytes>, Bytes)>,
) -> BoxFuture<'static, Result<()>> {
    let (producer, topic) = (producer.clone(), topic.to_owned());
    Box::pin(async move {
        for (key, payload) in pairs {
            let mut record = FutureRecord::<[u8], [u8]>::to(&topic)
                .partition(partition as i32)
                .payload(&payload[..]);
            if let Some(key) = &key {
                record = record.key(&key[..]);
            }
            producer
                .send(record, Duration::from_secs(10))
                .await
                .map_err(|(e, _)| Error::internal(e.to_string()))?;
        }
        Ok(())
    })
}

fn produce(
    producer: &FutureProducer,
    partition: u32,
    pairs: Vec<(Option<Bytes>, Bytes)>,
) -> BoxFuture<'static, Result<()>> {
    produce_to("t", producer, partition, pairs)
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_keeps_the_stream_contract() {
    let cluster = Cluster::new(2);
    let stream = cluster.stream("t");
    let produce = |partition, pairs| -> BoxFuture<'_, Result<()>> {
        produce(&cluster.producer, partition, pairs)
    };
    contract::check(&stream, &produce).await.unwrap();
    assert_eq!(stream.partitions().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_come_when_they_are_asked_for() {
    let cluster = Cluster::new(1);
    let header = |key, value| Header { key, value };
    let headers = OwnedHeaders::new()
        .insert(header("app", Some("a")))
        .insert(header("none", None))
        .insert(header("app", Some("b")));
    let record = FutureRecord::<[u8], [u8]>::to("t")
        .partition(0)
        .payload(b"x")
        .headers(headers);
    let sent = cluster.producer.send(record, Duration::from_secs(10)).await;
    sent.unwrap();
    for (wanted, expected) in [(false, vec![]), (true, vec![("app", "a"), ("app", "b")])] {
        let stream = cluster.stream("t").with_headers(wanted);
        let mut reader = stream.open(0, 0).await.unwrap();
        let batch = reader.next(10, 1_000, Duration::from_secs(10)).await;
        let message = batch.unwrap().messages.remove(0);
        let found: Vec<(&str, &str)> = (message.headers.iter())
            .map(|(name, value)| (&**name, std::str::from_utf8(value).unwrap()))
            .collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_with_its_offset() {
    assert_eq!(
        end_offset("Fetch from broker 1 reached end of partition at offset 42 (HighwaterMark 43)"),
        Some(42)
    );
    assert_eq!(end_offset("something else"), None);
    // The sentence is librdkafka's: this fails when a new version words it differently.
    let cluster = Cluster::new(1);
    produce(
        &cluster.producer,
        0,
        vec![(None, Bytes::from_static(b"x")); 3],
    )
    .await
    .unwrap();
    let target = Target::new(&cluster.mock.bootstrap_servers(), "t", &BTreeMap::new()).unwrap();
    let consumer = target.consumer(client::Reports::new("t".into())).unwrap();
    let mut assignment = rdkafka::TopicPartitionList::new();
    assignment
        .add_partition_offset("t", 0, rdkafka::Offset::Offset(1))
        .unwrap();
    rdkafka::consumer::Consumer::assign(&consumer, &assignment).unwrap();
    loop {
        if consumer.recv().await.is_err() {
            assert_eq!(
                rdkafka::consumer::Consumer::context(&consumer).take_end(),
                Some(3)
            );
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_of_the_brokers_is_an_error_that_names_them_and_passes() {
    let cluster = Cluster::new(1);
    let stream = cluster.stream("t");
    let mut reader = stream.open(0, 0).await.unwrap();
    cluster.mock.broker_down(1).unwrap();
    let error = reader
        .next(10, 1000, Duration::from_millis(300))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.message().contains(&cluster.mock.bootstrap_servers()),
        "{error}"
    );
    assert_eq!(
        stream.partitions().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    cluster.mock.broker_up(1).unwrap();
    produce(
        &cluster.producer,
        0,
        vec![(None, Bytes::from_static(b"back"))],
    )
    .await
    .unwrap();
    loop {
        match reader.next(10, 1000, Duration::from_secs(1)).await {
            Ok(batch) if batch.messages.is_empty() => {}
            Ok(batch) => break assert_eq!(batch.messages[0].payload, Bytes::from_static(b"back")),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
    }
}

/// It breaks no connection: only time tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_says_nothing_any_more_is_left_for_the_next_one() {
    let cluster = Cluster::of(2, 1);
    cluster.mock.partition_leader("t", 0, Some(1)).unwrap();
    let pair = |text: &'static str| vec![(None, Bytes::from_static(text.as_bytes()))];
    produce(&cluster.producer, 0, pair("before")).await.unwrap();
    let stream = cluster.stream("t");
    let mut reader = stream.open(0, 0).await.unwrap();
    let mut read = Vec::new();
    let since = std::time::Instant::now();
    let mut has_moved = false;
    while read.len() < 2 {
        match reader.next(10, 1000, Duration::from_millis(200)).await {
            Ok(batch) => read.extend(batch.messages.into_iter().map(|m| m.payload)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
        if read.len() == 1 && !has_moved {
            has_moved = true;
            let never = Duration::from_secs(600);
            cluster.mock.broker_round_trip_time(1, never).unwrap();
            cluster.mock.partition_leader("t", 0, Some(2)).unwrap();
            let (mock, producer) = (cluster.mock.bootstrap_servers(), ClientConfig::new());
            let second = mock.split(',').nth(1).unwrap();
            let producer: FutureProducer = producer
                .clone()
                .set("bootstrap.servers", second)
                .create()
                .unwrap();
            tokio::spawn(produce(&producer, 0, pair("after")));
        }
        assert!(
            since.elapsed() < Duration::from_secs(45),
            "librdkafka's own patience is a minute"
        );
    }
    assert_eq!(read, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_topics_and_properties_are_named() {
    let cluster = Cluster::new(1);
    assert_eq!(
        cluster.stream("t").offsets(0).await.unwrap(),
        OffsetRange { start: 0, end: 0 }
    );
    let properties = BTreeMap::from([("sasl.pasword".to_owned(), "secret".to_owned())]);
    let error = KafkaStream::new("localhost:1", "t", &properties, Environment::real())
        .err()
        .unwrap();
    assert!(
        error.kind() == ErrorKind::InvalidArgument && error.message().contains("sasl.pasword"),
        "{error}"
    );
    assert!(!error.message().contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_is_told_exactly_and_reading_goes_on() {
    // The mock cluster keeps the last 5 MB of a partition.
    let cluster = Cluster::new(1);
    let large = Bytes::from(vec![1; 900_000]);
    for _ in 0..12 {
        produce(&cluster.producer, 0, vec![(None, large.clone())])
            .await
            .unwrap();
    }
    let stream = cluster.stream("t");
    let OffsetRange { start, end } = stream.offsets(0).await.unwrap();
    assert!(start > 1 && end == 12, "{start} to {end}");
    let mut reader = stream.open(0, 1).await.unwrap();
    let (mut lost, mut offsets, mut next) = (None, Vec::new(), 1);
    while next < end {
        let batch = reader
            .next(3, 10_000_000, Duration::from_secs(10))
            .await
            .unwrap();
        if let Some(range) = batch.lost {
            assert!(lost.replace(range).is_none() && offsets.is_empty());
        }
        offsets.extend(batch.messages.iter().map(|message| message.offset));
        next = batch.next_offset;
    }
    assert_eq!(
        lost,
        Some(OffsetRange {
            start: 1,
            end: start
        })
    );
    assert_eq!(offsets, (start..end).collect::<Vec<_>>());
}

/// All messages up to the end that the server tells, and where the reader then goes on.
async fn read_to_end(stream: &KafkaStream, from: u64) -> (Vec<u64>, u64) {
    let end = stream.offsets(0).await.unwrap().end;
    let mut reader = stream.open(0, from).await.unwrap();
    let (mut offsets, mut next) = (Vec::new(), from);
    for _ in 0..20 {
        if next >= end {
            break;
        }
        let batch = reader
            .next(100, 1 << 20, Duration::from_millis(500))
            .await
            .unwrap();
        offsets.extend(batch.messages.iter().map(|message| message.offset));
        next = batch.next_offset;
    }
    (offsets, next)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_servers_transactions_and_deletions_are_passed_exactly() {
    let Ok(brokers) = std::env::var("STRANDLINE_KAFKA") else {
        eprintln!("SKIPPED: STRANDLINE_KAFKA (host:port) is not set; see tests/kafka.sh");
        return;
    };
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers);
    let topic = format!("streams-{}", Environment::real().random.uuid());
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let new = NewTopic::new(&topic, 2, TopicReplication::Fixed(1));
    admin
        .create_topics([&new], &AdminOptions::new())
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    let stream = KafkaStream::new(&brokers, &topic, &BTreeMap::new(), Environment::real()).unwrap();
    while stream.partitions().await != Ok(2) {}

    let plain: FutureProducer = config.create().unwrap();
    let produce = |partition, pairs| -> BoxFuture<'_, Result<()>> {
        produce_to(&topic, &plain, partition, pairs)
    };
    contract::check(&stream, &produce).await.unwrap();
    contract::check_times(&stream, &produce).await.unwrap();

    let begin = stream.offsets(0).await.unwrap().end;
    let transactional: FutureProducer = config
        .clone()
        .set("transactional.id", &topic)
        .create()
        .unwrap();
    let wait = Duration::from_secs(20);
    transactional.init_transactions(wait).unwrap();
    for (messages, committed) in [(3, true), (2, false), (1, true)] {
        transactional.begin_transaction().unwrap();
        let pairs = vec![(None, Bytes::from_static(b"x")); messages];
        produce_to(&topic, &transactional, 0, pairs).await.unwrap();
        if committed {
            transactional.commit_transaction(wait).unwrap()
        } else {
            transactional.abort_transaction(wait).unwrap()
        }
    }
    // Three messages, a marker, two aborted ones, a marker, one message, a marker.
    let end = begin + 9;
    assert_eq!(stream.offsets(0).await.unwrap().end, end);
    let committed = vec![begin, begin + 1, begin + 2, begin + 7];
    assert_eq!(read_to_end(&stream, begin).await, (committed, end));
    assert_eq!(
        read_to_end(&stream, begin + 3).await,
        (vec![begin + 7], end)
    );

    // What is not committed yet is not there, and not passed.
    transactional.begin_transaction().unwrap();
    produce_to(
        &topic,
        &transactional,
        0,
        vec![(None, Bytes::from_static(b"y"))],
    )
    .await
    .unwrap();
    let mut reader = stream.open(0, end).await.unwrap();
    let idle = reader.next(10, 1000, Duration::from_secs(1)).await.unwrap();
    assert_eq!((idle.messages.len(), idle.next_offset), (0, end));
    transactional.commit_transaction(wait).unwrap();
    assert_eq!(
        reader.next(10, 1000, wait).await.unwrap().messages[0].offset,
        end
    );

    let mut before = rdkafka::TopicPartitionList::new();
    before
        .add_partition_offset(&topic, 0, rdkafka::Offset::Offset(begin as i64 + 2))
        .unwrap();
    admin
        .delete_records(&before, &AdminOptions::new())
        .await
        .unwrap();
    let mut late = stream.open(0, begin - 1).await.unwrap();
    let batch = late.next(1, 1000, wait).await.unwrap();
    assert_eq!(
        batch.lost,
        Some(OffsetRange {
            start: begin - 1,
            end: begin + 2
        })
    );
    assert_eq!(batch.messages[0].offset, begin + 2);
}
