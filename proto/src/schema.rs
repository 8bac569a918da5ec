//! A table's columns: names, types, roles, defaults, and their Arrow types.

use crate::time_format::TimeFormat;
use crate::value::Value;
use arrow_schema::{DataType as ArrowType, Field, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Digits that a BIG_DECIMAL holds unless the schema says otherwise.
pub const DECIMAL_PRECISION_DEFAULT: u8 = 38;
/// Digits after the point that a BIG_DECIMAL holds unless the schema says otherwise.
pub const DECIMAL_SCALE_DEFAULT: i8 = 10;

/// The type of a column's values (of one element, for a multi-value column).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataType {
    /// 32-bit signed integer.
    Int,
    /// 64-bit signed integer.
    Long,
    /// 32-bit IEEE float.
    Float,
    /// 64-bit IEEE float.
    Double,
    /// Exact decimal of at most 38 digits.
    BigDecimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, 0 to `precision`.
        scale: i8,
    },
    /// True or false.
    Boolean,
    /// Milliseconds since the epoch, UTC.
    Timestamp,
    /// UTF-8 text.
    String,
    /// A JSON document as text.
    Json,
    /// Bytes.
    Bytes,
}

impl DataType {
    /// Pinot's name of the type.
    pub fn pinot_name(self) -> &'static str {
        match self {
            Self::Int => "INT",
            Self::Long => "LONG",
            Self::Float => "FLOAT",
            Self::Double => "DOUBLE",
            Self::BigDecimal { .. } => "BIG_DECIMAL",
            Self::Boolean => "BOOLEAN",
            Self::Timestamp => "TIMESTAMP",
            Self::String => "STRING",
            Self::Json => "JSON",
            Self::Bytes => "BYTES",
        }
    }

    /// The Arrow type of one value: Int32, Int64, Float32, Float64, Decimal128, Boolean,
    /// Timestamp(ms, no zone), Utf8, Utf8, Binary.
    pub fn arrow(self) -> ArrowType {
        match self {
            Self::Int => ArrowType::Int32,
            Self::Long => ArrowType::Int64,
            Self::Float => ArrowType::Float32,
            Self::Double => ArrowType::Float64,
            Self::BigDecimal { precision, scale } => ArrowType::Decimal128(precision, scale),
            Self::Boolean => ArrowType::Boolean,
            Self::Timestamp => ArrowType::Timestamp(TimeUnit::Millisecond, None),
            Self::String | Self::Json => ArrowType::Utf8,
            Self::Bytes => ArrowType::Binary,
        }
    }

    /// Whether values are text: STRING and JSON.
    pub fn is_text(self) -> bool {
        matches!(self, Self::String | Self::Json)
    }
}

/// What a column is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnRole {
    /// Filtered and grouped by.
    Dimension,
    /// Aggregated.
    Metric,
    /// A time, in a format.
    DateTime {
        /// How the column's values write times.
        format: TimeFormat,
        /// Pinot's granularity text, kept as given.
        granularity: String,
    },
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// The name, as written in the schema.
    pub name: String,
    /// The type of a value, or of an element.
    pub data_type: DataType,
    /// Whether a row holds a list of values.
    pub multi_value: bool,
    /// What the column is for.
    pub role: ColumnRole,
    /// What a row without the column holds: null unless the schema names a `defaultNullValue`.
    pub default: Value,
    /// Whether nulls are refused (`notNull`).
    pub not_null: bool,
}

impl Column {
    /// A single-value dimension that may be null, without a default.
    pub fn dimension(name: impl Into<String>, data_type: DataType) -> Self {
        Self {
            name: name.into(),
            data_type,
            multi_value: false,
            role: ColumnRole::Dimension,
            default: Value::Null,
            not_null: false,
        }
    }

    /// Whether each row holds one time of the type TIMESTAMP.
    pub fn is_single_timestamp(&self) -> bool {
        !self.multi_value && self.data_type == DataType::Timestamp
    }

    /// Whether each row holds one text.
    pub fn is_single_text(&self) -> bool {
        !self.multi_value && self.data_type.is_text()
    }

    /// The Arrow type of the column: a list for a multi-value one.
    pub fn arrow_type(&self) -> ArrowType {
        if self.multi_value {
            ArrowType::List(Arc::new(Field::new_list_field(
                self.data_type.arrow(),
                true,
            )))
        } else {
            self.data_type.arrow()
        }
    }

    /// The Arrow field of the column; always nullable, because old segments may lack the column.
    pub fn arrow_field(&self) -> Field {
        Field::new(&self.name, self.arrow_type(), true)
    }
}

/// A table's schema. Column order is the order of `SELECT *`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// The schema's name, which is the table's.
    pub name: String,
    /// The version, from 1: each stored change makes a larger one.
    pub version: u32,
    /// The columns.
    pub columns: Vec<Column>,
    /// Names of the primary key's columns; empty without one.
    pub primary_key: Vec<String>,
}

impl Schema {
    /// The column named exactly `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// The Arrow schema, columns in order, without virtual columns.
    pub fn arrow(&self) -> SchemaRef {
        Arc::new(arrow_schema::Schema::new(
            self.columns
                .iter()
                .map(Column::arrow_field)
                .collect::<Vec<_>>(),
        ))
    }
}

/// Columns that every table has and no schema names.
///
/// They can be selected by name and are not part of `SELECT *`.
pub mod virtual_columns {
    use arrow_schema::DataType;

    /// The segment's name, Utf8.
    pub const SEGMENT: &str = "$segment";
    /// The row's number in its segment, Int32.
    pub const DOC_ID: &str = "$docId";
    /// The stream partition the row came from, Int32; null for offline rows.
    pub const PARTITION: &str = "$partition";
    /// The row's stream offset, Int64; null for offline rows.
    pub const OFFSET: &str = "$offset";

    /// All of them with their Arrow types.
    pub const ALL: [(&str, DataType); 4] = [
        (SEGMENT, DataType::Utf8),
        (DOC_ID, DataType::Int32),
        (PARTITION, DataType::Int32),
        (OFFSET, DataType::Int64),
    ];
}
