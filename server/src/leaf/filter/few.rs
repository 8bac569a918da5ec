//! Filters of which an index names few documents: those are held against the other predicates as a list. Bits of whole chunks,
//! most of them empty, would cost more than the documents do.

use super::node::{Node, Scratch, is_marked, test_values};
use crate::leaf::column::{BoundColumn, ChunkNulls};
use crate::leaf::expression::truths;
use strandline_index::kernels::IdSet;
use strandline_index::{CHUNK_DOCS, DocId, DocSelection, ValueBuffer};
use strandline_proto::Result;

impl Node {
    /// The documents that pass of a segment's `docs`, ascending, where indexes name at most `most` of which they are some; none
    /// where chunks must be asked.
    pub(in crate::leaf) fn few(
        &self,
        docs: u64,
        most: u64,
        scratch: &mut Scratch,
    ) -> Result<Option<Vec<DocId>>> {
        if self.docs_max(docs) > most {
            return Ok(None);
        }
        match self {
            Self::Nothing => Ok(Some(Vec::new())),
            Self::Docs(ranges) => Ok(Some(ranges.iter().flat_map(Clone::clone).collect())),
            Self::Postings {
                column,
                ids,
                negated: false,
            } => {
                let Some(postings) = column.reader.inverted() else {
                    return Ok(None);
                };
                let mut found = Vec::new();
                if !ids.iter().all(|&id| postings.append_docs(id, &mut found)) {
                    return Ok(None);
                }
                if ids.len() > 1 {
                    found.sort_unstable();
                    found.dedup();
                }
                strip_nulls(column, &mut found);
                Ok(Some(found))
            }
            Self::Found {
                column,
                docs,
                negated: false,
            } => {
                let mut found = Vec::new();
                docs.append_docs(&mut found);
                strip_nulls(column, &mut found);
                Ok(Some(found))
            }
            Self::And(children) => {
                let fewest = children.iter().enumerate();
                let Some((at, first)) = fewest.min_by_key(|(_, child)| child.docs_max(docs)) else {
                    return Ok(None);
                };
                let Some(mut found) = first.few(docs, most, scratch)? else {
                    return Ok(None);
                };
                for (_, child) in children.iter().enumerate().filter(|(i, _)| *i != at) {
                    child.keep(&mut found, scratch)?;
                }
                Ok(Some(found))
            }
            _ => Ok(None),
        }
    }

    /// Removes the documents that do not pass; they ascend.
    pub(in crate::leaf) fn keep(&self, docs: &mut Vec<DocId>, scratch: &mut Scratch) -> Result<()> {
        if docs.is_empty() {
            return Ok(());
        }
        match self {
            Self::All => {}
            Self::Nothing => docs.clear(),
            Self::And(children) => {
                for child in children {
                    child.keep(docs, scratch)?;
                }
            }
            Self::Docs(ranges) => docs.retain(|&doc| {
                let at = ranges.partition_point(|range| range.end <= doc);
                ranges.get(at).is_some_and(|range| range.start <= doc)
            }),
            Self::Found {
                column,
                docs: found,
                negated,
            } => {
                strip_nulls(column, docs);
                docs.retain(|&doc| found.contains(doc) != *negated);
            }
            Self::Ids {
                column,
                set,
                nulls_pass: false,
                ..
            } if !column.is_multi_value() => keep_ids(column, set, docs, scratch),
            Self::Postings {
                column,
                ids,
                negated,
            } if !column.is_multi_value() => {
                let set = IdSet::new(ids.iter().map(|&id| id..id + 1).collect());
                let set = match (negated, column.reader.dictionary()) {
                    (false, _) => set,
                    (true, Some(dictionary)) => set.complement(dictionary.len()),
                    (true, None) => return by_chunk(self, docs, scratch),
                };
                keep_ids(column, &set, docs, scratch);
            }
            Self::Values {
                column,
                test,
                negated,
            } if !column.is_multi_value() => {
                strip_nulls(column, docs);
                scratch.docs_scanned += docs.len() as u64;
                let mut values = ValueBuffer::new(column.reader.physical());
                column.reader.values(DocSelection::Docs(docs), &mut values);
                let mut words = Vec::new();
                test_values(&values, test, &mut words)?;
                retain(docs, |i| is_marked(&words, i) != *negated);
            }
            Self::Expression(expression) => {
                scratch.docs_scanned += docs.len() as u64;
                let passes = truths(&expression.evaluate(DocSelection::Docs(docs))?)?;
                retain(docs, |i| passes.value(i));
            }
            _ => by_chunk(self, docs, scratch)?,
        }
        Ok(())
    }
}

/// Keeps the documents of `docs` at whose position `keep` holds.
fn retain(docs: &mut Vec<DocId>, keep: impl Fn(usize) -> bool) {
    let mut at = 0;
    docs.retain(|_| {
        at += 1;
        keep(at - 1)
    });
}

fn keep_ids(column: &BoundColumn, set: &IdSet, docs: &mut Vec<DocId>, scratch: &mut Scratch) {
    strip_nulls(column, docs);
    scratch.docs_scanned += docs.len() as u64;
    let mut ids = Vec::with_capacity(docs.len());
    column.reader.dict_ids(DocSelection::Docs(docs), &mut ids);
    // A reader that came upon damage gives fewer ids, and says so afterwards.
    retain(docs, |i| ids.get(i).is_some_and(|&id| set.contains(id)));
}

fn strip_nulls(column: &BoundColumn, docs: &mut Vec<DocId>) {
    if column.reader.has_nulls() {
        let mut nulls = ChunkNulls::default();
        docs.retain(|&doc| !nulls.contains(&*column.reader, doc));
    }
}

/// Keeps what passes `node` of each chunk that the documents are in.
fn by_chunk(node: &Node, docs: &mut Vec<DocId>, scratch: &mut Scratch) -> Result<()> {
    let mut kept = Vec::with_capacity(docs.len());
    for of_chunk in docs.chunk_by(|a, b| a / CHUNK_DOCS == b / CHUNK_DOCS) {
        let chunk = of_chunk.first().map_or(0, |doc| doc / CHUNK_DOCS);
        let mut bits = scratch.take_bits();
        for doc in of_chunk {
            bits.insert((doc % CHUNK_DOCS) as u16);
        }
        node.narrow(chunk, &mut bits, scratch)?;
        bits.append_docs(chunk * CHUNK_DOCS, &mut kept);
        scratch.give_bits(bits);
    }
    *docs = kept;
    Ok(())
}
