//! SQL over whatever is served at the moment: the broker and the leaf as they are, on threads of their own, while nothing else
//! moves.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use parking_lot::RwLock;
use std::fmt;
use std::sync::Arc;
use strandline_broker::transport::{CatalogSource, Watermarks};
use strandline_broker::{Broker, BrokerOptions, QueryRequest, ReadOnly};
use strandline_proto::catalog::{CatalogSnapshot, TableSnapshot};
use strandline_proto::leaf::{SegmentTask, TailTask};
use strandline_proto::{Error, Result};
use strandline_server::host::Registry;
use strandline_server::leaf::{LocalLeaf, ScanPool, SegmentHost};
use strandline_storage::segment::SegmentReader;
use tokio::runtime::Runtime;

use super::model::Row;
use super::world::Wrong;

/// The registry of the life that there is.
#[derive(Default)]
struct Served(RwLock<Option<Arc<Registry>>>);

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served")
    }
}

impl Served {
    fn now(&self) -> Result<Arc<Registry>> {
        let served = self.0.read().clone();
        served.ok_or_else(|| Error::unavailable("nothing is served"))
    }
}

impl CatalogSource for Served {
    fn snapshot(&self) -> Arc<CatalogSnapshot> {
        self.now().map(|r| r.snapshot()).unwrap_or_default()
    }
}

impl SegmentHost for Served {
    fn segment(
        &self,
        table: &str,
        task: &SegmentTask,
        keys: Option<u64>,
    ) -> Result<Arc<dyn SegmentReader>> {
        self.now()?.segment(table, task, keys)
    }

    fn tail(
        &self,
        table: &str,
        task: &TailTask,
        keys: Option<u64>,
    ) -> Result<Vec<Arc<dyn SegmentReader>>> {
        self.now()?.tail(table, task, keys)
    }

    fn watermarks(&self, table: &TableSnapshot) -> Result<Watermarks> {
        self.now()?.watermarks(table)
    }
}

/// Who asks.
pub(super) struct Queries {
    served: Arc<Served>,
    broker: Broker,
    runtime: Arc<Runtime>,
}

impl Queries {
    pub(super) fn new(runtime: &Arc<Runtime>) -> Arc<Self> {
        let served = Arc::new(Served::default());
        let leaf = LocalLeaf::new(
            Arc::clone(&served) as Arc<dyn SegmentHost>,
            ScanPool::new(1),
        );
        let broker = Broker::new(
            Arc::clone(&served) as Arc<dyn CatalogSource>,
            Arc::new(leaf),
            Arc::new(ReadOnly),
            Arc::new(ReadOnly),
            BrokerOptions::default(),
        );
        Arc::new(Self {
            served,
            broker,
            runtime: Arc::clone(runtime),
        })
    }

    /// Nothing is served any more.
    pub(super) fn unset(&self) {
        *self.served.0.write() = None;
    }

    /// All rows that answer.
    pub(super) fn ask(
        &self,
        registry: &Arc<Registry>,
        table: &str,
    ) -> std::result::Result<Vec<Row>, Wrong> {
        *self.served.0.write() = Some(Arc::clone(registry));
        let sql = format!("SELECT n, ms FROM {table}");
        let asked = self.runtime.block_on(async {
            let answer = self.broker.query(QueryRequest::new(sql.as_str())).await?;
            answer.batches.try_collect::<Vec<_>>().await
        });
        self.unset();
        let batches = asked.map_err(|e| format!("{sql}: {e}"))?;
        let mut rows = Vec::new();
        for batch in &batches {
            let of = |column: usize| batch.column(column).as_primitive::<Int64Type>().values();
            rows.extend(of(0).iter().copied().zip(of(1).iter().copied()));
        }
        rows.sort_unstable();
        Ok(rows)
    }
}
