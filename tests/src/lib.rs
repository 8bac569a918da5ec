//! End-to-end tests: seeded tables and queries, two oracles, and a harness around the server.
//!
//! A [`table::Table`] is drawn from a seed with a column of every type under rotating storage; a
//! [`query::Query`] is drawn over it in three renderings: ours, plain DataFusion's and DuckDB's. The
//! [`oracle`] answers the plain one from the rows in memory; [`answer`] holds the two against each other.

pub mod answer;
pub mod arrays;
pub mod arrow_files;
pub mod client;
pub mod combination;
pub mod directed;
pub mod export;
pub mod expression;
pub mod fuzz;
pub mod kafka_faults;
pub mod kills;
pub mod operator;
pub mod oracle;
pub mod pinot;
pub mod pool;
pub mod predicate;
pub mod process;
pub mod query;
pub mod refusal;
pub mod simulation;
pub mod slt;
pub mod sql;
pub mod star_tree;
pub mod table;
pub mod tally;
pub mod variants;
pub mod versions;
