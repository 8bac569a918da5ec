//! One segment as a query reads it: any column of the table by name, whether the segment stores it or not.

use super::column::BoundColumn;
use super::compare::scalar_of;
use super::constant::{Computed, ComputedColumn, ConstantColumn};
use parking_lot::Mutex;
use std::sync::Arc;
use strandline_index::{CHUNK_DOCS, ColumnReader, Scalar};
use strandline_proto::granularity::Granularity;
use strandline_proto::ids::Half;
use strandline_proto::schema::{Column, DataType, Schema, virtual_columns};
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};
use strandline_storage::segment::arrow::physical_type;
use strandline_storage::segment::{SegmentReader, SegmentStarTree};

/// A segment, or a view of a consuming one, within a query.
pub(super) struct SegmentView {
    /// The segment.
    pub(super) reader: Arc<dyn SegmentReader>,
    /// The half it answers for.
    pub(super) half: Half,
    /// Whether it is (part of) a stream tail.
    pub(super) consuming: bool,
    /// The table's columns.
    schema: Arc<Schema>,
    /// Columns that were asked for.
    columns: Mutex<Vec<Arc<BoundColumn>>>,
}

impl SegmentView {
    /// A view of `reader` by a table's schema.
    pub(super) fn new(
        reader: Arc<dyn SegmentReader>,
        half: Half,
        consuming: bool,
        schema: Arc<Schema>,
    ) -> Self {
        Self {
            reader,
            half,
            consuming,
            schema,
            columns: Mutex::new(Vec::new()),
        }
    }

    /// The records of a star-tree of this segment, read by the same schema.
    pub(super) fn records_of(&self, tree: &Arc<SegmentStarTree>) -> Self {
        Self::new(
            Arc::clone(tree) as Arc<dyn SegmentReader>,
            self.half,
            self.consuming,
            Arc::clone(&self.schema),
        )
    }

    /// Adds a column that the schema does not name; its name must be none that a column can have.
    pub(super) fn add_column(
        &self,
        name: String,
        data_type: DataType,
        reader: Arc<dyn ColumnReader>,
    ) -> Arc<BoundColumn> {
        let column = Arc::new(BoundColumn {
            name,
            data_type,
            reader,
        });
        self.columns.lock().push(Arc::clone(&column));
        column
    }

    /// An error when a read of any column came upon damage: what was read must not be used.
    pub(super) fn check_faults(&self) -> Result<()> {
        for column in self.columns.lock().iter() {
            if let Some(fault) = column.reader.fault() {
                return Err(Error::data_loss(format!(
                    "segment {}: column {:?}: {fault}: restore the segment from the deep store",
                    self.reader.name(),
                    column.name
                )));
            }
        }
        Ok(())
    }

    /// Documents.
    pub(super) fn num_docs(&self) -> u32 {
        self.reader.num_docs()
    }

    /// Chunks of documents.
    pub(super) fn num_chunks(&self) -> u32 {
        self.num_docs().div_ceil(CHUNK_DOCS)
    }

    /// Documents of a chunk.
    pub(super) fn chunk_docs(&self, chunk: u32) -> u32 {
        self.num_docs()
            .saturating_sub(chunk.saturating_mul(CHUNK_DOCS))
            .min(CHUNK_DOCS)
    }

    /// A stored or virtual column, or the default of one that the segment lacks.
    pub(super) fn column(&self, name: &str) -> Result<Arc<BoundColumn>> {
        let columns = self.columns.lock();
        if let Some(column) = columns.iter().find(|column| column.name == name) {
            return Ok(Arc::clone(column));
        }
        let (data_type, reader) = match self.schema.column(name) {
            Some(column) => (column.data_type, self.stored(column)?),
            None => self.virtual_column(name)?,
        };
        drop(columns);
        Ok(self.add_column(name.to_owned(), data_type, reader))
    }

    /// Whether a column of a timestamp index is there; what the schema names always is.
    pub(super) fn has(&self, name: &str) -> bool {
        Granularity::of_column(name).is_none() || self.reader.column(name).is_some()
    }

    fn stored(&self, column: &Column) -> Result<Arc<dyn ColumnReader>> {
        let physical = physical_type(column.data_type);
        let Some(reader) = self.reader.column(&column.name) else {
            return Ok(Arc::new(default_column(column, self.num_docs())?));
        };
        if reader.physical() != physical || reader.is_multi_value() != column.multi_value {
            return Err(Error::precondition(format!(
                "segment {}: column {:?} is stored as {:?}{}, the schema says {}{}: load the segment again",
                self.reader.name(),
                column.name,
                reader.physical(),
                if reader.is_multi_value() {
                    " lists"
                } else {
                    ""
                },
                column.data_type.pinot_name(),
                if column.multi_value { " lists" } else { "" },
            )));
        }
        if reader.num_docs() < self.num_docs() {
            return Err(Error::data_loss(format!(
                "segment {}: column {:?} has {} of {} documents: restore the segment from the deep store",
                self.reader.name(),
                column.name,
                reader.num_docs(),
                self.num_docs()
            )));
        }
        Ok(reader)
    }

    fn virtual_column(&self, name: &str) -> Result<(DataType, Arc<dyn ColumnReader>)> {
        if Granularity::of_column(name).is_some()
            && let Some(reader) = self.reader.column(name)
        {
            return Ok((DataType::Timestamp, reader));
        }
        let docs = self.num_docs();
        let origin = self.reader.origin();
        Ok(match name {
            virtual_columns::SEGMENT => {
                let text = self.reader.name().as_bytes().to_vec();
                (
                    DataType::String,
                    Arc::new(ConstantColumn::single(Scalar::Bytes(text.into()), docs)),
                )
            }
            virtual_columns::DOC_ID => (
                DataType::Int,
                Arc::new(ComputedColumn {
                    computed: Computed::DocId,
                    docs,
                }),
            ),
            virtual_columns::PARTITION => {
                let column = match origin {
                    Some((partition, _)) => {
                        let number = i32::try_from(partition.partition).map_err(|_| {
                            Error::internal(format!(
                                "stream partition {partition} has a number beyond INT"
                            ))
                        })?;
                        ConstantColumn::single(Scalar::I32(number), docs)
                    }
                    None => ConstantColumn::null(strandline_index::PhysicalType::I32, false, docs),
                };
                (DataType::Int, Arc::new(column))
            }
            virtual_columns::OFFSET => match origin {
                Some(_) => {
                    let computed = Computed::Offset(Arc::clone(&self.reader));
                    (DataType::Long, Arc::new(ComputedColumn { computed, docs }))
                }
                None => (
                    DataType::Long,
                    Arc::new(ConstantColumn::null(
                        strandline_index::PhysicalType::I64,
                        false,
                        docs,
                    )),
                ),
            },
            _ => {
                return Err(Error::invalid(format!(
                    "table {} has no column {name:?}",
                    self.schema.name
                )));
            }
        })
    }
}

/// The type of a stored or virtual column of a table, and whether it is multi-value.
pub(super) fn column_type(schema: &Schema, name: &str) -> Result<(DataType, bool)> {
    if let Some(column) = schema.column(name) {
        return Ok((column.data_type, column.multi_value));
    }
    if let Some((column, _)) = Granularity::of_column(name)
        && schema
            .column(column)
            .is_some_and(Column::is_single_timestamp)
    {
        return Ok((DataType::Timestamp, false));
    }
    match name {
        virtual_columns::SEGMENT => Ok((DataType::String, false)),
        virtual_columns::DOC_ID | virtual_columns::PARTITION => Ok((DataType::Int, false)),
        virtual_columns::OFFSET => Ok((DataType::Long, false)),
        _ => Err(Error::invalid(format!(
            "table {} has no column {name:?}",
            schema.name
        ))),
    }
}

fn default_column(column: &Column, docs: u32) -> Result<ConstantColumn> {
    let physical = physical_type(column.data_type);
    let scalar = |value: &Value| {
        scalar_of(value, column.data_type)
            .map_err(|e| e.at(format_args!("default of column {:?}", column.name)))
    };
    Ok(match (&column.default, column.multi_value) {
        (Value::Null, multi_value) => ConstantColumn::null(physical, multi_value, docs),
        (value, false) => ConstantColumn::single(scalar(value)?, docs),
        (Value::List(elements), true) => {
            let elements = elements
                .iter()
                .map(|e| {
                    if e.is_null() {
                        Ok(None)
                    } else {
                        scalar(e).map(Some)
                    }
                })
                .collect::<Result<Vec<_>>>()?;
            ConstantColumn::list(physical, &elements, docs)
        }
        (value, true) => ConstantColumn::list(physical, &[Some(scalar(value)?)], docs),
    })
}
