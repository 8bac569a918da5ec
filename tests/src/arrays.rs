//! Values to Arrow arrays, in the types of [`DataType::arrow`].

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, ListArray, StringArray, TimestampMillisecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::Field;
use std::sync::Arc;
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;

/// An array of single values, or of lists when `multi_value`; `Value::Null` is a null row.
///
/// # Panics
/// When a value is of another type: the generator made it.
pub fn array(data_type: DataType, multi_value: bool, values: &[Value]) -> ArrayRef {
    if multi_value {
        lists(data_type, values)
    } else {
        singles(data_type, values)
    }
}

fn lists(data_type: DataType, values: &[Value]) -> ArrayRef {
    let mut elements = Vec::new();
    let mut lengths = Vec::with_capacity(values.len());
    for value in values {
        let before = elements.len();
        if let Value::List(list) = value {
            elements.extend(list.iter().cloned());
        }
        lengths.push(elements.len() - before);
    }
    let nulls: NullBuffer = values.iter().map(|v| !v.is_null()).collect();
    Arc::new(ListArray::new(
        Arc::new(Field::new_list_field(data_type.arrow(), true)),
        OffsetBuffer::from_lengths(lengths),
        singles(data_type, &elements),
        Some(nulls),
    ))
}

macro_rules! collect {
    ($array:ty, $values:expr, $variant:path) => {
        Arc::new(
            $values
                .iter()
                .map(|value| match value {
                    Value::Null => None,
                    $variant(v) => Some(v.clone()),
                    other => panic!("{other:?} in a column of another type"),
                })
                .collect::<$array>(),
        ) as ArrayRef
    };
}

fn singles(data_type: DataType, values: &[Value]) -> ArrayRef {
    match data_type {
        DataType::Int => collect!(Int32Array, values, Value::Int),
        DataType::Long => collect!(Int64Array, values, Value::Long),
        DataType::Float => collect!(Float32Array, values, Value::Float),
        DataType::Double => collect!(Float64Array, values, Value::Double),
        DataType::Boolean => collect!(BooleanArray, values, Value::Boolean),
        DataType::Timestamp => collect!(TimestampMillisecondArray, values, Value::Timestamp),
        DataType::String | DataType::Json => collect!(StringArray, values, Value::String),
        DataType::Bytes => Arc::new(BinaryArray::from_iter(values.iter().map(
            |value| match value {
                Value::Null => None,
                Value::Bytes(bytes) => Some(bytes.as_slice()),
                other => panic!("{other:?} in a column of bytes"),
            },
        ))),
        DataType::BigDecimal { precision, scale } => {
            let digits: Decimal128Array = values
                .iter()
                .map(|value| match value {
                    Value::Null => None,
                    Value::Decimal { unscaled, scale: s } if *s == scale => Some(*unscaled),
                    other => panic!("{other:?} in a column of decimals"),
                })
                .collect();
            Arc::new(
                digits
                    .with_precision_and_scale(precision, scale)
                    .expect("a valid decimal type"),
            )
        }
    }
}
