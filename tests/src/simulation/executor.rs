//! One thread on which everything runs, a task at a time, drawn among those that can go on; and its time, which passes when
//! none can, and now and then when one could.
//!
//! Blocking jobs take their turns like tasks, in the order in which they were asked for, and each runs through at once.

use super::machine::{Machine, Point};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use strandline_storage::environment::{
    Clock, Environment, Random, RunningTask, Spawner, TaskHandle,
};

use super::disk::SimulatedFiles;

type Job = Box<dyn FnOnce() + Send>;

struct Task {
    name: String,
    /// None while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    aborted: bool,
    joining: Vec<Waker>,
}

#[derive(Default)]
struct State {
    tasks: BTreeMap<u64, Task>,
    /// By number: in which order they were woken does not matter, because not all of tokio wakes in one order.
    ready: BTreeSet<u64>,
    jobs: VecDeque<(String, Job)>,
    next: u64,
    elapsed: Duration,
    /// What the wall clock shows beyond the elapsed time, in milliseconds since the epoch.
    wall_ms: i64,
    /// The latest that the wall clock ever showed.
    latest_ms: i64,
    sleeping: BTreeMap<(Duration, u64), Waker>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// The life of the server ended.
    Died,
    /// Nothing can go on before the time that was given.
    Idle,
    /// As many turns were taken as were given.
    Turns,
}

/// The thread and its time.
pub(super) struct Executor {
    machine: Arc<Machine>,
    state: Mutex<State>,
}

struct TaskWaker {
    executor: Arc<Executor>,
    id: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.executor.ready(self.id);
    }
}

impl Executor {
    pub(super) fn new(machine: Arc<Machine>, wall_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            machine,
            state: Mutex::new(State {
                wall_ms,
                latest_ms: wall_ms,
                ..State::default()
            }),
        })
    }

    fn ready(&self, id: u64) {
        let mut state = self.state.lock();
        if state.tasks.contains_key(&id) {
            state.ready.insert(id);
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.state.lock().elapsed
    }

    pub(super) fn now_ms(&self) -> i64 {
        let state = self.state.lock();
        state.wall_ms + state.elapsed.as_millis() as i64
    }

    /// The latest that the wall clock ever showed.
    pub(super) fn latest_ms(&self) -> i64 {
        let now = self.now_ms();
        let mut state = self.state.lock();
        state.latest_ms = state.latest_ms.max(now);
        state.latest_ms
    }

    /// The wall clock is set.
    pub(super) fn jump(&self, by_ms: i64) {
        self.latest_ms();
        self.machine.note(format_args!("clock jumps {by_ms} ms"));
        self.state.lock().wall_ms += by_ms;
        self.latest_ms();
    }

    /// Drops all tasks and jobs, as they are.
    pub(super) fn clear(&self) {
        let (tasks, jobs, sleeping) = {
            let mut state = self.state.lock();
            state.ready.clear();
            (
                std::mem::take(&mut state.tasks),
                std::mem::take(&mut state.jobs),
                std::mem::take(&mut state.sleeping),
            )
        };
        drop((tasks, jobs, sleeping));
        // What was spawned while they were dropped.
        let rest = {
            let mut state = self.state.lock();
            state.ready.clear();
            (
                std::mem::take(&mut state.tasks),
                std::mem::take(&mut state.jobs),
                std::mem::take(&mut state.sleeping),
            )
        };
        drop(rest);
    }

    /// Runs until something ends it; time passes up to `until`.
    pub(super) fn run(self: &Arc<Self>, turns: u64, until: Duration) -> Ran {
        for _ in 0..turns {
            if self.machine.is_dead() {
                return Ran::Died;
            }
            let (tasks, jobs) = {
                let state = self.state.lock();
                (state.ready.len(), usize::from(!state.jobs.is_empty()))
            };
            if tasks + jobs == 0 {
                if !self.pass_to_next(until) {
                    return Ran::Idle;
                }
                continue;
            }
            // Nothing is infinitely fast.
            if self.machine.once_in(24) {
                let by = Duration::from_millis(self.machine.below(40));
                self.pass(by);
            }
            if !self.machine.passes(Point::Any) {
                return Ran::Died;
            }
            let chosen = self.machine.below((tasks + jobs) as u64) as usize;
            match chosen < tasks {
                true => self.poll(chosen),
                false => self.run_job(),
            }
        }
        match self.machine.is_dead() {
            true => Ran::Died,
            false => Ran::Turns,
        }
    }

    fn run_job(&self) {
        let job = self.state.lock().jobs.pop_front();
        if let Some((name, job)) = job {
            self.machine.note(format_args!("job {name}"));
            job();
        }
    }

    fn poll(self: &Arc<Self>, chosen: usize) {
        let (id, future) = {
            let mut state = self.state.lock();
            let Some(id) = state.ready.iter().nth(chosen).copied() else {
                return;
            };
            state.ready.remove(&id);
            let Some(task) = state.tasks.get_mut(&id) else {
                return;
            };
            self.machine.note(format_args!("task {id} {}", task.name));
            (
                id,
                if task.aborted {
                    None
                } else {
                    task.future.take()
                },
            )
        };
        let waker = Waker::from(Arc::new(TaskWaker {
            executor: Arc::clone(self),
            id,
        }));
        let pending = future.and_then(|mut future| {
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            polled.is_pending().then_some(future)
        });
        let mut state = self.state.lock();
        match (pending, state.tasks.get_mut(&id)) {
            (Some(future), Some(task)) => task.future = Some(future),
            // All tasks were dropped meanwhile.
            (Some(future), None) => {
                drop(state);
                drop(future);
            }
            (None, _) => {
                let ended = state.tasks.remove(&id);
                drop(state);
                for waker in ended.into_iter().flat_map(|task| task.joining) {
                    waker.wake();
                }
            }
        }
    }

    /// Moves time to the next sleeper's; false when that is after `until`, and then to that.
    fn pass_to_next(&self, until: Duration) -> bool {
        let next = {
            let state = self.state.lock();
            let next = state.sleeping.keys().next().map(|(at, _)| *at);
            match next {
                Some(at) if at <= until => at.saturating_sub(state.elapsed),
                _ => {
                    let rest = until.saturating_sub(state.elapsed);
                    drop(state);
                    self.pass(rest);
                    return false;
                }
            }
        };
        self.pass(next);
        true
    }

    /// Time passes, and nothing runs: as when the machine was asleep.
    pub(super) fn leap(&self, by: Duration) {
        self.machine.note(format_args!("{} s pass", by.as_secs()));
        self.pass(by);
    }

    fn pass(&self, by: Duration) {
        let mut due = Vec::new();
        {
            let mut state = self.state.lock();
            state.elapsed += by;
            let now = state.elapsed;
            while let Some(entry) = state.sleeping.first_entry() {
                if entry.key().0 > now {
                    break;
                }
                due.push(entry.remove());
            }
        }
        self.latest_ms();
        for waker in due {
            waker.wake();
        }
    }

    /// What a life of the server is given.
    pub(super) fn environment(self: &Arc<Self>, life: u64) -> Environment {
        let seen = Arc::new(Seen {
            executor: Arc::clone(self),
            life,
        });
        Environment {
            clock: Arc::clone(&seen) as Arc<dyn Clock>,
            random: Arc::clone(&seen) as Arc<dyn Random>,
            spawner: seen,
            files: Arc::new(SimulatedFiles {
                machine: Arc::clone(&self.machine),
                life,
            }),
        }
    }

    /// Starts a task.
    pub(super) fn start(
        self: &Arc<Self>,
        name: &str,
        future: BoxFuture<'static, ()>,
    ) -> TaskHandle {
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        state.tasks.insert(
            id,
            Task {
                name: name.to_owned(),
                future: Some(future),
                aborted: false,
                joining: Vec::new(),
            },
        );
        state.ready.insert(id);
        drop(state);
        TaskHandle::new(
            name,
            Handle {
                executor: Arc::clone(self),
                id,
            },
        )
    }
}

struct Handle {
    executor: Arc<Executor>,
    id: u64,
}

impl RunningTask for Handle {
    fn abort(&self) {
        if let Some(task) = self.executor.state.lock().tasks.get_mut(&self.id) {
            task.aborted = true;
        }
        self.executor.ready(self.id);
    }

    fn is_finished(&self) -> bool {
        !self.executor.state.lock().tasks.contains_key(&self.id)
    }

    fn ended(self: Box<Self>) -> BoxFuture<'static, bool> {
        Box::pin(std::future::poll_fn(move |context| {
            let mut state = self.executor.state.lock();
            match state.tasks.get_mut(&self.id) {
                // A panic ends the simulation.
                None => Poll::Ready(false),
                Some(task) => {
                    task.joining.push(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

/// The executor as one life sees it.
struct Seen {
    executor: Arc<Executor>,
    life: u64,
}

impl Clock for Seen {
    fn now_ms(&self) -> i64 {
        self.executor.now_ms()
    }

    fn monotonic(&self) -> Duration {
        self.executor.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut state = self.executor.state.lock();
        state.next += 1;
        Box::pin(Sleep {
            key: (state.elapsed.saturating_add(duration), state.next),
            executor: Arc::clone(&self.executor),
        })
    }
}

struct Sleep {
    executor: Arc<Executor>,
    key: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.executor.state.lock();
        if state.elapsed >= self.key.0 {
            return Poll::Ready(());
        }
        state.sleeping.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let waker = self.executor.state.lock().sleeping.remove(&self.key);
        drop(waker);
    }
}

impl Random for Seen {
    fn next_u64(&self) -> u64 {
        self.executor.machine.bits()
    }
}

impl Spawner for Seen {
    fn spawn(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        if self.executor.machine.is_over(self.life) {
            drop(future);
            return TaskHandle::new(
                name,
                Handle {
                    executor: Arc::clone(&self.executor),
                    id: 0,
                },
            );
        }
        self.executor.start(name, future)
    }

    fn spawn_blocking(&self, name: &str, job: Job) -> TaskHandle {
        let handle = Handle {
            executor: Arc::clone(&self.executor),
            id: 0,
        };
        if self.is_running() {
            let mut state = self.executor.state.lock();
            state.jobs.push_back((name.to_owned(), job));
        }
        // Nobody waits for a job by its handle.
        TaskHandle::new(name, handle)
    }

    fn is_running(&self) -> bool {
        !self.executor.machine.is_over(self.life)
    }
}
