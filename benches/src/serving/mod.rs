//! Statements as a service asks them, over the table of the Star Schema Benchmark: many, short, of few shapes.

pub mod closed;
mod drive;
mod facts;
pub mod fair;
mod workload;
