//! Benchmarks: seeded data, the Star Schema Benchmark beside DuckDB, and the cost of loading.

pub mod peer;
pub mod rows;
pub mod ssb;
pub mod wide;
