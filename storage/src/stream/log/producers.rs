//! What a partition remembers of its producers, so that repeated messages are stored once.
//!
//! Per producer: the next sequence, and where its latest messages lie. Limits: [`PRODUCERS_MAX`] producers a
//! partition; when it is full the one silent for longest is forgotten if it was silent for [`IDLE_MS_MIN`],
//! and otherwise the newcomer is refused. A forgotten producer's next message is refused, since whether it is
//! a repetition can't be told: it goes on under a new id.

use super::format::Kind;
use super::format::{BatchHeader, put_batch};
use bytes::{Buf, BufMut, Bytes};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use strandline_proto::{Error, Result};

/// Producers that a partition remembers.
pub(super) const PRODUCERS_MAX: usize = 10_000;
/// How long a producer must be silent before another may take its place: 15 minutes.
pub(super) const IDLE_MS_MIN: i64 = 15 * 60 * 1000;
/// Runs of messages remembered per producer, to answer a repetition with its offsets.
const RUNS_MAX: usize = 16;

/// Messages with consecutive sequences at consecutive offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    sequence: u64,
    offset: u64,
    count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Producer {
    next_sequence: u64,
    seen_ms: i64,
    runs: VecDeque<Run>,
}

impl Producer {
    /// The offset of the message with `sequence`; for one too old, an offset that it lies before.
    fn offset_of(&self, sequence: u64) -> u64 {
        for run in self.runs.iter().rev() {
            if sequence >= run.sequence {
                return run
                    .offset
                    .saturating_add((sequence - run.sequence).min(run.count));
            }
        }
        self.runs.front().map_or(0, |run| run.offset)
    }

    fn remembers(&self, sequence: u64) -> bool {
        self.runs
            .front()
            .is_some_and(|run| sequence >= run.sequence)
    }
}

/// What is to be done with a request's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Messages at the start that are stored already.
    pub(super) duplicates: u64,
    /// The offset of the first message, when it is stored already.
    pub(super) first_offset: Option<u64>,
    /// The offset after the last message, when all are stored already.
    pub(super) next_offset: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Producers(BTreeMap<Arc<str>, Producer>);

/// How to take a recorded batch back.
pub(super) struct Undo(Vec<(Arc<str>, Option<Producer>)>);

impl Producers {
    pub(super) fn plan(&self, id: &str, first_sequence: u64, count: u64) -> Result<Plan> {
        let Some(last) = first_sequence.checked_add(count) else {
            return Err(Error::invalid(format!(
                "producer {id}: sequence {first_sequence} is too large"
            )));
        };
        let Some(producer) = self.0.get(id) else {
            if first_sequence == 0 {
                return Ok(Plan {
                    duplicates: 0,
                    first_offset: None,
                    next_offset: None,
                });
            }
            return Err(Error::precondition(format!(
                "producer {id} is not known here, so its messages must begin with sequence 0, not {first_sequence}; a producer silent for long may be forgotten: go on under a new id"
            )));
        };
        if first_sequence > producer.next_sequence {
            return Err(Error::precondition(format!(
                "producer {id}: sequence {first_sequence} leaves a gap, {} comes next; send the messages between first",
                producer.next_sequence
            )));
        }
        let duplicates = (producer.next_sequence - first_sequence).min(count);
        Ok(Plan {
            duplicates,
            first_offset: (duplicates > 0).then(|| producer.offset_of(first_sequence)),
            next_offset: (duplicates == count).then(|| {
                let before = producer.offset_of(last.saturating_sub(1));
                if count > 0 && producer.remembers(last - 1) {
                    before.saturating_add(1)
                } else {
                    before
                }
            }),
        })
    }

    /// Notes that messages from `sequence` on were stored from `offset` on.
    pub(super) fn record(
        &mut self,
        id: &Arc<str>,
        sequence: u64,
        offset: u64,
        count: u64,
        now_ms: i64,
        undo: &mut Undo,
    ) -> Result<()> {
        if !self.0.contains_key(id) && self.0.len() >= PRODUCERS_MAX {
            self.forget_one(now_ms, undo)?;
        }
        undo.0.push((id.clone(), self.0.get(id).cloned()));
        self.insert(id.clone(), sequence, offset, count, now_ms);
        Ok(())
    }

    /// [`Self::record`] of what is on disk already, so never refused.
    pub(super) fn replay(
        &mut self,
        id: Arc<str>,
        sequence: u64,
        offset: u64,
        count: u64,
        arrival_ms: i64,
    ) {
        self.insert(id, sequence, offset, count, arrival_ms);
        if self.0.len() > PRODUCERS_MAX {
            self.remove_oldest();
        }
    }

    fn insert(&mut self, id: Arc<str>, sequence: u64, offset: u64, count: u64, now_ms: i64) {
        let producer = self.0.entry(id).or_insert_with(|| Producer {
            next_sequence: 0,
            seen_ms: now_ms,
            runs: VecDeque::new(),
        });
        producer.next_sequence = sequence.saturating_add(count);
        producer.seen_ms = producer.seen_ms.max(now_ms);
        match producer.runs.back_mut() {
            Some(run)
                if run.sequence + run.count == sequence && run.offset + run.count == offset =>
            {
                run.count += count
            }
            _ => producer.runs.push_back(Run {
                sequence,
                offset,
                count,
            }),
        }
        if producer.runs.len() > RUNS_MAX {
            producer.runs.pop_front();
        }
    }

    fn oldest(&self) -> Option<(&Arc<str>, &Producer)> {
        self.0.iter().min_by_key(|(_, producer)| producer.seen_ms)
    }

    fn remove_oldest(&mut self) {
        if let Some(id) = self.oldest().map(|(id, _)| id.clone()) {
            self.0.remove(&id);
        }
    }

    fn forget_one(&mut self, now_ms: i64, undo: &mut Undo) -> Result<()> {
        match self
            .oldest()
            .map(|(id, producer)| (id.clone(), producer.clone()))
        {
            Some((id, producer)) if now_ms.saturating_sub(producer.seen_ms) >= IDLE_MS_MIN => {
                self.0.remove(&id);
                undo.0.push((id, Some(producer)));
                Ok(())
            }
            _ => Err(Error::exhausted(format!(
                "the partition has {PRODUCERS_MAX} active producers, which is the limit; use fewer producer ids, each for many requests"
            ))),
        }
    }

    pub(super) fn undo(&mut self, undo: Undo) {
        for (id, before) in undo.0.into_iter().rev() {
            match before {
                Some(producer) => self.0.insert(id, producer),
                None => self.0.remove(&id),
            };
        }
    }

    /// Appends a batch that holds all of this.
    pub(super) fn put(&self, out: &mut Vec<u8>, next_offset: u64, durable_to: u64, now_ms: i64) {
        let header = BatchHeader {
            kind: Kind::Producers,
            body_bytes: 0,
            base_offset: next_offset,
            durable_to,
            first_sequence: 0,
            count: self.0.len() as u32,
            producer_bytes: 0,
            arrival_ms: now_ms,
        };
        put_batch(out, &header, |body| {
            for (id, producer) in &self.0 {
                body.put_u32_le(id.len() as u32);
                body.extend_from_slice(id.as_bytes());
                body.put_u64_le(producer.next_sequence);
                body.put_i64_le(producer.seen_ms);
                body.put_u32_le(producer.runs.len() as u32);
                for run in &producer.runs {
                    body.put_u64_le(run.sequence);
                    body.put_u64_le(run.offset);
                    body.put_u64_le(run.count);
                }
            }
        });
    }

    /// Reads what [`Self::put`] wrote, from a checked batch.
    pub(super) fn parse(count: u32, mut body: Bytes) -> Result<Self, String> {
        fn read(count: u32, body: &mut Bytes) -> Result<Producers, bytes::TryGetError> {
            let mut producers = Producers::default();
            for _ in 0..count {
                let id_bytes = body.try_get_u32_le()? as usize;
                if body.len() < id_bytes {
                    return Err(bytes::TryGetError {
                        requested: id_bytes,
                        available: body.len(),
                    });
                }
                let id = String::from_utf8_lossy(&body.split_to(id_bytes)).into_owned();
                let mut producer = Producer {
                    next_sequence: body.try_get_u64_le()?,
                    seen_ms: body.try_get_i64_le()?,
                    runs: VecDeque::new(),
                };
                for _ in 0..body.try_get_u32_le()? {
                    producer.runs.push_back(Run {
                        sequence: body.try_get_u64_le()?,
                        offset: body.try_get_u64_le()?,
                        count: body.try_get_u64_le()?,
                    });
                }
                producers.0.insert(Arc::from(id), producer);
            }
            Ok(producers)
        }
        let producers =
            read(count, &mut body).map_err(|_| "the batch ends within a producer".to_owned())?;
        if body.is_empty() {
            Ok(producers)
        } else {
            Err("bytes left over after the last producer".to_owned())
        }
    }
}

impl Undo {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(
        producers: &mut Producers,
        id: &str,
        sequence: u64,
        offset: u64,
        count: u64,
        now_ms: i64,
    ) -> Result<()> {
        producers.record(
            &Arc::from(id),
            sequence,
            offset,
            count,
            now_ms,
            &mut Undo::new(),
        )
    }

    #[test]
    fn a_repetition_gets_the_offsets_of_the_first_time() {
        let mut producers = Producers::default();
        record(&mut producers, "a", 0, 100, 10, 0).unwrap();
        record(&mut producers, "a", 10, 200, 10, 0).unwrap();
        let plan = |first, count| producers.plan("a", first, count).unwrap();
        assert_eq!(
            plan(0, 10),
            Plan {
                duplicates: 10,
                first_offset: Some(100),
                next_offset: Some(110)
            }
        );
        assert_eq!(
            plan(5, 10),
            Plan {
                duplicates: 10,
                first_offset: Some(105),
                next_offset: Some(205)
            }
        );
        assert_eq!(
            plan(15, 10),
            Plan {
                duplicates: 5,
                first_offset: Some(205),
                next_offset: None
            }
        );
        assert_eq!(
            plan(20, 1),
            Plan {
                duplicates: 0,
                first_offset: None,
                next_offset: None
            }
        );
        assert!(producers.plan("a", 21, 1).is_err());
        assert!(producers.plan("b", 1, 1).is_err());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut producers = Producers::default();
        for i in 0..40 {
            record(&mut producers, "a", i * 2, i * 5, 2, i as i64).unwrap();
            record(&mut producers, "b", i, i * 5 + 2, 1, 7).unwrap();
        }
        let mut bytes = Vec::new();
        producers.put(&mut bytes, 200, 24, 9);
        let body = Bytes::from(bytes).slice(super::super::format::BATCH_HEADER_BYTES..);
        assert_eq!(Producers::parse(2, body.clone()).unwrap(), producers);
        assert!(Producers::parse(2, body.slice(..body.len() - 1)).is_err());
        assert!(Producers::parse(1, body).is_err());
        // Too old to be remembered exactly: an offset that they lie before.
        let plan = producers.plan("a", 0, 2).unwrap();
        assert_eq!(
            (plan.duplicates, plan.first_offset, plan.next_offset),
            (2, Some(24 * 5), Some(24 * 5))
        );
    }

    #[test]
    fn a_full_partition_forgets_only_the_silent() {
        let mut producers = Producers::default();
        for i in 0..PRODUCERS_MAX {
            record(&mut producers, &format!("p{i}"), 0, i as u64, 1, i as i64).unwrap();
        }
        assert!(record(&mut producers, "new", 0, 0, 1, IDLE_MS_MIN - 1).is_err());
        let before = producers.clone();
        let mut undo = Undo::new();
        producers
            .record(&Arc::from("new"), 0, 0, 1, IDLE_MS_MIN, &mut undo)
            .unwrap();
        assert!(producers.plan("p0", 1, 1).is_err() && producers.plan("p1", 1, 1).is_ok());
        producers.undo(undo);
        assert_eq!(producers, before);
    }
}
