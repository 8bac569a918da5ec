//! EXPLAIN: the plan, and under each leaf scan what it reads, what is left out and why, and which index answers.

use crate::bind::{BoundScan, QueryRun};
use crate::plan::leaf_exec::LeafExec;
use datafusion::arrow::array::{ArrayRef, StringArray};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan};
use std::collections::BTreeMap;
use std::fmt::{Formatter, Write};
use std::sync::Arc;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::Half;
use strandline_proto::{Error, Result};

/// Names of pruned segments shown for one reason.
const NAMES_SHOWN_MAX: usize = 3;

/// The answer of EXPLAIN: one column of lines.
pub(crate) fn batch(lines: &[String]) -> Result<RecordBatch> {
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(lines));
    RecordBatch::try_from_iter([("plan", column)]).map_err(|e| Error::internal(e.to_string()))
}

/// The lines of a plan that is not run.
pub(crate) fn planned(plan: &dyn ExecutionPlan, run: &QueryRun) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    node(plan, run, 0, &mut lines)?;
    Ok(lines)
}

/// The lines of a plan that was run and gave `rows`.
pub(crate) fn analyzed(plan: &dyn ExecutionPlan, run: &QueryRun, rows: u64) -> Result<Vec<String>> {
    let mut lines = planned(plan, run)?;
    let stats = run.stats.finished();
    lines.push(format!("rows: {rows}"));
    lines.push(format!(
        "time: {:.3} ms, of which planning {:.3} ms",
        stats.time_total_us as f64 / 1e3,
        stats.time_plan_us as f64 / 1e3
    ));
    lines.push(format!(
        "memory held at the end: {} bytes",
        run.memory.reserved()
    ));
    Ok(lines)
}

struct Line<'a>(&'a dyn ExecutionPlan);

impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.0.fmt_as(DisplayFormatType::Default, f)
    }
}

fn node(
    plan: &dyn ExecutionPlan,
    run: &QueryRun,
    depth: usize,
    lines: &mut Vec<String>,
) -> Result<()> {
    let indent = "  ".repeat(depth);
    let mut line = format!("{indent}{}", Line(plan));
    if run.scans.is_some()
        && let Some(metrics) = plan
            .metrics()
            .filter(|_| plan.downcast_ref::<LeafExec>().is_none())
    {
        let metrics = metrics.aggregate_by_name();
        let rows = metrics.output_rows().map(|r| format!("rows={r}"));
        let time = metrics
            .elapsed_compute()
            .map(|ns| format!("time={:.3} ms", ns as f64 / 1e6));
        let shown: Vec<_> = rows.into_iter().chain(time).collect();
        if !shown.is_empty() {
            let _ = write!(line, " [{}]", shown.join(", "));
        }
    }
    lines.push(crate::names::shown_text(&line));
    if let Some(scan) = plan.downcast_ref::<LeafExec>() {
        leaf(scan, run, &format!("{indent}    "), lines)?;
    }
    plan.children()
        .into_iter()
        .try_for_each(|child| node(child.as_ref(), run, depth + 1, lines))
}

fn leaf(scan: &LeafExec, run: &QueryRun, indent: &str, lines: &mut Vec<String>) -> Result<()> {
    let bound = run.bind(scan.table(), scan.halves(), scan.work())?;
    let mut push = |text: String| lines.push(format!("{indent}{text}"));
    let segments = |half: Half| {
        bound
            .query
            .segments
            .iter()
            .filter(|s| s.half == half)
            .count()
    };
    let pruned = |half: Half| bound.pruned.iter().filter(|(s, _)| s.half == half).count();
    let table = run.table(scan.table())?;
    if table.has_offline {
        push(format!(
            "offline: {} of {} segments",
            segments(Half::Offline),
            segments(Half::Offline) + pruned(Half::Offline)
        ));
    }
    if table.has_realtime {
        push(format!(
            "realtime: {} of {} segments, {} consuming",
            segments(Half::Realtime),
            segments(Half::Realtime) + pruned(Half::Realtime),
            bound.query.tails.len()
        ));
    }
    if bound.query.coverage.is_some() {
        let intervals: Vec<_> = table.coverage.intervals().iter().map(interval).collect();
        let boundary = table
            .coverage
            .boundary_ms()
            .map_or_else(|| "none".to_owned(), instant);
        push(format!(
            "coverage: {}; boundary {boundary}{}",
            join_or(&intervals, "none"),
            if table.pinned { ", pinned" } else { "" }
        ));
        let shared: Vec<_> = table.shared.intervals().iter().map(interval).collect();
        if !shared.is_empty() {
            push(format!(
                "taken over from the stream: {} (realtime rows that came later count there, too)",
                shared.join(", ")
            ));
        }
        let gaps: Vec<_> = table.gaps.iter().map(interval).collect();
        if !gaps.is_empty() {
            push(format!(
                "gaps: {} (neither half is known to be complete there)",
                gaps.join(", ")
            ));
        }
        if bound.hidden != (0, 0) {
            push(format!(
                "hidden in pruned segments: {} offline rows, {} realtime rows",
                bound.hidden.0, bound.hidden.1
            ));
        }
    }
    pruned_lines(&bound).into_iter().for_each(&mut push);
    for line in run.transport.explain(&bound.query)?.lines {
        push(line);
    }
    if let Some(count) = run.scans.as_ref().and_then(|s| s.get(scan.node())) {
        let counts = count.stats.counts();
        push(format!(
            "rows given: {}, in {:.3} ms",
            count.rows,
            count.elapsed.as_secs_f64() * 1e3
        ));
        push(format!(
            "documents: {} in view, {} matched, {} compared one by one; hidden by coverage: {} offline, {} realtime",
            counts.docs_total,
            counts.docs_matched,
            counts.docs_scanned,
            counts.hidden_offline_rows,
            counts.hidden_realtime_rows
        ));
        push(format!(
            "segments: {} read ({} consuming, {} by star-tree), {} left out",
            counts.segments_queried,
            counts.consuming_queried,
            counts.star_tree_segments,
            counts.segments_pruned
        ));
    }
    Ok(())
}

fn join_or(parts: &[String], none: &str) -> String {
    if parts.is_empty() {
        none.to_owned()
    } else {
        parts.join(", ")
    }
}

fn pruned_lines(bound: &BoundScan) -> Vec<String> {
    let mut by_reason: BTreeMap<(&str, Half), Vec<&str>> = BTreeMap::new();
    for (segment, reason) in &bound.pruned {
        by_reason
            .entry((reason, segment.half))
            .or_default()
            .push(segment.name.as_str());
    }
    by_reason
        .into_iter()
        .map(|((reason, half), names)| {
            let shown = names
                .iter()
                .take(NAMES_SHOWN_MAX)
                .copied()
                .collect::<Vec<_>>()
                .join(", ");
            let more = if names.len() > NAMES_SHOWN_MAX {
                ", ..."
            } else {
                ""
            };
            format!(
                "pruned: {} {} by {reason}: {shown}{more}",
                names.len(),
                half.as_str().to_lowercase()
            )
        })
        .collect()
}

fn instant(ms: i64) -> String {
    match (ms, chrono::DateTime::from_timestamp_millis(ms)) {
        (i64::MIN, _) => "-infinity".to_owned(),
        (i64::MAX, _) => "infinity".to_owned(),
        (_, Some(time)) => time.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string(),
        (_, None) => format!("{ms} ms"),
    }
}

fn interval(interval: &Interval) -> String {
    format!(
        "[{}, {})",
        instant(interval.start_ms),
        instant(interval.end_ms)
    )
}
