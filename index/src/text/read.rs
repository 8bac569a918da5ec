//! Reading a text index over stored bytes.

use super::directory::ReadOnlyFiles;
use super::write::{FORMAT, field};
use super::{TextPostings, WordWalk, failed};
use crate::doc_set::DocSet;
use crate::reader::{DocId, IndexError};
use crate::wire::{corrupt, part, size_at, u32_at};
use bytes::Bytes;
use std::sync::{Arc, OnceLock};
use tantivy::postings::{Postings, SegmentPostings};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocSet as _, Index, InvertedIndexReader, SegmentReader, TERMINATED, Term};

/// A text index of an immutable column.
#[derive(Debug)]
pub struct ImmutableText {
    key: String,
    docs: u32,
    files: Vec<StoredFile>,
    /// Opened when it is first asked, and checked then.
    opened: OnceLock<Result<Opened, IndexError>>,
}

#[derive(Debug)]
struct StoredFile {
    name: String,
    bytes: Bytes,
    crc32c: u32,
}

struct Opened(Arc<InvertedIndexReader>);

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened")
    }
}

impl ImmutableText {
    /// An index over its section.
    ///
    /// # Errors
    /// When the head is damaged, or the layout is one that a later version writes.
    pub fn open(section: &Bytes) -> Result<Self, IndexError> {
        let head_len = u32_at(section, 0)? as usize;
        let head = part(section, 8, head_len)?;
        if crc32c::crc32c(&head) != u32_at(section, 4)? {
            return Err(corrupt("the head of a text index fails its check"));
        }
        let format = u32_at(&head, 0)?;
        if format != FORMAT {
            return Err(corrupt(format!(
                "text index format {format} is not known: a later version may have written it"
            )));
        }
        let docs = u32_at(&head, 4)?;
        let mut at = 8;
        let key = text(&head, &mut at)?;
        let count = u32_at(&head, at)?;
        at += 4;
        let mut files = Vec::new();
        let mut start = head_len
            .checked_add(8)
            .ok_or_else(|| corrupt("the head of a text index is too long"))?;
        for _ in 0..count {
            let name = text(&head, &mut at)?;
            let len = size_at(&head, at)?;
            let crc32c = u32_at(&head, at + 8)?;
            at += 12;
            let bytes = part(section, start, len)?;
            start += len;
            files.push(StoredFile {
                name,
                bytes,
                crc32c,
            });
        }
        Ok(Self {
            key,
            docs,
            files,
            opened: OnceLock::new(),
        })
    }

    fn words(&self) -> Result<&InvertedIndexReader, IndexError> {
        let opened = self.opened.get_or_init(|| self.open_files());
        opened
            .as_ref()
            .map(|opened| &*opened.0)
            .map_err(Clone::clone)
    }

    fn open_files(&self) -> Result<Opened, IndexError> {
        for file in &self.files {
            if crc32c::crc32c(&file.bytes) != file.crc32c {
                return Err(corrupt(format!(
                    "the file {} of a text index fails its check",
                    file.name
                )));
            }
        }
        let files = self.files.iter();
        let files = ReadOnlyFiles::new(files.map(|f| (f.name.clone(), f.bytes.clone())));
        let index = Index::open(files).map_err(|e| failed(&e))?;
        let segments = index.searchable_segments().map_err(|e| failed(&e))?;
        let words = match segments.as_slice() {
            [] if self.docs == 0 => {
                InvertedIndexReader::empty(IndexRecordOption::WithFreqsAndPositions).into()
            }
            [segment] => {
                let segment = SegmentReader::open(segment).map_err(|e| failed(&e))?;
                if segment.max_doc() != self.docs || segment.has_deletes() {
                    return Err(corrupt("a text index has another number of documents"));
                }
                segment.inverted_index(field()).map_err(|e| failed(&e))?
            }
            _ => return Err(corrupt("a text index of several segments")),
        };
        Ok(Opened(words))
    }

    fn postings(
        &self,
        word: &str,
        option: IndexRecordOption,
    ) -> Result<SegmentPostings, IndexError> {
        let term = Term::from_field_text(field(), word);
        let postings = self.words()?.read_postings(&term, option);
        let postings = postings.map_err(|e| corrupt(format!("a text index: {e}")))?;
        Ok(postings.unwrap_or_else(SegmentPostings::empty))
    }
}

/// A length and so many bytes of text.
fn text(head: &Bytes, at: &mut usize) -> Result<String, IndexError> {
    let len = u32_at(head, *at)? as usize;
    let bytes = part(head, *at + 4, len)?;
    *at += 4 + len;
    String::from_utf8(bytes.to_vec()).map_err(|_| corrupt("a name in a text index is not text"))
}

fn fill(mut postings: SegmentPostings, out: &mut DocSet) {
    let mut doc = postings.doc();
    while doc != TERMINATED {
        out.insert(doc);
        doc = postings.advance();
    }
}

impl TextPostings for ImmutableText {
    fn key(&self) -> &str {
        &self.key
    }

    fn num_docs(&self) -> u32 {
        self.docs
    }

    fn fill(&self, word: &str, out: &mut DocSet) -> Result<(), IndexError> {
        fill(self.postings(word, IndexRecordOption::Basic)?, out);
        Ok(())
    }

    fn fill_matching(
        &self,
        prefix: &str,
        matches: &dyn Fn(&str) -> bool,
        out: &mut DocSet,
    ) -> Result<(), IndexError> {
        let io = |e: std::io::Error| corrupt(format!("a text index: {e}"));
        let words = self.words()?;
        let mut terms = words.terms().range().ge(prefix).into_stream().map_err(io)?;
        while terms.advance() {
            let Ok(term) = std::str::from_utf8(terms.key()) else {
                return Err(corrupt("a word of a text index is not text"));
            };
            if !term.starts_with(prefix) {
                break;
            }
            if matches(term) {
                let postings =
                    words.read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic);
                fill(postings.map_err(io)?, out);
            }
        }
        Ok(())
    }

    fn walk(&self, word: &str) -> Result<Box<dyn WordWalk + '_>, IndexError> {
        let postings = self.postings(word, IndexRecordOption::WithFreqsAndPositions)?;
        Ok(Box::new(Walk(postings)))
    }
}

struct Walk(SegmentPostings);

impl WordWalk for Walk {
    fn doc(&self) -> Option<DocId> {
        Some(self.0.doc()).filter(|&doc| doc != TERMINATED)
    }

    fn seek(&mut self, doc: DocId) {
        if self.0.doc() < doc {
            self.0.seek(doc);
        }
    }

    fn places(&mut self, out: &mut Vec<u32>) {
        self.0.append_positions_with_offset(0, out);
    }
}
