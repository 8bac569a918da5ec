//! What the outside world gives: clock, randomness, tasks and durable files, injected everywhere.
//!
//! Nothing in ingestion, commit or coverage asks the operating system directly. It is given an
//! [`Environment`], real in a server and manual in tests, so that consume, commit and crash can run
//! under a seed and with faults.

mod background;
mod clock;
mod files;
mod random;
mod spawner;

pub use background::in_background;
pub use clock::{Clock, ManualClock, RealClock};
pub use files::{DurableFile, FaultyFiles, FileOperation, Files, RealFiles, file_error};
pub use random::{Random, RealRandom, SeededRandom};
pub use spawner::{RealSpawner, RunningTask, Spawner, TaskHandle, blocking};

use std::sync::Arc;

/// The injected seams, cheap to clone.
#[derive(Clone)]
pub struct Environment {
    /// Wall and monotonic time, and sleeping.
    pub clock: Arc<dyn Clock>,
    /// Randomness for names and jitter; not for secrets.
    pub random: Arc<dyn Random>,
    /// Where tasks and blocking jobs run.
    pub spawner: Arc<dyn Spawner>,
    /// The durable file operations.
    pub files: Arc<dyn Files>,
}

impl Environment {
    /// The machine's own clock, randomness, tokio runtime and file system.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(RealClock::default()),
            random: Arc::new(RealRandom),
            spawner: Arc::new(RealSpawner),
            files: Arc::new(RealFiles),
        }
    }

    /// This with another file system.
    pub fn with_files(self, files: Arc<dyn Files>) -> Self {
        Self { files, ..self }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}
