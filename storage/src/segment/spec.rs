//! How a table's columns are stored: what a builder is told and a table config says.

use super::json::JsonSpec;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_proto::granularity::Granularity;
use strandline_proto::schema::{Column, DataType, Schema};
use strandline_proto::text::TextSettings;

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
    /// A text index (of text), by these settings.
    pub text: Option<TextSettings>,
    /// An FST index of a dictionary of texts.
    pub fst: bool,
    /// A JSON index, of a single-value column of text.
    pub json: Option<JsonSpec>,
    /// A timestamp index, of a single-value column of timestamps: what it truncates to.
    pub granularities: BTreeSet<Granularity>,
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
    /// Star-trees of immutable segments.
    pub star_trees: Vec<StarTreeSpec>,
}

/// What a star-tree holds for each of its records. Of a multi-value column the values are its lists' elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StarMeasure {
    /// How many rows. Every tree has it.
    Count,
    /// How many values of a column are not null.
    Values(String),
    /// The sum of a column's values that are not null; null without any.
    Sum(String),
    /// The least of them.
    Min(String),
    /// The greatest of them.
    Max(String),
    /// The distinct ones of them.
    Distinct(String),
}

impl StarMeasure {
    /// The column.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::Count => None,
            Self::Values(column)
            | Self::Sum(column)
            | Self::Min(column)
            | Self::Max(column)
            | Self::Distinct(column) => Some(column),
        }
    }
}

/// A star-tree that segments get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StarTreeSpec {
    /// Single-value columns, each once, in the order in which nodes are split; at least one.
    pub dimensions: Vec<String>,
    /// Those of them that no star node leaves out.
    pub skip_star: Vec<String>,
    /// What records hold beside the number of rows: of single-value columns of whole or floating numbers.
    pub measures: Vec<StarMeasure>,
    /// Nodes of so many records or fewer are not split.
    pub leaf_records_max: u32,
}

impl SegmentSpec {
    /// How `column` is stored.
    pub fn column(&self, column: &str) -> ColumnSpec {
        self.columns.get(column).cloned().unwrap_or_default()
    }

    /// What names this storage: segments that were built with equal columns, order and trees have the same, whichever
    /// version built them.
    pub fn fingerprint(&self) -> String {
        let columns: BTreeMap<&String, serde_json::Value> = (self.columns.iter())
            .filter(|(_, of_column)| **of_column != ColumnSpec::default())
            .map(|(name, of_column)| {
                let ColumnSpec {
                    encoding,
                    inverted,
                    range,
                    bloom,
                    text,
                    fst,
                    json,
                    granularities,
                } = of_column;
                // What is not asked for is not written, so that an index of a later version changes nothing for
                // segments without it.
                let flags = [
                    ("raw", *encoding == Encoding::Raw),
                    ("inverted", *inverted),
                    ("range", *range),
                    ("bloom", *bloom),
                    ("fst", *fst),
                ];
                let flags = flags.into_iter().filter(|(_, on)| *on);
                let mut wanted: serde_json::Map<_, _> = flags
                    .map(|(name, on)| (name.to_owned(), on.into()))
                    .collect();
                // How queries are read is no matter of the index.
                if let Some(text) = text {
                    wanted.insert("text".to_owned(), text.words_key().into());
                }
                if let Some(json) = json {
                    wanted.insert("json".to_owned(), serde_json::json!(json));
                }
                if !granularities.is_empty() {
                    wanted.insert("granularities".to_owned(), serde_json::json!(granularities));
                }
                (name, wanted.into())
            })
            .collect();
        let trees: Vec<_> = (self.star_trees.iter())
            .map(|tree| {
                serde_json::json!([
                    tree.dimensions,
                    tree.skip_star,
                    tree.measures,
                    tree.leaf_records_max
                ])
            })
            .collect();
        let text = serde_json::json!([columns, self.sorted_column, trees]).to_string();
        // FNV-1a, which is the same for ever.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
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
