//! Values apart from rows: few canonical forms for the many Arrow types, and interning of distinct values.
//!
//! | domain | Arrow types | canonical form |
//! |---|---|---|
//! | `I64` | booleans, integers up to 64 bits but UInt64, dates, times, timestamps, durations | `i64` |
//! | `F64` | Float32, Float64 | `i64` key in total order (exact both ways) |
//! | `I128` | Decimal128, UInt64 | `i128` |
//! | `Bytes` | text and bytes of any layout | bytes |
//! | `Rows` | everything else | arrow's row encoding |

use super::compare::{f64_key, f64_of_key};
use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;
use std::cmp::Ordering;
use std::sync::Arc;
use strandline_index::{Scalar, ValueBuffer};
use strandline_proto::schema::DataType as ColumnType;
use strandline_proto::{Error, Result};
use strandline_storage::segment::arrow::values_array;

/// Stored text as an Arrow array.
pub(super) fn string_array(values: ValueBuffer, nulls: Option<NullBuffer>) -> Result<StringArray> {
    let array = values_array(values, ColumnType::String, nulls)?;
    array
        .as_string_opt::<i32>()
        .cloned()
        .ok_or_else(|| Error::internal("text was read as something else"))
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::internal(error.to_string())
}

/// The canonical form of a type's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Domain {
    I64,
    F64,
    I128,
    Bytes,
    Rows,
}

impl Domain {
    /// The domain of an Arrow type.
    pub(super) fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::Date32
            | DataType::Date64
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Duration(_) => Self::I64,
            DataType::Float32 | DataType::Float64 => Self::F64,
            DataType::Decimal128(..) | DataType::UInt64 => Self::I128,
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView => Self::Bytes,
            _ => Self::Rows,
        }
    }
}

/// Values in canonical form; where one is null something stands in its place.
#[derive(Clone, Debug)]
pub(super) enum Canonical {
    /// `I64`, and keys of `F64`.
    I64(Vec<i64>),
    I128(Vec<i128>),
    /// `Bytes` and `Rows`.
    Bytes(BinaryArray),
}

/// Calls `$do!(ArrowType, native)` for the primitive type of `$data_type`, or else evaluates `$otherwise`.
macro_rules! for_i64_type {
    ($data_type:expr, $do:ident, $otherwise:expr) => {
        match $data_type {
            DataType::Int8 => $do!(Int8Type),
            DataType::Int16 => $do!(Int16Type),
            DataType::Int32 => $do!(Int32Type),
            DataType::Int64 => $do!(Int64Type),
            DataType::UInt8 => $do!(UInt8Type),
            DataType::UInt16 => $do!(UInt16Type),
            DataType::UInt32 => $do!(UInt32Type),
            DataType::Date32 => $do!(Date32Type),
            DataType::Date64 => $do!(Date64Type),
            DataType::Time32(TimeUnit::Second) => $do!(Time32SecondType),
            DataType::Time32(TimeUnit::Millisecond) => $do!(Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => $do!(Time64MicrosecondType),
            DataType::Time64(TimeUnit::Nanosecond) => $do!(Time64NanosecondType),
            DataType::Timestamp(TimeUnit::Second, _) => $do!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => $do!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => $do!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => $do!(TimestampNanosecondType),
            DataType::Duration(TimeUnit::Second) => $do!(DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => $do!(DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => $do!(DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => $do!(DurationNanosecondType),
            _ => $otherwise,
        }
    };
}

/// Which rows of an array are not null; none: all.
pub(super) fn validity(array: &dyn Array) -> Option<NullBuffer> {
    array.logical_nulls().filter(|nulls| nulls.null_count() > 0)
}

/// The canonical values of an array.
pub(super) fn canonical(array: &ArrayRef) -> Result<Canonical> {
    let data_type = array.data_type();
    Ok(match Domain::of(data_type) {
        Domain::I64 => {
            macro_rules! values {
                ($type:ty) => {
                    array
                        .as_primitive::<$type>()
                        .values()
                        .iter()
                        .map(|&v| i64::from(v))
                        .collect()
                };
            }
            Canonical::I64(match data_type {
                DataType::Boolean => array.as_boolean().values().iter().map(i64::from).collect(),
                other => for_i64_type!(
                    other,
                    values,
                    return Err(Error::internal(format!("{other} has no integer form")))
                ),
            })
        }
        Domain::F64 => Canonical::I64(match data_type {
            DataType::Float32 => array
                .as_primitive::<Float32Type>()
                .values()
                .iter()
                .map(|&v| f64_key(f64::from(v)))
                .collect(),
            _ => array
                .as_primitive::<Float64Type>()
                .values()
                .iter()
                .map(|&v| f64_key(v))
                .collect(),
        }),
        Domain::I128 => Canonical::I128(match data_type {
            DataType::UInt64 => array
                .as_primitive::<UInt64Type>()
                .values()
                .iter()
                .map(|&v| i128::from(v))
                .collect(),
            _ => array.as_primitive::<Decimal128Type>().values().to_vec(),
        }),
        Domain::Bytes => {
            let binary = cast(array, &DataType::Binary).map_err(arrow_error)?;
            Canonical::Bytes(binary.as_binary::<i32>().clone())
        }
        Domain::Rows => {
            let rows = row_converter(data_type)?
                .convert_columns(&[Arc::clone(array)])
                .map_err(arrow_error)?;
            Canonical::Bytes(rows.try_into_binary().map_err(arrow_error)?)
        }
    })
}

/// The row encoding of a single column.
fn row_converter(data_type: &DataType) -> Result<RowConverter> {
    RowConverter::new(vec![SortField::new(data_type.clone())]).map_err(|e| {
        Error::unsupported(format!(
            "not supported: grouping by or counting distinct values of type {data_type}: {e}"
        ))
    })
}

/// An array of `data_type` from canonical values; `valid` where they are not null.
pub(super) fn array_of(
    values: Canonical,
    valid: Option<Vec<bool>>,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let nulls = valid
        .map(NullBuffer::from)
        .filter(|nulls| nulls.null_count() > 0);
    let mismatch = || Error::internal(format!("values of another kind than {data_type}"));
    Ok(match (Domain::of(data_type), values) {
        (Domain::I64, Canonical::I64(values)) => {
            macro_rules! build {
                ($type:ty) => {{
                    let values: Vec<<$type as ArrowPrimitiveType>::Native> =
                        values.into_iter().map(|v| v as _).collect();
                    let array = PrimitiveArray::<$type>::try_new(values.into(), nulls)
                        .map_err(arrow_error)?;
                    Arc::new(array.with_data_type(data_type.clone())) as ArrayRef
                }};
            }
            match data_type {
                DataType::Boolean => Arc::new(BooleanArray::new(
                    values.iter().map(|&v| v != 0).collect::<Vec<_>>().into(),
                    nulls,
                )),
                other => for_i64_type!(other, build, return Err(mismatch())),
            }
        }
        (Domain::F64, Canonical::I64(keys)) => {
            let values = keys.into_iter().map(f64_of_key);
            match data_type {
                DataType::Float32 => {
                    let values: Vec<f32> = values.map(|v| v as f32).collect();
                    Arc::new(Float32Array::try_new(values.into(), nulls).map_err(arrow_error)?)
                }
                _ => Arc::new(
                    Float64Array::try_new(values.collect::<Vec<_>>().into(), nulls)
                        .map_err(arrow_error)?,
                ),
            }
        }
        (Domain::I128, Canonical::I128(values)) => match data_type {
            DataType::UInt64 => {
                let values: Vec<u64> = values.into_iter().map(|v| v as u64).collect();
                Arc::new(UInt64Array::try_new(values.into(), nulls).map_err(arrow_error)?)
            }
            _ => {
                let array = Decimal128Array::try_new(values.into(), nulls).map_err(arrow_error)?;
                Arc::new(array.with_data_type(data_type.clone()))
            }
        },
        (Domain::Bytes, Canonical::Bytes(values)) => {
            let (offsets, data, _) = values.into_parts();
            let binary: ArrayRef =
                Arc::new(BinaryArray::try_new(offsets, data, nulls).map_err(arrow_error)?);
            if data_type == &DataType::Binary {
                binary
            } else {
                cast(&binary, data_type).map_err(arrow_error)?
            }
        }
        (Domain::Rows, Canonical::Bytes(values)) => {
            let converter = row_converter(data_type)?;
            let parser = converter.parser();
            let null = null_row(&converter, data_type)?;
            let rows = (0..values.len()).map(|i| {
                let is_valid = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i));
                parser.parse(if is_valid { values.value(i) } else { &null })
            });
            let mut columns = converter.convert_rows(rows).map_err(arrow_error)?;
            columns.pop().ok_or_else(mismatch)?
        }
        _ => return Err(mismatch()),
    })
}

fn null_row(converter: &RowConverter, data_type: &DataType) -> Result<Vec<u8>> {
    let rows = converter
        .convert_columns(&[new_null_array(data_type, 1)])
        .map_err(arrow_error)?;
    Ok(rows.row(0).as_ref().to_vec())
}

/// Mixes all bits of `value` into all bits of the result.
#[inline]
pub(super) fn mix(value: u64) -> u64 {
    let product = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    (product >> 64) as u64 ^ product as u64
}

fn mix_bytes(value: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
    hasher.write(value);
    hasher.finish()
}

/// Numbers distinct values from 0, null among them.
#[derive(Debug)]
pub(super) struct Interner {
    domain: Domain,
    store: Store,
    table: HashTable<u32>,
    null: Option<u32>,
    /// The number that the next text or bytes of another segment likely has.
    next: u32,
}

/// Numbers from the likely one on that are looked at before the table is.
const LIKELY: u32 = 4;

#[derive(Debug)]
enum Store {
    I64(Vec<i64>),
    I128(Vec<i128>),
    Bytes {
        ends: Vec<usize>,
        data: Vec<u8>,
        /// Of each value: growing the table and moving to another one need not read them again.
        hashes: Vec<u64>,
    },
}

fn bytes_at<'a>(ends: &[usize], data: &'a [u8], id: u32) -> &'a [u8] {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] };
    &data[start..ends[id]]
}

impl Interner {
    /// No values yet.
    pub(super) fn new(domain: Domain) -> Self {
        let store = match domain {
            Domain::I64 | Domain::F64 => Store::I64(Vec::new()),
            Domain::I128 => Store::I128(Vec::new()),
            Domain::Bytes | Domain::Rows => Store::Bytes {
                ends: Vec::new(),
                data: Vec::new(),
                hashes: Vec::new(),
            },
        };
        Self {
            domain,
            store,
            table: HashTable::new(),
            null: None,
            next: 0,
        }
    }

    /// How many, null included.
    pub(super) fn len(&self) -> usize {
        match &self.store {
            Store::I64(values) => values.len(),
            Store::I128(values) => values.len(),
            Store::Bytes { ends, .. } => ends.len(),
        }
    }

    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> usize {
        let store = match &self.store {
            Store::I64(values) => values.capacity() * 8,
            Store::I128(values) => values.capacity() * 16,
            Store::Bytes { ends, data, hashes } => {
                (ends.capacity() + hashes.capacity()) * 8 + data.capacity()
            }
        };
        store + self.table.capacity() * 5
    }

    /// The number of null.
    pub(super) fn null(&mut self) -> u32 {
        if let Some(id) = self.null {
            return id;
        }
        let id = self.len() as u32;
        self.next += u32::from(self.next == id);
        match &mut self.store {
            Store::I64(values) => values.push(0),
            Store::I128(values) => values.push(0),
            Store::Bytes { ends, data, hashes } => {
                ends.push(data.len());
                hashes.push(0);
            }
        }
        self.null = Some(id);
        id
    }

    /// Whether `id` is that of null.
    pub(super) fn is_null(&self, id: u32) -> bool {
        self.null == Some(id)
    }

    /// The number of an integer or a float's key; 0 in an interner of another kind.
    #[inline]
    pub(super) fn i64(&mut self, value: i64) -> u32 {
        let Store::I64(values) = &mut self.store else {
            return 0;
        };
        let hash = mix(value as u64);
        match self.table.find(hash, |&id| values[id as usize] == value) {
            Some(&id) => id,
            None => {
                let id = values.len() as u32;
                values.push(value);
                self.table
                    .insert_unique(hash, id, |&id| mix(values[id as usize] as u64));
                id
            }
        }
    }

    /// The number of a wide integer.
    pub(super) fn i128(&mut self, value: i128) -> u32 {
        let Store::I128(values) = &mut self.store else {
            return 0;
        };
        let hash_of = |value: i128| mix(value as u64 ^ mix((value >> 64) as u64));
        let hash = hash_of(value);
        match self.table.find(hash, |&id| values[id as usize] == value) {
            Some(&id) => id,
            None => {
                let id = values.len() as u32;
                values.push(value);
                self.table
                    .insert_unique(hash, id, |&id| hash_of(values[id as usize]));
                id
            }
        }
    }

    /// The number of text or bytes.
    pub(super) fn bytes(&mut self, value: &[u8]) -> u32 {
        self.hashed_bytes(value, mix_bytes(value))
    }

    fn hashed_bytes(&mut self, value: &[u8], hash: u64) -> u32 {
        let Store::Bytes { ends, data, hashes } = &mut self.store else {
            return 0;
        };
        let is_value = |&id: &u32| hashes[id as usize] == hash && bytes_at(ends, data, id) == value;
        match self.table.find(hash, is_value) {
            Some(&id) => {
                self.next = id + 1;
                id
            }
            None => {
                let id = ends.len() as u32;
                self.next += u32::from(self.next == id);
                data.extend_from_slice(value);
                ends.push(data.len());
                hashes.push(hash);
                self.table
                    .insert_unique(hash, id, |&id| hashes[id as usize]);
                id
            }
        }
    }

    /// The number of text or bytes that follow, in the order in which values first came, those that were asked for before:
    /// as the values of a dictionary do that hardly differs from an earlier segment's. None where they don't.
    fn following(&mut self, value: &[u8]) -> Option<u32> {
        let Store::Bytes { ends, data, .. } = &self.store else {
            return None;
        };
        let end = self.next.saturating_add(LIKELY).min(ends.len() as u32);
        for id in (self.next..end).filter(|id| self.null != Some(*id)) {
            match bytes_at(ends, data, id).cmp(value) {
                Ordering::Less => {}
                Ordering::Equal => {
                    self.next = id + 1;
                    return Some(id);
                }
                Ordering::Greater => break,
            }
        }
        None
    }

    /// The number of a stored value, quickly where ascending values are asked for.
    pub(super) fn scalar(&mut self, value: &Scalar<'_>) -> u32 {
        match value {
            Scalar::I32(v) => self.i64(i64::from(*v)),
            Scalar::I64(v) => self.i64(*v),
            Scalar::F32(v) => self.i64(f64_key(f64::from(*v))),
            Scalar::F64(v) => self.i64(f64_key(*v)),
            Scalar::I128(v) => self.i128(*v),
            Scalar::Bytes(v) => match self.following(v) {
                Some(id) => id,
                None => self.bytes(v),
            },
        }
    }

    /// The number of what another interner of the same domain calls `id`, quickly where ascending ones are asked for.
    pub(super) fn adopt(&mut self, other: &Self, id: u32) -> u32 {
        if other.is_null(id) {
            return self.null();
        }
        match &other.store {
            Store::I64(values) => self.i64(values[id as usize]),
            Store::I128(values) => self.i128(values[id as usize]),
            Store::Bytes { ends, data, hashes } => {
                let value = bytes_at(ends, data, id);
                match self.following(value) {
                    Some(id) => id,
                    None => self.hashed_bytes(value, hashes[id as usize]),
                }
            }
        }
    }

    /// The number of one of `values`.
    pub(super) fn one(&mut self, values: &Canonical, index: usize) -> u32 {
        match values {
            Canonical::I64(values) => self.i64(values[index]),
            Canonical::I128(values) => self.i128(values[index]),
            Canonical::Bytes(values) => self.bytes(values.value(index)),
        }
    }

    /// Appends the numbers of an array's values to `out`.
    pub(super) fn array(&mut self, array: &ArrayRef, out: &mut Vec<u32>) -> Result<()> {
        let nulls = validity(array);
        let is_valid = |i: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i));
        out.reserve(array.len());
        let values = canonical(array)?;
        for i in 0..array.len() {
            out.push(if is_valid(i) {
                self.one(&values, i)
            } else {
                self.null()
            });
        }
        Ok(())
    }

    /// The values of `ids` as an array of `data_type`, which is of the interner's domain.
    pub(super) fn gather(&self, ids: &[u32], data_type: &DataType) -> Result<ArrayRef> {
        if Domain::of(data_type) != self.domain {
            return Err(Error::internal(format!(
                "distinct values of another kind than {data_type}"
            )));
        }
        let valid = self
            .null
            .map(|null| ids.iter().map(|&id| id != null).collect());
        let values = match &self.store {
            Store::I64(values) => {
                Canonical::I64(ids.iter().map(|&id| values[id as usize]).collect())
            }
            Store::I128(values) => {
                Canonical::I128(ids.iter().map(|&id| values[id as usize]).collect())
            }
            Store::Bytes { ends, data, .. } => {
                Canonical::Bytes(binary(ids.iter().map(|&id| bytes_at(ends, data, id)))?)
            }
        };
        array_of(values, valid, data_type)
    }
}

/// Bytes as an array; an error beyond 2 GiB.
pub(super) fn binary<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<BinaryArray> {
    let mut data = Vec::new();
    let mut offsets = vec![0i32];
    for value in values {
        data.extend_from_slice(value);
        let end = i32::try_from(data.len()).map_err(|_| {
            Error::exhausted("over 2 GiB of text in one column of an answer: group or select less")
        })?;
        offsets.push(end);
    }
    let offsets = arrow::buffer::OffsetBuffer::new(offsets.into());
    BinaryArray::try_new(offsets, data.into(), None).map_err(arrow_error)
}

#[cfg(test)]
mod tests;
