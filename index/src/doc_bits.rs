//! The documents of one chunk that a filter keeps: a dense bitmap of 65,536 bits (8 KiB).
//!
//! A chunk is as long as a roaring container, so postings of any kind fill one without translation, and
//! AND, OR and NOT are loops over 1,024 words that stay in the first-level cache.

use crate::reader::DocId;
use crate::widest::widest;

/// Documents in a chunk; chunk `c` holds documents `c * CHUNK_DOCS ..`.
pub const CHUNK_DOCS: u32 = 65_536;

const WORDS: usize = CHUNK_DOCS as usize / 64;

/// The positions of the bits that are set, ascending.
pub(crate) fn ones(words: &[u64]) -> impl Iterator<Item = u32> + '_ {
    words.iter().enumerate().flat_map(|(i, &word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            Some(i as u32 * 64 + bit)
        })
    })
}

/// Appends the positions of the bits that are set, ascending, each plus `base`, to `out`.
#[inline(always)]
pub fn append_ones(words: impl IntoIterator<Item = u64>, base: DocId, out: &mut Vec<DocId>) {
    for (i, mut rest) in words.into_iter().enumerate() {
        let start = base + i as u32 * 64;
        while rest != 0 {
            out.push(start + rest.trailing_zeros());
            rest &= rest - 1;
        }
    }
}

/// One bit for each document of a chunk, by its number within the chunk.
#[derive(Clone, PartialEq, Eq)]
pub struct DocBits {
    words: Box<[u64; WORDS]>,
}

impl Default for DocBits {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for DocBits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl DocBits {
    /// No documents.
    pub fn new() -> Self {
        let words: Box<[u64]> = vec![0; WORDS].into_boxed_slice();
        Self {
            words: words
                .try_into()
                .unwrap_or_else(|_| unreachable!("the slice has WORDS words")),
        }
    }

    /// The bits, 64 documents a word, lowest bit first.
    pub fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// The bits, to be changed.
    pub fn words_mut(&mut self) -> &mut [u64; WORDS] {
        &mut self.words
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds `doc`.
    pub fn insert(&mut self, doc: u16) {
        self.words[usize::from(doc >> 6)] |= 1 << (doc & 63);
    }

    /// Whether `doc` is in.
    pub fn contains(&self, doc: u16) -> bool {
        self.words[usize::from(doc >> 6)] >> (doc & 63) & 1 == 1
    }

    /// Adds `start..end`, numbers within the chunk, `end <= CHUNK_DOCS`.
    pub fn insert_range(&mut self, start: u32, end: u32) {
        if start >= end {
            return;
        }
        let (first, last) = ((start / 64) as usize, ((end - 1) / 64) as usize);
        let low = !0u64 << (start % 64);
        let high = !0u64 >> (63 - (end - 1) % 64);
        if first == last {
            self.words[first] |= low & high;
        } else {
            self.words[first] |= low;
            self.words[first + 1..last].fill(!0);
            self.words[last] |= high;
        }
    }

    /// How many documents.
    pub fn count(&self) -> u32 {
        widest(|| self.words.iter().map(|w| w.count_ones()).sum())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&w| w == 0)
    }

    /// Keeps those that are in both.
    pub fn and(&mut self, other: &Self) {
        widest(|| {
            for (a, b) in self.words.iter_mut().zip(other.words.iter()) {
                *a &= b;
            }
        });
    }

    /// Adds those of `other`.
    pub fn or(&mut self, other: &Self) {
        widest(|| {
            for (a, b) in self.words.iter_mut().zip(other.words.iter()) {
                *a |= b;
            }
        });
    }

    /// Removes those of `other`.
    pub fn and_not(&mut self, other: &Self) {
        widest(|| {
            for (a, b) in self.words.iter_mut().zip(other.words.iter()) {
                *a &= !b;
            }
        });
    }

    /// The documents, ascending, numbered within the chunk.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        ones(&self.words[..]).map(|doc| doc as u16)
    }

    /// Appends the documents, ascending, each plus `base`, to `out`.
    pub fn append_docs(&self, base: DocId, out: &mut Vec<DocId>) {
        widest(|| append_ones(self.words.iter().copied(), base, out));
    }
}
