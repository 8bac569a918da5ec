//! What becomes of segments as time goes by: how long they are kept, and when the offline half takes over rows of the stream.

use super::document::{Node, Object};
use super::stream::period_ms;
use super::{ConfigWarning, TakeOver};
use strandline_proto::Result;
use strandline_proto::ids::Half;

const DAY_MS: u64 = 86_400_000;
/// How long what a push replaced is kept.
const KEPT_MS_DEFAULT: u64 = 7 * DAY_MS;
/// A period that is taken over, and how long after its end.
const PERIOD_DEFAULT_MS: u64 = DAY_MS;
const BUFFER_DEFAULT_MS: u64 = 2 * DAY_MS;
/// The task of Pinot's that takes over.
const TAKE_OVER: &str = "RealtimeToOfflineSegmentsTask";

/// What `segmentsConfig` says of it.
pub(super) struct Upkeep {
    pub(super) retention_ms: Option<u64>,
    pub(super) kept_ms: u64,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            retention_ms: None,
            kept_ms: KEPT_MS_DEFAULT,
        }
    }
}

impl Upkeep {
    pub(super) fn read(&mut self, config: &mut Object<'_>) -> Result<()> {
        let unit = config.take("retentionTimeUnit").filter(|n| !n.is_blank());
        let value = config.take("retentionTimeValue").filter(|n| !n.is_blank());
        if let Some(value) = value {
            let unit_ms = match &unit {
                None => DAY_MS,
                Some(unit) => match unit.word()?.as_str() {
                    "DAYS" => DAY_MS,
                    "HOURS" => 3_600_000,
                    "MINUTES" => 60_000,
                    "SECONDS" => 1_000,
                    "MILLISECONDS" => 1,
                    _ => {
                        return Err(
                            unit.wrong("expected DAYS, HOURS, MINUTES, SECONDS or MILLISECONDS")
                        );
                    }
                },
            };
            let units = value.scalar_text()?.trim().parse::<u64>().ok();
            let total = units
                .filter(|n| *n > 0)
                .and_then(|n| n.checked_mul(unit_ms));
            let total = total.filter(|ms| i64::try_from(*ms).is_ok());
            self.retention_ms =
                Some(total.ok_or_else(|| value.wrong("expected a whole number above zero"))?);
        }
        if let Some(node) = config.take("deletedSegmentsRetentionPeriod") {
            let text = node.scalar_text()?;
            let is_zero = text.trim().trim_end_matches(char::is_alphabetic).parse() == Ok(0_u64);
            self.kept_ms = if is_zero { 0 } else { period_ms(&node)? };
        }
        Ok(())
    }
}

/// Reads the tables' tasks, of which the one that takes over is run.
pub(super) fn read_tasks(
    root: &mut Object<'_>,
    half: Half,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<TakeOver>> {
    let Some(node) = root.take("task").filter(|n| !n.is_blank()) else {
        return Ok(None);
    };
    let mut task = node.object()?;
    let Some(tasks) = task.take("taskTypeConfigsMap") else {
        task.finish(warnings);
        return Ok(None);
    };
    task.finish(warnings);
    let mut take_over = None;
    for (name, config) in tasks.object()?.take_rest() {
        match name {
            TAKE_OVER if half == Half::Realtime => {
                take_over = Some(read_take_over(&config, warnings)?);
            }
            TAKE_OVER => warnings.push(
                config.warning("this task is one of the REALTIME half; it has no effect here"),
            ),
            "MergeRollupTask" => {
                warnings.push(config.warning(
                    "small segments are merged by the database, and rows are not rolled up",
                ))
            }
            _ => warnings.push(config.warning("this task is not run")),
        }
    }
    Ok(take_over)
}

fn read_take_over(node: &Node<'_>, warnings: &mut Vec<ConfigWarning>) -> Result<TakeOver> {
    let mut config = node.object()?;
    let mut period = |key: &str, otherwise| match config.take(key) {
        Some(node) => period_ms(&node)
            .and_then(|ms| i64::try_from(ms).map_err(|_| node.wrong("this is too long"))),
        None => Ok(otherwise as i64),
    };
    let take_over = TakeOver {
        period_ms: period("bucketTimePeriod", PERIOD_DEFAULT_MS)?,
        buffer_ms: period("bufferTimePeriod", BUFFER_DEFAULT_MS)?,
    };
    if let Some(merge) = config.take("mergeType")
        && merge.word()? != "CONCAT"
    {
        return Err(
            merge.unsupported("to roll up or deduplicate rows as they are taken over; use concat")
        );
    }
    for (name, node) in config.take_rest() {
        let message = match name {
            "roundBucketTimePeriod" => {
                return Err(node.unsupported("to round times as rows are taken over"));
            }
            "maxNumRecordsPerTask" | "maxNumRecordsPerSegment" => {
                "segments are cut by the database"
            }
            "schedule" | "tableMaxNumTasks" => "a period is taken over when its time has come",
            _ => "not known; it has no effect",
        };
        warnings.push(node.warning(message));
    }
    Ok(take_over)
}
