//! Aggregation within one segment: its keys, arguments and filters, and the states of one worker.

use super::argument::Argument;
use super::cells::Rows;
use super::grouper::Grouper;
use super::keys::{KeyBlock, KeySource};
use super::plan::Plan;
use super::state::{Kind, State, Values};
use crate::leaf::column::{ChunkNulls, keep_where, with_each};
use crate::leaf::filter::{Compiler, Node, Scratch};
use crate::leaf::guard::Budget;
use crate::leaf::scan::{BLOCK_DOCS, Prepared, Scan, blocks};
use crate::leaf::star_tree::Stored;
use crate::leaf::values::Interner;
use std::ops::Range;
use strandline_index::{DocBits, DocId, DocSelection};
use strandline_proto::{Error, Result};

/// Rows that one document may be spread over by its lists.
const SPREAD_MAX: usize = 1 << 20;

/// A segment's part of an aggregation, shared by the workers that read it.
pub(super) struct SegmentPlan {
    pub(super) prepared: Prepared,
    pub(super) keys: Vec<KeySource>,
    pub(super) arguments: Vec<Argument>,
    filters: Vec<Option<Node>>,
}

impl SegmentPlan {
    /// Binds `plan` to a segment.
    ///
    /// `stored`: for the records of a star-tree, the measures of each aggregate; otherwise empty.
    pub(super) fn new(
        plan: &Plan,
        scan: &Scan,
        prepared: Prepared,
        stored: Vec<Stored>,
    ) -> Result<Self> {
        let segment = &prepared.segment;
        let keys = plan
            .keys
            .iter()
            .map(|key| KeySource::new(key, segment))
            .collect::<Result<_>>()?;
        let mut stored = stored.into_iter();
        let arguments = plan
            .aggregates
            .iter()
            .map(|aggregate| match stored.next().flatten() {
                Some(stored) => Ok(Argument::Stored(stored)),
                None => Argument::new(aggregate, &scan.query, segment),
            })
            .collect::<Result<_>>()?;
        let filters = plan
            .aggregates
            .iter()
            .map(|a| {
                a.filter
                    .as_ref()
                    .map(|filter| Compiler::new(segment).compile(filter))
                    .transpose()
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            prepared,
            keys,
            arguments,
            filters,
        })
    }

    /// States of the whole segment that follow from its metadata; none when it must be read.
    pub(super) fn metadata_states(&self, plan: &Plan) -> Option<Vec<State>> {
        if !plan.keys.is_empty() || !self.prepared.is_whole() {
            return None;
        }
        let docs = self.prepared.segment.num_docs();
        let mut states = Vec::with_capacity(plan.aggregates.len());
        for ((aggregate, argument), filter) in plan
            .aggregates
            .iter()
            .zip(&self.arguments)
            .zip(&self.filters)
        {
            if filter.is_some() {
                return None;
            }
            let mut state = State::new(aggregate.kind, false, true, true);
            state.resize(1);
            match (aggregate.kind, argument) {
                (Kind::Count, Argument::Rows) => state.add_count(u64::from(docs)),
                (Kind::Count, Argument::Validity(column)) if !column.reader.has_nulls() => {
                    state.add_count(u64::from(docs))
                }
                (Kind::Extreme { max, .. }, Argument::Ids(column))
                    if !column.reader.has_nulls() =>
                {
                    // A sorted dictionary is an immutable segment's: every value of it stands in some document.
                    let dictionary = column
                        .reader
                        .dictionary()
                        .filter(|d| d.is_sorted() && !d.is_empty())?;
                    state.offer(&dictionary.value(if max { dictionary.len() - 1 } else { 0 }));
                }
                _ => return None,
            }
            states.push(state);
        }
        Some(states)
    }

    /// Whether bits alone answer: no groups, and nothing but counts.
    fn counts_only(&self, plan: &Plan) -> bool {
        plan.keys.is_empty()
            && plan
                .aggregates
                .iter()
                .zip(&self.arguments)
                .all(|(a, argument)| {
                    a.kind == Kind::Count
                        && matches!(argument, Argument::Rows | Argument::Validity(_))
                })
    }
}

/// Documents that pass the filter of an aggregate, of those that are aggregated.
enum Filtered {
    /// Of a chunk.
    Chunk(DocBits),
    /// Of a list, ascending.
    Few(Vec<DocId>),
}

impl Filtered {
    /// The bits of a chunk; as they were when it has been one.
    fn chunk(&mut self) -> &mut DocBits {
        if let Self::Few(_) = self {
            *self = Self::Chunk(DocBits::new());
        }
        match self {
            Self::Chunk(bits) => bits,
            Self::Few(_) => unreachable!("it was made a chunk"),
        }
    }

    /// Clears the flags of `docs` that do not pass.
    fn keep_flags(&self, docs: &DocSelection<'_>, flags: &mut [bool]) {
        let kept = match self {
            Self::Chunk(bits) => return keep_where(bits, docs, flags),
            Self::Few(kept) => kept,
        };
        let mut kept = kept.iter().peekable();
        with_each(docs, flags, |doc, flag| {
            *flag &= kept.next_if_eq(&&doc).is_some();
        });
    }
}

/// One worker's states for one segment.
pub(super) struct Local {
    pub(super) grouper: Grouper,
    pub(super) interners: Vec<Option<Interner>>,
    pub(super) states: Vec<State>,
    budget: Budget,
    nulls: Vec<Vec<ChunkNulls>>,
    scratch: Scratch,
    /// For each aggregate with a filter of its own what passes that.
    filtered: Vec<Filtered>,
    docs: Vec<DocId>,
    keys: Vec<KeyBlock>,
    columns: Vec<Vec<u32>>,
    groups: Vec<u32>,
    spread: Vec<u32>,
    valid: Vec<bool>,
}

impl Local {
    /// No groups yet.
    pub(super) fn new(plan: &Plan, segment: &SegmentPlan, scan: &Scan) -> Self {
        let one = plan.keys.is_empty();
        let sizes: Vec<_> = segment.keys.iter().map(KeySource::size).collect();
        let mut states: Vec<_> = plan
            .aggregates
            .iter()
            .zip(&segment.arguments)
            .map(|(aggregate, argument)| {
                let counted = one || aggregate.filter.is_some() || argument.is_nullable();
                State::new(aggregate.kind, argument.numbered().is_some(), one, counted)
            })
            .collect();
        if one {
            states.iter_mut().for_each(|state| state.resize(1));
        }
        Self {
            grouper: Grouper::new(&sizes, segment.prepared.docs_max()),
            interners: segment.keys.iter().map(KeySource::interner).collect(),
            states,
            budget: Budget::new(&scan.memory, "the groups of a segment"),
            nulls: segment
                .arguments
                .iter()
                .map(|a| {
                    (0..a.null_caches())
                        .map(|_| ChunkNulls::default())
                        .collect()
                })
                .collect(),
            scratch: Scratch::default(),
            filtered: (segment.filters.iter())
                .map(|_| Filtered::Few(Vec::new()))
                .collect(),
            docs: Vec::new(),
            keys: segment.keys.iter().map(|_| KeyBlock::default()).collect(),
            columns: segment.keys.iter().map(|_| Vec::new()).collect(),
            groups: Vec::new(),
            spread: Vec::new(),
            valid: Vec::new(),
        }
    }

    fn memory(&self) -> usize {
        self.grouper.memory()
            + self
                .interners
                .iter()
                .flatten()
                .map(Interner::memory)
                .sum::<usize>()
            + self.states.iter().map(State::memory).sum::<usize>()
    }

    /// Reads chunks of the segment.
    pub(super) fn read(
        &mut self,
        plan: &Plan,
        segment: &SegmentPlan,
        scan: &Scan,
        chunks: Range<u32>,
    ) -> Result<()> {
        if let Some(docs) = scan.select_few(&segment.prepared, &chunks, &mut self.scratch)? {
            return self.read_few(plan, segment, scan, &docs);
        }
        let counts_only = segment.counts_only(plan);
        let mut bits = self.scratch.take_bits();
        for chunk in segment.prepared.chunks(chunks) {
            scan.select(&segment.prepared, chunk, &mut bits, &mut self.scratch)?;
            let count = bits.count();
            scan.count_matched(u64::from(count));
            if count > 0 {
                self.filter_aggregates(segment, chunk, &bits)?;
                if counts_only {
                    self.count_bits(segment, chunk, &bits, count);
                } else {
                    let mut docs = std::mem::take(&mut self.docs);
                    let chunk_docs = segment.prepared.segment.chunk_docs(chunk);
                    blocks(&bits, chunk, chunk_docs, &mut docs, |block| {
                        scan.guard.check()?;
                        self.block(plan, segment, block)?;
                        self.budget.reserve(self.memory())
                    })?;
                    self.docs = docs;
                }
            }
        }
        self.scratch.give_bits(bits);
        Ok(())
    }

    /// Reads documents, ascending, of any chunks.
    fn read_few(
        &mut self,
        plan: &Plan,
        segment: &SegmentPlan,
        scan: &Scan,
        docs: &[DocId],
    ) -> Result<()> {
        scan.count_matched(docs.len() as u64);
        for block in docs.chunks(BLOCK_DOCS) {
            scan.guard.check()?;
            for (filter, kept) in segment.filters.iter().zip(&mut self.filtered) {
                if let Some(filter) = filter {
                    let mut few = block.to_vec();
                    filter.keep(&mut few, &mut self.scratch)?;
                    *kept = Filtered::Few(few);
                }
            }
            self.block(plan, segment, DocSelection::Docs(block))?;
            self.budget.reserve(self.memory())?;
        }
        Ok(())
    }

    /// Makes `filtered` the documents of `bits` that pass each aggregate's own filter.
    fn filter_aggregates(
        &mut self,
        segment: &SegmentPlan,
        chunk: u32,
        bits: &DocBits,
    ) -> Result<()> {
        for (filter, kept) in segment.filters.iter().zip(&mut self.filtered) {
            if let Some(filter) = filter {
                let kept = kept.chunk();
                kept.words_mut().copy_from_slice(bits.words());
                filter.narrow(chunk, kept, &mut self.scratch)?;
            }
        }
        Ok(())
    }

    fn count_bits(&mut self, segment: &SegmentPlan, chunk: u32, bits: &DocBits, count: u32) {
        for (i, (argument, state)) in segment.arguments.iter().zip(&mut self.states).enumerate() {
            let filtered = segment.filters[i].is_some();
            let from = if filtered {
                &*self.filtered[i].chunk()
            } else {
                bits
            };
            let count = match argument {
                Argument::Validity(column) if column.reader.has_nulls() => {
                    let mut left = self.scratch.take_bits();
                    left.words_mut().copy_from_slice(from.words());
                    column.strip_nulls(chunk, &mut left, &mut self.scratch);
                    let count = left.count();
                    self.scratch.give_bits(left);
                    count
                }
                _ if filtered => from.count(),
                _ => count,
            };
            state.add_count(u64::from(count));
        }
    }

    fn block(&mut self, plan: &Plan, segment: &SegmentPlan, docs: DocSelection<'_>) -> Result<()> {
        let documents = docs.len();
        let mut spread = false;
        for ((source, interner), key) in segment
            .keys
            .iter()
            .zip(&mut self.interners)
            .zip(&mut self.keys)
        {
            source.read(&docs, interner.as_mut(), key)?;
            spread |= !key.ends.is_empty();
        }
        let rows = if spread {
            self.spread_keys(documents)?
        } else {
            documents
        };
        if !spread {
            for (column, key) in self.columns.iter_mut().zip(&mut self.keys) {
                std::mem::swap(column, &mut key.ids);
            }
        }
        let grouped = !plan.keys.is_empty();
        if grouped {
            self.grouper.assign(&self.columns, rows, &mut self.groups);
            let groups = self.grouper.len();
            self.states
                .iter_mut()
                .for_each(|state| state.resize(groups));
        }
        for (i, (aggregate, argument)) in plan.aggregates.iter().zip(&segment.arguments).enumerate()
        {
            let filtered = segment.filters[i].is_some();
            let masked = filtered || argument.is_nullable();
            self.valid.clear();
            if masked {
                self.valid.resize(documents, true);
            }
            if filtered {
                self.filtered[i].keep_flags(&docs, &mut self.valid);
            }
            let values = match argument {
                Argument::Rows => Values::None,
                argument => {
                    argument.read(aggregate.kind, &docs, &mut self.nulls[i], &mut self.valid)?
                }
            };
            let rows = Rows {
                len: rows,
                groups: grouped.then_some(&self.groups[..]),
                documents: spread.then_some(&self.spread[..]),
                valid: masked.then_some(&self.valid[..]),
            };
            self.states[i].update(&rows, &values)?;
        }
        Ok(())
    }

    /// Makes a row of each combination of list elements; `spread` names the document of each.
    fn spread_keys(&mut self, documents: usize) -> Result<usize> {
        self.spread.clear();
        self.columns.iter_mut().for_each(Vec::clear);
        for document in 0..documents {
            let element = |key: &KeyBlock, at: usize| -> (usize, usize) {
                match key.ends.is_empty() {
                    true => (at, at + 1),
                    false => (
                        if at == 0 {
                            0
                        } else {
                            key.ends[at - 1] as usize
                        },
                        key.ends[at] as usize,
                    ),
                }
            };
            let combinations = self.keys.iter().try_fold(1usize, |product, key| {
                let (start, end) = element(key, document);
                product
                    .checked_mul(end - start)
                    .filter(|&product| product <= SPREAD_MAX)
            });
            let Some(combinations) = combinations else {
                return Err(Error::exhausted(format!(
                    "one row's lists have over {SPREAD_MAX} combinations to group by: group by fewer multi-value columns"
                )));
            };
            // The last key changes fastest.
            let mut repeat = combinations;
            for (key, column) in self.keys.iter().zip(&mut self.columns) {
                let (start, end) = element(key, document);
                let ids = &key.ids[start..end];
                repeat /= ids.len().max(1);
                let before = column.len();
                while column.len() - before < combinations {
                    for &id in ids {
                        column.extend(std::iter::repeat_n(id, repeat));
                    }
                }
            }
            self.spread
                .extend(std::iter::repeat_n(document as u32, combinations));
        }
        Ok(self.spread.len())
    }
}
