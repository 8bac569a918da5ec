//! A compiled filter: nodes that narrow the documents of a chunk.

use super::operand::{Test, json_holds};
use super::words::Words;
use crate::leaf::column::BoundColumn;
use crate::leaf::expression::{BoundExpression, truths};
use crate::leaf::scan::BLOCK_DOCS;
use crate::leaf::values::string_array;
use std::ops::Range;
use std::sync::Arc;
use strandline_index::kernels::{IdSet, OwnedBound, mark};
use strandline_index::{
    CHUNK_DOCS, DictId, DocBits, DocId, DocSelection, DocSet, PhysicalType, ValueBuffer,
    append_ones,
};
use strandline_proto::{Error, Result};

/// Where fewer than one in so many documents is left, those are read singly instead of the chunk.
const SPARSE: u32 = 24;

/// Words of bits of a block.
const BLOCK_WORDS: usize = BLOCK_DOCS / 64;

/// Buffers that narrowing uses again and again, and what it counts.
#[derive(Default)]
pub(in crate::leaf) struct Scratch {
    bits: Vec<DocBits>,
    ids: Vec<DictId>,
    pub(super) docs: Vec<DocId>,
    ends: Vec<u32>,
    marks: Vec<bool>,
    words: Vec<u64>,
    /// Documents compared one by one.
    pub(in crate::leaf) docs_scanned: u64,
}

impl Scratch {
    /// An empty set of documents.
    pub(in crate::leaf) fn take_bits(&mut self) -> DocBits {
        match self.bits.pop() {
            Some(mut bits) => {
                bits.clear();
                bits
            }
            None => DocBits::new(),
        }
    }

    /// Gives a set back for later use.
    pub(in crate::leaf) fn give_bits(&mut self, bits: DocBits) {
        self.bits.push(bits);
    }
}

/// One step of a compiled filter.
#[derive(Debug)]
pub(in crate::leaf) enum Node {
    /// Every document.
    All,
    /// No document.
    Nothing,
    /// All of these, cheapest first.
    And(Vec<Node>),
    /// Any of these.
    Or(Vec<Node>),
    /// Documents in ranges, ascending: of the sorted column, or the records that a star-tree names.
    Docs(Vec<Range<DocId>>),
    /// Null documents.
    Null {
        /// The column.
        column: Arc<BoundColumn>,
        /// The others.
        negated: bool,
    },
    /// Documents that hold any of some ids, from the inverted index.
    Postings {
        /// The column.
        column: Arc<BoundColumn>,
        /// The ids.
        ids: Vec<DictId>,
        /// The documents, not null, that hold none of them.
        negated: bool,
    },
    /// Documents with a value between bounds, from the range index.
    RangeIndex {
        /// The column.
        column: Arc<BoundColumn>,
        /// The bounds of each range.
        ranges: Vec<(OwnedBound, OwnedBound)>,
        /// The documents, not null, that are in none.
        negated: bool,
    },
    /// Documents whose id is in a set, from the forward index.
    Ids {
        /// The column.
        column: Arc<BoundColumn>,
        /// The ids.
        set: IdSet,
        /// Multi-value: the documents, not null, without an element in the set.
        negated: bool,
        /// Whether null documents pass (an expression may make them).
        nulls_pass: bool,
    },
    /// Documents whose value passes, from a forward index without dictionary.
    Values {
        /// The column.
        column: Arc<BoundColumn>,
        /// The test.
        test: Arc<Test>,
        /// The documents, not null, that fail it.
        negated: bool,
    },
    /// Documents that an index found before.
    Found {
        /// The column.
        column: Arc<BoundColumn>,
        /// The documents; nulls may be among them.
        docs: DocSet,
        /// The documents, not null, that it did not find.
        negated: bool,
    },
    /// Documents whose words match a text query, where no index knows all documents.
    Words(Words),
    /// Documents for which an expression is true.
    Expression(BoundExpression),
}

impl Node {
    /// The chunks that hold all documents that pass, as far as that follows from the sorted column.
    pub(in crate::leaf) fn chunks(&self) -> Range<u32> {
        match self {
            Self::Docs(ranges) => {
                let start = ranges.first().map_or(0, |range| range.start);
                let end = ranges.last().map_or(0, |range| range.end);
                start / CHUNK_DOCS..end.div_ceil(CHUNK_DOCS)
            }
            Self::And(children) => children.iter().fold(0..u32::MAX, |found, child| {
                let more = child.chunks();
                found.start.max(more.start)..found.end.min(more.end)
            }),
            _ => 0..u32::MAX,
        }
    }

    /// At most so many of a segment's `docs` documents pass, as far as that follows from indexes.
    pub(in crate::leaf) fn docs_max(&self, docs: u64) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::And(children) => {
                let most = children.iter().map(|child| child.docs_max(docs));
                most.min().unwrap_or(docs)
            }
            Self::Or(children) => {
                let most = children.iter().map(|child| child.docs_max(docs));
                most.sum::<u64>().min(docs)
            }
            Self::Docs(ranges) => {
                let found = ranges
                    .iter()
                    .map(|r| u64::from(r.end.saturating_sub(r.start)));
                found.sum()
            }
            Self::Postings {
                column,
                ids,
                negated: false,
            } => column.reader.inverted().map_or(docs, |postings| {
                let found = ids.iter().map(|&id| postings.count(id));
                found.sum::<u64>().min(docs)
            }),
            Self::Found {
                docs: found,
                negated: false,
                ..
            } => found.count().min(docs),
            Self::Words(words) => words.docs_max(docs),
            _ => docs,
        }
    }

    /// Removes documents of `chunk` that do not pass from `left`.
    pub(in crate::leaf) fn narrow(
        &self,
        chunk: u32,
        left: &mut DocBits,
        scratch: &mut Scratch,
    ) -> Result<()> {
        match self {
            Self::All => {}
            Self::Nothing => left.clear(),
            Self::And(children) => {
                for child in children {
                    child.narrow(chunk, left, scratch)?;
                    if left.is_empty() {
                        break;
                    }
                }
            }
            Self::Or(children) => or(children, chunk, left, scratch)?,
            Self::Docs(ranges) => {
                let mut found = scratch.take_bits();
                let base = chunk * CHUNK_DOCS;
                let from = ranges.partition_point(|range| range.end <= base);
                let end = base.saturating_add(CHUNK_DOCS);
                let of_chunk = ranges.iter().skip(from);
                for range in of_chunk.take_while(|range| range.start < end) {
                    let start = range.start.saturating_sub(base).min(CHUNK_DOCS);
                    found.insert_range(start, range.end.saturating_sub(base).min(CHUNK_DOCS));
                }
                left.and(&found);
                scratch.give_bits(found);
            }
            Self::Null { column, negated } => {
                let mut nulls = scratch.take_bits();
                column.reader.null_bits(chunk, &mut nulls);
                if *negated {
                    left.and_not(&nulls);
                } else {
                    left.and(&nulls);
                }
                scratch.give_bits(nulls);
            }
            Self::Postings {
                column,
                ids,
                negated,
            } => {
                let postings = column.reader.inverted().ok_or_else(|| lost_index(column))?;
                let mut found = scratch.take_bits();
                for &id in ids {
                    postings.fill(id, chunk, &mut found);
                }
                settle(column, found, *negated, chunk, left, scratch);
            }
            Self::RangeIndex {
                column,
                ranges,
                negated,
            } => {
                let mut found = scratch.take_bits();
                for (low, high) in ranges {
                    let (low, high) = (
                        low.as_ref().map(|(v, i)| (v, *i)),
                        high.as_ref().map(|(v, i)| (v, *i)),
                    );
                    if !column.reader.range_fill(low, high, chunk, &mut found) {
                        return Err(lost_index(column));
                    }
                }
                settle(column, found, *negated, chunk, left, scratch);
            }
            Self::Ids {
                column,
                set,
                negated,
                nulls_pass,
            } => {
                if column.is_multi_value() {
                    multi(column, Elements::Ids(set), *negated, chunk, left, scratch)?;
                } else {
                    single_ids(column, set, *nulls_pass, chunk, left, scratch)?;
                }
            }
            Self::Values {
                column,
                test,
                negated,
            } => {
                if column.is_multi_value() {
                    multi(
                        column,
                        Elements::Values(test),
                        *negated,
                        chunk,
                        left,
                        scratch,
                    )?;
                } else {
                    single_values(column, test, *negated, chunk, left, scratch)?;
                }
            }
            Self::Found {
                column,
                docs,
                negated,
            } => {
                let mut found = scratch.take_bits();
                docs.fill(chunk, &mut found);
                settle(column, found, *negated, chunk, left, scratch);
            }
            Self::Words(words) => words.narrow(chunk, left, scratch)?,
            Self::Expression(expression) => evaluated(expression, chunk, left, scratch)?,
        }
        Ok(())
    }
}

fn lost_index(column: &BoundColumn) -> Error {
    Error::internal(format!(
        "the index of column {:?} is gone while it is read",
        column.name
    ))
}

fn or(children: &[Node], chunk: u32, left: &mut DocBits, scratch: &mut Scratch) -> Result<()> {
    let mut kept = scratch.take_bits();
    let mut open = scratch.take_bits();
    for child in children {
        // Only documents that no earlier branch kept are asked again.
        open.words_mut().copy_from_slice(left.words());
        open.and_not(&kept);
        if open.is_empty() {
            break;
        }
        child.narrow(chunk, &mut open, scratch)?;
        kept.or(&open);
    }
    std::mem::swap(left, &mut kept);
    scratch.give_bits(kept);
    scratch.give_bits(open);
    Ok(())
}

/// Keeps the documents of `left` that an index `found`, or with `negated` the ones it did not; nulls never.
pub(super) fn settle(
    column: &BoundColumn,
    found: DocBits,
    negated: bool,
    chunk: u32,
    left: &mut DocBits,
    scratch: &mut Scratch,
) {
    if negated {
        left.and_not(&found);
    } else {
        left.and(&found);
    }
    scratch.give_bits(found);
    column.strip_nulls(chunk, left, scratch);
}

/// Documents of `chunk` that the column has.
fn chunk_range(column: &BoundColumn, chunk: u32) -> Range<DocId> {
    let start = chunk * CHUNK_DOCS;
    start
        ..column
            .reader
            .num_docs()
            .min(start.saturating_add(CHUNK_DOCS))
            .max(start)
}

fn single_ids(
    column: &BoundColumn,
    set: &IdSet,
    nulls_pass: bool,
    chunk: u32,
    left: &mut DocBits,
    scratch: &mut Scratch,
) -> Result<()> {
    let mut nulls = None;
    if column.reader.has_nulls() {
        let mut bits = scratch.take_bits();
        column.reader.null_bits(chunk, &mut bits);
        if nulls_pass {
            bits.and(left);
        }
        left.and_not(&bits);
        nulls = Some(bits);
    }
    let mut ids = std::mem::take(&mut scratch.ids);
    narrow_blocks(
        column,
        chunk,
        SPARSE,
        false,
        left,
        scratch,
        |docs, words| {
            ids.clear();
            column.reader.dict_ids(docs, &mut ids);
            words.resize(ids.len().div_ceil(64), 0);
            set.mark(&ids, words);
            Ok(())
        },
    )?;
    scratch.ids = ids;
    if let Some(bits) = nulls {
        if nulls_pass {
            left.or(&bits);
        }
        scratch.give_bits(bits);
    }
    Ok(())
}

/// Bit `i` of `words`; a reader that came upon damage gives fewer values than it was asked for, and says so afterwards.
pub(super) fn is_marked(words: &[u64], i: usize) -> bool {
    words
        .get(i / 64)
        .is_some_and(|word| word >> (i % 64) & 1 == 1)
}

fn remove(bits: &mut DocBits, doc: DocId) {
    let within = doc % CHUNK_DOCS;
    bits.words_mut()[(within / 64) as usize] &= !(1 << (within % 64));
}

fn docs_of<'a>(bits: &DocBits, base: DocId, docs: &'a mut Vec<DocId>) -> &'a [DocId] {
    docs.clear();
    bits.append_docs(base, docs);
    docs
}

fn single_values(
    column: &BoundColumn,
    test: &Test,
    negated: bool,
    chunk: u32,
    left: &mut DocBits,
    scratch: &mut Scratch,
) -> Result<()> {
    column.strip_nulls(chunk, left, scratch);
    // Text costs by what is read, numbers by the block.
    let sparse = if column.reader.physical() == PhysicalType::Bytes {
        1
    } else {
        SPARSE
    };
    narrow_blocks(
        column,
        chunk,
        sparse,
        negated,
        left,
        scratch,
        |docs, words| {
            let mut values = ValueBuffer::new(column.reader.physical());
            column.reader.values(docs, &mut values);
            test_values(&values, test, words)
        },
    )
}

/// Removes the documents of `chunk` that `mark` does not mark, or with `negated` those that it does, from `left`. `mark` is
/// called with a block's documents, all of them unless fewer than one in `sparse` are left.
fn narrow_blocks(
    column: &BoundColumn,
    chunk: u32,
    sparse: u32,
    negated: bool,
    left: &mut DocBits,
    scratch: &mut Scratch,
    mut mark: impl FnMut(DocSelection<'_>, &mut Vec<u64>) -> Result<()>,
) -> Result<()> {
    let range = chunk_range(column, chunk);
    let Scratch {
        words,
        docs,
        docs_scanned,
        ..
    } = scratch;
    for (number, kept) in left.words_mut().chunks_mut(BLOCK_WORDS).enumerate() {
        let start = range.start + (number * BLOCK_DOCS) as u32;
        let count: u32 = kept.iter().map(|word| word.count_ones()).sum();
        if count == 0 || start >= range.end {
            continue;
        }
        *docs_scanned += u64::from(count);
        if count < BLOCK_DOCS as u32 / sparse {
            docs.clear();
            append_ones(kept.iter().copied(), start, docs);
            mark(DocSelection::Docs(docs), words)?;
            for (i, &doc) in docs.iter().enumerate() {
                if is_marked(words, i) == negated {
                    let within = doc - start;
                    kept[(within / 64) as usize] &= !(1 << (within % 64));
                }
            }
        } else {
            let end = range.end.min(start + BLOCK_DOCS as u32);
            mark(DocSelection::Range(start..end), words)?;
            words.resize(BLOCK_WORDS, 0);
            kept.iter_mut()
                .zip(&*words)
                .for_each(|(kept, &found)| *kept &= if negated { !found } else { found });
        }
    }
    Ok(())
}

/// Makes `words` the bits of the values that pass.
pub(super) fn test_values(values: &ValueBuffer, test: &Test, words: &mut Vec<u64>) -> Result<()> {
    words.resize(values.len().div_ceil(64), 0);
    match (test, values) {
        (Test::Values(set), values) if set.mark(values, words) => Ok(()),
        (Test::Text(test), ValueBuffer::Bytes { .. }) => {
            let matches = test.matches(&string_array(values.clone(), None)?)?;
            let flags: Vec<bool> = matches.iter().map(|m| m == Some(true)).collect();
            mark(&flags, words, |flag| flag);
            Ok(())
        }
        (Test::Json(filter), values @ ValueBuffer::Bytes { .. }) => {
            let holds = |i| json_holds(filter, values.bytes(i));
            let flags: Vec<bool> = (0..values.len()).map(holds).collect();
            mark(&flags, words, |flag| flag);
            Ok(())
        }
        _ => Err(Error::data_loss(
            "a column gives values of another type than its own",
        )),
    }
}

/// What elements of a multi-value column are held against.
enum Elements<'a> {
    Ids(&'a IdSet),
    Values(&'a Test),
}

fn multi(
    column: &BoundColumn,
    elements: Elements<'_>,
    negated: bool,
    chunk: u32,
    left: &mut DocBits,
    scratch: &mut Scratch,
) -> Result<()> {
    column.strip_nulls(chunk, left, scratch);
    let base = chunk * CHUNK_DOCS;
    let mut docs = std::mem::take(&mut scratch.docs);
    let mut ends = std::mem::take(&mut scratch.ends);
    let mut ids = std::mem::take(&mut scratch.ids);
    let mut marks = std::mem::take(&mut scratch.marks);
    let mut words = std::mem::take(&mut scratch.words);
    docs_of(left, base, &mut docs);
    scratch.docs_scanned += docs.len() as u64;
    for block in docs.chunks(BLOCK_DOCS) {
        ends.clear();
        ids.clear();
        marks.clear();
        column
            .reader
            .null_elements(DocSelection::Docs(block), &mut marks);
        match &elements {
            Elements::Ids(set) => {
                column
                    .reader
                    .multi_dict_ids(DocSelection::Docs(block), &mut ends, &mut ids);
                words.clear();
                words.resize(ids.len().div_ceil(64), 0);
                set.mark(&ids, &mut words);
            }
            Elements::Values(test) => {
                let mut values = ValueBuffer::new(column.reader.physical());
                column
                    .reader
                    .multi_values(DocSelection::Docs(block), &mut ends, &mut values);
                test_values(&values, test, &mut words)?;
            }
        }
        let mut start = 0;
        for (&doc, &end) in block.iter().zip(&ends) {
            let any = (start as usize..end as usize)
                .any(|i| is_marked(&words, i) && !marks.get(i).copied().unwrap_or(false));
            if any == negated {
                remove(left, doc);
            }
            start = end;
        }
    }
    scratch.docs = docs;
    scratch.ends = ends;
    scratch.ids = ids;
    scratch.marks = marks;
    scratch.words = words;
    Ok(())
}

fn evaluated(
    expression: &BoundExpression,
    chunk: u32,
    left: &mut DocBits,
    scratch: &mut Scratch,
) -> Result<()> {
    let mut docs = std::mem::take(&mut scratch.docs);
    docs_of(left, chunk * CHUNK_DOCS, &mut docs);
    scratch.docs_scanned += docs.len() as u64;
    for block in docs.chunks(BLOCK_DOCS) {
        let passes = truths(&expression.evaluate(DocSelection::Docs(block))?)?;
        for (&doc, passes) in block.iter().zip(passes.iter()) {
            if !passes {
                remove(left, doc);
            }
        }
    }
    scratch.docs = docs;
    Ok(())
}
