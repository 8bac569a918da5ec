//! A set of a segment's documents: chunks of bits, those without any left out.

use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::reader::DocId;

/// A set of documents.
#[derive(Clone, Debug, Default)]
pub struct DocSet {
    chunks: Vec<Option<DocBits>>,
}

impl DocSet {
    /// No documents.
    pub fn new() -> Self {
        Self::default()
    }

    /// The documents of bits, 64 documents a word, lowest bit first.
    pub fn of_words(words: &[u64]) -> Self {
        let chunks = words.chunks((CHUNK_DOCS / 64) as usize).map(|of_chunk| {
            of_chunk.iter().any(|&word| word != 0).then(|| {
                let mut bits = DocBits::new();
                bits.words_mut()
                    .iter_mut()
                    .zip(of_chunk)
                    .for_each(|(bits, word)| *bits = *word);
                bits
            })
        });
        Self {
            chunks: chunks.collect(),
        }
    }

    /// Adds `doc`.
    pub fn insert(&mut self, doc: DocId) {
        let chunk = (doc / CHUNK_DOCS) as usize;
        if self.chunks.len() <= chunk {
            self.chunks.resize(chunk + 1, None);
        }
        if let Some(slot) = self.chunks.get_mut(chunk) {
            slot.get_or_insert_with(DocBits::new)
                .insert((doc % CHUNK_DOCS) as u16);
        }
    }

    /// Adds the documents of `other`.
    pub fn or(&mut self, other: &Self) {
        if self.chunks.len() < other.chunks.len() {
            self.chunks.resize(other.chunks.len(), None);
        }
        for (mine, theirs) in self.chunks.iter_mut().zip(&other.chunks) {
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => mine.or(theirs),
                (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
                (_, None) => {}
            }
        }
    }

    /// Keeps the documents that are in `other`, too.
    pub fn and(&mut self, other: &Self) {
        self.chunks.truncate(other.chunks.len());
        for (mine, theirs) in self.chunks.iter_mut().zip(&other.chunks) {
            match (&mut *mine, theirs) {
                (Some(mine), Some(theirs)) => mine.and(theirs),
                _ => *mine = None,
            }
        }
    }

    /// Removes the documents of `other`.
    pub fn and_not(&mut self, other: &Self) {
        for (mine, theirs) in self.chunks.iter_mut().zip(&other.chunks) {
            if let (Some(mine), Some(theirs)) = (mine, theirs) {
                mine.and_not(theirs);
            }
        }
    }

    /// The documents of a chunk, numbered within it; none when it has none.
    fn chunk(&self, chunk: u32) -> Option<&DocBits> {
        self.chunks.get(chunk as usize)?.as_ref()
    }

    /// Adds the documents of a chunk to `out`.
    pub fn fill(&self, chunk: u32, out: &mut DocBits) {
        if let Some(bits) = self.chunk(chunk) {
            out.or(bits);
        }
    }

    /// Appends the documents, ascending.
    pub fn append_docs(&self, out: &mut Vec<DocId>) {
        for (chunk, bits) in self.chunks.iter().enumerate() {
            if let Some(bits) = bits {
                bits.append_docs(chunk as u32 * CHUNK_DOCS, out);
            }
        }
    }

    /// How many documents.
    pub fn count(&self) -> u64 {
        self.chunks
            .iter()
            .flatten()
            .map(|bits| u64::from(bits.count()))
            .sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.chunks.iter().flatten().all(DocBits::is_empty)
    }

    /// Whether `doc` is in.
    pub fn contains(&self, doc: DocId) -> bool {
        self.chunk(doc / CHUNK_DOCS)
            .is_some_and(|bits| bits.contains((doc % CHUNK_DOCS) as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_words_hold_what_inserted_documents_do() {
        let docs = [0, 63, 64, 65_535, 3 * CHUNK_DOCS, 3 * CHUNK_DOCS + 130];
        let mut inserted = DocSet::new();
        let mut words = vec![0u64; 3 * CHUNK_DOCS as usize / 64 + 3];
        for doc in docs {
            inserted.insert(doc);
            words[doc as usize / 64] |= 1 << (doc % 64);
        }
        let set = DocSet::of_words(&words);
        for set in [&set, &inserted] {
            let mut found = Vec::new();
            set.append_docs(&mut found);
            assert_eq!(found, docs);
            assert_eq!(set.count(), 6);
            assert!(set.chunk(1).is_none() && set.chunk(4).is_none());
            assert!(docs.iter().all(|&doc| set.contains(doc)) && !set.contains(1));
        }
        assert!(DocSet::of_words(&[0, 0]).is_empty() && DocSet::of_words(&[]).is_empty());
    }
}
