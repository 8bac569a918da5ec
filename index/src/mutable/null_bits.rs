//! Null positions of a consuming column: bits that are only ever set, each before its position is published.

use crate::doc_bits::{CHUNK_DOCS, DocBits};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

type Chunk = [AtomicU64; CHUNK_DOCS as usize / 64];

/// One bit for each position; chunks without nulls take no memory.
///
/// Ordering: the column publishes its length (release) after it set the bits below it, and whoever reads took that
/// length (acquire) before, so that the bits themselves can be relaxed.
pub(crate) struct NullBits {
    chunks: RwLock<Vec<Option<Arc<Chunk>>>>,
    first: AtomicU32,
}

impl Default for NullBits {
    fn default() -> Self {
        Self {
            chunks: RwLock::default(),
            first: AtomicU32::new(u32::MAX),
        }
    }
}

impl NullBits {
    /// Sets the bits of `base` plus each of `positions`.
    pub(crate) fn insert(&self, base: u32, positions: &[u32]) {
        let in_chunk = |position: &u32| (base + position) / CHUNK_DOCS;
        for run in positions.chunk_by(|a, b| in_chunk(a) == in_chunk(b)) {
            let Some(at) = run.first().map(in_chunk) else {
                return;
            };
            let chunk = self
                .chunk(at as usize)
                .unwrap_or_else(|| self.add_chunk(at as usize));
            for position in run.iter().map(|position| base + position) {
                if let Some(word) = chunk.get((position % CHUNK_DOCS / 64) as usize) {
                    word.fetch_or(1 << (position % 64), Ordering::Relaxed);
                }
                self.first.fetch_min(position, Ordering::Relaxed);
            }
        }
    }

    fn add_chunk(&self, at: usize) -> Arc<Chunk> {
        let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
        if chunks.len() <= at {
            chunks.resize(at + 1, None);
        }
        let chunk: Arc<Chunk> = Arc::new([const { AtomicU64::new(0) }; CHUNK_DOCS as usize / 64]);
        if let Some(slot) = chunks.get_mut(at) {
            *slot = Some(chunk.clone());
        }
        chunk
    }

    fn chunk(&self, at: usize) -> Option<Arc<Chunk>> {
        self.chunks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(at)?
            .clone()
    }

    /// Whether any of the first `len` positions is null.
    pub(crate) fn any(&self, len: u32) -> bool {
        self.first.load(Ordering::Relaxed) < len
    }

    /// Adds the null positions of a chunk that are below `len`.
    pub(crate) fn fill(&self, chunk: u32, len: u32, out: &mut DocBits) {
        let within = len
            .saturating_sub(chunk.saturating_mul(CHUNK_DOCS))
            .min(CHUNK_DOCS);
        let Some(bits) = self.chunk(chunk as usize) else {
            return;
        };
        let words = out
            .words_mut()
            .iter_mut()
            .zip(bits.iter())
            .take(within.div_ceil(64) as usize);
        for (i, (to, from)) in words.enumerate() {
            let left = within - i as u32 * 64;
            let kept = if left >= 64 {
                u64::MAX
            } else {
                (1 << left) - 1
            };
            *to |= from.load(Ordering::Relaxed) & kept;
        }
    }

    /// Whether `position`, below `len`, is null; `held` keeps the bits of one chunk between calls.
    pub(crate) fn contains(
        &self,
        position: u32,
        len: u32,
        held: &mut Option<(u32, DocBits)>,
    ) -> bool {
        if !self.any(len) {
            return false;
        }
        let chunk = position / CHUNK_DOCS;
        if held.as_ref().is_none_or(|(at, _)| *at != chunk) {
            let mut bits = DocBits::new();
            self.fill(chunk, len, &mut bits);
            *held = Some((chunk, bits));
        }
        held.as_ref()
            .is_some_and(|(_, bits)| bits.contains(position as u16))
    }

    pub(crate) fn bytes(&self) -> usize {
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        chunks.iter().flatten().count() * size_of::<Chunk>()
    }
}
