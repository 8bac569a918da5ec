//! The minutes of the events that rows are of, for counting: by their time column, without an allocation a row.

use super::SegmentReader;
use super::merge::column_or_default;
use crate::meta::IngestCounts;
use crate::meta::minutes::{MinuteCounts, SPANS_MS};
use ::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use ::arrow::datatypes::{DataType as ArrowType, Int32Type, Int64Type, TimestampMillisecondType};
use std::collections::BTreeMap;
use std::ops::Range;
use strandline_index::{CHUNK_DOCS, DocSelection};
use strandline_proto::Result;
use strandline_proto::coverage::Interval;
use strandline_proto::schema::{Column, ColumnRole, Schema};
use strandline_proto::time_format::TimeFormat;
use strandline_proto::value::Value;

const MINUTE_MS: i64 = SPANS_MS[0];

/// Where rows say when their events were.
#[derive(Clone, Debug)]
pub struct EventTime {
    column: Column,
    format: TimeFormat,
}

/// Rows by the first instant of their minute, in milliseconds since the epoch; by none, those without a time.
pub type RowsByMinute = BTreeMap<Option<i64>, u64>;

impl EventTime {
    /// The event time of a schema's rows; none without a time column.
    pub fn of(schema: &Schema, time_column: Option<&str>) -> Option<Self> {
        let column = schema.column(time_column?)?;
        let ColumnRole::DateTime { format, .. } = &column.role else {
            return None;
        };
        Some(Self {
            column: column.clone(),
            format: format.clone(),
        })
    }

    /// The time column.
    pub fn column(&self) -> &Column {
        &self.column
    }

    /// How it writes instants.
    pub fn format(&self) -> &TimeFormat {
        &self.format
    }

    /// Calls `run` with the minute of each run of rows of one minute.
    pub fn runs(&self, times: &dyn Array, run: impl FnMut(Option<i64>, Range<usize>)) {
        let rows = times.len();
        let step_ms = match &self.format {
            TimeFormat::Epoch { size, unit } => Some(i64::from(*size) * unit.millis()),
            TimeFormat::Timestamp => Some(1),
            TimeFormat::SimpleDate { .. } => None,
        };
        let valid = |row: usize| times.is_valid(row);
        match (times.data_type(), step_ms) {
            (ArrowType::Timestamp(..), _) => {
                match times.as_primitive_opt::<TimestampMillisecondType>() {
                    Some(times) => {
                        let values = times.values();
                        runs(
                            rows,
                            |row| values.get(row).copied().filter(|_| valid(row)),
                            run,
                        );
                    }
                    None => runs(rows, |_| None, run),
                }
            }
            (ArrowType::Int64, Some(step_ms)) => {
                let values = times.as_primitive::<Int64Type>().values();
                let ms = |row: usize| values.get(row)?.checked_mul(step_ms);
                runs(rows, |row| ms(row).filter(|_| valid(row)), run);
            }
            (ArrowType::Int32, Some(step_ms)) => {
                let values = times.as_primitive::<Int32Type>().values();
                let ms = |row: usize| i64::from(*values.get(row)?).checked_mul(step_ms);
                runs(rows, |row| ms(row).filter(|_| valid(row)), run);
            }
            _ => {
                // Rows beside each other often have one date.
                let mut last: Option<(usize, Option<i64>)> = None;
                let ms = |row: usize| {
                    let ms = match last {
                        Some((before, ms)) if is_same(times, before, row) => ms,
                        _ => self.format.to_ms(&value(times, row)),
                    };
                    last = Some((row, ms));
                    ms
                };
                runs(rows, ms, run);
            }
        }
    }

    /// Which rows have times of an interval; those without a time have not.
    pub fn within(&self, times: &dyn Array, interval: Interval) -> BooleanArray {
        let mut within = Vec::with_capacity(times.len());
        let is_within = |ms: i64| interval.start_ms <= ms && ms < interval.end_ms;
        self.runs(times, |minute, run| {
            let whole = minute.map_or(Some(false), |first| {
                let last = first.saturating_add(MINUTE_MS - 1);
                match (is_within(first), is_within(last)) {
                    (true, true) => Some(true),
                    (false, false) if last < interval.start_ms || interval.end_ms <= first => {
                        Some(false)
                    }
                    _ => None,
                }
            });
            match whole {
                Some(whole) => within.extend(std::iter::repeat_n(whole, run.len())),
                None => within.extend(run.map(|row| {
                    let ms = self.format.to_ms(&value(times, row));
                    ms.is_some_and(is_within)
                })),
            }
        });
        BooleanArray::from(within)
    }

    /// The rows of a segment by their minutes.
    ///
    /// # Errors
    /// `DataLoss` when reading meets damage, `FailedPrecondition` where the column is of another type.
    pub fn of_segment(&self, segment: &dyn SegmentReader) -> Result<RowsByMinute> {
        let mut rows = RowsByMinute::new();
        for chunk in 0..segment.num_docs().div_ceil(CHUNK_DOCS) {
            let start = chunk * CHUNK_DOCS;
            let end = segment.num_docs().min(start.saturating_add(CHUNK_DOCS));
            let times = column_or_default(segment, &self.column, DocSelection::Range(start..end))?;
            self.runs(&times, |minute, run| {
                *rows.entry(minute).or_default() += run.len() as u64;
            });
        }
        Ok(rows)
    }
}

/// What became of a batch's rows: each is `indexed`, or `deduplicated` where `kept` leaves it out. A message is `read` at the
/// minute of its first row; further rows are `unnested`.
///
/// `offsets`: of each row; rows of one message are beside each other.
pub fn count_rows(
    time: Option<&EventTime>,
    batch: &RecordBatch,
    offsets: &[u64],
    kept: Option<&BooleanArray>,
) -> MinuteCounts {
    let mut counts = MinuteCounts::default();
    let count = |minute: Option<i64>, run: Range<usize>| {
        let rows = run.len() as u64;
        let is_first = |row: &usize| match row.checked_sub(1) {
            Some(before) => offsets.get(before) != offsets.get(*row),
            None => true,
        };
        let read = run.clone().filter(is_first).count() as u64;
        let indexed = match kept {
            Some(kept) => run.filter(|row| kept.value(*row)).count() as u64,
            None => rows,
        };
        let of_run = IngestCounts {
            read,
            unnested: rows - read,
            indexed,
            deduplicated: rows - indexed,
            ..IngestCounts::default()
        };
        counts.add(minute, of_run);
    };
    let times = time.and_then(|time| Some((time, batch.column_by_name(&time.column.name)?)));
    match times {
        Some((time, times)) => time.runs(times, count),
        None => runs(batch.num_rows(), |_| None, count),
    }
    counts
}

/// Finds the runs of rows of one minute.
fn runs(
    rows: usize,
    mut ms: impl FnMut(usize) -> Option<i64>,
    mut run: impl FnMut(Option<i64>, Range<usize>),
) {
    let (mut start, mut minute) = (0, None);
    for row in 0..rows {
        let ms = ms(row);
        let is_same = match (ms, minute) {
            (Some(ms), Some(minute)) => (0..MINUTE_MS).contains(&ms.wrapping_sub(minute)),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            if start < row {
                run(minute, start..row);
            }
            start = row;
            minute = ms.map(|ms| ms.saturating_sub(ms.rem_euclid(MINUTE_MS)));
        }
    }
    if start < rows {
        run(minute, start..rows);
    }
}

/// A time as the format reads it.
fn value(times: &dyn Array, row: usize) -> Value {
    if times.is_null(row) {
        return Value::Null;
    }
    match times.data_type() {
        ArrowType::Utf8 => Value::String(times.as_string::<i32>().value(row).to_owned()),
        ArrowType::Int64 => Value::Long(times.as_primitive::<Int64Type>().value(row)),
        ArrowType::Int32 => Value::Int(times.as_primitive::<Int32Type>().value(row)),
        ArrowType::Timestamp(..) => match times.as_primitive_opt::<TimestampMillisecondType>() {
            Some(times) => Value::Timestamp(times.value(row)),
            None => Value::Null,
        },
        _ => Value::Null,
    }
}

fn is_same(times: &dyn Array, row: usize, other: usize) -> bool {
    if times.is_null(row) || times.is_null(other) {
        return false;
    }
    match times.data_type() {
        ArrowType::Utf8 => {
            let texts = times.as_string::<i32>();
            texts.value(row) == texts.value(other)
        }
        ArrowType::Int64 => {
            let numbers = times.as_primitive::<Int64Type>();
            numbers.value(row) == numbers.value(other)
        }
        ArrowType::Int32 => {
            let numbers = times.as_primitive::<Int32Type>();
            numbers.value(row) == numbers.value(other)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};
    use ::arrow::datatypes::{Field, Schema as ArrowSchema};
    use std::sync::Arc;
    use strandline_proto::schema::DataType;

    fn time(format: &str, data_type: DataType) -> EventTime {
        let column = Column {
            role: ColumnRole::DateTime {
                format: TimeFormat::parse(format).unwrap(),
                granularity: "1:MINUTES".to_owned(),
            },
            ..Column::dimension("time", data_type)
        };
        let schema = Schema {
            name: "t".to_owned(),
            version: 1,
            columns: vec![column],
            primary_key: Vec::new(),
        };
        EventTime::of(&schema, Some("time")).unwrap()
    }

    fn runs_of(time: &EventTime, times: &dyn Array) -> Vec<(Option<i64>, Range<usize>)> {
        let mut runs = Vec::new();
        time.runs(times, |minute, run| {
            runs.push((minute.map(|ms| ms / 60_000), run));
        });
        runs
    }

    #[test]
    fn runs_are_of_the_minutes_that_columns_write() {
        let millis = time("1:MILLISECONDS:EPOCH", DataType::Long);
        let times = Int64Array::from(vec![
            Some(0),
            Some(59_999),
            Some(60_000),
            None,
            Some(-1),
            Some(-60_000),
        ]);
        let expected = [
            (Some(0), 0..2),
            (Some(1), 2..3),
            (None, 3..4),
            (Some(-1), 4..6),
        ];
        assert_eq!(runs_of(&millis, &times), expected);
        let stamps: TimestampMillisecondArray = times.iter().collect();
        let stamp = time("TIMESTAMP", DataType::Timestamp);
        assert_eq!(runs_of(&stamp, &stamps), expected);
        let seconds = time("EPOCH|SECONDS|10", DataType::Long);
        let times = Int64Array::from(vec![5, 6, 6, -1]);
        let expected = [(Some(0), 0..1), (Some(1), 1..3), (Some(-1), 3..4)];
        assert_eq!(runs_of(&seconds, &times), expected);
        let days = time("SIMPLE_DATE_FORMAT|yyyy-MM-dd", DataType::String);
        let times = StringArray::from(vec!["1970-01-01", "1970-01-01", "1970-01-02", "?"]);
        let expected = [(Some(0), 0..2), (Some(1_440), 2..3), (None, 3..4)];
        assert_eq!(runs_of(&days, &times), expected);
    }

    #[test]
    fn rows_of_an_interval_are_told_to_the_millisecond() {
        let instants = [
            Some(0),
            Some(59_999),
            Some(60_000),
            None,
            Some(-1),
            Some(-60_001),
            Some(120_000),
        ];
        let millis = time("1:MILLISECONDS:EPOCH", DataType::Long);
        let stamp = time("TIMESTAMP", DataType::Timestamp);
        let longs = Int64Array::from(instants.to_vec());
        let stamps: TimestampMillisecondArray = longs.iter().collect();
        let ends = [
            i64::MIN,
            -60_001,
            -60_000,
            -1,
            0,
            1,
            59_999,
            60_000,
            60_001,
            120_000,
            i64::MAX,
        ];
        for start_ms in ends {
            for end_ms in ends {
                let interval = Interval { start_ms, end_ms };
                let expected: Vec<bool> = instants
                    .iter()
                    .map(|ms| ms.is_some_and(|ms| start_ms <= ms && ms < end_ms))
                    .collect();
                let expected = BooleanArray::from(expected);
                assert_eq!(millis.within(&longs, interval), expected, "{interval:?}");
                assert_eq!(stamp.within(&stamps, interval), expected, "{interval:?}");
            }
        }
        let days = time("SIMPLE_DATE_FORMAT|yyyy-MM-dd", DataType::String);
        let dates = StringArray::from(vec!["1970-01-01", "1970-01-02", "1970-01-03", "?"]);
        let second = Interval {
            start_ms: 86_400_000,
            end_ms: 2 * 86_400_000,
        };
        let expected = BooleanArray::from(vec![false, true, false, false]);
        assert_eq!(days.within(&dates, second), expected);
    }

    #[test]
    fn in_each_minute_what_is_read_becomes_something() {
        let time = time("1:MILLISECONDS:EPOCH", DataType::Long);
        let times: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 60_000, 2, 60_001]));
        let schema = ArrowSchema::new(vec![Field::new("time", ArrowType::Int64, true)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![times]).unwrap();
        // Messages of two rows, of two, and of one, of which one row is left out.
        let offsets = [7, 7, 8, 8, 9];
        let kept = BooleanArray::from(vec![true, false, true, true, true]);
        let counts = count_rows(Some(&time), &batch, &offsets, Some(&kept));
        let of = |ms| {
            let mut buckets = counts.buckets();
            *buckets.find(|(b, _)| b.start_ms == ms).unwrap().1
        };
        let expected = |read, unnested, indexed, deduplicated| IngestCounts {
            read,
            unnested,
            indexed,
            deduplicated,
            ..IngestCounts::default()
        };
        assert_eq!(of(0), expected(1, 2, 2, 1));
        assert_eq!(of(60_000), expected(2, 0, 2, 0));
        assert_eq!(counts.total(), expected(3, 2, 4, 1));
        let timeless = count_rows(None, &batch, &offsets, None);
        assert_eq!(timeless, expected(3, 2, 5, 0).into());
    }
}
