//! Where tasks run: named async tasks and blocking jobs.

use futures::future::BoxFuture;
use std::sync::Arc;
use strandline_proto::{Error, Result};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Starts tasks.
pub trait Spawner: Send + Sync {
    /// Runs `future` to its end. `name` is what the task is called in logs.
    fn spawn(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle;
    /// Runs `job` on a thread that may block.
    fn spawn_blocking(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> TaskHandle;
    /// Whether tasks can be started here and now; not where the process is ending.
    fn is_running(&self) -> bool;
}

/// What a [`TaskHandle`] is a handle on.
pub trait RunningTask: Send + Sync {
    /// Stops the task at its next await.
    fn abort(&self);
    /// Whether it has ended.
    fn is_finished(&self) -> bool;
    /// Ends when the task has ended; true when it panicked.
    fn ended(self: Box<Self>) -> BoxFuture<'static, bool>;
}

impl RunningTask for JoinHandle<()> {
    fn abort(&self) {
        JoinHandle::abort(self);
    }

    fn is_finished(&self) -> bool {
        JoinHandle::is_finished(self)
    }

    fn ended(self: Box<Self>) -> BoxFuture<'static, bool> {
        Box::pin(async { matches!((*self).await, Err(error) if error.is_panic()) })
    }
}

/// A running task. Dropping the handle lets the task run on.
pub struct TaskHandle {
    name: Arc<str>,
    task: Box<dyn RunningTask>,
}

impl std::fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskHandle")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl TaskHandle {
    /// A handle on a task.
    pub fn new(name: &str, task: impl RunningTask + 'static) -> Self {
        Self {
            name: Arc::from(name),
            task: Box::new(task),
        }
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stops the task at its next await; a blocking job that has begun runs on.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for the task's end. An aborted task ends well; one that panicked is an `Internal` error.
    pub async fn join(self) -> Result<()> {
        match self.task.ended().await {
            true => Err(Error::internal(format!(
                "task {} panicked: see the log",
                self.name
            ))),
            false => Ok(()),
        }
    }
}

/// The tokio runtime that the caller runs in.
#[derive(Debug, Default)]
pub struct RealSpawner;

impl Spawner for RealSpawner {
    fn spawn(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        TaskHandle::new(name, tokio::spawn(future))
    }

    fn spawn_blocking(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> TaskHandle {
        TaskHandle::new(name, tokio::task::spawn_blocking(job))
    }

    fn is_running(&self) -> bool {
        tokio::runtime::Handle::try_current().is_ok()
    }
}

/// Runs `job` on a thread that may block and gives its result.
///
/// Errors with `Internal` when the job panicked. Dropping the future does not stop a job that has begun.
pub async fn blocking<T: Send + 'static>(
    spawner: &Arc<dyn Spawner>,
    name: &str,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (answer, answered) = oneshot::channel();
    spawner.spawn_blocking(
        name,
        Box::new(move || {
            // The asker may have gone away; the job's effect stands either way.
            let _ = answer.send(job());
        }),
    );
    match answered.await {
        Ok(result) => result,
        Err(_) => Err(Error::internal(format!(
            "{name} ended without an answer: see the log"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_job_is_an_error_and_not_a_hang() {
        let spawner: Arc<dyn Spawner> = Arc::new(RealSpawner);
        let error = blocking::<()>(&spawner, "a job", || panic!("on purpose"))
            .await
            .unwrap_err();
        assert!(error.message().contains("a job"));
        assert_eq!(blocking(&spawner, "a job", || Ok(3)).await.unwrap(), 3);
        let task = spawner.spawn("a task", Box::pin(std::future::pending()));
        task.abort();
        task.join().await.unwrap();
    }
}
