//! Rows that are sent steadily, numbered in each partition from 0, so that a row's number is its offset.

use crate::kills::message;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How often a producer sends.
const PERIOD: Duration = Duration::from_millis(20);

/// How far the rows of each partition are.
#[derive(Debug)]
pub(super) struct Rows {
    sent: Vec<AtomicU64>,
    acknowledged: Vec<AtomicU64>,
    stop: AtomicBool,
}

impl Rows {
    /// Sends so many rows a second to `topic`, until they are to stop.
    pub(super) fn start(
        brokers: &str,
        topic: &str,
        partitions: u32,
        rows_per_second: u64,
    ) -> (Arc<Self>, Vec<JoinHandle<()>>) {
        let zeros = || (0..partitions).map(|_| AtomicU64::new(0)).collect();
        let rows = Arc::new(Self {
            sent: zeros(),
            acknowledged: zeros(),
            stop: AtomicBool::new(false),
        });
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            // Whatever happens to brokers, each row is acknowledged in the end.
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.messages", "1000000")
            .set("socket.timeout.ms", "5000")
            .set("reconnect.backoff.max.ms", "500")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .create()
            .expect("a producer can be made");
        let rows_per_second = rows_per_second as f64 / f64::from(partitions);
        let mut tasks = Vec::new();
        for partition in 0..partitions {
            let (deliveries, delivered) = mpsc::unbounded_channel();
            let sending = Sending {
                producer: producer.clone(),
                topic: topic.to_owned(),
                partition,
                rows: Arc::clone(&rows),
                deliveries,
            };
            tasks.push(tokio::spawn(sending.run(rows_per_second)));
            tasks.push(tokio::spawn(acknowledge(
                partition,
                Arc::clone(&rows),
                delivered,
            )));
        }
        (rows, tasks)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Rows that were sent to a partition.
    pub(super) fn sent(&self, partition: usize) -> u64 {
        self.sent[partition].load(Ordering::SeqCst)
    }

    /// Rows that Kafka has acknowledged, a partition each.
    pub(super) fn acknowledged(&self) -> Vec<u64> {
        let rows = self.acknowledged.iter();
        rows.map(|rows| rows.load(Ordering::SeqCst)).collect()
    }
}

struct Sending {
    producer: FutureProducer,
    topic: String,
    partition: u32,
    rows: Arc<Rows>,
    deliveries: mpsc::UnboundedSender<DeliveryFuture>,
}

impl Sending {
    async fn run(self, rows_per_second: f64) {
        let sent = &self.rows.sent[self.partition as usize];
        let since = Instant::now();
        let mut number = 0;
        while !self.rows.stop.load(Ordering::SeqCst) {
            let due = (since.elapsed().as_secs_f64() * rows_per_second) as u64;
            while number < due {
                sent.store(number + 1, Ordering::SeqCst);
                let payload = message(self.partition, number);
                self.deliveries
                    .send(self.send(&payload).await)
                    .expect("acknowledgements are waited for");
                number += 1;
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn send(&self, payload: &[u8]) -> DeliveryFuture {
        loop {
            let record = FutureRecord::<(), [u8]>::to(&self.topic)
                .partition(self.partition as i32)
                .payload(payload);
            match self.producer.send_result(record) {
                Ok(delivery) => return delivery,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(PERIOD).await;
                }
                Err((error, _)) => panic!("Kafka refuses a row: {error}"),
            }
        }
    }
}

async fn acknowledge(
    partition: u32,
    rows: Arc<Rows>,
    mut delivered: mpsc::UnboundedReceiver<DeliveryFuture>,
) {
    let mut number = 0;
    while let Some(delivery) = delivered.recv().await {
        let delivery = delivery.await.expect("the producer lives");
        let delivery = delivery.unwrap_or_else(|(e, _)| panic!("Kafka lost a row: {e}"));
        assert_eq!(
            delivery.offset, number,
            "partition {partition}: a row's number is not its offset"
        );
        number += 1;
        rows.acknowledged[partition as usize].store(number as u64, Ordering::SeqCst);
    }
}
