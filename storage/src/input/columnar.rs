//! Batches of a columnar file to batches of the table: column by column where the type is the table's own,
//! value by value where it is not, row by row only for columns that a transform fills.

use super::arrow_cells::Cells;
use crate::config::TableConfig;
use crate::convert::column::ColumnBuffer;
use crate::convert::row::TimeCheck;
use crate::convert::{Cell, RowError, RowLayout};
use crate::transform::BoundTransforms;
use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::{cast, filter};
use arrow::datatypes::{DataType as ArrowType, Schema as ArrowSchema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use std::sync::Arc;
use strandline_proto::schema::{Column, DataType, Schema};
use strandline_proto::{Error, Result};

pub(super) struct Columnar {
    schema: Arc<Schema>,
    /// By column of the schema: whether its segments take keyed text.
    keyed_text: Vec<bool>,
    arrow: SchemaRef,
    layout: RowLayout,
    transforms: BoundTransforms,
    /// The cells that transforms and the filter read or fill.
    by_row: Vec<usize>,
    time: Option<TimeCheck>,
}

/// A row of the batch that was refused, and why.
pub(super) type Refused = (usize, RowError);

impl Columnar {
    pub(super) fn new(config: &TableConfig, layout: RowLayout) -> Result<Self> {
        let schema = Arc::clone(&config.spec.schema);
        let transforms = config.transforms.bind(|name| layout.place(name))?;
        let keyed_text = (schema.columns.iter()).map(|c| config.spec.takes_keyed_text(c));
        Ok(Self {
            keyed_text: keyed_text.collect(),
            arrow: schema.arrow(),
            by_row: transforms.cells(),
            transforms,
            time: config
                .time_column
                .as_deref()
                .map(|name| TimeCheck::new(&schema, name))
                .transpose()?,
            schema,
            layout,
        })
    }

    pub(super) fn layout(&self) -> &RowLayout {
        &self.layout
    }

    /// Whether a field of the layout may come as a dictionary array of texts.
    pub(super) fn takes_keyed_text(&self, slot: usize) -> bool {
        !self.by_row.contains(&slot)
            && self.time.as_ref().is_none_or(|time| time.column() != slot)
            && self.keyed_text.get(slot).copied().unwrap_or(false)
    }

    /// Converts `rows` rows; `arrays` holds the file's array for each field of the layout that it has. Rows that the filter
    /// leaves out are in no way converted.
    pub(super) fn convert(
        &self,
        arrays: &[Option<&ArrayRef>],
        rows: usize,
    ) -> Result<RecordBatch, Refused> {
        if !self.transforms.has_filter() {
            return self.convert_all(arrays, rows);
        }
        let kept = self.kept(arrays, rows)?;
        let numbers: Vec<usize> = (0..rows).filter(|row| kept.value(*row)).collect();
        if numbers.len() == rows {
            return self.convert_all(arrays, rows);
        }
        let mut left = Vec::with_capacity(arrays.len());
        for array in arrays {
            let array = array.map(|array| filter(array, &kept)).transpose();
            left.push(array.map_err(|e| whole(format!("the filter can't be applied: {e}")))?);
        }
        let left: Vec<Option<&ArrayRef>> = left.iter().map(Option::as_ref).collect();
        self.convert_all(&left, numbers.len())
            .map_err(|(row, error)| (numbers.get(row).copied().unwrap_or(row), error))
    }

    /// Which rows the filter does not leave out.
    fn kept(&self, arrays: &[Option<&ArrayRef>], rows: usize) -> Result<BooleanArray, Refused> {
        let sources = self.sources(arrays)?;
        let mut cells = vec![Cell::Null; self.layout.width()];
        let mut kept = Vec::with_capacity(rows);
        for row in 0..rows {
            self.read_row(&sources, row, &mut cells)?;
            let left_out = self.transforms.leaves_out(&cells);
            kept.push(!left_out.map_err(|reason| (row, whole(reason).1))?);
        }
        Ok(BooleanArray::from(kept))
    }

    fn convert_all(
        &self,
        arrays: &[Option<&ArrayRef>],
        rows: usize,
    ) -> Result<RecordBatch, Refused> {
        let mut filled = self.fill(arrays, rows)?;
        let mut columns = Vec::with_capacity(self.schema.columns.len());
        for (slot, column) in self.schema.columns.iter().enumerate() {
            let refused = |(row, reason)| {
                (
                    row,
                    RowError {
                        column: column.name.clone(),
                        reason,
                    },
                )
            };
            let array = match (
                filled.iter().position(|(s, _)| *s == slot),
                arrays.get(slot).copied().flatten(),
            ) {
                (Some(at), _) => filled.swap_remove(at).1,
                (None, Some(array)) => convert_column(column, array).map_err(refused)?,
                (None, None) => absent_column(column, rows).map_err(refused)?,
            };
            if let Some(time) = self.time.as_ref().filter(|time| time.column() == slot) {
                time.check_array(&array).map_err(refused)?;
            }
            columns.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = schema_of(&self.arrow, &columns);
        RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|e| whole(format!("the columns make no batch: {e}")))
    }

    /// What transforms and the filter read of the file.
    fn sources<'a>(
        &self,
        arrays: &[Option<&'a ArrayRef>],
    ) -> Result<Vec<(usize, Cells<'a>)>, Refused> {
        let mut sources = Vec::with_capacity(self.by_row.len());
        for slot in &self.by_row {
            if let Some(array) = arrays.get(*slot).copied().flatten() {
                let cells = Cells::new(array).map_err(|reason| {
                    let column = self.name(*slot);
                    (0, RowError { column, reason })
                })?;
                sources.push((*slot, cells));
            }
        }
        Ok(sources)
    }

    /// One row's cells, transforms applied.
    fn read_row<'a>(
        &self,
        sources: &[(usize, Cells<'a>)],
        row: usize,
        cells: &mut [Cell<'a>],
    ) -> Result<(), Refused> {
        cells.fill(Cell::Null);
        for (slot, source) in sources {
            if let Some(cell) = cells.get_mut(*slot) {
                *cell = source.get(row);
            }
        }
        for transform in self.transforms.columns() {
            transform.apply(cells).map_err(|reason| {
                let column = transform.column().to_owned();
                (row, RowError { column, reason })
            })?;
        }
        Ok(())
    }

    fn name(&self, slot: usize) -> String {
        self.layout.names().get(slot).cloned().unwrap_or_default()
    }

    /// The columns that transforms fill, by their place in the schema.
    fn fill(
        &self,
        arrays: &[Option<&ArrayRef>],
        rows: usize,
    ) -> Result<Vec<(usize, ArrayRef)>, Refused> {
        let mut buffers: Vec<(usize, ColumnBuffer)> = Vec::new();
        for transform in self.transforms.columns() {
            let complete = arrays
                .get(transform.target())
                .copied()
                .flatten()
                .is_some_and(|array| array.null_count() == 0);
            if !complete && let Some(column) = self.schema.columns.get(transform.target()) {
                buffers.push((transform.target(), ColumnBuffer::new(column)));
            }
        }
        if buffers.is_empty() {
            return Ok(Vec::new());
        }
        let sources = self.sources(arrays)?;
        let mut cells = vec![Cell::Null; self.layout.width()];
        for row in 0..rows {
            self.read_row(&sources, row, &mut cells)?;
            for (slot, buffer) in &mut buffers {
                let cell = cells.get(*slot).unwrap_or(&Cell::Null);
                buffer.push(cell).map_err(|reason| {
                    let column = self.name(*slot);
                    (row, RowError { column, reason })
                })?;
            }
        }
        let finish = |(slot, mut buffer): (usize, ColumnBuffer)| {
            let array = buffer.finish().map_err(|e: Error| {
                let (column, reason) = (self.name(slot), e.message().to_owned());
                (0, RowError { column, reason })
            })?;
            Ok((slot, array))
        };
        buffers.into_iter().map(finish).collect()
    }
}

/// What is wrong with no one column.
fn whole(reason: String) -> Refused {
    let column = String::new();
    (0, RowError { column, reason })
}

/// The table's schema, with the types of `columns` where text is keyed.
fn schema_of(arrow: &SchemaRef, columns: &[ArrayRef]) -> SchemaRef {
    let is_keyed = |array: &ArrayRef| matches!(array.data_type(), ArrowType::Dictionary(..));
    if !columns.iter().any(is_keyed) {
        return Arc::clone(arrow);
    }
    let fields = arrow
        .fields()
        .iter()
        .zip(columns)
        .map(|(field, array)| match is_keyed(array) {
            true => Arc::new(
                field
                    .as_ref()
                    .clone()
                    .with_data_type(array.data_type().clone()),
            ),
            false => Arc::clone(field),
        });
    Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>()))
}

/// Whether the file's array is the table's as it stands, text perhaps keyed.
fn is_ready(column: &Column, array: &ArrayRef) -> bool {
    // Text must be looked into to be JSON, and times to be within their years.
    let opaque = !matches!(column.data_type, DataType::Json | DataType::Timestamp);
    let nulls_stay =
        array.logical_null_count() == 0 || (column.default.is_null() && !column.not_null);
    let values = match array.data_type() {
        ArrowType::Dictionary(_, values) => values.as_ref(),
        plain => plain,
    };
    opaque && nulls_stay && values == &column.arrow_type()
}

fn convert_column(column: &Column, array: &ArrayRef) -> Result<ArrayRef, (usize, String)> {
    if is_ready(column, array) {
        return Ok(Arc::clone(array));
    }
    if let ArrowType::Dictionary(_, values) = array.data_type() {
        let plain = cast(array, values).map_err(|e| (0, e.to_string()))?;
        return convert_column(column, &plain);
    }
    let cells = Cells::new(array).map_err(|reason| (0, reason))?;
    let mut buffer = ColumnBuffer::new(column);
    for row in 0..array.len() {
        buffer
            .push(&cells.get(row))
            .map_err(|reason| (row, reason))?;
    }
    buffer.finish().map_err(|e| (0, e.message().to_owned()))
}

fn absent_column(column: &Column, rows: usize) -> Result<ArrayRef, (usize, String)> {
    let mut buffer = ColumnBuffer::new(column);
    for row in 0..rows {
        buffer.push(&Cell::Null).map_err(|reason| (row, reason))?;
    }
    buffer.finish().map_err(|e| (0, e.message().to_owned()))
}
