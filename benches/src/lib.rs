//! Benchmarks: seeded data, the Star Schema Benchmark beside its peers, scorecard pages under load, and the cost of loading.

pub mod load;
pub mod peer;
pub mod rows;
pub mod scorecard;
pub mod ssb;
pub mod ssb_run;
pub mod target;
pub mod wide;
