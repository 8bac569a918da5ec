//! What stops a scan: cancellation, the deadline, and the memory limit.

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use std::sync::Arc;
use std::time::Instant;
use strandline_broker::transport::LeafContext;
use strandline_proto::{Error, Result};
use tokio_util::sync::CancellationToken;

/// Asked once a block whether the scan may go on.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    cancel: CancellationToken,
    deadline: Option<Instant>,
}

impl Guard {
    /// The guard of a query; `cancel` fires at the latest with the context's token.
    pub(super) fn new(context: &LeafContext, cancel: CancellationToken) -> Self {
        Self {
            cancel,
            deadline: context.deadline,
        }
    }

    /// An error when the caller is gone or the time is up.
    pub(super) fn check(&self) -> Result<()> {
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err(Error::deadline(
                "the query's deadline passed while segments were read: raise the timeout or narrow the filter",
            ));
        }
        if self.cancel.is_cancelled() {
            return Err(Error::cancelled(
                "the query was cancelled while segments were read",
            ));
        }
        Ok(())
    }
}

/// Memory of one user of a query's limit; given back when it goes.
#[derive(Debug)]
pub(super) struct Budget {
    reservation: MemoryReservation,
    what: &'static str,
}

impl Budget {
    /// An empty reservation for `what`, which an error names.
    pub(super) fn new(pool: &Arc<dyn MemoryPool>, what: &'static str) -> Self {
        Self {
            reservation: MemoryConsumer::new(format!("leaf: {what}")).register(pool),
            what,
        }
    }

    /// Makes the reservation at least `bytes`; called before they are used.
    pub(super) fn reserve(&self, bytes: usize) -> Result<()> {
        let held = self.reservation.size();
        if bytes <= held {
            return Ok(());
        }
        self.reservation.try_grow(bytes - held).map_err(|error| {
            Error::exhausted(format!(
                "the memory limit of the query does not hold {bytes} bytes for {}: {}; filter or group less, or raise the limit",
                self.what,
                error.strip_backtrace()
            ))
        })
    }
}
