//! How a table's columns are stored: what a builder is told and a table config says.

use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_proto::schema::{Column, DataType, Schema};

/// How a column's forward index holds values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// A sorted dictionary and bit-packed ids.
    #[default]
    Dictionary,
    /// The values themselves (`noDictionaryColumns`, `encodingType: RAW`).
    Raw,
}

/// One column's storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnSpec {
    /// The forward index.
    pub encoding: Encoding,
    /// An inverted index (needs a dictionary).
    pub inverted: bool,
    /// A range index.
    pub range: bool,
    /// A bloom filter.
    pub bloom: bool,
}

/// A table's storage.
#[derive(Clone, Debug)]
pub struct SegmentSpec {
    /// The columns and their types.
    pub schema: Arc<Schema>,
    /// Storage of columns that differ from the default, by name.
    pub columns: BTreeMap<String, ColumnSpec>,
    /// Rows of immutable segments are sorted by this single-value column.
    pub sorted_column: Option<String>,
    /// The time column, for the segment's time range.
    pub time_column: Option<String>,
}

impl SegmentSpec {
    /// How `column` is stored.
    pub fn column(&self, column: &str) -> ColumnSpec {
        self.columns.get(column).cloned().unwrap_or_default()
    }

    /// Whether rows of `column` can come by keys into a dictionary of texts: it is single-value text, and has a
    /// dictionary itself.
    pub fn takes_keyed_text(&self, column: &Column) -> bool {
        matches!(column.data_type, DataType::String | DataType::Bytes)
            && !column.multi_value
            && self
                .columns
                .get(&column.name)
                .is_none_or(|of_column| of_column.encoding == Encoding::Dictionary)
    }
}
