//! What must be answered: messages as they were sent, pushes as they were answered, and nothing of what the server does
//! with them.
//!
//! A row of the stream answers from the moment that it is visible until it is too old, unless a push has declared its time
//! complete; a row of a push answers where a push did. A range that is rebuilt is a push of the rows that the stream had of it at some
//! moment between its beginning and its end. Which half, which segment, merged or taken over or not: that must
//! never show.

use std::collections::{BTreeMap, BTreeSet};

/// A row: its number, by which it is known, and its time.
pub(super) type Row = (i64, i64);

/// A message of the stream.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) offset: u64,
    /// None: it can't be decoded.
    pub(super) row: Option<Row>,
}

/// Rows of files for times that they are all of.
#[derive(Clone, Debug)]
pub(super) struct Push {
    pub(super) id: String,
    pub(super) interval: (i64, i64),
    /// Whether it takes the place of earlier pushes.
    pub(super) replaces: bool,
    pub(super) rows: Vec<Row>,
}

#[derive(Clone, Debug, Default)]
struct Pushed {
    intervals: Vec<(i64, i64)>,
    has_declared: bool,
    rows: BTreeMap<i64, i64>,
}

impl Pushed {
    fn covers(&self, ms: i64) -> bool {
        self.intervals
            .iter()
            .any(|(start, end)| *start <= ms && ms < *end)
    }

    fn after(&self, push: &Push) -> Self {
        let mut after = self.clone();
        let (start, end) = push.interval;
        if push.replaces {
            after.rows.retain(|_, ms| *ms < start || end <= *ms);
        }
        after.has_declared |= !push.replaces;
        after.intervals.push(push.interval);
        after.rows.extend(push.rows.iter().copied());
        after
    }
}

/// What must be answered.
pub(super) struct Model {
    pub(super) retention_ms: Option<i64>,
    /// By partition.
    pub(super) sent: Vec<Vec<Sent>>,
    pushed: Pushed,
    pending: Option<(Push, bool)>,
    rebuild: Option<Rebuild>,
}

/// A range that may be rebuilt at any moment, more than once.
struct Rebuild {
    interval: (i64, i64),
    /// By partition: offsets before it were visible when it was asked for first. It may have happened since, and its answer been lost.
    first_asked_at: BTreeMap<u32, u64>,
    /// The same of the last time.
    asked_at: BTreeMap<u32, u64>,
    /// Rows of the range that were answered when it was looked last and it had not happened since.
    answered: BTreeSet<Row>,
    /// Whether it has happened for the last time.
    is_done: bool,
}

impl Model {
    pub(super) fn new(retention_ms: Option<i64>) -> Self {
        Self {
            retention_ms,
            sent: Vec::new(),
            pushed: Pushed::default(),
            pending: None,
            rebuild: None,
        }
    }

    /// A range is to be rebuilt, which was asked for now.
    pub(super) fn ask_for_rebuild(&mut self, interval: (i64, i64), visible: BTreeMap<u32, u64>) {
        let rebuild = self.rebuild.get_or_insert(Rebuild {
            interval,
            first_asked_at: visible.clone(),
            asked_at: BTreeMap::new(),
            answered: BTreeSet::new(),
            is_done: false,
        });
        rebuild.asked_at = visible;
    }

    /// It was rebuilt, and is not asked for again.
    pub(super) fn end_rebuild(&mut self) {
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.is_done = true;
        }
    }

    /// Whether a push that happened has declared its interval complete.
    pub(super) fn has_declared(&self) -> bool {
        self.pushed.has_declared
    }

    /// A push is under way: it may have happened or not, until it is known.
    pub(super) fn begin(&mut self, push: Push) {
        self.pending = Some((push, false));
    }

    /// What is known of the push by its answer.
    pub(super) fn end(&mut self, happened: bool) -> Result<(), String> {
        let Some((push, was_seen)) = self.pending.take() else {
            return Ok(());
        };
        if happened {
            self.pushed = self.pushed.after(&push);
        } else if was_seen {
            return Err(format!(
                "push {} was refused, and its rows were seen",
                push.id
            ));
        }
        Ok(())
    }

    /// Holds rows that were answered against what must be, with all offsets before `visible` of each partition.
    pub(super) fn check(
        &mut self,
        rows: &[Row],
        visible: &BTreeMap<u32, u64>,
        latest_ms: i64,
    ) -> Result<(), String> {
        let mut answered = BTreeSet::new();
        for row in rows {
            if !answered.insert(*row) {
                return Err(format!("row {row:?} is answered twice"));
            }
        }
        let before = self.differences(&self.pushed, &answered, visible, latest_ms);
        if let Some(rebuild) = self.rebuild.take() {
            return self.check_rebuild(rebuild, before, (&answered, visible, latest_ms));
        }
        let Some((push, was_seen)) = &mut self.pending else {
            return before;
        };
        if before.is_ok() && !*was_seen {
            return Ok(());
        }
        let applied = self.pushed.after(push);
        let id = push.id.clone();
        let after = self.differences(&applied, &answered, visible, latest_ms);
        match (after, &mut self.pending) {
            (Ok(()), Some((_, was_seen))) => {
                *was_seen = true;
                Ok(())
            }
            (Err(after), _) => Err(match before {
                Ok(()) => format!("push {id} was seen, and is not any more: {after}"),
                Err(before) => format!("{before}; with push {id}: {after}"),
            }),
            (Ok(()), None) => Ok(()),
        }
    }

    /// The same while a range may be rebuilt.
    fn check_rebuild(
        &mut self,
        mut rebuild: Rebuild,
        before: Result<(), String>,
        (answered, visible, latest_ms): (&BTreeSet<Row>, &BTreeMap<u32, u64>, i64),
    ) -> Result<(), String> {
        let (start, end) = rebuild.interval;
        let is_within = |row: &&Row| start <= row.1 && row.1 < end;
        let of_stream = self.visible(visible);
        let now: BTreeSet<Row> = answered.iter().filter(is_within).copied().collect();
        if before.is_ok() && !rebuild.is_done {
            rebuild.answered = now.intersection(&of_stream).copied().collect();
            self.rebuild = Some(rebuild);
            return Ok(());
        }
        let wrong = |what: String| match &before {
            Ok(()) => Err(format!("after the rebuild of {start} to {end}: {what}")),
            Err(before) => Err(format!("{before}; after the rebuild: {what}")),
        };
        if let Some(row) = now.difference(&of_stream).next() {
            return wrong(format!("row {row:?} is answered, and is not of the stream"));
        }
        let kept_from = self.retention_ms.map_or(i64::MIN, |kept| latest_ms - kept);
        let asked_at = match rebuild.is_done {
            true => &rebuild.asked_at,
            false => &rebuild.first_asked_at,
        };
        let asked_at = self.visible(asked_at);
        let asked_at = asked_at.iter().filter(is_within);
        let mut wanted = asked_at.chain(&rebuild.answered);
        if let Some(row) = wanted.find(|row| row.1 >= kept_from && !now.contains(row)) {
            return wrong(format!("row {row:?} is not answered, and was read before"));
        }
        let after = self.pushed.after(&Push {
            id: String::new(),
            interval: rebuild.interval,
            replaces: true,
            rows: now.iter().copied().collect(),
        });
        if let Err(what) = self.differences(&after, answered, visible, latest_ms) {
            return wrong(what);
        }
        self.pushed = after;
        rebuild.answered = now;
        self.rebuild = Some(rebuild).filter(|rebuild| !rebuild.is_done);
        Ok(())
    }

    /// The rows of the stream at the offsets before some of each partition.
    fn visible(&self, visible: &BTreeMap<u32, u64>) -> BTreeSet<Row> {
        let of_stream = (0..).zip(&self.sent).flat_map(|(partition, sent)| {
            let end = visible.get(&partition).copied().unwrap_or(0);
            sent.iter().filter(move |s| s.offset < end)
        });
        of_stream.filter_map(|sent| sent.row).collect()
    }

    fn differences(
        &self,
        pushed: &Pushed,
        answered: &BTreeSet<Row>,
        visible: &BTreeMap<u32, u64>,
        latest_ms: i64,
    ) -> Result<(), String> {
        let kept_from = self.retention_ms.map_or(i64::MIN, |kept| latest_ms - kept);
        let mut known = BTreeSet::new();
        let of_stream = self.visible(visible).into_iter();
        let of_stream = of_stream.filter(|(_, ms)| !pushed.covers(*ms));
        let of_pushes = pushed.rows.iter().map(|(n, ms)| (*n, *ms));
        for row in of_stream.chain(of_pushes) {
            known.insert(row);
            if row.1 >= kept_from && !answered.contains(&row) {
                return Err(format!("row {row:?} is not answered"));
            }
        }
        match answered.difference(&known).next() {
            Some(row) => Err(format!("row {row:?} is answered, and must not be")),
            None => Ok(()),
        }
    }

    /// The offset behind a partition's last message.
    pub(super) fn end_of(&self, partition: u32) -> u64 {
        let sent = self.sent.get(partition as usize);
        sent.and_then(|s| s.last())
            .map_or(0, |last| last.offset + 1)
    }

    /// How many messages of a partition lie before an offset, and how many of them can't be decoded.
    pub(super) fn counts(&self, partition: u32, before: u64) -> (u64, u64) {
        let sent = self.sent.get(partition as usize).into_iter().flatten();
        let earlier: Vec<&Sent> = sent.filter(|s| s.offset < before).collect();
        let wrong = earlier.iter().filter(|s| s.row.is_none()).count();
        (earlier.len() as u64, wrong as u64)
    }
}
