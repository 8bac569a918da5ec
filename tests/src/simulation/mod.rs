//! A simulation: consume, seal, build, store, commit, take over, push, rebuild of the archive, merge, give up, on the server's own code, with the clock,
//! the disk, the stream, the tasks and all chance drawn from one seed.
//!
//! A life of the server ends at any point, by a kill or by the end of the power; file operations, transactions and the stream
//! fail; the clock jumps; appends and pushes are repeated until their outcome is known. After each step what queries would
//! answer is held against a model of a few lines: no row is lost, doubled or hidden, the offsets that were committed tile each
//! partition, and the accounts add up.
//!
//! The same seed gives the same trace, line by line.
//!
//! What is not simulated: SQLite's own files (a transaction happens as a whole or not, and stays), the errors of the object
//! store's reads and lists, bits that rot, more than one thread at a time; and of what a table may be: keys of rows, changes of
//! its schema and config, coverage that is inferred, deletions and reversals, a stream that drops what was not read.

mod clients;
mod disk;
mod executor;
mod life;
mod machine;
mod metastore;
mod model;
mod queries;
mod scenario;
mod stream;
mod view;
mod world;

pub use machine::Trace;

use model::Row;
use queries::Queries;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use world::World;

/// Runs simulations, one after the other.
pub struct Simulator {
    runtime: Arc<Runtime>,
    queries: Arc<Queries>,
}

/// What came of one.
#[derive(Debug)]
pub struct Simulated {
    /// What happened.
    pub trace: Trace,
    /// How often the server died.
    pub deaths: u64,
    /// What was wrong; none: nothing.
    pub wrong: Option<String>,
}

impl Default for Simulator {
    fn default() -> Self {
        Self::new()
    }
}

impl Simulator {
    /// One that runs nothing yet.
    ///
    /// # Panics
    /// When the system has no thread to give.
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = Arc::new(runtime.expect("a runtime for the metastore and queries"));
        let queries = Queries::new(&runtime);
        Self { runtime, queries }
    }

    /// Runs the simulation of a seed; all of its trace is kept when that is asked for, and else its end.
    pub fn run(&self, seed: u64, keeps_trace: bool) -> Simulated {
        let mut world = World::new(seed, &self.queries, &self.runtime, keeps_trace);
        // A panic of the server's is as wrong as a wrong answer.
        let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
        let wrong = match ran {
            Ok(Ok(())) => None,
            Ok(Err(wrong)) => Some(wrong),
            Err(panic) => Some(format!(
                "a panic: {}",
                panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("without words")
            )),
        };
        Simulated {
            trace: world.trace(),
            deaths: world.deaths(),
            wrong,
        }
    }
}

impl Simulated {
    /// What to print when it failed: what was wrong, what went before, and how to see it again.
    pub fn report(&self, seed: u64) -> String {
        let wrong = self.wrong.as_deref().unwrap_or("nothing is wrong");
        format!(
            "{}\nseed {seed}: {wrong}\nto see it again: STRANDLINE_SIMULATION_SEED={seed} STRANDLINE_SIMULATION_SEEDS=1 cargo test --workspace --test simulation",
            self.trace.end().join("\n")
        )
    }
}

/// In memory where there is such a folder: what the metastore syncs need not wait for a disk.
fn temporary_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()),
        false => tempfile::tempdir(),
    };
    made.expect("a temporary folder is made")
}

/// A message's bytes; without a row, some that can't be decoded.
fn payload(row: Option<Row>) -> Vec<u8> {
    match row {
        Some((n, ms)) => format!(r#"{{"n": {n}, "ms": {ms}}}"#).into_bytes(),
        None => b"{\"n\": ".to_vec(),
    }
}

/// The offsets that a deep store's archive holds of each partition, by their beginnings; each object must be whole.
fn archived_ranges(deep: &Path) -> Result<BTreeMap<u32, Vec<(u64, u64)>>, String> {
    let mut found: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    let mut folders = vec![deep.join(".archive")];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
            let (Some(partition), Some(file)) = (name(&folder), name(&path)) else {
                continue;
            };
            // What was cut off on its way in has another ending.
            let Some(stem) = file.strip_suffix(".raw") else {
                continue;
            };
            let mut parts = stem.split('-');
            let mut number = |radix| {
                let part = parts.next().unwrap_or_default();
                u64::from_str_radix(part, radix).map_err(|e| format!("{file}: {e}"))
            };
            let (start, end, crc) = (number(10)?, number(10)?, number(16)?);
            let bytes = std::fs::read(&path).map_err(|e| format!("{file}: {e}"))?;
            if u64::from(crc32c::crc32c(&bytes)) != crc {
                return Err(format!("{file} of the archive is not what its name says"));
            }
            let partition = partition.parse().map_err(|e| format!("{file}: {e}"))?;
            found.entry(partition).or_default().push((start, end));
        }
    }
    found.values_mut().for_each(|ranges| ranges.sort_unstable());
    Ok(found)
}

/// Names and checksums of the segment files below a deep store's folder.
fn disk_files(deep: &Path) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let below = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    for segment in below(deep).iter().flat_map(|table| below(table)) {
        for file in below(&segment) {
            let text = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
            if let (Some(name), Some(file)) = (text(&segment), text(&file))
                && let Some((checksum, _)) = file.split_once('-')
            {
                found.insert((name, checksum.to_owned()));
            }
        }
    }
    found
}
