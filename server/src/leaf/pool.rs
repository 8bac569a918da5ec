//! The scan pool: a fixed number of threads that run queries' jobs, a job of each query in turn.
//!
//! A query has a [`Lane`]; lanes with waiting jobs stand in a ring, so a query of a thousand jobs and a query of
//! one wait for each other's single jobs only. A job that panics fails its own query: the thread goes on.

use parking_lot::{Condvar, Mutex};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use strandline_proto::{Error, Result};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    ring: VecDeque<u64>,
    jobs: HashMap<u64, VecDeque<Job>>,
    next_lane: u64,
    closed: bool,
}

impl State {
    fn push(&mut self, lane: u64, job: Job) {
        let jobs = self.jobs.entry(lane).or_default();
        if jobs.is_empty() {
            self.ring.push_back(lane);
        }
        jobs.push_back(job);
    }

    fn pop(&mut self) -> Option<Job> {
        let lane = self.ring.pop_front()?;
        let jobs = self.jobs.get_mut(&lane)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.jobs.remove(&lane);
        } else {
            self.ring.push_back(lane);
        }
        job
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// Closes the pool when its last handle goes.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        let dropped = {
            let mut state = self.0.state.lock();
            state.closed = true;
            state.ring.clear();
            std::mem::take(&mut state.jobs)
        };
        // Outside the lock: a job's captures may end other things when they go.
        drop(dropped);
        self.0.wake.notify_all();
    }
}

/// A bounded CPU pool of its own threads, shared by all queries of a server.
#[derive(Clone)]
pub struct ScanPool {
    owner: Arc<Owner>,
    threads: usize,
}

impl std::fmt::Debug for ScanPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScanPool")
            .field("threads", &self.threads)
            .finish()
    }
}

impl ScanPool {
    /// A pool of `threads` threads (at least one). Where the system refuses a thread the pool has fewer, and without
    /// any, jobs run where they are submitted.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let mut started = 0;
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("scan-{number}"));
            match thread.spawn(move || work(&shared)) {
                Ok(_) => started += 1,
                Err(error) => tracing::error!(%error, "a scan thread could not be started"),
            }
        }
        Self {
            owner: Arc::new(Owner(shared)),
            threads: started,
        }
    }

    /// How many threads run jobs.
    pub fn threads(&self) -> usize {
        self.threads.max(1)
    }

    /// A place in the ring for one query.
    pub(super) fn lane(&self) -> Lane {
        let id = {
            let mut state = self.owner.0.state.lock();
            state.next_lane += 1;
            state.next_lane
        };
        Lane {
            pool: self.clone(),
            id,
        }
    }
}

fn work(shared: &Shared) {
    loop {
        let job = {
            let mut state = shared.state.lock();
            loop {
                if let Some(job) = state.pop() {
                    break job;
                }
                if state.closed {
                    return;
                }
                shared.wake.wait(&mut state);
            }
        };
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a scan job panicked outside of its query's guard");
        }
    }
}

/// One query's jobs.
#[derive(Clone)]
pub(super) struct Lane {
    pool: ScanPool,
    id: u64,
}

impl Lane {
    /// Runs `job` when its turn comes. It is dropped unrun when the pool closes first.
    pub(super) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        if self.pool.threads == 0 {
            return job();
        }
        let shared = &self.pool.owner.0;
        {
            let mut state = shared.state.lock();
            if state.closed {
                return;
            }
            state.push(self.id, Box::new(job));
        }
        shared.wake.notify_one();
    }

    /// Runs `job` and gives its result.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.submit(move || {
            // The receiver is gone when the query was cancelled.
            let _ = sender.send(contained(job));
        });
        receiver.await.unwrap_or_else(|_| Err(closed()))
    }

    /// How many jobs can run at once.
    pub(super) fn threads(&self) -> usize {
        self.pool.threads()
    }
}

/// The error of a job that never ran.
pub(super) fn closed() -> Error {
    Error::unavailable("the server is shutting down: ask another one, or again later")
}

/// The result of `job`; a panic becomes an internal error.
pub(super) fn contained<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        tracing::error!(panic = text, "a scan job panicked");
        Err(Error::internal(format!("a scan panicked: {text}")))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "(no message)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use strandline_proto::ErrorKind;

    #[tokio::test]
    async fn a_panic_fails_its_query_and_not_the_pool() {
        let pool = ScanPool::new(1);
        let lane = pool.lane();
        let error = lane
            .run(|| -> Result<()> { panic!("out of luck") })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("out of luck"));
        assert_eq!(lane.run(|| Ok(7)).await.unwrap(), 7);
    }

    #[test]
    fn lanes_take_turns() {
        let pool = ScanPool::new(1);
        let (long, short) = (pool.lane(), pool.lane());
        let (gate, open) = mpsc::channel::<()>();
        let (done, order) = mpsc::channel();
        let (started, start) = mpsc::channel();
        long.submit(move || {
            started.send(()).unwrap();
            open.recv().unwrap();
        });
        start.recv().unwrap();
        for i in 0..3 {
            let done = done.clone();
            long.submit(move || done.send(format!("long {i}")).unwrap());
        }
        let last = done.clone();
        short.submit(move || last.send("short".to_owned()).unwrap());
        drop(done);
        gate.send(()).unwrap();
        let order: Vec<_> = order.iter().collect();
        assert_eq!(order, ["long 0", "short", "long 1", "long 2"]);
    }

    #[tokio::test]
    async fn jobs_of_a_closed_pool_end_as_unavailable() {
        let pool = ScanPool::new(1);
        let lane = pool.lane();
        pool.owner.0.state.lock().closed = true;
        let error = lane.run(|| Ok(())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
