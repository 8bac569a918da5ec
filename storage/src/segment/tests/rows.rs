//! Rows for tests: values by row, their arrays, and the order they are stored in.

use crate::environment::{Files, RealFiles};
use crate::segment::spec::{ColumnSpec, Encoding, SegmentSpec};
use ::arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float32Builder, Float64Builder,
    Int32Builder, Int64Builder, ListBuilder, RecordBatch, RecordBatchOptions, StringBuilder,
    TimestampMillisecondBuilder,
};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_proto::ids::StreamPartition;
use strandline_proto::schema::{Column, ColumnRole, DataType, Schema};
use strandline_proto::time_format::{TimeFormat, TimeUnit};
use strandline_proto::value::Value;

/// Where the tests' segments are written.
pub(super) fn files() -> Arc<dyn Files> {
    Arc::new(RealFiles)
}

/// A row: one value a column.
pub(super) type Row = Vec<Value>;

pub(super) const DECIMAL: DataType = DataType::BigDecimal {
    precision: 38,
    scale: 4,
};

/// Every type.
pub(super) const TYPES: [DataType; 10] = [
    DataType::Int,
    DataType::Long,
    DataType::Float,
    DataType::Double,
    DECIMAL,
    DataType::Boolean,
    DataType::Timestamp,
    DataType::String,
    DataType::Json,
    DataType::Bytes,
];

pub(super) fn column(name: &str, data_type: DataType, multi_value: bool) -> Column {
    Column {
        multi_value,
        ..Column::dimension(name, data_type)
    }
}

/// A column of days since the epoch.
pub(super) fn day_column(name: &str) -> Column {
    let role = ColumnRole::DateTime {
        format: TimeFormat::Epoch {
            size: 1,
            unit: TimeUnit::Days,
        },
        granularity: "1:DAYS".into(),
    };
    Column {
        role,
        ..column(name, DataType::Int, false)
    }
}

pub(super) fn schema(columns: Vec<Column>) -> Arc<Schema> {
    Arc::new(Schema {
        name: "t".into(),
        version: 3,
        columns,
        primary_key: vec![],
    })
}

pub(super) fn spec(
    columns: Vec<(Column, ColumnSpec)>,
    sorted: Option<&str>,
    time: Option<&str>,
) -> Arc<SegmentSpec> {
    let by_name: BTreeMap<_, _> = columns
        .iter()
        .map(|(column, of_column)| (column.name.clone(), of_column.clone()))
        .collect();
    Arc::new(SegmentSpec {
        schema: schema(columns.into_iter().map(|(column, _)| column).collect()),
        columns: by_name,
        sorted_column: sorted.map(str::to_owned),
        time_column: time.map(str::to_owned),
        star_trees: Vec::new(),
    })
}

pub(super) fn raw() -> ColumnSpec {
    ColumnSpec {
        encoding: Encoding::Raw,
        ..ColumnSpec::default()
    }
}

pub(super) fn inverted() -> ColumnSpec {
    ColumnSpec {
        inverted: true,
        ..ColumnSpec::default()
    }
}

pub(super) fn partition() -> StreamPartition {
    StreamPartition {
        stream: "log".into(),
        topic: "t".into(),
        partition: 2,
    }
}

pub(super) fn batch(schema: &Schema, rows: &[Row]) -> RecordBatch {
    let arrays = (0..schema.columns.len())
        .map(|i| array(&schema.columns[i], rows.iter().map(|row| &row[i])));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema.arrow(), arrays.collect(), &options).unwrap()
}

macro_rules! build {
    ($builder:expr, $multi_value:expr, $values:expr, $variant:pat => $value:expr) => {{
        let element = |value: &Value| match value {
            Value::Null => None,
            $variant => Some($value),
            other => panic!("{other:?}"),
        };
        if $multi_value {
            let mut list = ListBuilder::new($builder);
            for value in $values {
                match value {
                    Value::Null => list.append(false),
                    Value::List(elements) => {
                        elements
                            .iter()
                            .for_each(|e| list.values().append_option(element(e)));
                        list.append(true);
                    }
                    other => panic!("{other:?}"),
                }
            }
            Arc::new(list.finish()) as ArrayRef
        } else {
            let mut builder = $builder;
            $values.for_each(|value| builder.append_option(element(value)));
            Arc::new(builder.finish()) as ArrayRef
        }
    }};
}

/// `values` in the column's Arrow type.
pub(super) fn array<'a>(column: &Column, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    let multi = column.multi_value;
    match column.data_type {
        DataType::Int => build!(Int32Builder::new(), multi, values, Value::Int(v) => *v),
        DataType::Long => build!(Int64Builder::new(), multi, values, Value::Long(v) => *v),
        DataType::Float => build!(Float32Builder::new(), multi, values, Value::Float(v) => *v),
        DataType::Double => build!(Float64Builder::new(), multi, values, Value::Double(v) => *v),
        DataType::Boolean => build!(BooleanBuilder::new(), multi, values, Value::Boolean(v) => *v),
        DataType::Timestamp => {
            build!(TimestampMillisecondBuilder::new(), multi, values, Value::Timestamp(v) => *v)
        }
        DataType::BigDecimal { precision, scale } => {
            let builder = || {
                Decimal128Builder::new()
                    .with_precision_and_scale(precision, scale)
                    .unwrap()
            };
            build!(builder(), multi, values, Value::Decimal { unscaled, .. } => *unscaled)
        }
        DataType::String | DataType::Json => {
            build!(StringBuilder::new(), multi, values, Value::String(v) => v.clone())
        }
        DataType::Bytes => {
            build!(BinaryBuilder::new(), multi, values, Value::Bytes(v) => v.clone())
        }
    }
}

/// The order of single values in a sorted column: nulls first, floats by total order.
pub(super) fn value_cmp(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Long(a), Value::Long(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
        (Value::Decimal { unscaled: a, .. }, Value::Decimal { unscaled: b, .. }) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (a, b) => panic!("{a:?} and {b:?}"),
    }
}

/// The rows, with their offsets, in the order in which an immutable segment stores them.
pub(super) fn stored_order(spec: &SegmentSpec, rows: &[(u64, Row)]) -> Vec<(u64, Row)> {
    let mut rows = rows.to_vec();
    if let Some(sorted) = &spec.sorted_column {
        let number = spec
            .schema
            .columns
            .iter()
            .position(|c| &c.name == sorted)
            .unwrap();
        rows.sort_by(|a, b| value_cmp(&a.1[number], &b.1[number]));
    }
    rows
}
