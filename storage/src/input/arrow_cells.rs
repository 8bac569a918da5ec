//! Arrow arrays of a file as cells, value by value.

use crate::convert::Cell;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array,
    FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array,
    Int64Array, LargeBinaryArray, LargeStringArray, StringArray, StringViewArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use std::borrow::Cow;

/// An array whose values are read as cells.
pub(super) enum Cells<'a> {
    Null,
    Boolean(&'a BooleanArray),
    Int8(&'a Int8Array),
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    UInt8(&'a UInt8Array),
    UInt16(&'a UInt16Array),
    UInt32(&'a UInt32Array),
    UInt64(&'a UInt64Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array, i8),
    Date32(&'a arrow::array::Date32Array),
    Date64(&'a arrow::array::Date64Array),
    Seconds(&'a arrow::array::TimestampSecondArray),
    Millis(&'a arrow::array::TimestampMillisecondArray),
    Micros(&'a arrow::array::TimestampMicrosecondArray),
    Nanos(&'a arrow::array::TimestampNanosecondArray),
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    Bytes(&'a BinaryArray),
    LargeBytes(&'a LargeBinaryArray),
    BytesView(&'a BinaryViewArray),
    FixedBytes(&'a FixedSizeBinaryArray),
    List {
        offsets: Offsets<'a>,
        nulls: &'a dyn Array,
        elements: Box<Cells<'a>>,
    },
    Struct {
        array: &'a dyn Array,
        fields: Vec<(&'a str, Cells<'a>)>,
    },
}

/// Where a list's elements are.
pub(super) enum Offsets<'a> {
    Small(&'a [i32]),
    Large(&'a [i64]),
}

impl<'a> Cells<'a> {
    /// Over an array; an error names the type that isn't read.
    pub(super) fn new(array: &'a ArrayRef) -> Result<Self, String> {
        Self::of(array.as_ref())
    }

    fn of(array: &'a dyn Array) -> Result<Self, String> {
        Ok(match array.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Boolean(array.as_boolean()),
            DataType::Int8 => Self::Int8(array.as_primitive()),
            DataType::Int16 => Self::Int16(array.as_primitive()),
            DataType::Int32 => Self::Int32(array.as_primitive()),
            DataType::Int64 => Self::Int64(array.as_primitive()),
            DataType::UInt8 => Self::UInt8(array.as_primitive()),
            DataType::UInt16 => Self::UInt16(array.as_primitive()),
            DataType::UInt32 => Self::UInt32(array.as_primitive()),
            DataType::UInt64 => Self::UInt64(array.as_primitive()),
            DataType::Float32 => Self::Float32(array.as_primitive()),
            DataType::Float64 => Self::Float64(array.as_primitive()),
            DataType::Decimal128(_, scale) => Self::Decimal(array.as_primitive(), *scale),
            DataType::Date32 => Self::Date32(array.as_primitive::<Date32Type>()),
            DataType::Date64 => Self::Date64(array.as_primitive::<Date64Type>()),
            DataType::Timestamp(TimeUnit::Second, _) => {
                Self::Seconds(array.as_primitive::<TimestampSecondType>())
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Self::Millis(array.as_primitive::<TimestampMillisecondType>())
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Micros(array.as_primitive::<TimestampMicrosecondType>())
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Self::Nanos(array.as_primitive::<TimestampNanosecondType>())
            }
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::LargeUtf8 => Self::LargeText(array.as_string()),
            DataType::Utf8View => Self::TextView(array.as_string_view()),
            DataType::Binary => Self::Bytes(array.as_binary()),
            DataType::LargeBinary => Self::LargeBytes(array.as_binary()),
            DataType::BinaryView => Self::BytesView(array.as_binary_view()),
            DataType::FixedSizeBinary(_) => Self::FixedBytes(array.as_fixed_size_binary()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let elements = Box::new(Self::of(list.values().as_ref())?);
                Self::List {
                    offsets: Offsets::Small(list.value_offsets()),
                    nulls: array,
                    elements,
                }
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                let elements = Box::new(Self::of(list.values().as_ref())?);
                Self::List {
                    offsets: Offsets::Large(list.value_offsets()),
                    nulls: array,
                    elements,
                }
            }
            DataType::Struct(_) => {
                let record = array.as_struct();
                let names = record.column_names();
                let fields = names
                    .into_iter()
                    .zip(record.columns())
                    .map(|(name, column)| Ok((name, Self::of(column.as_ref())?)));
                Self::Struct {
                    array,
                    fields: fields.collect::<Result<_, String>>()?,
                }
            }
            other => return Err(format!("not supported: values of the file's type {other}")),
        })
    }

    /// The value of a row.
    pub(super) fn get(&self, row: usize) -> Cell<'a> {
        macro_rules! value {
            ($array:expr, $v:ident => $cell:expr) => {{
                if $array.is_null(row) {
                    Cell::Null
                } else {
                    let $v = $array.value(row);
                    $cell
                }
            }};
        }
        match self {
            Self::Null => Cell::Null,
            Self::Boolean(a) => value!(a, v => Cell::Boolean(v)),
            Self::Int8(a) => value!(a, v => Cell::Integer(i64::from(v))),
            Self::Int16(a) => value!(a, v => Cell::Integer(i64::from(v))),
            Self::Int32(a) => value!(a, v => Cell::Integer(i64::from(v))),
            Self::Int64(a) => value!(a, v => Cell::Integer(v)),
            Self::UInt8(a) => value!(a, v => Cell::Integer(i64::from(v))),
            Self::UInt16(a) => value!(a, v => Cell::Integer(i64::from(v))),
            Self::UInt32(a) => value!(a, v => Cell::Integer(i64::from(v))),
            Self::UInt64(a) => value!(a, v => match i64::try_from(v) {
                Ok(v) => Cell::Integer(v),
                Err(_) => Cell::Decimal { unscaled: i128::from(v), scale: 0 },
            }),
            Self::Float32(a) => value!(a, v => Cell::Float(v)),
            Self::Float64(a) => value!(a, v => Cell::Double(v)),
            Self::Decimal(a, scale) => value!(a, v => Cell::Decimal { unscaled: v, scale: *scale }),
            Self::Date32(a) => value!(a, v => Cell::Date(v)),
            Self::Date64(a) => value!(a, v => Cell::Timestamp(v)),
            Self::Seconds(a) => value!(a, v => Cell::Timestamp(v.saturating_mul(1_000))),
            Self::Millis(a) => value!(a, v => Cell::Timestamp(v)),
            Self::Micros(a) => value!(a, v => Cell::Timestamp(v.div_euclid(1_000))),
            Self::Nanos(a) => value!(a, v => Cell::Timestamp(v.div_euclid(1_000_000))),
            Self::Text(a) => value!(a, v => Cell::Text(Cow::Borrowed(v))),
            Self::LargeText(a) => value!(a, v => Cell::Text(Cow::Borrowed(v))),
            Self::TextView(a) => value!(a, v => Cell::Text(Cow::Borrowed(v))),
            Self::Bytes(a) => value!(a, v => Cell::Bytes(Cow::Borrowed(v))),
            Self::LargeBytes(a) => value!(a, v => Cell::Bytes(Cow::Borrowed(v))),
            Self::BytesView(a) => value!(a, v => Cell::Bytes(Cow::Borrowed(v))),
            Self::FixedBytes(a) => value!(a, v => Cell::Bytes(Cow::Borrowed(v))),
            Self::List {
                offsets,
                nulls,
                elements,
            } => {
                if nulls.is_null(row) {
                    return Cell::Null;
                }
                let (start, end) = match offsets {
                    Offsets::Small(o) => (o[row] as usize, o[row + 1] as usize),
                    Offsets::Large(o) => (o[row] as usize, o[row + 1] as usize),
                };
                Cell::List((start..end).map(|at| elements.get(at)).collect())
            }
            Self::Struct { array, fields } => {
                if array.is_null(row) {
                    return Cell::Null;
                }
                let mut out = String::from("{");
                for (i, (name, cells)) in fields.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    crate::convert::json::write_string(name, &mut out);
                    out.push(':');
                    crate::convert::scalar::write_json(&cells.get(row), &mut out);
                }
                out.push('}');
                Cell::Document(Cow::Owned(out))
            }
        }
    }
}
