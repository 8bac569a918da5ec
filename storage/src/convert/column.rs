//! The buffer that a column's values are appended to until a batch is full.
//!
//! Unlike Arrow's builders it can be cut back to an earlier row, which makes a row atomic: columns are
//! appended to in order, and when one refuses, all are cut back.

use super::cell::Cell;
use super::json;
use super::scalar::{self, Reason};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, ListArray, StringArray, TimestampMillisecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use std::sync::Arc;
use strandline_proto::json::{JsonReader, PlainNumber};
use strandline_proto::schema::{Column, DataType};
use strandline_proto::time_format::{TIME_MS_MAX, TIME_MS_MIN};
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

/// Bytes of one column's text in one batch: Arrow's 32-bit offsets, with room to spare.
const TEXT_BYTES_MAX: usize = 2_000_000_000;

/// The values themselves; a null holds the type's zero.
enum Values {
    Boolean(Vec<bool>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Decimal(Vec<i128>),
    Text { ends: Vec<usize>, data: String },
    Bytes { ends: Vec<usize>, data: Vec<u8> },
}

impl Values {
    fn new(data_type: DataType) -> Self {
        match data_type {
            DataType::Int => Self::Int(Vec::new()),
            DataType::Long | DataType::Timestamp => Self::Long(Vec::new()),
            DataType::Float => Self::Float(Vec::new()),
            DataType::Double => Self::Double(Vec::new()),
            DataType::BigDecimal { .. } => Self::Decimal(Vec::new()),
            DataType::Boolean => Self::Boolean(Vec::new()),
            DataType::String | DataType::Json => Self::Text {
                ends: Vec::new(),
                data: String::new(),
            },
            DataType::Bytes => Self::Bytes {
                ends: Vec::new(),
                data: Vec::new(),
            },
        }
    }

    /// The same without values, and with room for as many.
    fn emptied(&self) -> Self {
        match self {
            Self::Boolean(v) => Self::Boolean(Vec::with_capacity(v.len())),
            Self::Int(v) => Self::Int(Vec::with_capacity(v.len())),
            Self::Long(v) => Self::Long(Vec::with_capacity(v.len())),
            Self::Float(v) => Self::Float(Vec::with_capacity(v.len())),
            Self::Double(v) => Self::Double(Vec::with_capacity(v.len())),
            Self::Decimal(v) => Self::Decimal(Vec::with_capacity(v.len())),
            Self::Text { ends, data } => Self::Text {
                ends: Vec::with_capacity(ends.len()),
                data: String::with_capacity(data.len()),
            },
            Self::Bytes { ends, data } => Self::Bytes {
                ends: Vec::with_capacity(ends.len()),
                data: Vec::with_capacity(data.len()),
            },
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Boolean(v) => v.len(),
            Self::Int(v) => v.len(),
            Self::Long(v) => v.len(),
            Self::Float(v) => v.len(),
            Self::Double(v) => v.len(),
            Self::Decimal(v) => v.len(),
            Self::Text { ends, .. } | Self::Bytes { ends, .. } => ends.len(),
        }
    }

    fn truncate(&mut self, len: usize) {
        match self {
            Self::Boolean(v) => v.truncate(len),
            Self::Int(v) => v.truncate(len),
            Self::Long(v) => v.truncate(len),
            Self::Float(v) => v.truncate(len),
            Self::Double(v) => v.truncate(len),
            Self::Decimal(v) => v.truncate(len),
            Self::Text { ends, data } => {
                ends.truncate(len);
                data.truncate(ends.last().copied().unwrap_or(0));
            }
            Self::Bytes { ends, data } => {
                ends.truncate(len);
                data.truncate(ends.last().copied().unwrap_or(0));
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Boolean(v) => v.len(),
            Self::Int(v) => v.len() * 4,
            Self::Float(v) => v.len() * 4,
            Self::Long(v) => v.len() * 8,
            Self::Double(v) => v.len() * 8,
            Self::Decimal(v) => v.len() * 16,
            Self::Text { ends, data } => ends.len() * 4 + data.len(),
            Self::Bytes { ends, data } => ends.len() * 4 + data.len(),
        }
    }

    fn push_zero(&mut self) {
        match self {
            Self::Boolean(v) => v.push(false),
            Self::Int(v) => v.push(0),
            Self::Long(v) => v.push(0),
            Self::Float(v) => v.push(0.0),
            Self::Double(v) => v.push(0.0),
            Self::Decimal(v) => v.push(0),
            Self::Text { ends, data } => ends.push(data.len()),
            Self::Bytes { ends, data } => ends.push(data.len()),
        }
    }

    /// Appends a value that is of the column's type already.
    fn push_value(&mut self, value: &Value) -> bool {
        match (self, value) {
            (Self::Boolean(v), Value::Boolean(x)) => v.push(*x),
            (Self::Int(v), Value::Int(x)) => v.push(*x),
            (Self::Long(v), Value::Long(x) | Value::Timestamp(x)) => v.push(*x),
            (Self::Float(v), Value::Float(x)) => v.push(*x),
            (Self::Double(v), Value::Double(x)) => v.push(*x),
            (Self::Decimal(v), Value::Decimal { unscaled, .. }) => v.push(*unscaled),
            (Self::Text { ends, data }, Value::String(x)) => {
                data.push_str(x);
                ends.push(data.len());
            }
            (Self::Bytes { ends, data }, Value::Bytes(x)) => {
                data.extend_from_slice(x);
                ends.push(data.len());
            }
            _ => return false,
        }
        true
    }

    /// Appends a cell that is not null. On an error nothing is appended but, for text, bytes that no end names
    /// yet; the caller truncates.
    fn push_cell(&mut self, cell: &Cell<'_>, data_type: DataType) -> Result<(), Reason> {
        match self {
            Self::Boolean(v) => v.push(scalar::boolean(cell)?),
            Self::Int(v) => v.push(scalar::int(cell)?),
            Self::Long(v) if data_type == DataType::Timestamp => v.push(scalar::timestamp(cell)?),
            Self::Long(v) => v.push(scalar::integer(cell)?),
            Self::Float(v) => v.push(scalar::float(cell)?),
            Self::Double(v) => v.push(scalar::double(cell)?),
            Self::Decimal(v) => match data_type {
                DataType::BigDecimal { precision, scale } => {
                    v.push(scalar::decimal(cell, precision, scale)?)
                }
                _ => return Err(format!("{cell} is not a decimal number")),
            },
            Self::Text { ends, data } => {
                if data_type == DataType::Json {
                    scalar::write_document(cell, data)?;
                } else {
                    scalar::write_text(cell, data)?;
                }
                if data.len() > TEXT_BYTES_MAX {
                    return Err("the batch holds more than 2 GB of the column's text".to_owned());
                }
                ends.push(data.len());
            }
            Self::Bytes { ends, data } => {
                scalar::write_bytes(cell, data)?;
                if data.len() > TEXT_BYTES_MAX {
                    return Err("the batch holds more than 2 GB of the column's bytes".to_owned());
                }
                ends.push(data.len());
            }
        }
        Ok(())
    }

    /// Appends the JSON value that comes next, when it is one that most columns of the type hold: then it takes no cell between.
    /// False, with nothing read or appended, otherwise.
    #[inline]
    fn push_plain(&mut self, reader: &mut JsonReader<'_>, data_type: DataType) -> bool {
        let start = reader.clone();
        let pushed = match self {
            Self::Text { ends, data } if data_type == DataType::String => {
                let text = (reader.plain_string())
                    .filter(|text| data.len() + text.len() <= TEXT_BYTES_MAX);
                text.map(|text| {
                    data.push_str(text);
                    ends.push(data.len());
                })
            }
            Self::Int(v) => (reader.plain_number())
                .and_then(|number| i32::try_from(number.integer()?).ok())
                .map(|number| v.push(number)),
            Self::Long(v) => (reader.plain_number())
                .and_then(PlainNumber::integer)
                .filter(|ms| {
                    data_type != DataType::Timestamp || (TIME_MS_MIN..=TIME_MS_MAX).contains(ms)
                })
                .map(|number| v.push(number)),
            Self::Float(v) => (reader.plain_number())
                .and_then(PlainNumber::float)
                .map(|number| v.push(number)),
            Self::Double(v) => (reader.plain_number())
                .and_then(PlainNumber::double)
                .map(|number| v.push(number)),
            _ => None,
        };
        if pushed.is_none() {
            *reader = start;
        }
        pushed.is_some()
    }

    fn finish(&mut self, nulls: Option<NullBuffer>, data_type: DataType) -> Result<ArrayRef> {
        let wrong = |e: arrow::error::ArrowError| {
            Error::internal(format!("a column buffer gave no array: {e}"))
        };
        // The next batch is most often as large as this one.
        let emptied = self.emptied();
        Ok(match std::mem::replace(self, emptied) {
            Self::Boolean(v) => Arc::new(BooleanArray::new(v.into(), nulls)),
            Self::Int(v) => Arc::new(Int32Array::try_new(v.into(), nulls).map_err(wrong)?),
            Self::Long(v) if data_type == DataType::Timestamp => {
                Arc::new(TimestampMillisecondArray::try_new(v.into(), nulls).map_err(wrong)?)
            }
            Self::Long(v) => Arc::new(Int64Array::try_new(v.into(), nulls).map_err(wrong)?),
            Self::Float(v) => Arc::new(Float32Array::try_new(v.into(), nulls).map_err(wrong)?),
            Self::Double(v) => Arc::new(Float64Array::try_new(v.into(), nulls).map_err(wrong)?),
            Self::Decimal(v) => {
                let array = Decimal128Array::try_new(v.into(), nulls).map_err(wrong)?;
                match data_type {
                    DataType::BigDecimal { precision, scale } => Arc::new(
                        array
                            .with_precision_and_scale(precision, scale)
                            .map_err(wrong)?,
                    ),
                    _ => Arc::new(array),
                }
            }
            Self::Text { ends, data } => {
                let data = Buffer::from_vec(data.into_bytes());
                Arc::new(StringArray::try_new(offsets(&ends)?, data, nulls).map_err(wrong)?)
            }
            Self::Bytes { ends, data } => Arc::new(
                BinaryArray::try_new(offsets(&ends)?, Buffer::from_vec(data), nulls)
                    .map_err(wrong)?,
            ),
        })
    }
}

fn offsets(ends: &[usize]) -> Result<OffsetBuffer<i32>> {
    let all: Vec<i32> = std::iter::once(Ok(0))
        .chain(ends.iter().map(|end| i32::try_from(*end)))
        .collect::<Result<_, _>>()
        .map_err(|_| Error::internal("a column buffer is longer than 2 GB"))?;
    Ok(OffsetBuffer::new(ScalarBuffer::from(all)))
}

/// Which entries are null, only kept once there is one.
#[derive(Default)]
struct Nulls {
    valid: Vec<bool>,
    len: usize,
}

impl Nulls {
    fn push(&mut self, valid: bool) {
        if !valid && self.valid.is_empty() {
            self.valid.resize(self.len, true);
        }
        self.len += 1;
        if !valid || !self.valid.is_empty() {
            self.valid.push(valid);
        }
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.valid.truncate(len);
    }

    fn finish(&mut self) -> Option<NullBuffer> {
        let taken = std::mem::take(self);
        taken
            .valid
            .contains(&false)
            .then(|| NullBuffer::from(taken.valid))
    }
}

/// One column's rows.
pub(crate) struct ColumnBuffer {
    data_type: DataType,
    multi_value: bool,
    not_null: bool,
    default: Value,
    values: Values,
    value_nulls: Nulls,
    /// For a multi-value column, where each row's elements end.
    list_ends: Vec<usize>,
    list_nulls: Nulls,
}

impl ColumnBuffer {
    pub(crate) fn new(column: &Column) -> Self {
        Self {
            data_type: column.data_type,
            multi_value: column.multi_value,
            not_null: column.not_null,
            default: column.default.clone(),
            values: Values::new(column.data_type),
            value_nulls: Nulls::default(),
            list_ends: Vec::new(),
            list_nulls: Nulls::default(),
        }
    }

    /// Rows appended.
    #[inline]
    pub(crate) fn rows(&self) -> usize {
        if self.multi_value {
            self.list_ends.len()
        } else {
            self.values.len()
        }
    }

    /// Bytes held, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.values.bytes() + self.list_ends.len() * 4
    }

    /// Appends one row's cell. After an error the caller must truncate to the rows before.
    pub(crate) fn push(&mut self, cell: &Cell<'_>) -> Result<(), Reason> {
        if cell.is_null() {
            return self.push_default();
        }
        if self.multi_value {
            return self.push_list(cell);
        }
        if matches!(cell, Cell::List(_))
            || (matches!(cell, Cell::JsonArray(_)) && self.data_type != DataType::Json)
        {
            return Err(format!(
                "{cell} is a list; the column holds a single value (singleValueField)"
            ));
        }
        self.values.push_cell(cell, self.data_type)?;
        self.value_nulls.push(true);
        Ok(())
    }

    /// Appends one row's value, the one that comes next in `reader`, as [`Self::push`] appends its cell. After an error the
    /// caller must truncate to the rows before.
    #[inline]
    pub(crate) fn push_json(&mut self, reader: &mut JsonReader<'_>) -> Result<(), Reason> {
        reader.skip_space();
        if !self.multi_value && self.values.push_plain(reader, self.data_type) {
            self.value_nulls.push(true);
            return Ok(());
        }
        self.push(&json::value(reader)?)
    }

    /// Appends the default or null, as a row has it that brings no value. After an error the caller must truncate to the rows
    /// before.
    pub(crate) fn push_default(&mut self) -> Result<(), Reason> {
        if self.default.is_null() && self.not_null {
            return Err("null where the schema says notNull".to_owned());
        }
        match (&self.default, self.multi_value) {
            (Value::Null, false) => {
                self.values.push_zero();
                self.value_nulls.push(false);
            }
            (Value::Null, true) => {
                self.list_ends.push(self.values.len());
                self.list_nulls.push(false);
            }
            (Value::List(elements), true) => {
                for element in elements {
                    if !self.values.push_value(element) {
                        return Err("the column's default has another type".to_owned());
                    }
                    self.value_nulls.push(true);
                }
                self.list_ends.push(self.values.len());
                self.list_nulls.push(true);
            }
            (value, false) if self.values.push_value(value) => self.value_nulls.push(true),
            _ => return Err("the column's default has another type".to_owned()),
        }
        Ok(())
    }

    fn push_list(&mut self, cell: &Cell<'_>) -> Result<(), Reason> {
        match cell {
            Cell::List(elements) => elements
                .iter()
                .try_for_each(|element| self.push_element(element))?,
            Cell::JsonArray(text) => json::read_array(text, |element| self.push_element(&element))?,
            single => self.push_element(single)?,
        }
        self.list_ends.push(self.values.len());
        self.list_nulls.push(true);
        Ok(())
    }

    /// Appends one element. Null elements are kept: a list is what the source says.
    fn push_element(&mut self, element: &Cell<'_>) -> Result<(), Reason> {
        if element.is_null() {
            self.values.push_zero();
            self.value_nulls.push(false);
            return Ok(());
        }
        if matches!(element, Cell::List(_) | Cell::JsonArray(_)) && self.data_type != DataType::Json
        {
            return Err(format!("{element} is a list inside of a list"));
        }
        self.values.push_cell(element, self.data_type)?;
        self.value_nulls.push(true);
        Ok(())
    }

    /// Forgets all rows from `rows` on, also a half appended one.
    pub(crate) fn truncate(&mut self, rows: usize) {
        let values = if self.multi_value {
            self.list_ends.truncate(rows);
            self.list_nulls.truncate(rows);
            self.list_ends.last().copied().unwrap_or(0)
        } else {
            rows
        };
        self.values.truncate(values);
        self.value_nulls.truncate(values);
    }

    /// The last row's value as a number (of a whole number or timestamp) or text, when it is one and not null.
    pub(crate) fn last(&self) -> Last<'_> {
        if self.multi_value || self.value_nulls.valid.last() == Some(&false) {
            return Last::Null;
        }
        match &self.values {
            Values::Int(v) => v.last().map_or(Last::Null, |v| Last::Number(i64::from(*v))),
            Values::Long(v) => v.last().map_or(Last::Null, |v| Last::Number(*v)),
            Values::Text { ends, data } => {
                let start = ends
                    .len()
                    .checked_sub(2)
                    .and_then(|i| ends.get(i))
                    .copied()
                    .unwrap_or(0);
                data.get(start..).map_or(Last::Null, Last::Text)
            }
            _ => Last::Null,
        }
    }

    /// The rows as an array of the column's Arrow type; the buffer is empty again.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        debug_assert!(self.rows() <= i32::MAX as usize);
        let nulls = self.value_nulls.finish();
        let values = self.values.finish(nulls, self.data_type)?;
        if !self.multi_value {
            return Ok(values);
        }
        let ends = std::mem::take(&mut self.list_ends);
        let field = Arc::new(arrow::datatypes::Field::new_list_field(
            self.data_type.arrow(),
            true,
        ));
        let list = ListArray::try_new(field, offsets(&ends)?, values, self.list_nulls.finish())
            .map_err(|e| Error::internal(format!("a column buffer gave no list: {e}")))?;
        Ok(Arc::new(list))
    }
}

/// See [`ColumnBuffer::last`].
pub(crate) enum Last<'a> {
    Null,
    Number(i64),
    Text(&'a str),
}
