//! Scalar expressions over a segment's rows, evaluated in blocks by DataFusion's own physical expressions.
//!
//! An expression over one single-value dictionary column can be evaluated on the dictionary's values instead; one
//! more slot after them stands for NULL.

use super::column::{BoundColumn, ChunkNulls, with_each};
use super::segment::{SegmentView, column_type};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType as ArrowType, Field, Schema as ArrowSchema, SchemaRef};
use datafusion::physical_plan::PhysicalExpr;
use std::sync::{Arc, OnceLock};
use strandline_broker::leaf_expr::physical_expr;
use strandline_index::{DictId, DocSelection, ValueBuffer};
use strandline_proto::granularity::Granularity;
use strandline_proto::leaf::LeafExpr;
use strandline_proto::schema::Schema;
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};
use strandline_storage::segment::arrow::{arrow_type, values_array};

/// An expression of a query, for all its segments.
#[derive(Debug)]
pub(super) struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    columns: Vec<String>,
    input: SchemaRef,
    /// The type of its values.
    pub(super) data_type: ArrowType,
    /// The column's name when it is nothing but a column.
    pub(super) column: Option<String>,
    /// The same over columns of timestamp indexes, where a segment has them all.
    truncated: Option<Arc<Expression>>,
}

impl Expression {
    /// Prepares `expr` over a table's rows.
    pub(super) fn new(expr: &LeafExpr, schema: &Schema, parameters: &[Value]) -> Result<Self> {
        let mut columns = Vec::new();
        columns_of(expr, &mut columns);
        let mut fields = Vec::with_capacity(columns.len());
        for name in &columns {
            let (data_type, multi_value) = column_type(schema, name)?;
            fields.push(Field::new(name, arrow_type(data_type, multi_value), true));
        }
        let input: SchemaRef = Arc::new(ArrowSchema::new(fields));
        let physical = physical_expr(expr, &input, parameters)?;
        let data_type = physical.data_type(&input).map_err(evaluation_error)?;
        let column = match expr {
            LeafExpr::Column(name) => Some(name.clone()),
            _ => None,
        };
        let mut over_indexes = Vec::new();
        truncated_columns(expr, schema, parameters, &mut over_indexes);
        let truncated = match over_indexes.is_empty() {
            true => None,
            false => {
                let mut truncated = expr.clone();
                truncate(&mut truncated, schema, parameters);
                Some(Self::new(&truncated, schema, parameters)?)
            }
        };
        Ok(Self {
            physical,
            columns,
            input,
            truncated: truncated.filter(|t| t.data_type == data_type).map(Arc::new),
            data_type,
            column,
        })
    }

    /// Whether no dictionary's values stand for those of rows.
    pub(super) fn is_of_several_columns(&self) -> bool {
        self.columns.len() > 1
    }
}

/// The functions that truncate a time, by a unit's name.
const TRUNCATING: [&str; 2] = ["date_trunc", "datetrunc"];

/// The column of a timestamp index that `expr` asks for, if it truncates a column of timestamps.
fn truncated_column(expr: &LeafExpr, schema: &Schema, parameters: &[Value]) -> Option<String> {
    let LeafExpr::Call { function, args, .. } = expr else {
        return None;
    };
    let [unit, LeafExpr::Column(name)] = args.as_slice() else {
        return None;
    };
    let unit = match unit {
        LeafExpr::Literal(unit, _) => unit,
        LeafExpr::Parameter(number, _) => parameters.get(*number)?,
        _ => return None,
    };
    let Value::String(unit) = unit else {
        return None;
    };
    let truncates = TRUNCATING.contains(&function.as_str());
    let fits = truncates && schema.column(name)?.is_single_timestamp();
    let granularity = Granularity::parse(unit).filter(|_| fits)?;
    Some(granularity.column_of(name))
}

/// Appends the columns of timestamp indexes that `expr` asks for to `out`.
pub(super) fn truncated_columns(
    expr: &LeafExpr,
    schema: &Schema,
    parameters: &[Value],
    out: &mut Vec<String>,
) {
    match truncated_column(expr, schema, parameters) {
        Some(column) => out.push(column),
        None => expr.for_each_part(&mut |part| truncated_columns(part, schema, parameters, out)),
    }
}

/// Puts the columns of timestamp indexes in the place of what asks for them.
fn truncate(expr: &mut LeafExpr, schema: &Schema, parameters: &[Value]) {
    match truncated_column(expr, schema, parameters) {
        Some(column) => *expr = LeafExpr::Column(column),
        None => expr.for_each_part_mut(&mut |part| truncate(part, schema, parameters)),
    }
}

/// What evaluating an expression says to a user.
fn evaluation_error(error: datafusion::error::DataFusionError) -> Error {
    Error::invalid(error.strip_backtrace())
}

/// The columns that `expr` names, each once.
pub(super) fn columns_in(expr: &LeafExpr) -> Vec<String> {
    let mut columns = Vec::new();
    columns_of(expr, &mut columns);
    columns
}

/// Where a filter expression, evaluated to `values`, is true.
pub(super) fn truths(values: &ArrayRef) -> Result<BooleanBuffer> {
    let passes = values.as_boolean_opt().ok_or_else(|| {
        Error::internal(format!(
            "a filter expression gives {}, not a boolean",
            values.data_type()
        ))
    })?;
    Ok(match passes.nulls() {
        Some(valid) => passes.values() & valid.inner(),
        None => passes.values().clone(),
    })
}

/// Appends the columns that `expr` names to `out`, each once.
pub(super) fn columns_of(expr: &LeafExpr, out: &mut Vec<String>) {
    if let LeafExpr::Column(name) = expr
        && !out.contains(name)
    {
        out.push(name.clone());
    }
    expr.for_each_part(&mut |part| columns_of(part, out));
}

/// An expression over the rows of one segment.
#[derive(Debug)]
pub(super) struct BoundExpression {
    shared: Arc<Expression>,
    columns: Vec<Arc<BoundColumn>>,
    /// Its values on the dictionary of its only column, once asked for; none when they can't be had.
    on_dictionary: OnceLock<Option<ArrayRef>>,
}

impl BoundExpression {
    /// `shared` in `segment`.
    pub(super) fn new(mut shared: Arc<Expression>, segment: &SegmentView) -> Result<Self> {
        if let Some(truncated) = &shared.truncated
            && truncated.columns.iter().all(|name| segment.has(name))
        {
            shared = Arc::clone(truncated);
        }
        let columns = shared
            .columns
            .iter()
            .map(|name| segment.column(name))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            shared,
            columns,
            on_dictionary: OnceLock::new(),
        })
    }

    /// The column when the expression is nothing but one.
    pub(super) fn plain_column(&self) -> Option<&Arc<BoundColumn>> {
        self.shared.column.as_ref().and(self.columns.first())
    }

    /// Its only column, when that is single-valued with a dictionary, and the dictionary's length.
    pub(super) fn dictionary_column(&self) -> Option<(&Arc<BoundColumn>, u32)> {
        match self.columns.as_slice() {
            [column] if !column.is_multi_value() => column
                .reader
                .dictionary()
                .map(|dictionary| (column, dictionary.len())),
            _ => None,
        }
    }

    /// Values of `docs`.
    pub(super) fn evaluate(&self, docs: DocSelection<'_>) -> Result<ArrayRef> {
        if let Some(column) = self.plain_column() {
            return column.array(docs);
        }
        if let Some((column, len)) = self.dictionary_column()
            && u64::from(len) * 4 <= u64::from(column.reader.num_docs())
            && let Some(values) = self
                .on_dictionary
                .get_or_init(|| self.evaluate_dictionary().ok())
        {
            let mut ids = Vec::with_capacity(docs.len());
            column.reader.dict_ids(docs.clone(), &mut ids);
            nulls_to(column, &docs, len, &mut ids);
            return take(values, &UInt32Array::from(ids), None)
                .map_err(|e| Error::internal(e.to_string()));
        }
        let rows = docs.len();
        let arrays = self
            .columns
            .iter()
            .map(|column| column.array(docs.clone()))
            .collect::<Result<Vec<_>>>()?;
        self.apply(arrays, rows)
    }

    /// Its values for each id of [`BoundExpression::dictionary_column`], and for NULL after them.
    pub(super) fn evaluate_dictionary(&self) -> Result<ArrayRef> {
        let Some((column, len)) = self.dictionary_column() else {
            return Err(Error::internal(
                "an expression over several columns has no dictionary",
            ));
        };
        let Some(dictionary) = column.reader.dictionary() else {
            return Err(Error::internal("a column lost its dictionary"));
        };
        let null = arrow::array::new_null_array(&column.data_type.arrow(), 1);
        let mut parts = Vec::new();
        let mut start = 0;
        // In blocks, since the text of a whole dictionary may be over 2 GiB.
        while start < len {
            let end = len.min(start.saturating_add(8_192));
            let ids: Vec<DictId> = (start..end).collect();
            let mut values = ValueBuffer::new(column.reader.physical());
            dictionary.gather(&ids, &mut values);
            let rows = ids.len();
            parts.push(self.apply(vec![values_array(values, column.data_type, None)?], rows)?);
            start = end;
        }
        parts.push(self.apply(vec![null], 1)?);
        let parts: Vec<_> = parts.iter().map(|p| p.as_ref()).collect();
        concat(&parts).map_err(|e| Error::internal(e.to_string()))
    }

    fn apply(&self, arrays: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch =
            RecordBatch::try_new_with_options(Arc::clone(&self.shared.input), arrays, &options)
                .map_err(|e| Error::internal(e.to_string()))?;
        let value = self
            .shared
            .physical
            .evaluate(&batch)
            .map_err(evaluation_error)?;
        value.into_array(rows).map_err(evaluation_error)
    }
}

/// Replaces the ids of `docs` that are null by `null_id`.
pub(super) fn nulls_to(
    column: &BoundColumn,
    docs: &DocSelection<'_>,
    null_id: DictId,
    ids: &mut [DictId],
) {
    if !column.reader.has_nulls() {
        return;
    }
    let mut nulls = ChunkNulls::default();
    with_each(docs, ids, |doc, id| {
        if nulls.contains(&*column.reader, doc) {
            *id = null_id;
        }
    });
}
