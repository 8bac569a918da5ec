//! The realtime halves of this server: for each stream of a table a watcher of its partitions, and for each partition a consumer
//! with its committer.

use super::catalog::Publisher;
use super::commit::{CommitQueue, Committer};
use super::consumer::{Backoff, Consumer, ConsumingBudget, segment_name};
use super::keys::partition_number;
use super::rate::RateLimit;
use super::step::Steps;
use super::tail::Tail;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::ids::{Half, StreamPartition};
use strandline_proto::{Error, Result};
use strandline_storage::archive::Archive;
use strandline_storage::config::{
    MessageFormat, StartOffset, StreamConfig, StreamKind, TableConfig,
};
use strandline_storage::decode::Decoder;
use strandline_storage::decode::registry::SchemaRegistry;
use strandline_storage::deep_store::DeepStore;
use strandline_storage::environment::{Environment, TaskHandle, blocking};
use strandline_storage::meta::Metastore;
use strandline_storage::segment::consuming::ConsumingSegment;
use strandline_storage::stream::Stream;
use strandline_storage::stream::archived::ArchivedStream;
use strandline_storage::stream::kafka::KafkaStream;
use strandline_storage::stream::log::EmbeddedLog;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a stream is asked whether it has more partitions.
const PARTITIONS_PERIOD: Duration = Duration::from_secs(30);
/// How often who waits for a commit looks whether anybody commits.
const COMMIT_PERIOD: Duration = Duration::from_millis(500);

/// Streams by their configs: another seam through which a simulation drives what consumes them.
#[async_trait]
pub trait Streams: Send + Sync {
    /// The stream that a config names.
    ///
    /// # Errors
    /// What is wrong with its properties; an unreachable stream is none.
    async fn open(&self, config: &StreamConfig) -> Result<Arc<dyn Stream>>;
}

/// Apache Kafka, and the embedded log of this server.
pub struct ServerStreams {
    /// The embedded log.
    pub log: Arc<EmbeddedLog>,
    /// Time, tasks.
    pub environment: Environment,
}

#[async_trait]
impl Streams for ServerStreams {
    async fn open(&self, config: &StreamConfig) -> Result<Arc<dyn Stream>> {
        Ok(match config.kind {
            StreamKind::Kafka => {
                let stream = KafkaStream::new(
                    &config.brokers,
                    &config.topic,
                    &config.properties,
                    self.environment.clone(),
                )?;
                // Another config may want what this one does not.
                Arc::new(stream.with_headers(config.decoder.metadata || config.archive))
            }
            StreamKind::Log => {
                self.log
                    .create_topic(&config.topic, config.partitions)
                    .await?;
                self.log.stream(&config.topic)?
            }
        })
    }
}

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
    /// What tables consume.
    pub streams: Arc<dyn Streams>,
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

/// Where schemas of a stream's messages are asked for, when they name them.
pub(super) fn schemas(
    config: &StreamConfig,
    environment: &Environment,
) -> Option<Arc<SchemaRegistry>> {
    match &config.decoder.format {
        MessageFormat::RegisteredAvro { registry } => {
            let schemas = SchemaRegistry::new(registry.clone(), environment.clone());
            Some(Arc::new(schemas))
        }
        _ => None,
    }
}

/// A stream that a table consumes.
#[derive(Clone)]
pub struct ConsumedStream {
    /// Its [`Stream::id`].
    pub id: Arc<str>,
    /// Its [`Stream::topic`].
    pub topic: Arc<str>,
    /// Its config.
    pub config: Arc<StreamConfig>,
}

struct Running {
    streams: Vec<ConsumedStream>,
    stop: CancellationToken,
    paused: watch::Sender<bool>,
    watchers: Vec<TaskHandle>,
    statuses: Vec<Arc<Mutex<StreamStatus>>>,
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

    /// Consumes `config`'s streams from now on. An unreachable stream is tried again for ever and shown in the status.
    ///
    /// # Errors
    /// When the config of a stream can't be used at all.
    pub async fn start(&self, config: Arc<TableConfig>) -> Result<()> {
        let stop = CancellationToken::new();
        let state = self.shared.metastore.state().await?;
        let is_paused = state
            .table(&config.name)
            .is_some_and(|table| table.paused_ms.is_some());
        let paused = watch::Sender::new(is_paused);
        let mut watchers = Vec::new();
        for (number, stream_config) in config.streams.iter().enumerate() {
            let stream = self.stream(stream_config).await?;
            let stream = self.with_archive(&config.name, stream_config, stream);
            let environment = &self.shared.environment;
            let schemas = schemas(stream_config, environment);
            let rate = stream_config
                .rate_limit
                .map(|rate| Arc::new(RateLimit::new(rate, environment.clock.monotonic())));
            watchers.push(Watcher {
                shared: self.shared.clone(),
                config: Arc::clone(&config),
                stream_config: (number, Arc::clone(stream_config)),
                stream,
                schemas,
                rate,
                stop: stop.clone(),
                paused: paused.subscribe(),
                status: Arc::default(),
            });
        }
        let statuses = watchers.iter().map(|w| Arc::clone(&w.status)).collect();
        let streams = watchers.iter().map(|w| ConsumedStream {
            id: w.stream.id(),
            topic: w.stream.topic(),
            config: Arc::clone(&w.stream_config.1),
        });
        let streams: Vec<_> = streams.collect();
        for tail in self.shared.publisher.registry().table(&config.name).tails() {
            let StreamPartition { stream, topic, .. } = tail.partition();
            if streams.iter().any(|s| (&s.id, &s.topic) == (stream, topic)) {
                // Consumers with another config have ended.
                tail.update_status(|s| s.state = "STARTING");
            }
        }
        let watchers = watchers.into_iter().map(|watcher| {
            let name = format!("watch {} {}", config.name, watcher.stream_config.1.topic);
            let spawner = &self.shared.environment.spawner;
            spawner.spawn(&name, Box::pin(watcher.run()))
        });
        self.running.lock().insert(
            config.name.clone(),
            Running {
                streams,
                stop,
                paused,
                watchers: watchers.collect(),
                statuses,
            },
        );
        Ok(())
    }

    /// The streams that a table consumes here; none while it consumes nothing.
    pub fn streams(&self, table: &str) -> Vec<ConsumedStream> {
        let running = self.running.lock();
        running
            .get(table)
            .map_or_else(Vec::new, |r| r.streams.clone())
    }

    /// Seals what a table's consuming segments hold now and waits until it is committed.
    ///
    /// # Errors
    /// `Cancelled` when the consumers are stopped meanwhile.
    pub async fn commit(&self, table: &str) -> Result<()> {
        let tails = self.shared.publisher.registry().table(table).tails();
        for tail in &tails {
            let active = tail.active();
            let target = if active.rows() > 0 {
                active.next_offset()
            } else {
                active.start_offset()
            };
            let mut committed = tail.committed();
            tail.request_seal();
            while *committed.borrow_and_update() < target {
                if tail.status().state == "STOPPED" {
                    return Err(Error::cancelled(format!(
                        "table {table}: its consumers were stopped meanwhile"
                    )));
                }
                tokio::select! {
                    biased;
                    _ = committed.changed() => {}
                    () = self.shared.environment.clock.sleep(COMMIT_PERIOD) => {}
                }
            }
        }
        Ok(())
    }

    /// Has a table's consumers pause, or go on.
    pub fn set_paused(&self, table: &str, paused: bool) {
        if let Some(running) = self.running.lock().get(table) {
            running.paused.send_replace(paused);
        }
    }

    /// Whether `config`'s streams could be read and their messages decoded, as far as can be told without asking anybody.
    ///
    /// # Errors
    /// What is wrong with a stream's properties or its decoder, such as a descriptor set that can't be read.
    pub async fn check(&self, config: &Arc<TableConfig>) -> Result<()> {
        for stream in &config.streams {
            self.stream(stream).await?;
            let (config, stream) = (Arc::clone(config), Arc::clone(stream));
            let environment = self.shared.environment.clone();
            blocking(
                &self.shared.environment.spawner,
                "check decoder",
                move || {
                    let schemas = schemas(&stream, &environment);
                    Decoder::new(&config, &stream, 0, schemas).map(|_| ())
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Goes on with another config: rows that are in memory stay, and what comes is taken by the new config.
    ///
    /// # Errors
    /// As [`Self::start`]'s; nothing is consumed then.
    pub async fn restart(&self, config: Arc<TableConfig>) -> Result<()> {
        self.stop(&config.name).await;
        self.start(config).await
    }

    /// Ends a table's consumers and committers, and waits until they have ended.
    pub async fn stop(&self, table: &str) {
        let running = self.running.lock().remove(table);
        if let Some(running) = running {
            running.stop.cancel();
            for watcher in running.watchers {
                if let Err(e) = watcher.join().await {
                    tracing::error!(table, error = %e, "a consumer did not end well");
                }
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

    /// How a table's streams are: the first one that can't be reached, or else any.
    pub fn status(&self, table: &str) -> Option<StreamStatus> {
        let running = self.running.lock();
        let statuses = running.get(table)?.statuses.iter();
        let mut all: Vec<StreamStatus> = statuses.map(|s| s.lock().clone()).collect();
        all.sort_by_key(|status| status.last_error.is_empty());
        all.into_iter().next()
    }

    /// The stream in front of its archive, where it has one.
    fn with_archive(
        &self,
        table: &str,
        config: &StreamConfig,
        stream: Arc<dyn Stream>,
    ) -> Arc<dyn Stream> {
        if !config.archive {
            return stream;
        }
        let deep_store = Arc::clone(&self.shared.deep_store);
        let archive = Archive::new(deep_store, table, &stream.id(), &stream.topic());
        Arc::new(ArchivedStream::new(stream, archive))
    }

    async fn stream(&self, config: &StreamConfig) -> Result<Arc<dyn Stream>> {
        self.shared.streams.open(config).await
    }
}

struct Watcher {
    shared: Shared,
    config: Arc<TableConfig>,
    /// Which of the table's streams it is, from 0, and its config.
    stream_config: (usize, Arc<StreamConfig>),
    stream: Arc<dyn Stream>,
    schemas: Option<Arc<SchemaRegistry>>,
    rate: Option<Arc<RateLimit>>,
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
                        biased;
                        () = self.stop.cancelled() => false,
                        () = self.shared.environment.clock.sleep(PARTITIONS_PERIOD) => true,
                    }
                }
                Err(e) => {
                    tracing::warn!(table = %self.config.name, topic = %self.stream_config.1.topic, error = %e, "stream not reachable; it is tried again");
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
            biased;
            () = self.stop.cancelled() => return Ok(()),
            partitions = self.stream.partitions() => partitions?,
        };
        // Where all begin is asked before any does: one that is not known then was added to the stream afterwards.
        let mut first = Vec::new();
        let state = self.shared.metastore.state().await?;
        let known = state.table(&self.config.name);
        let known = known.map_or(&[][..], |table| &table.partitions);
        let is_new_stream = !known.iter().any(|p| {
            (&p.partition.stream, &p.partition.topic) == (&self.stream.id(), &self.stream.topic())
        });
        for partition in (0..partitions).filter(|p| !started.contains(p)) {
            let id = self.partition(partition);
            first.push(match known.iter().find(|p| p.partition == id) {
                Some(record) => (partition, None, record.next_offset),
                None => {
                    let start = tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return Ok(()),
                        start = self.first_offset(partition, is_new_stream) => start?,
                    };
                    (partition, Some(start), start)
                }
            });
        }
        for (partition, new, first) in first {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            let first = match new {
                Some(start) => {
                    let id = self.partition(partition);
                    let metastore = &self.shared.metastore;
                    metastore
                        .start_partition(&self.config.name, &id, start)
                        .await?
                }
                None => first,
            };
            self.start_partition(partition, first, tasks).await?;
            started.insert(partition);
        }
        Ok(())
    }

    fn partition(&self, partition: u32) -> StreamPartition {
        StreamPartition {
            stream: self.stream.id(),
            topic: self.stream.topic(),
            partition,
        }
    }

    /// Where a partition begins that was never consumed. One that came to a stream that is consumed already begins at its
    /// oldest message: nobody could have seen it before.
    async fn first_offset(&self, partition: u32, is_new_stream: bool) -> Result<u64> {
        let held = self.stream.offsets(partition).await?;
        let config = &self.stream_config.1;
        if let Some(offset) = config.start_offsets.get(&partition) {
            return match *offset > held.end {
                false => Ok(*offset),
                true => Err(Error::precondition(format!(
                    "{}: start.offsets says to begin at offset {offset}, past the end {}",
                    self.partition(partition),
                    held.end
                ))),
            };
        }
        let at = |ms| self.stream.offset_at(partition, ms);
        match config.start {
            _ if !is_new_stream => Ok(held.start),
            StartOffset::Earliest => Ok(held.start),
            StartOffset::Latest => Ok(held.end),
            StartOffset::At(ms) => at(ms).await,
            StartOffset::Back(ms) => {
                let back = i64::try_from(ms).unwrap_or(i64::MAX);
                at(self.shared.environment.clock.now_ms().saturating_sub(back)).await
            }
        }
    }

    async fn start_partition(
        &self,
        partition: u32,
        first: u64,
        tasks: &mut Vec<TaskHandle>,
    ) -> Result<()> {
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
        let id = self.partition(partition);
        let name = segment_name(
            &table,
            (self.stream_config.0, partition),
            first,
            environment,
        );
        let newest = publisher.config(&table, Half::Realtime);
        let config = newest.as_ref().unwrap_or(&self.config);
        let active = ConsumingSegment::new(&name, Arc::clone(&config.spec), id.clone(), first)?;
        let tail = publisher
            .registry()
            .table(&table)
            .add_tail(Arc::new(Tail::new(id.clone(), Arc::new(active))));
        if let Some(keys) = publisher.registry().table(&table).keys() {
            keys.begin(&id, first);
        }
        publisher.publish().await?;
        // What consumers with another config have left to commit.
        let committed = *tail.committed().borrow();
        let mut backlog = tail.segments();
        backlog.pop();
        backlog.retain(|segment| segment.start_offset() >= committed);
        let (commits, queue) = CommitQueue::new();
        let committer = Committer {
            table: Arc::clone(&table),
            tail: Arc::clone(&tail),
            partition_number: partition_number(config, &id),
            backlog,
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
            stream_config: self.stream_config.clone(),
            stream: Arc::clone(&self.stream),
            schemas: self.schemas.clone(),
            rate: self.rate.clone(),
            tail,
            metastore: Arc::clone(metastore),
            commits,
            staging: staging.clone(),
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
