//! Filter and aggregate: partial states by group.
//!
//! Within a segment groups are combinations of small integers (dictionary ids, or numbers of interned values), and each
//! worker has states of its own (`local`). When the last worker is through with a segment, its groups are merged with
//! those of the other segments by value (`merged`): a value is hashed once for each segment and worker that met it, not
//! for each row.

mod argument;
mod cells;
mod emit;
mod grouper;
mod keys;
mod local;
mod merged;
mod numeric;
mod plan;
mod sketch;
mod state;

use super::filter::{Cut, PlannedFilter};
use super::guard::Budget;
use super::pool::{closed, contained};
use super::scan::{Prepared, Scan};
use super::segment::SegmentView;
use super::star_tree::{StarQuery, Stored};
use arrow::array::RecordBatch;
use local::{Local, SegmentPlan};
use merged::Merged;
use parking_lot::Mutex;
use plan::Plan;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use strandline_proto::leaf::{GroupKey, LeafAggregate, LeafExpr};
use strandline_proto::{Error, Result};
use tokio::sync::oneshot;

/// Segments that one job makes ready.
const SEGMENTS_AT_ONCE: usize = 64;
/// Documents that the job reads itself of the segments that it makes ready.
const DOCS_AT_ONCE: u64 = 16_384;

/// An aggregation under way.
struct Run {
    scan: Arc<Scan>,
    plan: Plan,
    /// What star-trees are asked for.
    star: Option<StarQuery>,
    /// Groups of segments that are through; more than one while several workers merge at once.
    merged: Mutex<Vec<Merged>>,
    /// Jobs that are not through, and one for the start.
    pending: AtomicUsize,
    failed: AtomicBool,
    answer: Mutex<Option<oneshot::Sender<Result<Vec<RecordBatch>>>>>,
}

impl Run {
    fn no_groups(&self) -> Merged {
        Merged::new(
            &self.plan,
            Budget::new(&self.scan.memory, "the groups of an answer"),
        )
    }

    /// Merges into groups that no other worker is merging into.
    fn merge(&self, absorb: impl FnOnce(&mut Merged) -> Result<()>) -> Result<()> {
        let idle = self.merged.lock().pop();
        let mut merged = idle.unwrap_or_else(|| self.no_groups());
        absorb(&mut merged)?;
        self.merged.lock().push(merged);
        Ok(())
    }
}

/// A segment while workers read it.
struct SegmentRun {
    plan: SegmentPlan,
    idle: Mutex<Vec<Local>>,
    morsels: AtomicUsize,
}

/// Runs an aggregation; gives its states whole.
pub(super) async fn run(
    scan: Arc<Scan>,
    group: &[GroupKey],
    aggregates: &[LeafAggregate],
) -> Result<Vec<RecordBatch>> {
    let plan = Plan::new(&scan.query, group, aggregates)?;
    scan.count_asked();
    let (sender, receiver) = oneshot::channel();
    let run = Arc::new(Run {
        star: StarQuery::new(&scan.query, group, aggregates, &scan.segments),
        plan,
        merged: Mutex::new(Vec::new()),
        pending: AtomicUsize::new(1),
        failed: AtomicBool::new(false),
        answer: Mutex::new(Some(sender)),
        scan,
    });
    let segments = run.scan.segments.len();
    for first in (0..segments).step_by(SEGMENTS_AT_ONCE).skip(1) {
        let these = first..segments.min(first + SEGMENTS_AT_ONCE);
        submit(&run, move |run| start_segments(run, these));
    }
    let these = 0..segments.min(SEGMENTS_AT_ONCE);
    if is_cheap(&run, group, aggregates)? {
        // They are made ready here: to wake a thread for it and to be woken by it would take as long.
        if let Err(error) = contained(|| start_segments(&run, these)) {
            fail(&run, error);
        }
    } else {
        submit(&run, move |run| start_segments(run, these));
    }
    through(&run);
    // Only jobs hold it now, so that an abandoned run closes its channel.
    drop(run);
    receiver.await.unwrap_or_else(|_| Err(closed()))
}

/// Whether segments are made ready in microseconds: nothing is evaluated on the values of dictionaries.
fn is_cheap(run: &Run, group: &[GroupKey], aggregates: &[LeafAggregate]) -> Result<bool> {
    fn is_arithmetic(expr: &LeafExpr) -> bool {
        match expr {
            LeafExpr::Column(_) | LeafExpr::Literal(..) | LeafExpr::Parameter(..) => true,
            LeafExpr::Cast { expr, .. } | LeafExpr::Not(expr) => is_arithmetic(expr),
            LeafExpr::Binary { left, right, .. } => is_arithmetic(left) && is_arithmetic(right),
            LeafExpr::Case {
                base: None,
                branches,
                otherwise,
            } => branches
                .iter()
                .flat_map(|(when, then)| [when, then])
                .chain(otherwise.as_deref())
                .all(is_arithmetic),
            _ => false,
        }
    }
    let plain = |key: &GroupKey| matches!(key.expr, LeafExpr::Column(_));
    let arguments = aggregates.iter().filter_map(|a| a.argument.as_ref());
    let filters = run.plan.aggregates.iter().filter_map(|a| a.filter.as_ref());
    Ok(run.scan.filter()?.is_cheap()
        && group.iter().all(plain)
        && arguments.into_iter().all(is_arithmetic)
        && filters.into_iter().all(PlannedFilter::is_cheap))
}

fn submit(run: &Arc<Run>, job: impl FnOnce(&Arc<Run>) -> Result<()> + Send + 'static) {
    run.pending.fetch_add(1, Ordering::AcqRel);
    let run = Arc::clone(run);
    let lane = run.scan.lane.clone();
    lane.submit(move || {
        if !run.failed.load(Ordering::Acquire)
            && let Err(error) = contained(|| job(&run))
        {
            fail(&run, error);
        }
        through(&run);
    });
}

fn fail(run: &Run, error: Error) {
    run.failed.store(true, Ordering::Release);
    if let Some(answer) = run.answer.lock().take() {
        // The receiver is gone when the query was cancelled.
        let _ = answer.send(Err(error));
    }
}

/// Ends one job; the last one makes the answer.
fn through(run: &Run) {
    if run.pending.fetch_sub(1, Ordering::AcqRel) != 1 || run.failed.load(Ordering::Acquire) {
        return;
    }
    let answer = contained(|| {
        let mut parts = std::mem::take(&mut *run.merged.lock()).into_iter();
        let mut merged = parts.next().unwrap_or_else(|| run.no_groups());
        parts.try_for_each(|part| merged.absorb_merged(&part))?;
        merged.emit(&run.plan, run.scan.query.batch_rows_max)
    });
    match answer {
        Err(error) => fail(run, error),
        Ok(batches) => {
            if let Some(sender) = run.answer.lock().take() {
                let _ = sender.send(Ok(batches));
            }
        }
    }
}

/// Makes segments ready. Those of which few documents can pass are read here: a job of their own would cost more than they
/// do. The others get theirs.
fn start_segments(run: &Arc<Run>, segments: Range<usize>) -> Result<()> {
    let mut small = Vec::new();
    let mut docs = 0;
    for segment in run.scan.segments.get(segments).unwrap_or_default() {
        let Some((prepared, stored)) = prepare(run, segment)? else {
            continue;
        };
        let docs_max = prepared.docs_max();
        if docs + docs_max <= DOCS_AT_ONCE {
            docs += docs_max;
            small.push((prepared, stored));
        } else {
            submit(run, move |run| {
                let morsels = run.scan.morsels(&prepared.segment);
                start_segment(run, prepared, stored, morsels)
            });
        }
    }
    small.into_iter().try_for_each(|(prepared, stored)| {
        let whole = 0..prepared.segment.num_chunks();
        start_segment(run, prepared, stored, vec![whole])
    })
}

/// A segment's rows, or its star-tree's records with the measures of each aggregate, made ready; none when none can count.
fn prepare(run: &Run, segment: &Arc<SegmentView>) -> Result<Option<(Prepared, Vec<Stored>)>> {
    let scan = &run.scan;
    let cut = scan.cut(segment)?;
    if matches!(cut, Cut::Nothing) {
        return Ok(None);
    }
    if matches!(cut, Cut::All)
        && let Some(star) = &run.star
        && let Some(answer) = star.answer(scan.filter()?, segment)?
    {
        scan.count_star_tree(answer.records);
        let is_some = answer.records > 0;
        return Ok(is_some.then_some((answer.prepared, answer.stored)));
    }
    let prepared = scan.filtered(segment, cut)?;
    Ok(prepared.map(|prepared| (prepared, Vec::new())))
}

/// `stored`: of a star-tree's records the measures of each aggregate.
fn start_segment(
    run: &Arc<Run>,
    prepared: Prepared,
    stored: Vec<Stored>,
    morsels: Vec<Range<u32>>,
) -> Result<()> {
    let scan = &run.scan;
    let segment = Arc::clone(&prepared.segment);
    let rows = stored.is_empty();
    let plan = SegmentPlan::new(&run.plan, scan, prepared, stored)?;
    if rows && let Some(states) = plan.metadata_states(&run.plan) {
        scan.count_matched(u64::from(segment.num_docs()));
        return run.merge(|merged| merged.absorb_states(&states));
    }
    let segment = Arc::new(SegmentRun {
        plan,
        idle: Mutex::new(Vec::new()),
        morsels: AtomicUsize::new(morsels.len()),
    });
    let mut morsels = morsels.into_iter();
    let Some(first) = morsels.next() else {
        return Ok(());
    };
    for morsel in morsels {
        let segment = Arc::clone(&segment);
        submit(run, move |run| read(run, &segment, morsel));
    }
    read(run, &segment, first)
}

fn read(run: &Arc<Run>, segment: &SegmentRun, chunks: Range<u32>) -> Result<()> {
    let idle = segment.idle.lock().pop();
    let mut local = idle.unwrap_or_else(|| Local::new(&run.plan, &segment.plan, &run.scan));
    local.read(&run.plan, &segment.plan, &run.scan, chunks)?;
    segment.plan.prepared.segment.check_faults()?;
    segment.idle.lock().push(local);
    if segment.morsels.fetch_sub(1, Ordering::AcqRel) == 1 {
        let locals = std::mem::take(&mut *segment.idle.lock());
        run.merge(|merged| {
            locals
                .iter()
                .try_for_each(|local| merged.absorb(&segment.plan, local))
        })?;
    }
    Ok(())
}
