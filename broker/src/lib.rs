//! SQL, planning and federation: from a statement to leaf queries, and from partial states to an answer.
//!
//! *Invariant*: nothing here opens a segment; the broker plans from catalog snapshots alone and reaches
//! rows through [`transport::LeafTransport`].

mod admin;
mod answer;
pub mod bind;
mod broker;
mod error;
mod explain;
mod extremes;
pub mod functions;
pub mod leaf_expr;
pub mod literal;
mod memory;
pub mod multi_value;
mod names;
mod options;
pub mod plan;
mod plan_cache;
mod planner;
pub mod request;
pub mod server_side;
mod session;
mod statement;
mod tables;
#[cfg(test)]
mod tests;
pub mod transport;

pub use broker::Broker;
pub use request::{BrokerOptions, QueryAnswer, QueryRequest, QueryStats};
pub use server_side::{AdminStatements, ReadOnly, RebuiltRange, SchemaChange, SystemTables};
pub use statement::check_predicate;
