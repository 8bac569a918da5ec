//! Top-k: the documents that come first in an order, found without reading more than the sort keys.
//!
//! Sort keys become arrow's row encoding, whose bytes compare as the order says. Each morsel keeps its best rows and
//! the bound that a row must beat; the best of all morsels are merged, and only their columns are read.

use super::rank::Ranks;
use super::{Documents, Found, SegmentRows, Shared, ahead, morsels};
use crate::leaf::expression::{BoundExpression, Expression};
use crate::leaf::filter::Scratch;
use crate::leaf::guard::Budget;
use crate::leaf::scan::{Scan, blocks};
use arrow::compute::SortOptions;
use arrow::row::{RowConverter, SortField};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use strandline_index::{DocBits, DocId, DocSelection};
use strandline_proto::leaf::SortKey;
use strandline_proto::{Error, Result};

/// Candidates beyond the limit that are gathered before the worst are dropped.
const SLACK: usize = 4_096;

struct Candidate {
    key: Box<[u8]>,
    /// Of its first key, within its segment.
    rank: u64,
    segment: Arc<SegmentRows>,
    doc: DocId,
}

/// The best candidates so far.
struct Best {
    limit: usize,
    candidates: Vec<Candidate>,
    key_bytes: usize,
    /// What a key must be less than, once there are enough.
    bound: Option<Box<[u8]>>,
    /// What a first key's rank must not be above, when all candidates are of one segment.
    rank_bound: Option<u64>,
    budget: Budget,
}

impl Best {
    fn new(limit: usize, scan: &Scan, bound: Option<Box<[u8]>>) -> Self {
        Self {
            limit,
            candidates: Vec::new(),
            key_bytes: 0,
            bound,
            rank_bound: None,
            budget: Budget::new(&scan.memory, "sort keys"),
        }
    }

    #[inline]
    fn admits(&self, key: &[u8]) -> bool {
        self.bound.as_ref().is_none_or(|bound| key < &bound[..])
    }

    fn push(&mut self, candidate: Candidate) -> Result<()> {
        self.key_bytes += candidate.key.len();
        self.candidates.push(candidate);
        if self.candidates.len() >= self.limit.saturating_mul(2).saturating_add(SLACK) {
            self.shrink();
        }
        if self.candidates.len().is_multiple_of(1_024) {
            self.budget
                .reserve(self.key_bytes + self.candidates.capacity() * size_of::<Candidate>())?;
        }
        Ok(())
    }

    /// Drops all but the best.
    fn shrink(&mut self) {
        if self.limit == 0 {
            self.candidates.clear();
            self.bound = Some(Box::default());
        } else if self.candidates.len() > self.limit {
            self.candidates
                .select_nth_unstable_by(self.limit - 1, |a, b| a.key.cmp(&b.key));
            self.candidates.truncate(self.limit);
            self.bound = self.candidates.last().map(|worst| worst.key.clone());
            self.rank_bound = self.candidates.last().map(|worst| worst.rank);
            self.key_bytes = self.candidates.iter().map(|c| c.key.len()).sum();
        }
    }
}

/// Sort keys of a query.
struct Order {
    keys: Vec<Arc<Expression>>,
    fields: Vec<SortField>,
    options: Vec<SortOptions>,
}

/// Finds the first `limit` documents in `order`.
pub(super) fn stream(
    shared: &Arc<Shared>,
    order: &[SortKey],
    limit: usize,
) -> Result<BoxStream<'static, Result<Found>>> {
    let scan = &shared.scan;
    let mut keys = Vec::with_capacity(order.len());
    let mut fields = Vec::with_capacity(order.len());
    let mut directions = Vec::with_capacity(order.len());
    for key in order {
        let expression = Arc::new(Expression::new(
            &key.expr,
            &scan.query.schema,
            &scan.query.parameters,
        )?);
        let options = SortOptions {
            descending: key.descending,
            nulls_first: key.nulls_first,
        };
        fields.push(SortField::new_with_options(
            expression.data_type.clone(),
            options,
        ));
        directions.push(options);
        keys.push(expression);
    }
    if !RowConverter::supports_fields(&fields) {
        return Err(Error::unsupported(
            "not supported: a top-k by a key of this type in a leaf",
        ));
    }
    let order = Arc::new(Order {
        keys,
        fields,
        options: directions,
    });
    let best = Arc::new(Mutex::new(Best::new(limit, scan, None)));
    let (jobs, merged) = (Arc::clone(shared), Arc::clone(&best));
    let ahead = ahead(scan);
    let through = morsels(shared, false).map(move |morsel| {
        let (shared, best, order) = (Arc::clone(&jobs), Arc::clone(&merged), Arc::clone(&order));
        async move {
            let (segment, chunks) = morsel?;
            let lane = shared.scan.lane.clone();
            lane.run(move || offer(&shared.scan, &segment, chunks, &order, &best))
                .await
        }
    });
    let lane = scan.lane.clone();
    let found = async move {
        through
            .buffer_unordered(ahead)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        lane.run(move || {
            let mut best = best.lock();
            best.shrink();
            Ok(found(std::mem::take(&mut best.candidates)))
        })
        .await
    };
    Ok(stream::once(found)
        .flat_map(|found| {
            let found: Vec<Result<Found>> = match found {
                Ok(found) => found.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(found)
        })
        .boxed())
}

/// Offers a morsel's documents.
fn offer(
    scan: &Scan,
    segment: &Arc<SegmentRows>,
    chunks: Range<u32>,
    order: &Order,
    best: &Mutex<Best>,
) -> Result<()> {
    let view = &segment.prepared.segment;
    let keys = order
        .keys
        .iter()
        .map(|key| BoundExpression::new(Arc::clone(key), view))
        .collect::<Result<Vec<_>>>()?;
    let converter =
        RowConverter::new(order.fields.clone()).map_err(|e| Error::internal(e.to_string()))?;
    let (limit, bound) = {
        let best = best.lock();
        (best.limit, best.bound.clone())
    };
    let mut local = Best::new(limit, scan, bound);
    let ranks = keys
        .first()
        .zip(order.options.first())
        .and_then(|(key, options)| Ranks::new(key, *options));
    // With one key an equal rank can't come first.
    let strict = keys.len() == 1 && ranks.as_ref().is_some_and(Ranks::is_exact);
    let (mut bits, mut scratch, mut docs) = (DocBits::new(), Scratch::default(), Vec::new());
    let (mut found, mut picked) = (Vec::new(), Vec::new());
    for chunk in chunks {
        scan.select(&segment.prepared, chunk, &mut bits, &mut scratch)?;
        scan.count_matched(u64::from(bits.count()));
        blocks(&bits, chunk, view.chunk_docs(chunk), &mut docs, |block| {
            scan.guard.check()?;
            let doc_at = |i: usize| match &block {
                DocSelection::Range(range) => range.start + i as DocId,
                DocSelection::Docs(docs) => docs[i],
            };
            picked.clear();
            if let Some(ranks) = &ranks {
                ranks.read(&block, &mut found);
            } else {
                found.clear();
                found.resize(block.len(), 0);
            }
            let bound = local.rank_bound.filter(|_| ranks.is_some());
            let passes =
                |rank: u64| bound.is_none_or(|bound| rank < bound || (rank == bound && !strict));
            picked.extend(
                found
                    .iter()
                    .enumerate()
                    .filter(|(_, rank)| passes(**rank))
                    .map(|(i, &rank)| (doc_at(i), rank)),
            );
            if picked.is_empty() {
                return Ok(());
            }
            let docs: Vec<DocId> = picked.iter().map(|(doc, _)| *doc).collect();
            let arrays = keys
                .iter()
                .map(|key| key.evaluate(DocSelection::Docs(&docs)))
                .collect::<Result<Vec<_>>>()?;
            let rows = converter
                .convert_columns(&arrays)
                .map_err(|e| Error::internal(e.to_string()))?;
            for (row, &(doc, rank)) in rows.iter().zip(&picked) {
                if local.admits(row.as_ref()) {
                    local.push(Candidate {
                        key: row.as_ref().into(),
                        rank,
                        segment: Arc::clone(segment),
                        doc,
                    })?;
                }
            }
            Ok(())
        })?;
    }
    view.check_faults()?;
    local.shrink();
    let mut best = best.lock();
    for candidate in local.candidates {
        if best.admits(&candidate.key) {
            best.push(candidate)?;
        }
    }
    best.shrink();
    Ok(())
}

/// The candidates' documents by segment, ascending.
fn found(candidates: Vec<Candidate>) -> Vec<Found> {
    let mut by_segment: BTreeMap<usize, (Arc<SegmentRows>, Vec<DocId>)> = BTreeMap::new();
    for candidate in candidates {
        let address = Arc::as_ptr(&candidate.segment) as usize;
        let (_, docs) = by_segment
            .entry(address)
            .or_insert_with(|| (candidate.segment, Vec::new()));
        docs.push(candidate.doc);
    }
    by_segment
        .into_values()
        .map(|(segment, mut docs)| {
            docs.sort_unstable();
            Found {
                segment,
                docs: Documents::Sorted(docs),
            }
        })
        .collect()
}
