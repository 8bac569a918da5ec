//! Those who send: a producer for each partition of the log, who repeats what was not acknowledged, a job that pushes files
//! and repeats its push until it knows what became of it, and an operator who has a range rebuilt and asks again until it is. They
//! live on when the server dies.

use super::executor::Executor;
use super::life::Life;
use super::machine::Machine;
use super::model::{Push, Sent};
use super::world::Wrong;
use parking_lot::Mutex;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::Half;
use strandline_proto::v1::{LoadOptions, LoadResult, PushMode, TimeInterval};
use strandline_proto::{ErrorKind, Result};
use strandline_server::host::rebuild::{Rebuilder, Rebuilt};
use strandline_storage::stream::log::{AppendOutcome, LogMessage};

/// An answer that is waited for.
type Slot<T> = Arc<Mutex<Option<Result<T>>>>;

/// Sends an answer; nobody hears what a dead server says.
fn tell<T>(server: &Machine, slot: &Slot<T>, answer: Result<T>) {
    if !server.is_dead() {
        *slot.lock() = Some(answer);
    }
}

/// A partition's producer.
pub(super) struct Appending {
    pub(super) partition: u32,
    /// Messages that are on disk for sure.
    pub(super) acknowledged: u64,
    waits: Option<(u64, Slot<AppendOutcome>)>,
}

impl Appending {
    pub(super) fn new(partition: u32) -> Self {
        Self {
            partition,
            acknowledged: 0,
            waits: None,
        }
    }

    /// The server is gone, and with it the answer.
    pub(super) fn is_gone(&mut self) {
        self.waits = None;
    }

    /// Sends what is to be sent, when nothing is waited for.
    pub(super) fn go_on(
        &mut self,
        life: &Life,
        executor: &Arc<Executor>,
        machine: &Arc<Machine>,
        sent: &[Sent],
    ) {
        let rest = &sent[self.acknowledged as usize..];
        if self.waits.is_some() || rest.is_empty() {
            return;
        }
        // A repeated request may be cut otherwise.
        let some = 1 + machine.below(rest.len() as u64);
        let message = |sent: &Sent| LogMessage {
            payload: super::payload(sent.row).into(),
            ..LogMessage::default()
        };
        let messages = rest.iter().take(some as usize).map(message).collect();
        let slot = Slot::default();
        let (log, partition, first) = (Arc::clone(life.log()), self.partition, self.acknowledged);
        self.waits = Some((first + some, Arc::clone(&slot)));
        let server = Arc::clone(machine);
        let append = async move {
            let producer = format!("producer {partition}");
            let appended = log.append("t", Some(partition), messages, &producer, first);
            tell(&server, &slot, appended.await);
        };
        executor.start(&format!("append to {partition}"), Box::pin(append));
    }

    pub(super) fn hear(&mut self, machine: &Machine) -> std::result::Result<(), Wrong> {
        let Some((until, slot)) = &self.waits else {
            return Ok(());
        };
        let Some(answer) = slot.lock().take() else {
            return Ok(());
        };
        match answer {
            Ok(outcome) => {
                machine.note(format_args!("appended to {} up to {until}", self.partition));
                if outcome.next_offset != *until {
                    return Err(format!(
                        "message {until} of partition {} got the offset {}",
                        self.partition, outcome.next_offset
                    ));
                }
                self.acknowledged = *until;
            }
            Err(e) => {
                machine.note(format_args!("append to {}: {e}", self.partition));
                // A topic comes with the first start of its table.
                let may_fail = [
                    ErrorKind::Unavailable,
                    ErrorKind::ResourceExhausted,
                    ErrorKind::NotFound,
                ];
                if !may_fail.contains(&e.kind()) {
                    return Err(format!("append to partition {}: {e}", self.partition));
                }
            }
        }
        self.waits = None;
        Ok(())
    }
}

/// What is known of a push.
pub(super) enum Outcome {
    /// Nothing: it is repeated.
    Unknown,
    /// It happened.
    Done,
    /// It did not, and will not.
    Refused,
}

/// A job with a push.
pub(super) struct Pushing {
    file: PathBuf,
    options: LoadOptions,
    rows: u64,
    waits: Option<Slot<LoadResult>>,
}

impl Pushing {
    pub(super) fn new(folder: &Path, push: &Push, segment_rows_max: u64) -> Self {
        let file = folder.join(format!("{}.json", push.id));
        let mut text = String::new();
        for (n, ms) in &push.rows {
            let _ = writeln!(text, r#"{{"n": {n}, "ms": {ms}}}"#);
        }
        std::fs::write(&file, text).expect("a client's file is written");
        let interval = Some(TimeInterval {
            start_ms: push.interval.0,
            end_ms: push.interval.1,
        });
        let mut options = LoadOptions {
            push_id: push.id.clone(),
            segment_rows_max,
            mode: PushMode::Append.into(),
            ..LoadOptions::default()
        };
        match push.replaces {
            true => options.replaced = interval,
            false => options.declared_coverage = interval,
        }
        Self {
            file,
            options,
            rows: push.rows.len() as u64,
            waits: None,
        }
    }

    /// The server is gone, and with it the answer.
    pub(super) fn is_gone(&mut self) {
        self.waits = None;
    }

    pub(super) fn go_on(&mut self, life: &Life, executor: &Arc<Executor>, machine: &Arc<Machine>) {
        let Some(config) = life.host().publisher.config(life.table(), Half::Offline) else {
            return;
        };
        if self.waits.is_some() {
            return;
        }
        let slot = Slot::default();
        self.waits = Some(Arc::clone(&slot));
        let (loader, files) = (life.host().loader.clone(), vec![self.file.clone()]);
        let (options, server) = (self.options.clone(), Arc::clone(machine));
        let load = async move {
            let loaded = loader.load(&config, files, options, Arc::new(|_| {})).await;
            tell(&server, &slot, loaded);
        };
        executor.start("load", Box::pin(load));
    }

    pub(super) fn hear(&mut self, machine: &Machine) -> std::result::Result<Outcome, Wrong> {
        let Some(slot) = &self.waits else {
            return Ok(Outcome::Unknown);
        };
        let Some(answer) = slot.lock().take() else {
            return Ok(Outcome::Unknown);
        };
        self.waits = None;
        let id = &self.options.push_id;
        match answer {
            Ok(result) if result.rows == self.rows => {
                machine.note(format_args!("{id} is done"));
                Ok(Outcome::Done)
            }
            Ok(result) => Err(format!("{id} of {} rows took {}", self.rows, result.rows)),
            Err(e) => {
                machine.note(format_args!("{id}: {e}"));
                match e.kind() {
                    ErrorKind::Unavailable
                    | ErrorKind::ResourceExhausted
                    | ErrorKind::NotFound
                    | ErrorKind::SegmentGone => Ok(Outcome::Unknown),
                    ErrorKind::FailedPrecondition => Ok(Outcome::Refused),
                    _ => Err(format!("{id}: {e}")),
                }
            }
        }
    }
}

/// A range that is to be rebuilt.
pub(super) struct Rebuilding {
    interval: Interval,
    waits: Option<Slot<Rebuilt>>,
}

impl Rebuilding {
    pub(super) fn new((start_ms, end_ms): (i64, i64)) -> Self {
        Self {
            interval: Interval { start_ms, end_ms },
            waits: None,
        }
    }

    /// The server is gone, and with it the answer.
    pub(super) fn is_gone(&mut self) {
        self.waits = None;
    }

    /// Asks for it, when nothing is waited for; whether it did.
    pub(super) fn go_on(
        &mut self,
        life: &Life,
        executor: &Arc<Executor>,
        machine: &Arc<Machine>,
    ) -> bool {
        if self.waits.is_some() {
            return false;
        }
        let slot = Slot::default();
        self.waits = Some(Arc::clone(&slot));
        let rebuilder = Rebuilder {
            loader: life.host().loader.clone(),
            realtime: Arc::clone(&life.host().realtime),
        };
        let (tables_change, table) = (Arc::clone(life.tables_change()), life.table());
        let (interval, server) = (self.interval, Arc::clone(machine));
        let rebuild = async move {
            let rebuilt = rebuilder.rebuild(table, interval, &tables_change).await;
            tell(&server, &slot, rebuilt);
        };
        executor.start("rebuild", Box::pin(rebuild));
        true
    }

    /// Whether it happened, as far as is known.
    pub(super) fn hear(&mut self, machine: &Machine) -> std::result::Result<bool, Wrong> {
        let Some(answer) = self.waits.as_ref().and_then(|slot| slot.lock().take()) else {
            return Ok(false);
        };
        self.waits = None;
        match answer {
            Ok(rebuilt) => {
                machine.note(format_args!("rebuilt {} rows", rebuilt.rows));
                Ok(true)
            }
            Err(e) => {
                machine.note(format_args!("rebuild: {e}"));
                let may_fail = [
                    ErrorKind::Unavailable,
                    ErrorKind::ResourceExhausted,
                    ErrorKind::SegmentGone,
                    ErrorKind::Cancelled,
                    ErrorKind::FailedPrecondition,
                ];
                match may_fail.contains(&e.kind()) {
                    true => Ok(false),
                    false => Err(format!("rebuild: {e}")),
                }
            }
        }
    }
}
