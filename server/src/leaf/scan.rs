//! What all leaf work shares: the bound query, segments prepared for it, and the documents of a chunk that pass.

use super::filter::{Compiler, Cut, Node, PlannedCoverage, PlannedFilter, Scratch};
use super::guard::Guard;
use super::pool::Lane;
use super::segment::SegmentView;
use datafusion::execution::memory_pool::MemoryPool;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use strandline_index::{CHUNK_DOCS, DocBits, DocId, DocSelection};
use strandline_proto::Result;
use strandline_proto::ids::Half;
use strandline_proto::leaf::LeafQuery;
use strandline_proto::stats::LeafStats;
use strandline_storage::segment::ValidDocs;

/// Documents that are read and aggregated at once: a few columns of them stay in the caches.
pub(super) const BLOCK_DOCS: usize = 4_096;
/// Up to so many documents for each chunk of a segment are read as a list: a chunk of bits costs as much.
const FEW_PER_CHUNK: u64 = 512;
/// Chunks of the largest morsel.
const MORSEL_CHUNKS_MAX: u64 = 32;

/// A leaf query under way.
pub(super) struct Scan {
    /// The query.
    pub(super) query: LeafQuery,
    /// Its segments.
    pub(super) segments: Vec<Arc<SegmentView>>,
    /// What stops it.
    pub(super) guard: Guard,
    /// What it counts.
    pub(super) stats: Arc<LeafStats>,
    /// Where its memory comes from.
    pub(super) memory: Arc<dyn MemoryPool>,
    /// Where its jobs run.
    pub(super) lane: Lane,
    /// Its filter and coverage, once a segment was asked for.
    planned: OnceLock<Result<Planned>>,
}

/// What holds for all segments of a query.
#[derive(Debug)]
struct Planned {
    filter: PlannedFilter,
    coverage: Option<PlannedCoverage>,
}

impl Scan {
    /// A query about to run over `segments`.
    pub(super) fn new(
        query: LeafQuery,
        segments: Vec<Arc<SegmentView>>,
        guard: Guard,
        stats: Arc<LeafStats>,
        memory: Arc<dyn MemoryPool>,
        lane: Lane,
    ) -> Self {
        Self {
            query,
            segments,
            guard,
            stats,
            memory,
            lane,
            planned: OnceLock::new(),
        }
    }

    fn planned(&self) -> Result<&Planned> {
        let plan = || {
            let query = &self.query;
            let coverage = query.coverage.as_ref();
            Ok(Planned {
                filter: PlannedFilter::new(&query.work.filter, query, false)?,
                coverage: coverage
                    .map(|coverage| PlannedCoverage::new(coverage, &query.schema))
                    .transpose()?,
            })
        };
        self.planned
            .get_or_init(plan)
            .as_ref()
            .map_err(Clone::clone)
    }

    /// The query's filter.
    pub(super) fn filter(&self) -> Result<&PlannedFilter> {
        Ok(&self.planned()?.filter)
    }

    /// Chunks that one job reads: enough jobs for all threads, none longer than some milliseconds.
    pub(super) fn morsel_chunks(&self) -> u32 {
        let chunks: u64 = self
            .segments
            .iter()
            .map(|s| u64::from(s.num_chunks()))
            .sum();
        let jobs = self.lane.threads() as u64 * 4;
        chunks.div_ceil(jobs).clamp(1, MORSEL_CHUNKS_MAX) as u32
    }

    /// The chunk ranges of a segment, each for one job.
    pub(super) fn morsels(&self, segment: &SegmentView) -> Vec<Range<u32>> {
        let step = self.morsel_chunks();
        let chunks = segment.num_chunks();
        (0..chunks.div_ceil(step))
            .map(|i| i * step..((i + 1) * step).min(chunks))
            .collect()
    }

    /// Counts the segments and documents that were asked for.
    pub(super) fn count_asked(&self) {
        let consuming = self.segments.iter().filter(|s| s.consuming).count();
        let docs: u64 = self.segments.iter().map(|s| u64::from(s.num_docs())).sum();
        self.stats
            .segments_queried
            .fetch_add(self.segments.len() as u64, Relaxed);
        self.stats
            .consuming_queried
            .fetch_add(consuming as u64, Relaxed);
        self.stats.docs_total.fetch_add(docs, Relaxed);
    }

    /// A segment made ready for the query; none when none of its documents can count.
    pub(super) fn prepare(&self, segment: &Arc<SegmentView>) -> Result<Option<Prepared>> {
        match self.cut(segment)? {
            Cut::Nothing => Ok(None),
            cut => self.filtered(segment, cut),
        }
    }

    /// Which documents of a segment coverage lets count.
    pub(super) fn cut(&self, segment: &SegmentView) -> Result<Cut> {
        self.guard.check()?;
        let coverage = self.planned()?.coverage.as_ref();
        let cut = Cut::new(segment, coverage)
            .map_err(|e| e.at(format_args!("segment {}", segment.reader.name())))?;
        if matches!(cut, Cut::Nothing) {
            self.count_hidden(segment.half, u64::from(segment.num_docs()));
            self.stats.segments_pruned.fetch_add(1, Relaxed);
        }
        Ok(cut)
    }

    /// A segment of which the documents in `cut` count, made ready; none when the filter lets none pass.
    pub(super) fn filtered(
        &self,
        segment: &Arc<SegmentView>,
        cut: Cut,
    ) -> Result<Option<Prepared>> {
        let filter = Compiler::new(segment).compile(self.filter()?)?;
        if matches!(filter, Node::Nothing) || segment.num_docs() == 0 {
            self.stats.segments_pruned.fetch_add(1, Relaxed);
            return Ok(None);
        }
        let valid = segment.reader.valid_docs();
        Ok(Some(Prepared {
            segment: Arc::clone(segment),
            cut,
            filter,
            valid,
        }))
    }

    /// Counts a segment whose star-tree answers with so many records.
    pub(super) fn count_star_tree(&self, records: u64) {
        let counter = match records {
            0 => &self.stats.segments_pruned,
            _ => &self.stats.star_tree_segments,
        };
        counter.fetch_add(1, Relaxed);
    }

    fn count_hidden(&self, half: Half, docs: u64) {
        match half {
            Half::Offline => self.stats.hidden_offline_rows.fetch_add(docs, Relaxed),
            Half::Realtime => self.stats.hidden_realtime_rows.fetch_add(docs, Relaxed),
        };
    }

    /// The documents of a chunk that count and pass the filter, into `bits`.
    pub(super) fn select(
        &self,
        prepared: &Prepared,
        chunk: u32,
        bits: &mut DocBits,
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.guard.check()?;
        bits.clear();
        bits.insert_range(0, prepared.segment.chunk_docs(chunk));
        if let Some(valid) = &prepared.valid {
            valid.retain(chunk, bits);
        }
        if !matches!(prepared.cut, Cut::All) {
            let before = bits.count();
            prepared.cut.narrow(chunk, bits, scratch)?;
            self.count_hidden(prepared.segment.half, u64::from(before - bits.count()));
        }
        if !bits.is_empty() {
            prepared.filter.narrow(chunk, bits, scratch)?;
        }
        self.count_scanned(scratch);
        Ok(())
    }

    /// The documents of `chunks` that count and pass the filter, ascending, where indexes name few; none where chunks must be
    /// asked.
    pub(super) fn select_few(
        &self,
        prepared: &Prepared,
        chunks: &Range<u32>,
        scratch: &mut Scratch,
    ) -> Result<Option<Vec<DocId>>> {
        if !matches!(prepared.cut, Cut::All) || prepared.valid.is_some() {
            return Ok(None);
        }
        self.guard.check()?;
        let docs = u64::from(prepared.segment.num_docs());
        let most = u64::from(prepared.segment.num_chunks()) * FEW_PER_CHUNK;
        let mut found = prepared.filter.few(docs, most, scratch)?;
        if let Some(found) = &mut found
            && *chunks != (0..prepared.segment.num_chunks())
        {
            found.retain(|doc| chunks.contains(&(doc / CHUNK_DOCS)));
        }
        self.count_scanned(scratch);
        Ok(found)
    }

    fn count_scanned(&self, scratch: &mut Scratch) {
        if scratch.docs_scanned > 0 {
            let scanned = std::mem::take(&mut scratch.docs_scanned);
            self.stats.docs_scanned.fetch_add(scanned, Relaxed);
        }
    }

    /// Counts documents that passed.
    pub(super) fn count_matched(&self, docs: u64) {
        self.stats.docs_matched.fetch_add(docs, Relaxed);
    }
}

/// A segment ready to be scanned.
pub(super) struct Prepared {
    /// The segment.
    pub(super) segment: Arc<SegmentView>,
    cut: Cut,
    filter: Node,
    valid: Option<Arc<dyn ValidDocs>>,
}

impl Prepared {
    /// Records of a star-tree that pass `filter`.
    pub(super) fn of_records(records: Arc<SegmentView>, filter: Node) -> Self {
        Self {
            segment: records,
            cut: Cut::All,
            filter,
            valid: None,
        }
    }

    /// Those of `chunks` in which documents can pass, as far as indexes tell.
    pub(super) fn chunks(&self, chunks: Range<u32>) -> Range<u32> {
        // Chunks that coverage cuts are read for what it hides.
        if !matches!(self.cut, Cut::All) {
            return chunks;
        }
        let found = self.filter.chunks();
        chunks.start.max(found.start)..chunks.end.min(found.end)
    }

    /// At most so many documents pass, as far as indexes tell.
    pub(super) fn docs_max(&self) -> u64 {
        self.filter.docs_max(u64::from(self.segment.num_docs()))
    }

    /// Whether every document of the segment counts and passes.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.cut, Cut::All) && matches!(self.filter, Node::All) && self.valid.is_none()
    }
}

/// Hands the documents of `bits` to `each` in blocks; as ranges when all of the chunk's are in.
pub(super) fn blocks(
    bits: &DocBits,
    chunk: u32,
    chunk_docs: u32,
    docs: &mut Vec<DocId>,
    mut each: impl FnMut(DocSelection<'_>) -> Result<()>,
) -> Result<()> {
    let base = chunk * CHUNK_DOCS;
    if bits.count() == chunk_docs {
        let end = base + chunk_docs;
        let mut start = base;
        while start < end {
            let next = end.min(start + BLOCK_DOCS as u32);
            each(DocSelection::Range(start..next))?;
            start = next;
        }
        return Ok(());
    }
    docs.clear();
    bits.append_docs(base, docs);
    docs.chunks(BLOCK_DOCS)
        .try_for_each(|block| each(DocSelection::Docs(block)))
}
