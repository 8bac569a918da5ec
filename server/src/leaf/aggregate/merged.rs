//! All segments' groups together, by value.

use super::argument::Argument;
use super::grouper::Grouper;
use super::local::{Local, SegmentPlan};
use super::plan::Plan;
use super::state::{Numbered, State};
use crate::leaf::guard::Budget;
use crate::leaf::values::{Domain, Interner};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use std::sync::Arc;
use strandline_proto::{Error, Result};

/// Groups of all segments that are through.
pub(super) struct Merged {
    keys: Vec<Interner>,
    grouper: Grouper,
    states: Vec<State>,
    budget: Budget,
}

impl Merged {
    /// No groups; without keys the one group.
    pub(super) fn new(plan: &Plan, budget: Budget) -> Self {
        let one = plan.keys.is_empty();
        let sizes = vec![None; plan.keys.len()];
        let mut states: Vec<_> = plan
            .aggregates
            .iter()
            .map(|aggregate| State::merged(aggregate, one))
            .collect();
        if one {
            states.iter_mut().for_each(|state| state.resize(1));
        }
        let keys = plan
            .keys
            .iter()
            .map(|key| Interner::new(Domain::of(&key.data_type)))
            .collect();
        Self {
            keys,
            grouper: Grouper::new(&sizes, 0),
            states,
            budget,
        }
    }

    /// Takes in one worker's groups of a segment.
    pub(super) fn absorb(&mut self, segment: &SegmentPlan, local: &Local) -> Result<()> {
        let columns = (segment.keys.iter().enumerate())
            .map(|(i, source)| {
                let (interner, key) = (local.interners[i].as_ref(), &mut self.keys[i]);
                renumber(local.grouper.key_ids(i), |id| {
                    source.translate(id, interner, key)
                })
            })
            .collect::<Vec<_>>();
        let numbered = |i: usize| segment.arguments.get(i).and_then(Argument::numbered);
        self.absorb_groups(&columns, local.grouper.len(), &local.states, numbered)
    }

    /// Takes in groups that were merged elsewhere.
    pub(super) fn absorb_merged(&mut self, other: &Self) -> Result<()> {
        let columns = (self.keys.iter_mut().zip(&other.keys).enumerate())
            .map(|(i, (key, theirs))| {
                renumber(other.grouper.key_ids(i), |id| key.adopt(theirs, id))
            })
            .collect::<Vec<_>>();
        self.absorb_groups(&columns, other.grouper.len(), &other.states, |_| None)
    }

    /// Takes in `groups` groups whose keys' numbers here stand in `columns`.
    fn absorb_groups<'a>(
        &mut self,
        columns: &[Vec<u32>],
        groups: usize,
        states: &[State],
        numbered: impl Fn(usize) -> Option<Numbered<'a>>,
    ) -> Result<()> {
        let mut map = vec![0; groups];
        if !columns.is_empty() {
            self.grouper.assign(columns, groups, &mut map);
        }
        let total = self.grouper.len();
        self.states.iter_mut().for_each(|state| state.resize(total));
        for (i, (state, other)) in self.states.iter_mut().zip(states).enumerate() {
            state.merge(other, &map, numbered(i))?;
        }
        self.budget.reserve(self.memory())
    }

    /// Takes in states of the one group that follow from metadata.
    pub(super) fn absorb_states(&mut self, states: &[State]) -> Result<()> {
        self.states
            .iter_mut()
            .zip(states)
            .try_for_each(|(state, other)| state.merge(other, &[0], None))
    }

    fn memory(&self) -> usize {
        self.grouper.memory()
            + self.keys.iter().map(Interner::memory).sum::<usize>()
            + self.states.iter().map(State::memory).sum::<usize>()
    }

    /// The answer, in batches of at most `rows_max` rows.
    pub(super) fn emit(self, plan: &Plan, rows_max: usize) -> Result<Vec<RecordBatch>> {
        let groups = self.grouper.len();
        // The answer stands beside the states for a while.
        self.budget.reserve(self.memory().saturating_mul(2))?;
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(plan.schema.fields().len());
        for (i, (key, interner)) in plan.keys.iter().zip(&self.keys).enumerate() {
            arrays.push(interner.gather(&self.grouper.key_ids(i), &key.data_type)?);
        }
        for (aggregate, state) in plan.aggregates.iter().zip(self.states) {
            arrays.extend(state.emit(aggregate.kind, groups, &aggregate.states)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(groups));
        let whole = RecordBatch::try_new_with_options(Arc::clone(&plan.schema), arrays, &options)
            .map_err(|e| {
            Error::internal(format!(
                "the states of an aggregation are not what was planned: {e}"
            ))
        })?;
        let step = rows_max.max(1);
        Ok((0..groups.div_ceil(step))
            .map(|i| whole.slice(i * step, step.min(groups - i * step)))
            .collect())
    }
}

/// Ids for each number that is asked for: below that, remembering them costs more than asking again.
const IDS_PER_NUMBER: usize = 16;

/// The numbers that `translate` gives for `ids`.
fn renumber(mut ids: Vec<u32>, mut translate: impl FnMut(u32) -> u32) -> Vec<u32> {
    let end = ids.iter().max().map_or(0, |&id| id as usize + 1);
    if end / IDS_PER_NUMBER > ids.len() {
        ids.iter_mut().for_each(|id| *id = translate(*id));
        return ids;
    }
    // Zero stands for what is not asked for, so that untouched parts of the table cost nothing.
    let mut known = vec![0u32; end];
    ids.iter().for_each(|id| known[*id as usize] = 1);
    // In the order of the ids, which is that of a dictionary's values.
    for (id, number) in (0..).zip(&mut known).filter(|(_, number)| **number > 0) {
        *number = translate(id);
    }
    ids.iter_mut().for_each(|id| *id = known[*id as usize]);
    ids
}
