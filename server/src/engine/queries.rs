//! Queries run on threads of their own: a plan that keeps a thread busy between two batches never holds back the
//! network, an append or a commit.

use arrow::array::RecordBatch;
use futures::{StreamExt, poll, stream};
use std::sync::Arc;
use std::task::Poll;
use strandline_broker::{Broker, QueryAnswer, QueryRequest};
use strandline_proto::{Error, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio_stream::wrappers::ReceiverStream;

/// Batches of an answer that wait for a slow client; then the query waits too.
const BATCHES_AHEAD: usize = 2;

/// The threads above the leaf.
pub(super) struct QueryThreads(Option<Runtime>);

impl Drop for QueryThreads {
    fn drop(&mut self) {
        // An engine may end within an async task, where waiting for threads is not allowed.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A task that ends with its handle.
struct Ending<T>(JoinHandle<T>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl QueryThreads {
    /// One thread a processor, two at least.
    pub(super) fn new() -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(2))
            .thread_name("query")
            .enable_all()
            .build()
            .map_err(|e| Error::unavailable(format!("no threads for queries: {e}")))?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a query here; its batches are read from anywhere. Dropping the future or the answer stops the work.
    pub(super) async fn run(
        &self,
        broker: &Arc<Broker>,
        request: QueryRequest,
    ) -> Result<QueryAnswer> {
        let threads = self
            .0
            .as_ref()
            .ok_or_else(|| Error::unavailable("the server is shutting down"))?
            .handle();
        let broker = Arc::clone(broker);
        let (head, answered) = oneshot::channel();
        let mut task = Ending(threads.spawn(async move {
            let answer = match broker.query(request).await {
                Ok(answer) => answer,
                Err(error) => return drop(head.send(Err(error))),
            };
            let mut batches = answer.batches;
            let mut ready = Vec::new();
            let mut whole = false;
            while ready.len() < BATCHES_AHEAD {
                match poll!(batches.next()) {
                    Poll::Ready(Some(batch)) => ready.push(batch),
                    Poll::Ready(None) => {
                        whole = true;
                        break;
                    }
                    Poll::Pending => break,
                }
            }
            let (sender, later) = mpsc::channel(BATCHES_AHEAD);
            let begun = Begun {
                ready,
                later: (!whole).then_some(later),
                answer: QueryAnswer {
                    batches: stream::empty().boxed(),
                    ..answer
                },
            };
            if head.send(Ok(begun)).is_err() || whole {
                return;
            }
            while let Some(batch) = batches.next().await {
                if sender.send(batch).await.is_err() {
                    return;
                }
            }
        }));
        let begun = match answered.await {
            Ok(begun) => begun?,
            // Nothing was sent: the task panicked, or its threads end.
            Err(_) => {
                return Err(match (&mut task.0).await {
                    Err(error) => ended(&error),
                    Ok(()) => Error::internal("the query ended without an answer"),
                });
            }
        };
        let ready = stream::iter(begun.ready);
        let batches = match begun.later {
            None => ready.boxed(),
            Some(later) => {
                // Batches end early when their task does: that must not look like the end of the answer.
                let end = async move {
                    let end = (&mut task.0).await;
                    end.err().map(|e| Err(ended(&e)))
                };
                let end = stream::once(end).filter_map(std::future::ready);
                ready.chain(ReceiverStream::new(later)).chain(end).boxed()
            }
        };
        Ok(QueryAnswer {
            batches,
            ..begun.answer
        })
    }
}

/// An answer as it leaves the query's thread: what was there at once goes with it, so that a short answer changes threads
/// once.
struct Begun {
    ready: Vec<Result<RecordBatch>>,
    /// What comes after; none: nothing does.
    later: Option<mpsc::Receiver<Result<RecordBatch>>>,
    /// Without its batches.
    answer: QueryAnswer,
}

fn ended(error: &JoinError) -> Error {
    if error.is_panic() {
        tracing::error!(%error, "a query panicked");
        Error::internal(format!("the query panicked: {error}"))
    } else {
        Error::unavailable("the server is shutting down: ask another one, or again later")
    }
}
