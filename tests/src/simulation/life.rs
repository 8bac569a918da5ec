//! One life of the server: opened as a server opens, of the same parts, until it is stopped or dies.

use super::executor::Executor;
use super::machine::Machine;
use super::metastore::{Ledger, SimulatedMetastore};
use super::model::{Model, Row};
use super::scenario::Scenario;
use super::stream::{SimulatedStreams, Topic};
use super::view::View;
use super::world::Wrong;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use strandline_proto::Result;
use strandline_proto::ids::{CatalogVersion, Half};
use strandline_proto::lineage::Lineage;
use strandline_server::host::Registry;
use strandline_server::host::data_dir::DataDir;
use strandline_server::host::opening::{Host, HostOptions};
use strandline_server::host::realtime::ServerStreams;
use strandline_server::host::step::Steps;
use strandline_server::host::tail::Tail;
use strandline_storage::deep_store::DeepStore;
use strandline_storage::environment::{Clock, Environment, RealClock, TaskHandle};
use strandline_storage::meta::ledger::Problem;
use strandline_storage::meta::minutes::BUCKETS_MAX;
use strandline_storage::meta::sql::SqlMetastore;
use strandline_storage::meta::{Metastore, NewTable, SchemaRecord, TableRecord};
use strandline_storage::segment::event_time::{EventTime, RowsByMinute};
use strandline_storage::stream::log::{EmbeddedLog, LogOptions};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// What outlives a server.
pub(super) struct Setting {
    pub(super) data: PathBuf,
    pub(super) metastore: PathBuf,
    pub(super) runtime: Arc<Runtime>,
    pub(super) machine: Arc<Machine>,
    pub(super) executor: Arc<Executor>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) topic: Option<Arc<Topic>>,
    pub(super) scenario: Scenario,
}

impl Setting {
    /// Makes the metastore with the table in it.
    pub(super) fn create_table(&self) {
        let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
        let scenario = &self.scenario;
        let name = scenario.table();
        std::fs::write(&self.metastore, empty_metastore(&self.runtime))
            .expect("the metastore is written");
        let made = self.runtime.block_on(async {
            let sql = SqlMetastore::open(&self.metastore, clock).await?;
            sql.put_schema(SchemaRecord {
                name: name.to_owned(),
                version: 1,
                json: scenario.schema_json(),
                lineage: Arc::new(Lineage::default()),
            })
            .await?;
            for half in scenario.halves() {
                sql.create_table(NewTable {
                    name: name.to_owned(),
                    half,
                    schema: name.to_owned(),
                    config_json: scenario.table_json(half),
                })
                .await?;
            }
            sql.close().await;
            Ok::<_, strandline_proto::Error>(())
        });
        made.expect("the table is made");
    }
}

/// A metastore without tables, made once: its migrations are the same for all.
fn empty_metastore(runtime: &Runtime) -> &'static [u8] {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = super::temporary_folder();
        let path = folder.path().join("meta.sqlite");
        let made = runtime.block_on(async {
            let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
            SqlMetastore::open(&path, clock).await?.close().await;
            Ok::<_, strandline_proto::Error>(())
        });
        made.expect("the metastore is made");
        std::fs::read(&path).expect("the metastore is read")
    })
}

/// A life that begins.
pub(super) struct Opening {
    slot: Arc<Mutex<Option<Result<Life>>>>,
    metastore: Arc<SimulatedMetastore>,
}

impl Opening {
    pub(super) fn begin(setting: &Setting) -> Self {
        let life = setting.machine.begin_life();
        let environment = setting.executor.environment(life);
        let clock = Arc::clone(&environment.clock);
        let sql = SqlMetastore::open(&setting.metastore, clock);
        let metastore = Arc::new(SimulatedMetastore {
            sql: setting.runtime.block_on(sql).expect("the metastore opens"),
            runtime: Arc::clone(&setting.runtime),
            machine: Arc::clone(&setting.machine),
            life,
            ledger: Arc::clone(&setting.ledger),
        });
        let slot = Arc::new(Mutex::new(None));
        let open = Life::open(
            environment,
            setting.data.clone(),
            Arc::clone(&metastore),
            setting.topic.clone(),
            Arc::clone(&setting.machine),
            setting.scenario.clone(),
        );
        let into = Arc::clone(&slot);
        let opening = async move {
            let opened = open.await;
            *into.lock() = Some(opened);
        };
        setting.executor.start("open", Box::pin(opening));
        Self { slot, metastore }
    }

    /// What came of it, once.
    pub(super) fn opened(&self) -> Option<Result<Life>> {
        self.slot.lock().take()
    }

    /// The life ended before it was there.
    pub(super) fn give_up(&self) {
        drop(self.slot.lock().take());
        self.metastore.close();
    }
}

/// A server that is there.
pub(super) struct Life {
    host: Host,
    log: Arc<EmbeddedLog>,
    metastore: Arc<SimulatedMetastore>,
    stop: CancellationToken,
    table: &'static str,
    environment: Environment,
    restarting: Mutex<Option<TaskHandle>>,
    /// As the engine's: one change of tables at a time.
    tables_change: Arc<tokio::sync::Mutex<()>>,
    /// Of which version of the catalog the ledger was looked at.
    ledger_looked_at: Mutex<Option<CatalogVersion>>,
    _data: DataDir,
}

impl Life {
    /// As `Engine::open` does.
    async fn open(
        environment: Environment,
        data: PathBuf,
        metastore: Arc<SimulatedMetastore>,
        topic: Option<Arc<Topic>>,
        machine: Arc<Machine>,
        scenario: Scenario,
    ) -> Result<Self> {
        let data = DataDir::open(&data)?;
        let deep_store = DeepStore::local(&data.deep(), environment.clone()).await?;
        let options = LogOptions {
            file_bytes_max: scenario.file_bytes_max,
        };
        let log = EmbeddedLog::open_with(&data.log(), environment.clone(), options).await?;
        let streams = SimulatedStreams {
            log: ServerStreams {
                log: Arc::clone(&log),
                environment: environment.clone(),
            },
            topic,
            machine,
            clock: Arc::clone(&environment.clock),
        };
        let host = Host::open(HostOptions {
            metastore: Arc::clone(&metastore) as Arc<dyn Metastore>,
            deep_store: Arc::new(deep_store),
            streams: Arc::new(streams),
            staging: data.staging(),
            keys: data.keys(),
            memory_bytes_max: scenario.memory_bytes_max,
            steps: Arc::new(Steps::default()),
            environment: environment.clone(),
        })
        .await?;
        let stop = CancellationToken::new();
        host.start(&stop).await;
        Ok(Self {
            host,
            log,
            metastore,
            stop,
            table: scenario.table(),
            environment,
            restarting: Mutex::default(),
            tables_change: Arc::default(),
            ledger_looked_at: Mutex::default(),
            _data: data,
        })
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.host.registry
    }

    pub(super) fn log(&self) -> &Arc<EmbeddedLog> {
        &self.log
    }

    pub(super) fn table(&self) -> &'static str {
        self.table
    }

    pub(super) fn tables_change(&self) -> &Arc<tokio::sync::Mutex<()>> {
        &self.tables_change
    }

    pub(super) fn tails(&self) -> Vec<Arc<Tail>> {
        self.registry().table(self.table).tails()
    }

    /// What a query would read now.
    pub(super) fn look(&self) -> std::result::Result<(View, Vec<Row>), Wrong> {
        let failed = |e| format!("a query fails: {e}");
        let view = View::pin(self.registry(), self.table).map_err(failed)?;
        let rows = view.rows(self.registry(), self.table).map_err(failed)?;
        Ok((view, rows))
    }

    pub(super) fn trim(&self, executor: &Arc<Executor>, partition: u32, before: u64) {
        let log = Arc::clone(&self.log);
        let trim = async move {
            // It may fail, and is then done by the next one.
            let _ = log.trim_before("t", partition, before).await;
        };
        executor.start("trim", Box::pin(trim));
    }

    /// Consumers end and begin again, where they were.
    pub(super) fn restart_consumers(&self, executor: &Arc<Executor>) {
        let mut restarting = self.restarting.lock();
        if restarting.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let Some(config) = self.host.publisher.config(self.table, Half::Realtime) else {
            return;
        };
        let realtime = Arc::clone(&self.host.realtime);
        let clock = Arc::clone(&self.environment.clock);
        let tables_change = Arc::clone(&self.tables_change);
        let restart = async move {
            let _one_at_a_time = tables_change.lock().await;
            while realtime.restart(Arc::clone(&config)).await.is_err() {
                clock.sleep(Duration::from_secs(1)).await;
            }
        };
        *restarting = Some(executor.start("restart consumers", Box::pin(restart)));
    }

    /// As `Engine::shutdown` does.
    pub(super) fn stop(&self, executor: &Arc<Executor>) -> TaskHandle {
        let (realtime, stop) = (Arc::clone(&self.host.realtime), self.stop.clone());
        let restarting = self.restarting.lock().take();
        let stopping = async move {
            // One change at a time.
            if let Some(restarting) = restarting {
                let _ = restarting.join().await;
            }
            realtime.stop_all().await;
            stop.cancel();
        };
        executor.start("stop", Box::pin(stopping))
    }

    /// Lets go of all that is open.
    pub(super) fn bury(self) {
        let metastore = Arc::clone(&self.metastore);
        drop(self);
        metastore.close();
    }

    pub(super) fn status(&self) -> String {
        let tails = self.tails();
        let statuses = tails.iter().map(|tail| {
            let status = tail.status();
            format!("{}: {} {}", tail.partition(), status.state, status.error())
        });
        let of_stream = self.host.realtime.status(self.table);
        let statuses: Vec<_> = statuses.collect();
        format!(
            "{of_stream:?}; {}; {:?}",
            statuses.join("; "),
            self.host.upkeep.notes()
        )
    }

    /// The accounts of each partition add up to the row, and the offsets of its segments lie beside each other.
    pub(super) fn check_accounts(
        &self,
        model: &Model,
        ledger: &Ledger,
    ) -> std::result::Result<(), Wrong> {
        let runtime = &self.metastore.runtime;
        let state = runtime.block_on(self.metastore.sql.state());
        let state = state.map_err(|e| e.to_string())?;
        let Some(table) = state.table(self.table) else {
            return Err("the table is gone".to_owned());
        };
        let mut ranges: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        let mut rows: BTreeMap<u32, u64> = BTreeMap::new();
        for segment in &table.segments {
            if let Some((partition, range)) = &segment.origin {
                let number = partition.partition;
                ranges
                    .entry(number)
                    .or_default()
                    .push((range.start, range.end));
                *rows.entry(number).or_default() += segment.rows;
            }
        }
        for record in &table.partitions {
            let number = record.partition.partition;
            let wrong = |what: &str| {
                Err(format!(
                    "{}: {what}: {:?}, of segments {} rows",
                    record.partition,
                    record,
                    rows.get(&number).copied().unwrap_or(0)
                ))
            };
            if record.next_offset != ledger.next_offset(number) {
                return wrong("another offset than was committed");
            }
            let counts = &record.counts;
            let (read, undecodable) = model.counts(number, record.next_offset);
            if (counts.read, counts.dead_lettered) != (read, undecodable) {
                return wrong(&format!(
                    "{read} messages were to be read, {undecodable} of them wrong"
                ));
            }
            if counts.indexed + counts.dead_lettered != counts.read {
                return wrong("messages do not add up");
            }
            let held = rows.get(&number).copied().unwrap_or(0);
            if held + counts.moved + counts.expired != counts.indexed {
                return wrong("rows do not add up");
            }
            let mut of_partition = ranges.remove(&number).unwrap_or_default();
            of_partition.sort_unstable();
            let overlap = of_partition.windows(2).any(|pair| pair[0].1 > pair[1].0);
            if overlap
                || of_partition
                    .last()
                    .is_some_and(|r| r.1 > record.next_offset)
            {
                return wrong(&format!("segments of offsets {of_partition:?}"));
            }
        }
        if !ranges.is_empty() {
            return Err(format!(
                "segments of partitions that are not known: {ranges:?}"
            ));
        }
        if self.ledger_looked_at.lock().replace(state.version) == Some(state.version) {
            return Ok(());
        }
        self.check_ledger(table)
    }

    /// What the metastore's ledger tells of each commit and of each minute is what became of the rows.
    fn check_ledger(&self, table: &TableRecord) -> std::result::Result<(), Wrong> {
        let sql = &self.metastore.sql;
        let config = self.host.publisher.config(self.table, Half::Realtime);
        let time = config.and_then(|c| EventTime::of(&c.spec.schema, c.time_column.as_deref()));
        let hosted = self.registry().table(self.table);
        let ledgers = self.metastore.runtime.block_on(sql.ledger(self.table));
        for ledger in ledgers.map_err(|e| e.to_string())? {
            let of = &ledger.record.partition;
            if !table.partitions.contains(&ledger.record) {
                return Err(format!("the ledger of {of} is of another moment"));
            }
            let mut segments = Vec::new();
            let mut rows = RowsByMinute::new();
            for segment in &table.segments {
                let Some((_, range)) = segment.origin.as_ref().filter(|(p, _)| p == of) else {
                    continue;
                };
                segments.push((*range, segment.rows));
                let open = hosted.open(&segment.name, segment.checksum);
                if let (Ok(open), Some(time)) = (open, &time) {
                    let of_segment = time.of_segment(&*open).map_err(|e| e.to_string())?;
                    for (minute, more) in of_segment {
                        *rows.entry(minute).or_default() += more;
                    }
                }
            }
            if let Some(Problem { range, wrong }) = ledger.first_problem(&segments) {
                return Err(format!(
                    "{of}: offsets {} to {}: {wrong}",
                    range.start, range.end
                ));
            }
            let minutes = sql.ledger_minutes(self.table, of, 0, BUCKETS_MAX);
            let minutes = self.metastore.runtime.block_on(minutes);
            let (_, minutes) = minutes.map_err(|e| e.to_string())?;
            let told = minutes.buckets().map(|(bucket, counts)| {
                (
                    Some(bucket.start_ms),
                    counts.indexed.checked_sub(counts.left()),
                )
            });
            let told: BTreeMap<_, _> = told.filter(|(_, rows)| *rows != Some(0)).collect();
            let rows: BTreeMap<_, _> = rows
                .into_iter()
                .map(|(at, rows)| (at, Some(rows)))
                .collect();
            if told != rows {
                return Err(format!(
                    "{of}: by minute the ledger tells of {told:?}, and there are {rows:?}"
                ));
            }
        }
        Ok(())
    }

    /// Partitions and offsets of the dead letters that are kept.
    pub(super) fn dead_letters(&self) -> std::result::Result<BTreeSet<(u32, u64)>, Wrong> {
        let letters = self.metastore.sql.dead_letters(self.table, 10_000);
        let letters = self.metastore.runtime.block_on(letters);
        let letters = letters.map_err(|e| e.to_string())?;
        let place = |letter: &strandline_storage::meta::DeadLetter| {
            (letter.partition.partition, letter.offset)
        };
        Ok(letters.iter().map(place).collect())
    }

    /// Names and checksums of all segments that are named or kept.
    pub(super) fn named(&self) -> std::result::Result<BTreeSet<(String, String)>, Wrong> {
        let sql = &self.metastore.sql;
        let asked = self.metastore.runtime.block_on(async {
            let (state, kept) = (sql.state().await?, sql.kept_pushes().await?);
            Ok::<_, strandline_proto::Error>((state, kept))
        });
        let (state, kept) = asked.map_err(|e| e.to_string())?;
        let segments = state.tables.iter().flat_map(|table| &table.segments);
        let named = segments.map(|s| (s.name.to_string(), s.checksum));
        let kept = kept.iter().flat_map(|push| &push.segments);
        let kept = kept.map(|s| (s.name.to_string(), s.checksum));
        let shown = |(name, checksum)| (name, format!("{checksum:016x}"));
        Ok(named.chain(kept).map(shown).collect())
    }
}
