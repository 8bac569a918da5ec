//! The reader against librdkafka's own mock cluster. A real server is for the end-to-end tests.

use super::client::end_offset;
use super::*;
use crate::stream::contract;
use bytes::Bytes;
use futures::future::BoxFuture;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use std::time::Duration;
use strandline_proto::ErrorKind;

struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    producer: FutureProducer,
}

impl Cluster {
    fn new(partitions: i32) -> Self {
        let mock = MockCluster::new(1).unwrap();
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

fn produce(
    producer: &FutureProducer,
    partition: u32,
    pairs: Vec<(Option<Bytes>, Bytes)>,
) -> BoxFuture<'static, Result<()>> {
    let producer = producer.clone();
    Box::pin(async move {
        for (key, payload) in pairs {
            let mut record = FutureRecord::<[u8], [u8]>::to("t")
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
