//! The realtime halves of this server: for each table a watcher of its stream's partitions, and for each
//! partition a consumer with its committer.

use super::catalog::Publisher;
use super::commit::{CommitQueue, Committer};
use super::consumer::{Backoff, Consumer, ConsumingBudget, segment_name};
use super::step::Steps;
use super::tail::Tail;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::ids::{Half, StreamPartition};
use strandline_proto::{Error, Result};
use strandline_storage::config::{StartOffset, StreamConfig, StreamKind, TableConfig};
use strandline_storage::deep_store::DeepStore;
use strandline_storage::environment::{Environment, TaskHandle};
use strandline_storage::meta::Metastore;
use strandline_storage::segment::consuming::ConsumingSegment;
use strandline_storage::stream::Stream;
use strandline_storage::stream::kafka::KafkaStream;
use strandline_storage::stream::log::EmbeddedLog;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a stream is asked whether it has more partitions.
const PARTITIONS_PERIOD: Duration = Duration::from_secs(30);

/// What all realtime tables share.
#[derive(Clone)]
pub struct Shared {
    /// Where offsets and segments are named.
    pub metastore: Arc<dyn Metastore>,
    /// Where segments are kept.
    pub deep_store: Arc<DeepStore>,
    /// Makes commits visible.
    pub publisher: Arc<Publisher>,
    /// Memory of consuming segments.
    pub budget: Arc<ConsumingBudget>,
    /// The embedded log.
    pub log: Arc<EmbeddedLog>,
    /// Where files are made.
    pub staging: PathBuf,
    /// Told of every commit step.
    pub steps: Arc<Steps>,
    /// Time, randomness, tasks, files.
    pub environment: Environment,
}

/// A table whose stream can't even be asked for its partitions, for people.
#[derive(Clone, Debug, Default)]
pub struct StreamStatus {
    /// Why the stream could not be reached the last time; empty when it could.
    pub last_error: String,
}

struct Running {
    stop: CancellationToken,
    paused: watch::Sender<bool>,
    watcher: TaskHandle,
    status: Arc<Mutex<StreamStatus>>,
}

/// The realtime halves that consume here.
pub struct RealtimeTables {
    shared: Shared,
    running: Mutex<BTreeMap<String, Running>>,
}

impl RealtimeTables {
    /// None yet.
    pub fn new(shared: Shared) -> Self {
        Self {
            shared,
            running: Mutex::default(),
        }
    }

    /// Consumes `config`'s stream from now on. An unreachable stream is tried again for ever and shown in the status.
    ///
    /// # Errors
    /// When the stream's config can't be used at all.
    pub async fn start(&self, config: Arc<TableConfig>) -> Result<()> {
        let stream_config = config
            .stream
            .clone()
            .ok_or_else(|| Error::internal("a realtime table without a stream config"))?;
        let stream = self.stream(&stream_config).await?;
        let stop = CancellationToken::new();
        let state = self.shared.metastore.state().await?;
        let is_paused = state
            .table(&config.name)
            .is_some_and(|table| table.paused_ms.is_some());
        let paused = watch::Sender::new(is_paused);
        let status = Arc::new(Mutex::new(StreamStatus::default()));
        let watcher = Watcher {
            shared: self.shared.clone(),
            config: Arc::clone(&config),
            stream_config,
            stream,
            stop: stop.clone(),
            paused: paused.subscribe(),
            status: Arc::clone(&status),
        };
        let handle = self
            .shared
            .environment
            .spawner
            .spawn(&format!("watch {}", config.name), Box::pin(watcher.run()));
        self.running.lock().insert(
            config.name.clone(),
            Running {
                stop,
                paused,
                watcher: handle,
                status,
            },
        );
        Ok(())
    }

    /// Has a table's consumers pause, or go on.
    pub fn set_paused(&self, table: &str, paused: bool) {
        if let Some(running) = self.running.lock().get(table) {
            running.paused.send_replace(paused);
        }
    }

    /// Ends a table's consumers and committers, and waits until they have ended.
    pub async fn stop(&self, table: &str) {
        let running = self.running.lock().remove(table);
        if let Some(running) = running {
            running.stop.cancel();
            if let Err(e) = running.watcher.join().await {
                tracing::error!(table, error = %e, "a consumer did not end well");
            }
        }
    }

    /// Ends all.
    pub async fn stop_all(&self) {
        let tables: Vec<String> = self.running.lock().keys().cloned().collect();
        for table in &tables {
            if let Some(running) = self.running.lock().get(table) {
                running.stop.cancel();
            }
        }
        for table in &tables {
            self.stop(table).await;
        }
    }

    /// How a table's stream is.
    pub fn status(&self, table: &str) -> Option<StreamStatus> {
        self.running
            .lock()
            .get(table)
            .map(|r| r.status.lock().clone())
    }

    async fn stream(&self, config: &StreamConfig) -> Result<Arc<dyn Stream>> {
        Ok(match config.kind {
            StreamKind::Kafka => Arc::new(KafkaStream::new(
                &config.brokers,
                &config.topic,
                &config.properties,
                self.shared.environment.clone(),
            )?),
            StreamKind::Log => {
                self.shared
                    .log
                    .create_topic(&config.topic, config.partitions)
                    .await?;
                self.shared.log.stream(&config.topic)?
            }
        })
    }
}

struct Watcher {
    shared: Shared,
    config: Arc<TableConfig>,
    stream_config: StreamConfig,
    stream: Arc<dyn Stream>,
    stop: CancellationToken,
    paused: watch::Receiver<bool>,
    status: Arc<Mutex<StreamStatus>>,
}

impl Watcher {
    async fn run(self) {
        let mut started = BTreeSet::new();
        let mut tasks = Vec::new();
        let mut backoff = Backoff::new();
        loop {
            let outcome = self.start_partitions(&mut started, &mut tasks).await;
            let go_on = match outcome {
                Ok(()) => {
                    backoff.reset();
                    self.status.lock().last_error.clear();
                    tokio::select! {
                        () = self.shared.environment.clock.sleep(PARTITIONS_PERIOD) => true,
                        () = self.stop.cancelled() => false,
                    }
                }
                Err(e) => {
                    tracing::warn!(table = %self.config.name, topic = %self.stream_config.topic, error = %e, "stream not reachable; it is tried again");
                    self.status.lock().last_error = e.message().to_owned();
                    backoff.pause(&self.shared.environment, &self.stop).await
                }
            };
            if !go_on || self.stop.is_cancelled() {
                break;
            }
        }
        for task in tasks {
            if let Err(e) = TaskHandle::join(task).await {
                tracing::error!(table = %self.config.name, error = %e, "a consumer did not end well");
            }
        }
    }

    /// Starts what the stream and the metastore name and does not run yet.
    async fn start_partitions(
        &self,
        started: &mut BTreeSet<u32>,
        tasks: &mut Vec<TaskHandle>,
    ) -> Result<()> {
        let partitions = tokio::select! {
            partitions = self.stream.partitions() => partitions?,
            () = self.stop.cancelled() => return Ok(()),
        };
        for partition in (0..partitions)
            .filter(|p| !started.contains(p))
            .collect::<Vec<_>>()
        {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            self.start_partition(partition, tasks).await?;
            started.insert(partition);
        }
        Ok(())
    }

    async fn start_partition(&self, partition: u32, tasks: &mut Vec<TaskHandle>) -> Result<()> {
        let Shared {
            metastore,
            deep_store,
            publisher,
            budget,
            staging,
            steps,
            environment,
            ..
        } = &self.shared;
        let table: Arc<str> = Arc::from(self.config.name.as_str());
        let id = StreamPartition {
            stream: self.stream.id(),
            topic: self.stream.topic(),
            partition,
        };
        let state = metastore.state().await?;
        let known = state
            .table(&table)
            .and_then(|t| t.partitions.iter().find(|p| p.partition == id));
        let first = match known {
            Some(record) => record.next_offset,
            None => {
                let held = self.stream.offsets(partition).await?;
                let start = match self.stream_config.start {
                    StartOffset::Earliest => held.start,
                    StartOffset::Latest => held.end,
                };
                metastore.start_partition(&table, &id, start).await?
            }
        };
        let name = segment_name(&table, partition, first, environment);
        let newest = publisher.config(&table, Half::Realtime);
        let config = newest.as_ref().unwrap_or(&self.config);
        let active = ConsumingSegment::new(&name, Arc::clone(&config.spec), id.clone(), first)?;
        let tail = publisher
            .registry()
            .table(&table)
            .add_tail(Arc::new(Tail::new(id.clone(), Arc::new(active))));
        publisher.publish().await?;
        let (commits, queue) = CommitQueue::new();
        let committer = Committer {
            table: Arc::clone(&table),
            tail: Arc::clone(&tail),
            queue,
            staging: staging.clone(),
            deep_store: Arc::clone(deep_store),
            metastore: Arc::clone(metastore),
            publisher: Arc::clone(publisher),
            steps: Arc::clone(steps),
            environment: environment.clone(),
            stop: self.stop.clone(),
        };
        let consumer = Consumer {
            table,
            config: Arc::clone(&self.config),
            publisher: Arc::clone(publisher),
            stream: Arc::clone(&self.stream),
            tail,
            metastore: Arc::clone(metastore),
            commits,
            budget: Arc::clone(budget),
            steps: Arc::clone(steps),
            environment: environment.clone(),
            paused: self.paused.clone(),
            stop: self.stop.clone(),
        };
        tasks.push(
            environment
                .spawner
                .spawn(&format!("commit {id}"), Box::pin(committer.run())),
        );
        tasks.push(
            environment
                .spawner
                .spawn(&format!("consume {id}"), Box::pin(consumer.run())),
        );
        Ok(())
    }
}
