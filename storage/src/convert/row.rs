//! Rows of cells into record batches of the table's Arrow schema.

use super::cell::Cell;
use super::column::{ColumnBuffer, Last};
use crate::config::TableConfig;
use crate::transform::{BoundTransforms, FieldPlace, Transforms};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType as ArrowType, Int32Type, Int64Type, SchemaRef, TimestampMillisecondType,
};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use strandline_proto::schema::{ColumnRole, DataType, Schema};
use strandline_proto::time_format::pattern::TimePattern;
use strandline_proto::time_format::{TIME_MS_MAX, TIME_MS_MIN, TimeFormat};
use strandline_proto::{Error, Result};

/// Which input field goes to which cell of a row: first the schema's columns in order, then the fields that only
/// transforms and the filter read.
#[derive(Clone, Debug)]
pub struct RowLayout {
    names: Vec<String>,
    /// Of the columns: their type, of those with single values.
    types: Vec<Option<DataType>>,
    index: HashMap<String, usize>,
}

impl RowLayout {
    /// The layout for a schema and its transforms.
    pub fn new(schema: &Schema, transforms: &Transforms) -> Self {
        let mut names: Vec<String> = schema.columns.iter().map(|c| c.name.clone()).collect();
        let types = (schema.columns.iter())
            .map(|c| (!c.multi_value).then_some(c.data_type))
            .collect();
        for source in transforms.sources() {
            if !names.iter().any(|name| name == source) {
                names.push(source.to_owned());
            }
        }
        let index = names
            .iter()
            .enumerate()
            .map(|(slot, name)| (name.clone(), slot))
            .collect();
        Self {
            names,
            types,
            index,
        }
    }

    /// Cells of a row.
    pub fn width(&self) -> usize {
        self.names.len()
    }

    /// How many of the cells are the schema's columns.
    pub fn columns(&self) -> usize {
        self.types.len()
    }

    /// The cell of a field that an expression reads, with the type that its value is to have.
    pub fn place(&self, name: &str) -> Option<FieldPlace> {
        let slot = self.slot(name)?;
        Some(FieldPlace {
            slot,
            data_type: self.types.get(slot).copied().flatten(),
        })
    }

    /// The cell that the input field `name` goes to; none when nothing needs it.
    pub fn slot(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Whether the cell is a column's of several values.
    pub fn is_multi_value(&self, slot: usize) -> bool {
        self.types.get(slot).is_some_and(Option::is_none)
    }

    /// The input fields' names, cell by cell.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// Why a row was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// The column; empty when it is about the whole row.
    pub column: String,
    /// The reason, with the value.
    pub reason: String,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.column.is_empty() {
            return f.write_str(&self.reason);
        }
        write!(f, "column {}: {}", self.column, self.reason)
    }
}

/// What the time column's value must be.
#[derive(Debug)]
pub(crate) struct TimeCheck {
    column: usize,
    format: TimeRule,
}

#[derive(Debug)]
enum TimeRule {
    /// Numbers in this range are in the years 1 to 9999.
    Numbers { min: i64, max: i64 },
    /// Text, or a number's digits, in a pattern.
    Pattern { pattern: TimePattern, shown: String },
}

impl TimeCheck {
    pub(crate) fn new(schema: &Schema, time_column: &str) -> Result<Self> {
        let Some(column) = schema.columns.iter().position(|c| c.name == time_column) else {
            return Err(Error::invalid(format!(
                "the time column {time_column} is not in the schema {}",
                schema.name
            )));
        };
        let data_type = schema.columns.get(column).map(|c| (c.data_type, &c.role));
        let format = match data_type {
            Some((DataType::Timestamp, _)) => TimeRule::Numbers {
                min: TIME_MS_MIN,
                max: TIME_MS_MAX,
            },
            Some((
                _,
                ColumnRole::DateTime {
                    format: TimeFormat::Epoch { size, unit },
                    ..
                },
            )) => {
                let step = i64::from(*size) * unit.millis();
                TimeRule::Numbers {
                    min: TIME_MS_MIN.div_euclid(step) + 1,
                    max: TIME_MS_MAX.div_euclid(step),
                }
            }
            Some((
                _,
                ColumnRole::DateTime {
                    format: TimeFormat::Timestamp,
                    ..
                },
            )) => TimeRule::Numbers {
                min: TIME_MS_MIN,
                max: TIME_MS_MAX,
            },
            Some((
                _,
                ColumnRole::DateTime {
                    format: TimeFormat::SimpleDate { pattern, .. },
                    ..
                },
            )) => TimeRule::Pattern {
                pattern: TimePattern::compile(pattern)?,
                shown: pattern.clone(),
            },
            _ => {
                return Err(Error::invalid(format!(
                    "the time column {time_column} is not among the schema's dateTimeFieldSpecs"
                )));
            }
        };
        Ok(Self { column, format })
    }

    /// The time column's place in the schema.
    pub(crate) fn column(&self) -> usize {
        self.column
    }

    /// Checks a whole array of the column's Arrow type; an error comes with its row.
    pub(crate) fn check_array(&self, array: &ArrayRef) -> Result<(), (usize, String)> {
        let number = |row: usize| match array.data_type() {
            ArrowType::Int32 => {
                Last::Number(i64::from(array.as_primitive::<Int32Type>().value(row)))
            }
            ArrowType::Int64 => Last::Number(array.as_primitive::<Int64Type>().value(row)),
            ArrowType::Timestamp(..) => {
                Last::Number(array.as_primitive::<TimestampMillisecondType>().value(row))
            }
            ArrowType::Utf8 => Last::Text(array.as_string::<i32>().value(row)),
            _ => Last::Null,
        };
        (0..array.len()).try_for_each(|row| {
            let value = if array.is_null(row) {
                Last::Null
            } else {
                number(row)
            };
            self.check(&value).map_err(|reason| (row, reason))
        })
    }

    fn check(&self, last: &Last<'_>) -> Result<(), String> {
        match (last, &self.format) {
            (Last::Null, _) => Err(
                "the time is null; a table with a time column needs one in every row".to_owned(),
            ),
            (Last::Number(v), TimeRule::Numbers { min, max }) if (min..=max).contains(&v) => Ok(()),
            (Last::Number(v), TimeRule::Numbers { .. }) => {
                Err(format!("the time {v} is outside the years 1 to 9999"))
            }
            (Last::Number(v), TimeRule::Pattern { pattern, .. })
                if pattern.parse_number(*v).is_some() =>
            {
                Ok(())
            }
            (Last::Text(v), TimeRule::Pattern { pattern, .. }) if pattern.parse(v).is_some() => {
                Ok(())
            }
            (Last::Text(v), TimeRule::Numbers { min, max })
                if v.parse().is_ok_and(|v: i64| (*min..=*max).contains(&v)) =>
            {
                Ok(())
            }
            (Last::Number(v), TimeRule::Pattern { shown, .. }) => {
                Err(format!("the time {v} is no date of the pattern {shown}"))
            }
            (Last::Text(v), TimeRule::Pattern { shown, .. }) => Err(format!(
                "the time {} is no date of the pattern {shown}",
                Cell::Text((*v).into())
            )),
            (Last::Text(v), TimeRule::Numbers { .. }) => Err(format!(
                "the time {} is outside the years 1 to 9999",
                Cell::Text((*v).into())
            )),
        }
    }
}

/// A place in a builder to go back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    rows: usize,
    filtered: u64,
    bytes: usize,
}

impl Mark {
    /// Bytes that the builder held.
    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }
}

/// Collects rows until [`RowBuilder::finish`] makes a batch of them.
pub struct RowBuilder {
    arrow: SchemaRef,
    names: Vec<String>,
    columns: Vec<ColumnBuffer>,
    transforms: BoundTransforms,
    time: Option<TimeCheck>,
    rows: usize,
    filtered: u64,
}

impl RowBuilder {
    /// A table's layout, and a builder of rows in it.
    pub(crate) fn of_table(config: &TableConfig) -> Result<(RowLayout, Self)> {
        let schema = &config.spec.schema;
        let layout = RowLayout::new(schema, &config.transforms);
        let time_column = config.time_column.as_deref();
        let builder = Self::new(schema, &config.transforms, &layout, time_column)?;
        Ok((layout, builder))
    }

    /// A builder of rows in `layout`, which must be of the same schema and transforms. With a time column, a row's
    /// time must be there and lie in the years 1 to 9999.
    pub fn new(
        schema: &Schema,
        transforms: &Transforms,
        layout: &RowLayout,
        time_column: Option<&str>,
    ) -> Result<Self> {
        let time = time_column
            .map(|name| TimeCheck::new(schema, name))
            .transpose()?;
        Ok(Self {
            arrow: schema.arrow(),
            names: schema.columns.iter().map(|c| c.name.clone()).collect(),
            columns: schema.columns.iter().map(ColumnBuffer::new).collect(),
            transforms: transforms.bind(|name| layout.place(name))?,
            time,
            rows: 0,
            filtered: 0,
        })
    }

    /// The Arrow schema of the batches.
    pub fn arrow(&self) -> SchemaRef {
        Arc::clone(&self.arrow)
    }

    /// Rows since the last batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of these rows, roughly.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(ColumnBuffer::bytes).sum()
    }

    /// Rows left out by the filter, from the beginning on.
    pub fn filtered(&self) -> u64 {
        self.filtered
    }

    /// Whether a row may take far more bytes than its source had.
    pub(crate) fn may_swell(&self) -> bool {
        !self.transforms.columns().is_empty()
    }

    /// Where the builder is now.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            rows: self.rows,
            filtered: self.filtered,
            bytes: self.bytes(),
        }
    }

    /// Forgets what came since `mark`, within one batch.
    pub(crate) fn cut_back(&mut self, mark: Mark) {
        for column in &mut self.columns {
            column.truncate(mark.rows);
        }
        self.rows = mark.rows;
        self.filtered = mark.filtered;
    }

    /// Appends a row of cells in the layout, unless the filter leaves it out; fields that were absent are null. After an
    /// error the builder holds what it held before.
    pub fn push(&mut self, cells: &mut [Cell<'_>]) -> Result<(), RowError> {
        for transform in self.transforms.columns() {
            transform.apply(cells).map_err(|reason| RowError {
                column: transform.column().to_owned(),
                reason,
            })?;
        }
        let left_out = self.transforms.leaves_out(cells);
        if left_out.map_err(|reason| RowError {
            column: String::new(),
            reason,
        })? {
            self.filtered += 1;
            return Ok(());
        }
        let mut failed = None;
        for (at, (column, cell)) in self.columns.iter_mut().zip(cells.iter()).enumerate() {
            if let Err(reason) = column.push(cell) {
                failed = Some((at, reason));
                break;
            }
        }
        if failed.is_none()
            && let Some(time) = &self.time
            && let Some(column) = self.columns.get(time.column)
        {
            failed = time
                .check(&column.last())
                .err()
                .map(|reason| (time.column, reason));
        }
        if let Some((at, reason)) = failed {
            for column in &mut self.columns {
                column.truncate(self.rows);
            }
            return Err(RowError {
                column: self.names.get(at).cloned().unwrap_or_default(),
                reason,
            });
        }
        self.rows += 1;
        Ok(())
    }

    /// Appends a row whose values `fill` appends to the columns by itself, at most one to each, where neither transforms nor a
    /// filter look at cells. False, and the builder holds what it held before, where they do, where `fill` says so, or where the
    /// row is none: [`Self::push`] then says why.
    #[inline]
    pub(crate) fn push_filled(&mut self, fill: impl FnOnce(&mut [ColumnBuffer]) -> bool) -> bool {
        if !self.transforms.columns().is_empty() || self.transforms.has_filter() {
            return false;
        }
        let rows = self.rows;
        let is_whole = fill(&mut self.columns)
            && (self.columns.iter_mut())
                .all(|column| column.rows() > rows || column.push_default().is_ok())
            && self.has_time();
        match is_whole {
            true => self.rows += 1,
            false => self.columns.iter_mut().for_each(|c| c.truncate(rows)),
        }
        is_whole
    }

    /// Whether the row that was appended last has a time, where it needs one.
    fn has_time(&self) -> bool {
        self.time.as_ref().is_none_or(|time| {
            let column = self.columns.get(time.column);
            column.is_none_or(|column| time.check(&column.last()).is_ok())
        })
    }

    /// The rows as a batch; the builder is empty again.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let arrays = self
            .columns
            .iter_mut()
            .map(ColumnBuffer::finish)
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        RecordBatch::try_new_with_options(Arc::clone(&self.arrow), arrays, &options)
            .map_err(|e| Error::internal(format!("the rows make no batch: {e}")))
    }
}
