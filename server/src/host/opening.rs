//! From a metastore, a deep store and streams to a host that serves and consumes: the same steps in a server and in the
//! simulation of one.

use super::added::Places;
use super::catalog::Publisher;
use super::consumer::ConsumingBudget;
use super::keys::Keys;
use super::load::Loader;
use super::realtime::{RealtimeTables, Shared, Streams};
use super::registry::Registry;
use super::rewrite::Rewriter;
use super::step::Steps;
use super::upkeep::Upkeep;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;
use strandline_broker::transport::CatalogSource;
use strandline_proto::Result;
use strandline_proto::ids::Half;
use strandline_storage::deep_store::DeepStore;
use strandline_storage::environment::Environment;
use strandline_storage::meta::Metastore;
use tokio_util::sync::CancellationToken;

/// How often what no query names any more is looked for, between publications.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
/// How often what was committed for a caller that had gone away is looked for, to be published.
const PUBLISH_PERIOD: Duration = Duration::from_secs(30);

/// What a host is opened with.
pub struct HostOptions {
    /// Where tables, segments and offsets are named.
    pub metastore: Arc<dyn Metastore>,
    /// Where segments are kept.
    pub deep_store: Arc<DeepStore>,
    /// What tables consume.
    pub streams: Arc<dyn Streams>,
    /// Where files are made; empty.
    pub staging: PathBuf,
    /// Where keys of rows are kept.
    pub keys: PathBuf,
    /// Memory of consuming segments, in bytes; an eighth of it is the keys'.
    pub memory_bytes_max: usize,
    /// Told of every commit step.
    pub steps: Arc<Steps>,
    /// Time, randomness, tasks, files.
    pub environment: Environment,
}

/// A server below its queries.
pub struct Host {
    /// What is held, and the snapshot that queries bind.
    pub registry: Arc<Registry>,
    /// Makes snapshots of what the metastore holds.
    pub publisher: Arc<Publisher>,
    /// Memory of consuming segments.
    pub budget: Arc<ConsumingBudget>,
    /// Consumers and committers.
    pub realtime: Arc<RealtimeTables>,
    /// Keys of the rows of tables that have some.
    pub keys: Arc<Keys>,
    /// Takes pushes.
    pub loader: Loader,
    /// Rewrites segments for other configs.
    pub rewriter: Arc<Rewriter>,
    /// Takes over, merges, lets go.
    pub upkeep: Arc<Upkeep>,
    environment: Environment,
}

impl Host {
    /// Removes what an earlier life left, opens all segments that are named, and publishes them.
    ///
    /// # Errors
    /// When the metastore or the deep store can't be read.
    pub async fn open(options: HostOptions) -> Result<Self> {
        let HostOptions {
            metastore,
            deep_store,
            streams,
            staging,
            keys,
            memory_bytes_max,
            steps,
            environment,
        } = options;
        let registry = Arc::new(Registry::default());
        let publisher = Arc::new(Publisher::new(
            Arc::clone(&registry),
            Arc::clone(&metastore),
            Arc::clone(&deep_store),
            environment.clone(),
        ));
        publisher.remove_orphans().await?;
        publisher.hold_all().await?;
        publisher.publish().await?;
        let keys = Arc::new(Keys::new(
            Arc::clone(&registry),
            Arc::clone(&metastore),
            keys,
            (memory_bytes_max / 8) as u64,
            environment.clone(),
        ));
        let state = metastore.state().await?;
        keys.drop_others(&state.tables).await?;
        for record in &state.tables {
            if let Some(config) = publisher.config(&record.name, Half::Realtime) {
                keys.open(&config, record).await?;
            }
        }
        // The keys may be behind what is pushed.
        publisher.publish().await?;
        let budget = Arc::new(ConsumingBudget::new(
            Arc::clone(&registry),
            memory_bytes_max,
        ));
        let realtime = Arc::new(RealtimeTables::new(Shared {
            metastore: Arc::clone(&metastore),
            deep_store: Arc::clone(&deep_store),
            publisher: Arc::clone(&publisher),
            budget: Arc::clone(&budget),
            streams,
            staging: staging.clone(),
            steps,
            environment: environment.clone(),
        }));
        let places = Places {
            metastore: Arc::clone(&metastore),
            deep_store: Arc::clone(&deep_store),
            publisher: Arc::clone(&publisher),
            staging: staging.clone(),
            environment: environment.clone(),
        };
        let loader = Loader {
            places: places.clone(),
        };
        let rewriter = Arc::new(Rewriter::new(
            metastore,
            deep_store,
            Arc::clone(&publisher),
            staging,
            environment.clone(),
        ));
        Ok(Self {
            registry,
            publisher,
            budget,
            realtime,
            keys,
            loader,
            rewriter,
            upkeep: Arc::new(Upkeep::new(places)),
            environment,
        })
    }

    /// Starts what consumes and what keeps tables in order, until `stop` fires; consumers end with [`RealtimeTables::stop_all`].
    pub async fn start(&self, stop: &CancellationToken) {
        for name in self.registry.snapshot().tables.keys() {
            if let Some(config) = self.publisher.config(name, Half::Realtime)
                && let Err(e) = self.realtime.start(config).await
            {
                tracing::error!(table = name, error = %e, "cannot consume");
            }
        }
        let spawner = &self.environment.spawner;
        let sweeping = sweep(
            Arc::downgrade(&self.registry),
            Arc::downgrade(&self.publisher),
            self.environment.clone(),
        );
        spawner.spawn("upkeep", Box::pin(sweeping));
        let rewriting = Arc::clone(&self.rewriter).run(stop.clone());
        spawner.spawn("rewrite segments", Box::pin(rewriting));
        let keeping = Arc::clone(&self.upkeep).run(stop.clone());
        spawner.spawn("upkeep of segments", Box::pin(keeping));
    }
}

/// Sweeps and publishes now and then, as long as the host lives.
async fn sweep(registry: Weak<Registry>, publisher: Weak<Publisher>, environment: Environment) {
    let clock = environment.clock;
    let mut published = clock.monotonic();
    loop {
        clock.sleep(SWEEP_PERIOD).await;
        let (Some(registry), Some(publisher)) = (registry.upgrade(), publisher.upgrade()) else {
            return;
        };
        registry.sweep();
        if clock.monotonic().saturating_sub(published) >= PUBLISH_PERIOD {
            published = clock.monotonic();
            if let Err(e) = publisher.publish().await {
                tracing::warn!(error = %e, "cannot read the metastore; queries go on with what was published");
            }
        }
    }
}
