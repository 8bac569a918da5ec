//! Memory of queries: each has a limit of its own within the one that all share.

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A query's share of the common pool.
#[derive(Debug)]
pub(crate) struct QueryMemory {
    shared: Arc<dyn MemoryPool>,
    bytes_max: usize,
    used: AtomicUsize,
}

impl QueryMemory {
    /// A pool of at most `bytes_max` bytes out of `shared`.
    pub(crate) fn new(shared: Arc<dyn MemoryPool>, bytes_max: usize) -> Self {
        Self {
            shared,
            bytes_max,
            used: AtomicUsize::new(0),
        }
    }
}

fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl Display for QueryMemory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "query memory ({} of {})",
            mib(self.reserved()),
            mib(self.bytes_max)
        )
    }
}

impl MemoryPool for QueryMemory {
    fn name(&self) -> &str {
        "query"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.shared.grow(reservation, additional);
        self.used.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.shared.shrink(reservation, shrink);
        self.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let within = |used: usize| {
            used.checked_add(additional)
                .filter(|sum| *sum <= self.bytes_max)
        };
        if let Err(used) = self
            .used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, within)
        {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "the query's memory limit of {} is reached ({} held, {} more wanted for {}): narrow the query, or raise the limit with SET memoryBytesMax = n, up to the server's own",
                mib(self.bytes_max),
                mib(used),
                mib(additional),
                reservation.consumer().name()
            )));
        }
        self.shared.try_grow(reservation, additional).map_err(|_| {
            self.used.fetch_sub(additional, Ordering::Relaxed);
            let limit = match self.shared.memory_limit() {
                MemoryLimit::Finite(bytes) => format!(" of {}", mib(bytes)),
                _ => String::new(),
            };
            DataFusionError::ResourcesExhausted(format!(
                "the memory limit of all queries together{limit} is reached ({} held): try again when fewer run, narrow the query, or give the server more memory",
                mib(self.shared.reserved())
            ))
        })
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer};

    #[test]
    fn both_limits_hold_and_say_which_was_reached() {
        let shared: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100));
        let one: Arc<dyn MemoryPool> = Arc::new(QueryMemory::new(Arc::clone(&shared), 60));
        let two: Arc<dyn MemoryPool> = Arc::new(QueryMemory::new(Arc::clone(&shared), 60));
        let a = MemoryConsumer::new("sort").register(&one);
        let b = MemoryConsumer::new("join").register(&two);
        a.try_grow(50).unwrap();
        assert!(
            a.try_grow(20)
                .unwrap_err()
                .to_string()
                .contains("the query's memory limit")
        );
        assert!(
            b.try_grow(60)
                .unwrap_err()
                .to_string()
                .contains("all queries together")
        );
        b.try_grow(50).unwrap();
        drop(a);
        assert_eq!((one.reserved(), shared.reserved()), (0, 50));
    }
}
