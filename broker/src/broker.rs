//! The broker: one statement in, one answer out.

use crate::request::{BrokerOptions, QueryAnswer, QueryRequest};
use crate::server_side::{AdminStatements, SystemTables};
use crate::transport::{CatalogSource, LeafTransport};
use std::sync::Arc;
use strandline_proto::{Error, Result};

/// Answers SQL from the tables of one catalog.
#[derive(Debug)]
pub struct Broker {
    #[expect(dead_code, reason = "read by the planner")]
    pub(crate) catalog: Arc<dyn CatalogSource>,
    #[expect(dead_code, reason = "read by the planner")]
    pub(crate) transport: Arc<dyn LeafTransport>,
    #[expect(dead_code, reason = "read by the planner")]
    pub(crate) system: Arc<dyn SystemTables>,
    #[expect(dead_code, reason = "read by the planner")]
    pub(crate) admin: Arc<dyn AdminStatements>,
    #[expect(dead_code, reason = "read by the planner")]
    pub(crate) options: BrokerOptions,
}

impl Broker {
    /// A broker over a catalog, and what reaches its rows.
    pub fn new(
        catalog: Arc<dyn CatalogSource>,
        transport: Arc<dyn LeafTransport>,
        system: Arc<dyn SystemTables>,
        admin: Arc<dyn AdminStatements>,
        options: BrokerOptions,
    ) -> Self {
        Self {
            catalog,
            transport,
            system,
            admin,
            options,
        }
    }

    /// Runs one statement. Errors of planning come back at once, errors of execution in the stream.
    pub async fn query(&self, request: QueryRequest) -> Result<QueryAnswer> {
        Err(Error::unsupported(format!(
            "not supported: {:?}",
            request.sql
        )))
    }
}
