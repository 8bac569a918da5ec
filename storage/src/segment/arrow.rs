//! Columns as Arrow arrays: what a query and a builder's reader see of a stored column.
//!
//! Values are read in blocks and become Arrow buffers without a copy, except text, whose UTF-8 is checked,
//! and booleans, which are packed. A block's text or bytes must stay below 2 GiB, which is what
//! Arrow's 32-bit offsets hold: read columns in blocks of documents, not whole.

use ::arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, BooleanBufferBuilder, Decimal128Array,
    ListArray, PrimitiveArray, StringArray,
};
use ::arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use ::arrow::datatypes::{
    DataType as ArrowType, Field, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMillisecondType,
};
use ::arrow::error::ArrowError;
use std::sync::Arc;
use strandline_index::{
    CHUNK_DOCS, ColumnReader, DocBits, DocSelection, PhysicalType, ValueBuffer,
};
use strandline_proto::schema::DataType;
use strandline_proto::{Error, Result};

/// How values of a type are stored.
pub fn physical_type(data_type: DataType) -> PhysicalType {
    match data_type {
        DataType::Int | DataType::Boolean => PhysicalType::I32,
        DataType::Long | DataType::Timestamp => PhysicalType::I64,
        DataType::Float => PhysicalType::F32,
        DataType::Double => PhysicalType::F64,
        DataType::BigDecimal { .. } => PhysicalType::I128,
        DataType::String | DataType::Json | DataType::Bytes => PhysicalType::Bytes,
    }
}

/// The Arrow type of a column of `data_type`: that of [`Column::arrow_type`](strandline_proto::schema::Column::arrow_type).
pub fn arrow_type(data_type: DataType, multi_value: bool) -> ArrowType {
    if multi_value {
        ArrowType::List(element_field(data_type))
    } else {
        data_type.arrow()
    }
}

/// The values of `docs` in the Arrow type of the schema's column, nulls set.
///
/// `data_type` and `multi_value` are those of the table's column; a column that was stored otherwise is
/// an error, not a conversion.
pub fn read_array(
    column: &dyn ColumnReader,
    data_type: DataType,
    multi_value: bool,
    docs: DocSelection<'_>,
) -> Result<ArrayRef> {
    if column.physical() != physical_type(data_type) || column.is_multi_value() != multi_value {
        return Err(Error::precondition(format!(
            "the column is stored as {}{:?}, the schema says {}{}: load the segment again with the new schema",
            if column.is_multi_value() {
                "lists of "
            } else {
                ""
            },
            column.physical(),
            if multi_value { "lists of " } else { "" },
            data_type.pinot_name(),
        )));
    }
    let nulls = null_buffer(column, docs.clone());
    let mut values = ValueBuffer::new(column.physical());
    if !multi_value {
        column.values(docs, &mut values);
        check_fault(column)?;
        return values_array(values, data_type, nulls);
    }
    let mut ends = Vec::with_capacity(docs.len());
    let mut null_elements = Vec::new();
    column.null_elements(docs.clone(), &mut null_elements);
    column.multi_values(docs, &mut ends, &mut values);
    check_fault(column)?;
    let element_nulls = null_elements_buffer(&null_elements, values.len())?;
    let elements = values_array(values, data_type, element_nulls)?;
    list_array(&ends, elements, data_type, nulls)
}

/// Damage that a read came upon, of which nothing may be used.
fn check_fault(column: &dyn ColumnReader) -> Result<()> {
    match column.fault() {
        Some(fault) => Err(Error::data_loss(format!(
            "stored values are damaged ({fault}): restore the segment from the deep store"
        ))),
        None => Ok(()),
    }
}

/// Which of `docs` are null, as Arrow's validity; none when no document is.
pub fn null_buffer(column: &dyn ColumnReader, docs: DocSelection<'_>) -> Option<NullBuffer> {
    if docs.is_empty() || !column.has_nulls() {
        return None;
    }
    let mut valid = BooleanBufferBuilder::new(docs.len());
    let mut bits = DocBits::new();
    match docs {
        DocSelection::Range(range) => {
            let mut start = range.start;
            while start < range.end {
                let chunk = start / CHUNK_DOCS;
                let end = range.end.min((chunk + 1).saturating_mul(CHUNK_DOCS));
                bits.clear();
                column.null_bits(chunk, &mut bits);
                append_inverted(
                    &bits,
                    (start % CHUNK_DOCS) as usize,
                    (end - start) as usize,
                    &mut valid,
                );
                start = end;
            }
        }
        DocSelection::Docs(docs) => {
            let mut current = None;
            for &doc in docs {
                let chunk = doc / CHUNK_DOCS;
                if current != Some(chunk) {
                    bits.clear();
                    column.null_bits(chunk, &mut bits);
                    current = Some(chunk);
                }
                valid.append(!bits.contains((doc % CHUNK_DOCS) as u16));
            }
        }
    }
    Some(NullBuffer::new(valid.finish())).filter(|nulls| nulls.null_count() > 0)
}

/// Appends `len` bits from `start` on, each negated.
fn append_inverted(bits: &DocBits, start: usize, len: usize, out: &mut BooleanBufferBuilder) {
    let first_word = start / 64;
    let last_word = (start + len).div_ceil(64);
    let inverted: Vec<u8> = bits.words()[first_word..last_word]
        .iter()
        .flat_map(|word| (!word).to_le_bytes())
        .collect();
    let offset = start - first_word * 64;
    out.append_packed_range(offset..offset + len, &inverted);
}

/// Validity of elements of which `is_null` says whether they are null; empty: none is.
fn null_elements_buffer(is_null: &[bool], elements: usize) -> Result<Option<NullBuffer>> {
    if is_null.is_empty() {
        return Ok(None);
    }
    if is_null.len() != elements {
        return Err(Error::internal(format!(
            "null marks for {} of {elements} elements",
            is_null.len()
        )));
    }
    let nulls = NullBuffer::new(BooleanBuffer::collect_bool(elements, |i| !is_null[i]));
    Ok(Some(nulls).filter(|nulls| nulls.null_count() > 0))
}

/// A block of physical values as an array of the type; also what an aggregate's or a dictionary's values become.
pub fn values_array(
    values: ValueBuffer,
    data_type: DataType,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    fn primitive<T: ArrowPrimitiveType>(
        values: Vec<T::Native>,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        Ok(Arc::new(
            PrimitiveArray::<T>::try_new(ScalarBuffer::from(values), nulls).map_err(arrow_error)?,
        ))
    }
    match (data_type, values) {
        (DataType::Int, ValueBuffer::I32(v)) => primitive::<Int32Type>(v, nulls),
        (DataType::Boolean, ValueBuffer::I32(v)) => {
            check_len(v.len(), nulls.as_ref())?;
            Ok(Arc::new(BooleanArray::new(
                BooleanBuffer::collect_bool(v.len(), |i| v[i] != 0),
                nulls,
            )))
        }
        (DataType::Long, ValueBuffer::I64(v)) => primitive::<Int64Type>(v, nulls),
        (DataType::Timestamp, ValueBuffer::I64(v)) => {
            primitive::<TimestampMillisecondType>(v, nulls)
        }
        (DataType::Float, ValueBuffer::F32(v)) => primitive::<Float32Type>(v, nulls),
        (DataType::Double, ValueBuffer::F64(v)) => primitive::<Float64Type>(v, nulls),
        (DataType::BigDecimal { precision, scale }, ValueBuffer::I128(v)) => {
            let array =
                Decimal128Array::try_new(ScalarBuffer::from(v), nulls).map_err(arrow_error)?;
            Ok(Arc::new(
                array
                    .with_precision_and_scale(precision, scale)
                    .map_err(arrow_error)?,
            ))
        }
        (DataType::String | DataType::Json, ValueBuffer::Bytes { offsets, data }) => {
            let offsets = checked_offsets(offsets)?;
            Ok(Arc::new(
                StringArray::try_new(offsets, Buffer::from_vec(data), nulls)
                    .map_err(arrow_error)?,
            ))
        }
        (DataType::Bytes, ValueBuffer::Bytes { offsets, data }) => {
            let offsets = checked_offsets(offsets)?;
            Ok(Arc::new(
                BinaryArray::try_new(offsets, Buffer::from_vec(data), nulls)
                    .map_err(arrow_error)?,
            ))
        }
        (data_type, _) => Err(Error::internal(format!(
            "stored values do not fit {}",
            data_type.pinot_name()
        ))),
    }
}

fn list_array(
    ends: &[u32],
    elements: ArrayRef,
    data_type: DataType,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    for &end in ends {
        offsets.push(i32::try_from(end).map_err(|_| {
            Error::exhausted(
                "a block of lists has over 2^31 elements: read fewer documents at once",
            )
        })?);
    }
    let offsets = checked_offsets(offsets)?;
    Ok(Arc::new(
        ListArray::try_new(element_field(data_type), offsets, elements, nulls)
            .map_err(arrow_error)?,
    ))
}

fn element_field(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new_list_field(data_type.arrow(), true))
}

fn check_len(values: usize, nulls: Option<&NullBuffer>) -> Result<()> {
    match nulls {
        Some(nulls) if nulls.len() != values => Err(Error::internal(format!(
            "{values} values for {} documents",
            nulls.len()
        ))),
        _ => Ok(()),
    }
}

/// Offsets from 0 on that never fall, or an error where Arrow would panic.
fn checked_offsets(offsets: Vec<i32>) -> Result<OffsetBuffer<i32>> {
    if offsets.first() != Some(&0) || offsets.windows(2).any(|pair| pair[0] > pair[1]) {
        return Err(Error::data_loss(
            "a column's offsets are not in order: restore the segment from the deep store",
        ));
    }
    Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
}

fn arrow_error(error: ArrowError) -> Error {
    Error::data_loss(format!(
        "stored values are not of the column's type ({error}): restore the segment from the deep store"
    ))
}
