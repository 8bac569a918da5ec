//! TEXT_MATCH in one segment: by its text index, by the dictionary's texts, or by reading the rows'.
//!
//! An index whose words were made another way than the query asks for (the table config has changed since) is not asked. The index of a
//! consuming segment ends a little before its rows do: those behind are read.

use super::access::{Access, by_index, single};
use super::ids::evaluate;
use super::node::{Node, Scratch, settle};
use crate::leaf::column::BoundColumn;
use crate::leaf::scan::BLOCK_DOCS;
use crate::leaf::segment::SegmentView;
use std::sync::Arc;
use strandline_index::text::TextPostings;
use strandline_index::{CHUNK_DOCS, DocBits, DocId, DocSelection, DocSet, IndexError, ValueBuffer};
use strandline_proto::text::{self, Phrase, TextMatcher, TextQuery, positions_fit};
use strandline_proto::{Error, Result};

/// Estimated microseconds to make the words of a chunk's rows.
const SCAN_COST: f32 = 20_000.0;

/// Rows whose words match a query.
#[derive(Debug)]
pub(in crate::leaf) struct Words {
    column: Arc<BoundColumn>,
    matcher: Arc<TextMatcher>,
    negated: bool,
    /// What an index found, and the documents it knows: those below.
    found: DocSet,
    indexed: DocId,
}

/// The path of a text query (or its negation) on `column`. `key` names how text becomes words.
pub(super) fn access(
    segment: &SegmentView,
    column: Arc<BoundColumn>,
    matcher: &Arc<TextMatcher>,
    key: &str,
    negated: bool,
) -> Result<Access> {
    let docs = column.reader.num_docs();
    let index = segment.reader.text(&column.name);
    if let Some(index) = index.filter(|index| index.key() == key) {
        let found = find(matcher.query(), &*index).map_err(|e| {
            Error::data_loss(format!(
                "the text index of column {:?}: {e}: restore the segment from the deep store",
                column.name
            ))
        })?;
        let unindexed = docs.saturating_sub(index.num_docs());
        if unindexed == 0 {
            return Ok(by_index(column, found, negated, "text"));
        }
        let share = (found.count() as f32 / docs as f32).min(1.0);
        let cost = 1.0 + SCAN_COST * unindexed as f32 / docs as f32;
        let words = Words {
            column,
            matcher: Arc::clone(matcher),
            negated,
            found,
            indexed: index.num_docs(),
        };
        let share = if negated { 1.0 - share } else { share };
        return Ok(Access::new(Node::Words(words), "text", cost, share));
    }
    let is_single = !column.is_multi_value();
    if let Some(dictionary) = column.reader.dictionary().filter(|_| is_single) {
        let mut scratch = text::Words::default();
        let ids = evaluate(dictionary, 0..dictionary.len(), |values| {
            let mut matches = |text| matcher.matches([text], &mut scratch);
            Ok((0..values.len())
                .map(|i| text_of(&values, i).is_some_and(&mut matches))
                .collect())
        })?;
        let len = dictionary.len();
        return Ok(single(column, ids, len, negated, false));
    }
    let words = Words {
        column,
        matcher: Arc::clone(matcher),
        negated,
        found: DocSet::new(),
        indexed: 0,
    };
    Ok(Access::new(Node::Words(words), "scan", SCAN_COST, 0.3))
}

impl Words {
    /// At most so many of a segment's `docs` documents pass.
    pub(super) fn docs_max(&self, docs: u64) -> u64 {
        let unindexed = docs.saturating_sub(self.indexed.into());
        match self.negated {
            true => docs,
            false => (self.found.count() + unindexed).min(docs),
        }
    }

    /// Removes documents of `chunk` that do not pass from `left`.
    pub(super) fn narrow(
        &self,
        chunk: u32,
        left: &mut DocBits,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let mut found = scratch.take_bits();
        self.found.fill(chunk, &mut found);
        let base = chunk * CHUNK_DOCS;
        let mut docs = std::mem::take(&mut scratch.docs);
        docs.clear();
        left.append_docs(base, &mut docs);
        let behind = docs.partition_point(|&doc| doc < self.indexed);
        let docs_read = docs.get(behind..).unwrap_or_default();
        scratch.docs_scanned += docs_read.len() as u64;
        let mut words = text::Words::default();
        for block in docs_read.chunks(BLOCK_DOCS) {
            self.read(block, &mut words, |doc| {
                found.insert((doc % CHUNK_DOCS) as u16)
            })?;
        }
        scratch.docs = docs;
        settle(&self.column, found, self.negated, chunk, left, scratch);
        Ok(())
    }

    /// Calls `sink` with the documents of `block` whose texts match.
    fn read(
        &self,
        block: &[DocId],
        words: &mut text::Words,
        mut sink: impl FnMut(DocId),
    ) -> Result<()> {
        let reader = &self.column.reader;
        let mut values = ValueBuffer::new(reader.physical());
        let mut ends: Vec<u32> = Vec::new();
        let mut nulls = Vec::new();
        if self.column.is_multi_value() {
            reader.multi_values(DocSelection::Docs(block), &mut ends, &mut values);
            reader.null_elements(DocSelection::Docs(block), &mut nulls);
        } else {
            reader.values(DocSelection::Docs(block), &mut values);
            ends.extend(1..=block.len() as u32);
        }
        let mut start = 0;
        for (&doc, &end) in block.iter().zip(&ends) {
            let present = (start..end).filter(|&i| nulls.get(i as usize) != Some(&true));
            let texts: Option<Vec<&str>> = present.map(|i| text_of(&values, i as usize)).collect();
            // A reader that came upon damage gives fewer values than it was asked for, and says so afterwards.
            if let Some(texts) = texts
                && self.matcher.matches(texts, words)
            {
                sink(doc);
            }
            start = end;
        }
        Ok(())
    }
}

/// Value `i` as text.
fn text_of(values: &ValueBuffer, i: usize) -> Option<&str> {
    std::str::from_utf8(values.bytes(i)?).ok()
}

/// The documents of an index that a query matches.
pub(super) fn find(
    query: &TextQuery,
    index: &dyn TextPostings,
) -> std::result::Result<DocSet, IndexError> {
    let mut found = DocSet::new();
    match query {
        TextQuery::Nothing => {}
        TextQuery::Term(word) => index.fill(word, &mut found)?,
        TextQuery::Pattern(pattern) => {
            index.fill_matching(pattern.prefix(), &|word| pattern.matches(word), &mut found)?;
        }
        TextQuery::Phrase(phrase) => near(phrase, index, &mut found)?,
        TextQuery::Boolean {
            must,
            should,
            must_not,
        } => {
            let mut needed = must.iter();
            if let Some(first) = needed.next() {
                found = find(first, index)?;
                for query in needed {
                    if found.is_empty() {
                        return Ok(found);
                    }
                    found.and(&find(query, index)?);
                }
            } else {
                for query in should {
                    found.or(&find(query, index)?);
                }
            }
            for query in must_not {
                if found.is_empty() {
                    return Ok(found);
                }
                found.and_not(&find(query, index)?);
            }
        }
    }
    Ok(found)
}

/// Adds the documents that hold a phrase: those that hold all of its words, at places that fit.
fn near(
    phrase: &Phrase,
    index: &dyn TextPostings,
    found: &mut DocSet,
) -> std::result::Result<(), IndexError> {
    let mut walks = Vec::with_capacity(phrase.words.len());
    for (offset, word) in &phrase.words {
        walks.push((*offset, index.walk(word)?));
    }
    let mut doc = 0;
    let mut places: Vec<Vec<i64>> = vec![Vec::new(); walks.len()];
    let mut of_word = Vec::new();
    'documents: loop {
        // Each walk goes to the document that the furthest is at, until all are at one.
        let mut at = 0;
        while at < walks.len() {
            let Some((_, walk)) = walks.get_mut(at) else {
                break;
            };
            walk.seek(doc);
            let Some(here) = walk.doc() else {
                break 'documents;
            };
            if here > doc {
                doc = here;
                at = 0;
            } else {
                at += 1;
            }
        }
        for ((offset, walk), places) in walks.iter_mut().zip(&mut places) {
            of_word.clear();
            walk.places(&mut of_word);
            places.clear();
            places.extend(of_word.iter().map(|&p| i64::from(p) - i64::from(*offset)));
        }
        if positions_fit(&places, phrase.slop) {
            found.insert(doc);
        }
        let Some(next) = doc.checked_add(1) else {
            break;
        };
        doc = next;
    }
    Ok(())
}
