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
    superseded: RwLock<Superseded>,
}

#[derive(Debug, Default)]
struct Superseded {
    /// A bit for each document that does not count now; missing ones are zero.
    words: Vec<u64>,
    count: u64,
    /// Documents with the version at which they ceased to count, oldest first, as long as older versions are looked at.
    recent: Vec<(u64, DocId)>,
}

impl Superseded {
    /// Whether the document counted before.
    fn add(&mut self, doc: DocId) -> bool {
        let (at, bit) = ((doc / u64::BITS) as usize, 1_u64 << (doc % u64::BITS));
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
            superseded: RwLock::default(),
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
        self.superseded.read().count
    }

    /// Has a chunk's documents not count, at any version.
    pub(super) fn restore(&self, chunk: u32, words: &[u64; CHUNK_WORDS]) {
        let mut superseded = self.superseded.write();
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

    /// The documents that do not count now, ascending.
    pub(super) fn all_superseded(&self) -> Vec<DocId> {
        let superseded = self.superseded.read();
        let words = superseded.words.iter().enumerate();
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
            let other = other.superseded.read();
            let recent = other.recent.iter();
            recent
                .filter_map(|(version, doc)| Some((*version, of(*doc)?)))
                .collect()
        };
        let mut superseded = self.superseded.write();
        for doc in docs {
            superseded.add(doc);
        }
        superseded.recent.extend(recent);
        superseded.recent.sort_by_key(|(version, _)| *version);
    }

    /// Has documents not count from `version` on. No version below `oldest` is looked at any more.
    pub(super) fn supersede(&self, version: u64, oldest: u64, docs: &[DocId]) {
        let mut superseded = self.superseded.write();
        let forgotten = superseded.recent.partition_point(|(at, _)| *at <= oldest);
        superseded.recent.drain(..forgotten);
        for &doc in docs {
            if superseded.add(doc) {
                superseded.recent.push((version, doc));
            }
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
        let superseded = self.superseded.read();
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
        let superseded = self.docs.superseded.read();
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
        drop(superseded);
        for doc in restored {
            bits.insert(doc as u16);
        }
    }
}
