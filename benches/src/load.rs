//! What it costs to load a Parquet file: rows a second, the server's largest memory, bytes on disk.

use crate::target::{Source, Target};
use crate::wide;
use std::error::Error;
use std::path::Path;

const MIB: f64 = (1 << 20) as f64;

/// Loads `file` (of [`wide::generate`]) and prints what it took.
pub async fn run(source: &Source, file: &Path) -> Result<(), Box<dyn Error>> {
    let mut target = Target::open(source).await?;
    let before = target.peak_bytes();
    let loaded = target
        .load(
            "wide",
            &wide::schema_json(),
            &wide::table_json(),
            &[file.to_owned()],
        )
        .await?;
    let megabytes = |bytes: Option<u64>| {
        bytes.map_or("unknown".to_owned(), |b| {
            format!("{:.0} MiB", b as f64 / MIB)
        })
    };
    println!(
        "{} rows in {:.1} s: {:.0} rows/s; largest memory {} (before: {}); Parquet {:.1} MiB, segments {:.1} MiB",
        loaded.rows,
        loaded.elapsed.as_secs_f64(),
        loaded.rows as f64 / loaded.elapsed.as_secs_f64(),
        megabytes(target.peak_bytes()),
        megabytes(before),
        std::fs::metadata(file)?.len() as f64 / MIB,
        loaded.segment_bytes as f64 / MIB,
    );
    Ok(())
}
