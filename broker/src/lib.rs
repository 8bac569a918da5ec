//! SQL, planning and federation: from a statement to leaf queries, and from partial states to an answer.
//!
//! *Invariant*: nothing here opens a segment; the broker plans from catalog snapshots alone and reaches
//! rows through [`transport::LeafTransport`].

mod broker;
pub mod functions;
pub mod leaf_expr;
pub mod literal;
pub mod request;
pub mod server_side;
pub mod transport;

pub use broker::Broker;
pub use request::{BrokerOptions, QueryAnswer, QueryRequest, QueryStats};
pub use server_side::{AdminStatements, ReadOnly, SystemTables};
