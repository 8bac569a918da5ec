//! One cell of an answer, whatever Arrow array it stands in; every text and wire form is made from it.
//!
//! Answers are first brought to *plain* types ([`plain_schema`]): views, dictionaries and run ends are
//! the engine's affair, and older Arrow readers do not know them all.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::array_value_to_string;
use std::sync::Arc;
use strandline_proto::{Error, Result};

/// A value of an answer.
#[derive(Clone, Debug)]
pub enum Cell<'a> {
    /// SQL's null.
    Null,
    /// BOOLEAN.
    Boolean(bool),
    /// INT.
    Int(i32),
    /// LONG.
    Long(i64),
    /// An unsigned 64-bit integer, as `row_number()` gives it; shown as LONG.
    UnsignedLong(u64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// BIG_DECIMAL: its digits.
    Decimal(String),
    /// TIMESTAMP: nanoseconds since the epoch, UTC.
    Timestamp(i128),
    /// STRING or JSON.
    Text(&'a str),
    /// What has no type of its own here (dates, intervals, structs), as the engine writes it.
    Other(String),
    /// BYTES.
    Bytes(&'a [u8]),
    /// A multi-value cell's elements.
    List(ArrayRef),
}

/// The cell at `row` of a plain array. `row` must be below the array's length.
pub fn cell(array: &dyn Array, row: usize) -> Cell<'_> {
    if array.is_null(row) {
        return Cell::Null;
    }
    macro_rules! primitive {
        ($type:ty) => {
            array.as_primitive::<$type>().value(row)
        };
    }
    match array.data_type() {
        DataType::Null => Cell::Null,
        DataType::Boolean => Cell::Boolean(array.as_boolean().value(row)),
        DataType::Int8 => Cell::Int(primitive!(Int8Type).into()),
        DataType::Int16 => Cell::Int(primitive!(Int16Type).into()),
        DataType::Int32 => Cell::Int(primitive!(Int32Type)),
        DataType::Int64 => Cell::Long(primitive!(Int64Type)),
        DataType::UInt8 => Cell::Int(primitive!(UInt8Type).into()),
        DataType::UInt16 => Cell::Int(primitive!(UInt16Type).into()),
        DataType::UInt32 => Cell::Long(primitive!(UInt32Type).into()),
        DataType::UInt64 => Cell::UnsignedLong(primitive!(UInt64Type)),
        DataType::Float16 => Cell::Float(primitive!(Float16Type).to_f32()),
        DataType::Float32 => Cell::Float(primitive!(Float32Type)),
        DataType::Float64 => Cell::Double(primitive!(Float64Type)),
        DataType::Decimal32(..) => {
            Cell::Decimal(array.as_primitive::<Decimal32Type>().value_as_string(row))
        }
        DataType::Decimal64(..) => {
            Cell::Decimal(array.as_primitive::<Decimal64Type>().value_as_string(row))
        }
        DataType::Decimal128(..) => {
            Cell::Decimal(array.as_primitive::<Decimal128Type>().value_as_string(row))
        }
        DataType::Decimal256(..) => {
            Cell::Decimal(array.as_primitive::<Decimal256Type>().value_as_string(row))
        }
        DataType::Timestamp(unit, _) => Cell::Timestamp(match unit {
            TimeUnit::Second => i128::from(primitive!(TimestampSecondType)) * 1_000_000_000,
            TimeUnit::Millisecond => i128::from(primitive!(TimestampMillisecondType)) * 1_000_000,
            TimeUnit::Microsecond => i128::from(primitive!(TimestampMicrosecondType)) * 1_000,
            TimeUnit::Nanosecond => i128::from(primitive!(TimestampNanosecondType)),
        }),
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Cell::Text(array.as_string::<i64>().value(row)),
        DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Cell::Bytes(array.as_binary::<i64>().value(row)),
        DataType::FixedSizeBinary(_) => Cell::Bytes(array.as_fixed_size_binary().value(row)),
        DataType::List(_) => Cell::List(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Cell::List(array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => Cell::List(array.as_fixed_size_list().value(row)),
        _ => Cell::Other(
            array_value_to_string(array, row).unwrap_or_else(|error| format!("<{error}>")),
        ),
    }
}

fn plain_type(data_type: &DataType) -> DataType {
    let plain_element = |field: &Arc<Field>| {
        Arc::new(
            field
                .as_ref()
                .clone()
                .with_data_type(plain_type(field.data_type())),
        )
    };
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        DataType::List(field) | DataType::ListView(field) => DataType::List(plain_element(field)),
        DataType::LargeList(field) | DataType::LargeListView(field) => {
            DataType::LargeList(plain_element(field))
        }
        DataType::FixedSizeList(field, size) => {
            DataType::FixedSizeList(plain_element(field), *size)
        }
        other => other.clone(),
    }
}

/// `schema` with plain types.
pub fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    if schema
        .fields()
        .iter()
        .all(|field| plain_type(field.data_type()) == *field.data_type())
    {
        return Arc::clone(schema);
    }
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| {
            field
                .as_ref()
                .clone()
                .with_data_type(plain_type(field.data_type()))
        })
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// `batch` in the plain schema made of its own.
pub fn plain_batch(batch: RecordBatch, plain: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == plain {
        return Ok(batch);
    }
    let columns = batch
        .columns()
        .iter()
        .zip(plain.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(Arc::clone(column))
            } else {
                arrow::compute::cast(column, field.data_type()).map_err(|error| {
                    Error::internal(format!("result column {}: {error}", field.name()))
                })
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(plain), columns, &options).map_err(|error| {
        Error::internal(format!("a batch does not fit its result columns: {error}"))
    })
}

/// The type of a result column by Pinot's name; `_ARRAY` is appended for lists.
pub fn pinot_type(field: &Field) -> String {
    if field.extension_type_name() == Some("arrow.json") {
        return "JSON".to_owned();
    }
    match field.data_type() {
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::FixedSizeList(element, _) => {
            format!("{}_ARRAY", scalar_type(element.data_type()))
        }
        other => scalar_type(other).to_owned(),
    }
}

fn scalar_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Null => "UNKNOWN",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            "INT"
        }
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "LONG",
        DataType::Float16 | DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        data_type if data_type.is_decimal() => "BIG_DECIMAL",
        DataType::Timestamp(..) => "TIMESTAMP",
        DataType::Binary
        | DataType::LargeBinary
        | DataType::FixedSizeBinary(_)
        | DataType::BinaryView => "BYTES",
        _ => "STRING",
    }
}

/// Writes a timestamp as Pinot does: `2014-01-20 00:00:00.0`, UTC, with as many digits of the fraction as it needs.
pub fn write_timestamp(nanos: i128, out: &mut String) {
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
    let fraction = u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0);
    match chrono::DateTime::from_timestamp(seconds, 0) {
        Some(time) => {
            let digits = format!("{fraction:09}");
            let digits = digits.trim_end_matches('0');
            out.push_str(&time.format("%Y-%m-%d %H:%M:%S").to_string());
            out.push('.');
            out.push_str(if digits.is_empty() { "0" } else { digits });
        }
        // Outside of the calendar's range (±262,000 years): the milliseconds themselves.
        None => out.push_str(&nanos.div_euclid(1_000_000).to_string()),
    }
}
