//! A text index that grows with a consuming column.
//!
//! Documents are put in pieces: 1,024 at first; eight of them in a row, once complete, become one piece, and eight of those a chunk of
//! 65,536. A piece never changes, so a reader needs no lock: it holds the pieces that there were when it was made. The documents behind
//! the last piece, fewer than 1,024, are not in the index: [`TextPostings::num_docs`] says where they begin, and whoever asks
//! looks at their texts.

use super::{TextPostings, WordWalk};
use crate::doc_bits::CHUNK_DOCS;
use crate::doc_set::DocSet;
use crate::reader::{DocId, IndexError};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Documents of a piece of each level.
const LEVELS: [u32; 3] = [1_024, 8_192, CHUNK_DOCS];

/// The words of a range of documents.
#[derive(Debug, Default)]
struct Piece {
    docs: Range<DocId>,
    /// The words, ascending, and where each ends.
    text: String,
    text_ends: Vec<u32>,
    /// Where the documents of each word end in `postings`.
    posting_ends: Vec<u32>,
    /// Documents, and where the places in each end in `places`.
    postings: Vec<(DocId, u32)>,
    places: Vec<u32>,
}

impl Piece {
    /// The words of `docs`; `words` calls its argument with the words and places of a document, ascending by place.
    fn new(docs: Range<DocId>, words: &WordsOf<'_>) -> Self {
        let mut numbers: HashMap<Box<str>, u32> = HashMap::new();
        // By number of the word: documents, and places in them.
        let mut found: Vec<Vec<(DocId, u32)>> = Vec::new();
        for doc in docs.clone() {
            words(doc, &mut |place, word| {
                let number = match numbers.get(word) {
                    Some(&number) => number,
                    None => {
                        let number = found.len() as u32;
                        numbers.insert(word.into(), number);
                        found.push(Vec::new());
                        number
                    }
                };
                if let Some(list) = found.get_mut(number as usize) {
                    list.push((doc, place));
                }
            });
        }
        let mut sorted: Vec<(&str, u32)> = numbers.iter().map(|(word, &n)| (&**word, n)).collect();
        sorted.sort_unstable();
        let mut piece = Self {
            docs,
            ..Self::default()
        };
        for (word, number) in sorted {
            let list = found.get(number as usize).map_or(&[][..], Vec::as_slice);
            for run in list.chunk_by(|a, b| a.0 == b.0) {
                let places = run.iter().map(|(_, place)| *place);
                piece.push_posting(run.first().map_or(0, |(doc, _)| *doc), places);
            }
            piece.end_word(word);
        }
        piece.shrink();
        piece
    }

    /// Pieces of ranges that follow each other, as one.
    fn merged(pieces: &[Arc<Self>]) -> Self {
        let mut words: Vec<(&str, usize, usize)> = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            words.extend((0..piece.len()).map(|i| (piece.word(i), number, i)));
        }
        words.sort_unstable();
        let start = pieces.first().map_or(0, |piece| piece.docs.start);
        let end = pieces.last().map_or(start, |piece| piece.docs.end);
        let mut merged = Self {
            docs: start..end,
            ..Self::default()
        };
        for run in words.chunk_by(|a, b| a.0 == b.0) {
            for &(_, number, i) in run {
                let Some(piece) = pieces.get(number) else {
                    continue;
                };
                for at in piece.postings_of(i) {
                    merged.push_posting(piece.doc(at), piece.places_of(at).iter().copied());
                }
            }
            merged.end_word(run.first().map_or("", |(word, _, _)| word));
        }
        merged.shrink();
        merged
    }

    fn push_posting(&mut self, doc: DocId, places: impl Iterator<Item = u32>) {
        self.places.extend(places);
        self.postings.push((doc, self.places.len() as u32));
    }

    fn end_word(&mut self, word: &str) {
        self.text.push_str(word);
        self.text_ends.push(self.text.len() as u32);
        self.posting_ends.push(self.postings.len() as u32);
    }

    fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.text_ends.shrink_to_fit();
        self.posting_ends.shrink_to_fit();
        self.postings.shrink_to_fit();
        self.places.shrink_to_fit();
    }

    /// How many words.
    fn len(&self) -> usize {
        self.text_ends.len()
    }

    fn word(&self, i: usize) -> &str {
        self.text.get(range(&self.text_ends, i)).unwrap_or_default()
    }

    /// The number of the first word that is not below `word`.
    fn first_from(&self, word: &str) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.word(middle) < word {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn postings_of(&self, i: usize) -> Range<usize> {
        range(&self.posting_ends, i)
    }

    fn postings_of_word(&self, word: &str) -> Range<usize> {
        let i = self.first_from(word);
        if i < self.len() && self.word(i) == word {
            self.postings_of(i)
        } else {
            0..0
        }
    }

    fn doc(&self, at: usize) -> DocId {
        self.postings.get(at).map_or(0, |(doc, _)| *doc)
    }

    fn places_of(&self, at: usize) -> &[u32] {
        let end = |at: usize| self.postings.get(at).map_or(0, |(_, end)| *end as usize);
        let start = at.checked_sub(1).map_or(0, end);
        self.places.get(start..end(at)).unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.text.capacity()
            + (self.text_ends.capacity() + self.posting_ends.capacity()) * size_of::<u32>()
            + self.postings.capacity() * size_of::<(DocId, u32)>()
            + self.places.capacity() * size_of::<u32>()
    }
}

/// What belongs to `i` where `ends` holds the ends.
fn range(ends: &[u32], i: usize) -> Range<usize> {
    let end = |i: usize| ends.get(i).map_or(0, |&end| end as usize);
    i.checked_sub(1).map_or(0, end)..end(i)
}

/// Calls its second argument with the words of a document and their places, ascending by place.
pub type WordsOf<'a> = dyn Fn(DocId, &mut dyn FnMut(u32, &str)) + 'a;

/// The pieces of a view, in document order, without gaps.
type Pieces = Arc<Vec<Arc<Piece>>>;

/// The text index of a consuming column.
#[derive(Debug)]
pub struct MutableText {
    key: Arc<str>,
    /// Locked only for as long as it takes to copy or replace the pointer.
    pieces: RwLock<Pieces>,
    /// Held while pieces are made.
    writer: Mutex<()>,
}

impl MutableText {
    /// An index without documents. `key` names how text becomes words.
    pub fn new(key: &str) -> Self {
        Self {
            key: key.into(),
            pieces: RwLock::default(),
            writer: Mutex::default(),
        }
    }

    fn pieces(&self) -> Pieces {
        self.pieces
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Where the documents begin of which the next piece is made, when that can be: there are `docs` documents.
    pub fn due(&self, docs: DocId) -> Option<DocId> {
        let end = covered(&self.pieces());
        (docs.saturating_sub(end) >= LEVELS[0]).then_some(end)
    }

    /// Makes pieces of all whole runs of documents below `docs`.
    pub fn extend(&self, docs: DocId, words: &WordsOf<'_>) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pieces = self.pieces().to_vec();
        let mut end = covered(&pieces);
        if docs.saturating_sub(end) < LEVELS[0] {
            return;
        }
        while docs - end >= LEVELS[0] {
            pieces.push(Arc::new(Piece::new(end..end + LEVELS[0], words)));
            end += LEVELS[0];
            for level in LEVELS
                .iter()
                .skip(1)
                .filter(|level| end.is_multiple_of(**level))
            {
                let first = pieces.partition_point(|piece| piece.docs.start < end - level);
                let merged = Piece::merged(pieces.get(first..).unwrap_or_default());
                pieces.truncate(first);
                pieces.push(Arc::new(merged));
            }
        }
        *self.pieces.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pieces);
    }

    /// A view of the documents below `docs`.
    pub fn view(&self, docs: DocId) -> TextView {
        let pieces = self.pieces();
        TextView {
            key: self.key.clone(),
            docs: docs.min(covered(&pieces)),
            pieces,
        }
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.pieces().iter().map(|piece| piece.bytes()).sum()
    }
}

/// Documents that pieces cover.
fn covered(pieces: &[Arc<Piece>]) -> DocId {
    pieces.last().map_or(0, |piece| piece.docs.end)
}

/// The text index of a consuming column as it was at some number of documents.
#[derive(Debug)]
pub struct TextView {
    key: Arc<str>,
    pieces: Pieces,
    docs: DocId,
}

impl TextView {
    /// The pieces that hold documents of the view.
    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.pieces
            .iter()
            .map(|piece| &**piece)
            .take_while(|piece| piece.docs.start < self.docs)
    }

    fn add(&self, piece: &Piece, postings: Range<usize>, out: &mut DocSet) {
        let docs = postings.map(|at| piece.doc(at));
        docs.take_while(|&doc| doc < self.docs)
            .for_each(|doc| out.insert(doc));
    }
}

impl TextPostings for TextView {
    fn key(&self) -> &str {
        &self.key
    }

    fn num_docs(&self) -> u32 {
        self.docs
    }

    fn fill(&self, word: &str, out: &mut DocSet) -> Result<(), IndexError> {
        for piece in self.pieces() {
            self.add(piece, piece.postings_of_word(word), out);
        }
        Ok(())
    }

    fn fill_matching(
        &self,
        prefix: &str,
        matches: &dyn Fn(&str) -> bool,
        out: &mut DocSet,
    ) -> Result<(), IndexError> {
        for piece in self.pieces() {
            let from = piece.first_from(prefix);
            for i in (from..piece.len()).take_while(|&i| piece.word(i).starts_with(prefix)) {
                if matches(piece.word(i)) {
                    self.add(piece, piece.postings_of(i), out);
                }
            }
        }
        Ok(())
    }

    fn walk(&self, word: &str) -> Result<Box<dyn WordWalk + '_>, IndexError> {
        let runs = self
            .pieces()
            .map(|piece| (piece, piece.postings_of_word(word)))
            .filter(|(_, postings)| !postings.is_empty());
        Ok(Box::new(Walk {
            runs: runs.collect(),
            run: 0,
            docs: self.docs,
        }))
    }
}

/// A walk over the postings of one word, piece by piece. A run's range begins at the posting that the walk is at.
struct Walk<'a> {
    runs: Vec<(&'a Piece, Range<usize>)>,
    run: usize,
    docs: DocId,
}

impl WordWalk for Walk<'_> {
    fn doc(&self) -> Option<DocId> {
        let (piece, postings) = self.runs.get(self.run)?;
        Some(piece.doc(postings.start)).filter(|&doc| doc < self.docs)
    }

    fn seek(&mut self, doc: DocId) {
        while let Some((piece, postings)) = self.runs.get_mut(self.run) {
            if piece.docs.end > doc {
                let rest = piece.postings.get(postings.clone()).unwrap_or_default();
                postings.start += rest.partition_point(|(found, _)| *found < doc);
                if postings.start < postings.end {
                    return;
                }
            }
            self.run += 1;
        }
    }

    fn places(&mut self, out: &mut Vec<u32>) {
        if let Some((piece, postings)) = self.runs.get(self.run) {
            out.extend_from_slice(piece.places_of(postings.start));
        }
    }
}
