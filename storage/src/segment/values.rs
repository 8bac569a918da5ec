//! Rows on their way in: one Arrow column of a batch as physical values, which builders keep and
//! consuming segments append.
//!
//! Here the placeholders of nulls are made (the type's zero, the empty text or list, whatever Arrow had
//! under the null), NaNs become one NaN and -0.0 becomes 0.0, which it equals in SQL: so a column has one value for
//! each value.

use super::arrow::arrow_type;
use super::spec::SegmentSpec;
use ::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use ::arrow::array::{GenericByteArray, ListArray, PrimitiveArray, UInt32Array};
use ::arrow::buffer::{NullBuffer, ScalarBuffer};
use ::arrow::compute::cast;
use ::arrow::datatypes::DataType as ArrowType;
use ::arrow::datatypes::{
    ByteArrayType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMillisecondType, UInt32Type,
};
use std::sync::Arc;
use strandline_index::ValueBuffer;
use strandline_index::column::{ColumnData, distinct};
use strandline_proto::schema::{Column, DataType};
use strandline_proto::{Error, Result};

/// Consecutive rows of a text column, none null, by their keys into a dictionary of texts.
#[derive(Clone, Debug)]
pub(crate) struct KeyedValues {
    /// The texts. The batches of a file often share one.
    pub(crate) texts: ArrayRef,
    /// For each row its text.
    pub(crate) keys: ScalarBuffer<u32>,
}

impl KeyedValues {
    /// The rows of `array` when they are keyed text without nulls, which the column takes as such.
    pub(crate) fn from_array(
        array: &ArrayRef,
        column: &Column,
        spec: &SegmentSpec,
    ) -> Option<Self> {
        let keyed = array.as_dictionary_opt::<UInt32Type>()?;
        let fits = spec.takes_keyed_text(column)
            && keyed.values().data_type() == &column.arrow_type()
            && keyed.logical_null_count() == 0;
        fits.then(|| Self {
            texts: Arc::clone(keyed.values()),
            keys: keyed.keys().values().clone(),
        })
    }

    /// The texts as the index crate takes them.
    pub(crate) fn physical_texts(texts: &ArrayRef, column: &Column) -> Result<ValueBuffer> {
        physical_values(texts, column.data_type)
    }
}

/// The values of consecutive rows of one column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColumnValues {
    values: ValueBuffer,
    /// For lists: where each row's elements end in `values`.
    list_ends: Option<Vec<u32>>,
    null_rows: Vec<u32>,
    null_elements: Vec<u32>,
}

impl ColumnValues {
    /// The rows of `array`, which must have the column's Arrow type.
    pub(crate) fn from_array(array: &ArrayRef, column: &Column) -> Result<Self> {
        let expected = column.arrow_type();
        if let ArrowType::Dictionary(_, values) = array.data_type()
            && **values == expected
        {
            let plain = cast(array, &expected)
                .map_err(|e| Error::internal(format!("column {}: {e}", column.name)))?;
            return Self::from_array(&plain, column);
        }
        if !same_type(array.data_type(), &expected) {
            return Err(Error::invalid(format!(
                "column {}: rows come as {}, the schema says {expected}",
                column.name,
                array.data_type()
            )));
        }
        let in_column = |e: Error| e.at(format_args!("column {}", column.name));
        let null_rows = null_positions(array.nulls());
        if !column.multi_value {
            let values = physical_values(array, column.data_type).map_err(in_column)?;
            return Ok(Self {
                values,
                list_ends: None,
                null_rows,
                null_elements: Vec::new(),
            });
        }
        let (ends, elements) = list_parts(array.as_list::<i32>()).map_err(in_column)?;
        let values = physical_values(&elements, column.data_type).map_err(in_column)?;
        Ok(Self {
            values,
            list_ends: Some(ends),
            null_rows,
            null_elements: null_positions(elements.nulls()),
        })
    }

    /// How many values are different, placeholders of nulls included.
    pub(crate) fn distinct(&self) -> usize {
        distinct(&self.values)
    }

    /// As the index crate takes them.
    pub(crate) fn data(&self) -> ColumnData<'_> {
        ColumnData {
            values: &self.values,
            list_ends: self.list_ends.as_deref(),
            null_docs: &self.null_rows,
            null_elements: &self.null_elements,
        }
    }
}

/// Equal but for the name and nullability of a list's elements.
fn same_type(a: &ArrowType, b: &ArrowType) -> bool {
    match (a, b) {
        (ArrowType::List(a), ArrowType::List(b)) => a.data_type() == b.data_type(),
        (a, b) => a == b,
    }
}

fn null_positions(nulls: Option<&NullBuffer>) -> Vec<u32> {
    match nulls {
        Some(nulls) if nulls.null_count() > 0 => nulls
            .iter()
            .enumerate()
            .filter(|(_, valid)| !valid)
            .map(|(i, _)| i as u32)
            .collect(),
        _ => Vec::new(),
    }
}

/// Row ends, from 0, and the elements of exactly the rows that are not null.
fn list_parts(list: &ListArray) -> Result<(Vec<u32>, ArrayRef)> {
    let offsets = list.value_offsets();
    let hidden = list.nulls().is_some_and(|nulls| {
        (0..list.len()).any(|row| nulls.is_null(row) && offsets[row] != offsets[row + 1])
    });
    if !hidden {
        let (first, last) = (offsets[0], offsets[list.len()]);
        let ends = offsets[1..]
            .iter()
            .map(|end| (end - first) as u32)
            .collect();
        return Ok((
            ends,
            list.values().slice(first as usize, (last - first) as usize),
        ));
    }
    let mut ends = Vec::with_capacity(list.len());
    let mut kept = Vec::new();
    for row in 0..list.len() {
        if list.is_valid(row) {
            kept.extend(offsets[row] as u32..offsets[row + 1] as u32);
        }
        ends.push(kept.len() as u32);
    }
    let elements = ::arrow::compute::take(list.values(), &UInt32Array::from(kept), None)
        .map_err(|e| Error::internal(format!("elements of lists: {e}")))?;
    Ok((ends, elements))
}

/// The values of an array of the type, placeholders where it is null.
fn physical_values(array: &ArrayRef, data_type: DataType) -> Result<ValueBuffer> {
    if array.data_type() != &arrow_type(data_type, false) {
        return Err(Error::internal(format!(
            "{} is not the Arrow type of {}",
            array.data_type(),
            data_type.pinot_name()
        )));
    }
    Ok(match data_type {
        DataType::Int => ValueBuffer::I32(native(array.as_primitive::<Int32Type>())),
        DataType::Long => ValueBuffer::I64(native(array.as_primitive::<Int64Type>())),
        DataType::Timestamp => {
            ValueBuffer::I64(native(array.as_primitive::<TimestampMillisecondType>()))
        }
        DataType::BigDecimal { .. } => {
            ValueBuffer::I128(native(array.as_primitive::<Decimal128Type>()))
        }
        DataType::Float => {
            let mut values = native(array.as_primitive::<Float32Type>());
            values
                .iter_mut()
                .for_each(|v| *v = if v.is_nan() { f32::NAN } else { *v + 0.0 });
            ValueBuffer::F32(values)
        }
        DataType::Double => {
            let mut values = native(array.as_primitive::<Float64Type>());
            values
                .iter_mut()
                .for_each(|v| *v = if v.is_nan() { f64::NAN } else { *v + 0.0 });
            ValueBuffer::F64(values)
        }
        DataType::Boolean => ValueBuffer::I32(
            array
                .as_boolean()
                .iter()
                .map(|v| i32::from(v == Some(true)))
                .collect(),
        ),
        DataType::String | DataType::Json => bytes_values(array.as_string::<i32>())?,
        DataType::Bytes => bytes_values(array.as_binary::<i32>())?,
    })
}

fn native<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> Vec<T::Native> {
    let mut values = array.values().to_vec();
    if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
        for (value, valid) in values.iter_mut().zip(nulls.iter()) {
            if !valid {
                *value = T::Native::default();
            }
        }
    }
    values
}

fn bytes_values<T: ByteArrayType<Offset = i32>>(
    array: &GenericByteArray<T>,
) -> Result<ValueBuffer> {
    let ends = array.value_offsets();
    let hidden = array.nulls().is_some_and(|nulls| {
        (0..array.len()).any(|row| nulls.is_null(row) && ends[row] != ends[row + 1])
    });
    let all = array.value_data();
    if !hidden {
        let first = ends[0];
        let data = all[first as usize..ends[array.len()] as usize].to_vec();
        return Ok(ValueBuffer::Bytes {
            offsets: ends.iter().map(|end| end - first).collect(),
            data,
        });
    }
    let mut offsets = Vec::with_capacity(array.len() + 1);
    let mut data = Vec::new();
    offsets.push(0);
    for row in 0..array.len() {
        if array.is_valid(row) {
            data.extend_from_slice(&all[ends[row] as usize..ends[row + 1] as usize]);
        }
        offsets.push(i32::try_from(data.len()).map_err(|_| {
            Error::exhausted("a batch has over 2 GiB of text: send smaller batches")
        })?);
    }
    Ok(ValueBuffer::Bytes { offsets, data })
}
