//! Benchmarks: the Star Schema Benchmark beside its peers, many statements at once, rows that arrive meanwhile, loads.
//!
//! ```text
//! commands   ssb   serving (closed, fair)   scorecard   consuming   growth   load   ingest   upsert   keys
//! measured   target: a server, started or reached   topics: of a Kafka broker   peer: other engines over the same files
//! shared     rows: answers compared   times: histograms   ratios   zipf   results: JSON, Markdown   plot: SVG
//! ```
//!
//! *Invariant*: a command compares answers before it takes a time, takes none of an answer that failed or was wrong, and
//! writes results only when it has come to its end.

pub mod consuming;
pub mod growth;
pub mod ingest;
pub mod keys;
pub mod load;
pub mod peer;
pub mod plot;
pub mod ratios;
pub mod results;
pub mod rows;
pub mod scorecard;
pub mod serving;
pub mod ssb;
pub mod target;
pub mod times;
pub mod topics;
pub mod upsert;
pub mod wide;
pub mod zipf;
