//! Which documents of a segment count, at any version that is still looked at.

use super::entry::Place;
use crate::segment::ValidDocs;
use parking_lot::RwLock;
use std::sync::Arc;
use strandline_index::{CHUNK_DOCS, DocBits, DocId};
use strandline_proto::ids::SegmentName;

/// Words of a chunk's bits.
pub(super) const CHUNK_WORDS: usize = (CHUNK_DOCS / u64::BITS) as usize;

/// The superseded documents of one segment.
#[derive(Debug)]
pub struct SegmentDocs {
    /// The segment's name.
    pub(super) name: SegmentName,
    /// The segment's number in its table's keys.
    pub(super) number: u32,
    states: RwLock<States>,
}

/// What does not count, by versions: from one on, other documents may count than before.
#[derive(Debug, Default)]
struct States {
    now: Superseded,
    /// The version from which on that holds.
    from: u64,
    /// What held before, oldest first, each with the version from which on it did; as long as older versions are looked at.
    before: Vec<(u64, Superseded)>,
}

impl States {
    fn at(&self, version: u64) -> &Superseded {
        let held = self.before.iter().rev().find(|(from, _)| *from <= version);
        match held {
            Some((_, before)) if version < self.from => before,
            _ => &self.now,
        }
    }
}

#[derive(Debug, Default)]
struct Superseded {
    /// A bit for each document that does not count now; missing ones are zero.
    words: Vec<u64>,
    count: u64,
    /// Documents with the version at which they ceased to count, oldest first, as long as older versions are looked at.
    recent: Vec<(u64, DocId)>,
}

/// The word and the bit of a document.
fn bit_of(doc: DocId) -> (usize, u64) {
    ((doc / u64::BITS) as usize, 1 << (doc % u64::BITS))
}

impl Superseded {
    /// Whether the document counted before.
    fn add(&mut self, doc: DocId) -> bool {
        let (at, bit) = bit_of(doc);
        if self.words.len() <= at {
            let chunks = at / CHUNK_WORDS + 1;
            self.words.resize(chunks * CHUNK_WORDS, 0);
        }
        let is_new = match self.words.get_mut(at) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        };
        self.count += u64::from(is_new);
        is_new
    }
}

impl SegmentDocs {
    /// All documents of a segment count.
    pub(super) fn new(name: SegmentName, number: u32) -> Self {
        Self {
            name,
            number,
            states: RwLock::default(),
        }
    }

    /// One of its documents.
    pub(super) fn place(&self, doc: DocId) -> Place {
        Place {
            segment: self.number,
            doc,
        }
    }

    /// Documents that do not count now.
    pub fn superseded(&self) -> u64 {
        self.states.read().now.count
    }

    /// Has a chunk's documents not count, at any version.
    pub(super) fn restore(&self, chunk: u32, words: &[u64; CHUNK_WORDS]) {
        let superseded = &mut self.states.write().now;
        let start = chunk as usize * CHUNK_WORDS;
        let end = start + CHUNK_WORDS;
        if superseded.words.len() < end {
            superseded.words.resize(end, 0);
        }
        let mut added = 0;
        for (word, more) in superseded.words.iter_mut().skip(start).zip(words) {
            added += u64::from((more & !*word).count_ones());
            *word |= more;
        }
        superseded.count += added;
    }

    /// Those of some documents that count now.
    pub(super) fn counted(&self, docs: Vec<DocId>) -> Vec<DocId> {
        let states = self.states.read();
        let counts = |doc: &DocId| {
            let (at, bit) = bit_of(*doc);
            states.now.words.get(at).is_none_or(|word| word & bit == 0)
        };
        docs.into_iter().filter(counts).collect()
    }

    /// The documents that do not count now, ascending.
    pub(super) fn all_superseded(&self) -> Vec<DocId> {
        let states = self.states.read();
        let words = states.now.words.iter().enumerate();
        let docs = words.flat_map(|(at, word)| {
            let bits = (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| at as DocId * u64::BITS + bit)
        });
        docs.collect()
    }

    /// Has the documents not count that are another segment's as well, and do not count there, from the same versions on.
    ///
    /// `of`: the document that one of the other segment's is here, if any. No document is superseded meanwhile.
    pub(super) fn take_over(&self, other: &Self, of: impl Fn(DocId) -> Option<DocId>) {
        let docs: Vec<DocId> = other.all_superseded().into_iter().filter_map(&of).collect();
        let recent: Vec<(u64, DocId)> = {
            let other = other.states.read();
            let recent = other.now.recent.iter();
            recent
                .filter_map(|(version, doc)| Some((*version, of(*doc)?)))
                .collect()
        };
        let superseded = &mut self.states.write().now;
        for doc in docs {
            superseded.add(doc);
        }
        superseded.recent.extend(recent);
        superseded.recent.sort_by_key(|(version, _)| *version);
    }

    /// Has documents not count from `version` on. No version below `oldest` is looked at any more.
    pub(super) fn supersede(&self, version: u64, oldest: u64, docs: &[DocId]) {
        let mut states = self.states.write();
        if oldest >= states.from {
            states.before.clear();
        }
        let superseded = &mut states.now;
        let forgotten = superseded.recent.partition_point(|(at, _)| *at <= oldest);
        superseded.recent.drain(..forgotten);
        for &doc in docs {
            if superseded.add(doc) {
                superseded.recent.push((version, doc));
            }
        }
    }

    /// Has other documents count from `version` on: those that `marks` says do, and not those that it says don't. No version below
    /// `oldest` is looked at any more.
    pub(super) fn switch(&self, version: u64, oldest: u64, marks: &Marks) {
        let mut states = self.states.write();
        let mut words = states.now.words.clone();
        marks.apply(&mut words);
        let count = words.iter().map(|word| u64::from(word.count_ones())).sum();
        let now = Superseded {
            words,
            count,
            recent: Vec::new(),
        };
        let before = std::mem::replace(&mut states.now, now);
        let from = std::mem::replace(&mut states.from, version);
        states.before.push((from, before));
        if oldest >= version {
            states.before.clear();
        }
    }

    /// The documents that count at `version`, which is not below the oldest that is looked at; none: all do.
    ///
    /// `held`: keeps the version looked at.
    pub(super) fn at(
        self: &Arc<Self>,
        version: u64,
        held: Arc<dyn Send + Sync>,
    ) -> Option<Arc<dyn ValidDocs>> {
        let states = self.states.read();
        let superseded = states.at(version);
        let later = superseded.recent.iter().rev();
        let later = later.take_while(|(at, _)| *at > version).count() as u64;
        (superseded.count > later).then(|| {
            Arc::new(CountedAt {
                docs: Arc::clone(self),
                version,
                _held: held,
            }) as Arc<dyn ValidDocs>
        })
    }
}

/// A segment's documents at a version.
struct CountedAt {
    docs: Arc<SegmentDocs>,
    version: u64,
    _held: Arc<dyn Send + Sync>,
}

impl ValidDocs for CountedAt {
    fn retain(&self, chunk: u32, bits: &mut DocBits) {
        let states = self.docs.states.read();
        let superseded = states.at(self.version);
        let start = chunk as usize * CHUNK_WORDS;
        let Some(words) = superseded.words.get(start..start + CHUNK_WORDS) else {
            return;
        };
        let later = superseded.recent.iter().rev();
        let later = later.take_while(|(at, _)| *at > self.version);
        let base = chunk * CHUNK_DOCS;
        let restored: Vec<DocId> = later
            .filter_map(|(_, doc)| doc.checked_sub(base))
            .filter(|doc| *doc < CHUNK_DOCS && bits.contains(*doc as u16))
            .collect();
        for (bits, gone) in bits.words_mut().iter_mut().zip(words) {
            *bits &= !gone;
        }
        drop(states);
        for doc in restored {
            bits.insert(doc as u16);
        }
    }
}

/// Which documents of a segment are to count that do not, and the other way round.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Bits of documents that are not to count; missing ones are zero.
    superseded: Vec<u64>,
    /// Bits of those that are to.
    counted: Vec<u64>,
}

/// What a document is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Superseded,
    Counted,
}

impl Marks {
    /// Of a segment none of whose documents counts yet.
    pub(super) fn all_superseded(docs: DocId) -> Self {
        let mut marks = Self::default();
        let words = docs.div_ceil(u64::BITS) as usize;
        marks.superseded = vec![u64::MAX; words];
        if let Some(last) = marks.superseded.last_mut()
            && !docs.is_multiple_of(u64::BITS)
        {
            *last = (1 << (docs % u64::BITS)) - 1;
        }
        marks
    }

    /// Marks a document, or takes its mark back.
    pub(super) fn set(&mut self, doc: DocId, mark: Mark, is_set: bool) {
        let (at, bit) = bit_of(doc);
        let words = match mark {
            Mark::Superseded => &mut self.superseded,
            Mark::Counted => &mut self.counted,
        };
        if words.len() <= at {
            words.resize(at + 1, 0);
        }
        if let Some(word) = words.get_mut(at) {
            *word = if is_set { *word | bit } else { *word & !bit };
        }
    }

    /// The chunks of documents that may have marks.
    pub(super) fn chunks(&self) -> u32 {
        let words = self.superseded.len().max(self.counted.len());
        words.div_ceil(CHUNK_WORDS) as u32
    }

    /// Applies the marks of a chunk to its words.
    pub(super) fn apply_to_chunk(&self, chunk: u32, words: &mut [u64; CHUNK_WORDS]) {
        self.apply_from(chunk as usize * CHUNK_WORDS, words);
    }

    fn apply(&self, words: &mut Vec<u64>) {
        let needed = self.chunks() as usize * CHUNK_WORDS;
        if words.len() < needed {
            words.resize(needed, 0);
        }
        self.apply_from(0, words);
    }

    /// Applies the marks from the word `start` on.
    fn apply_from(&self, start: usize, words: &mut [u64]) {
        for (word, more) in words.iter_mut().zip(self.superseded.iter().skip(start)) {
            *word |= more;
        }
        for (word, less) in words.iter_mut().zip(self.counted.iter().skip(start)) {
            *word &= !less;
        }
    }
}
