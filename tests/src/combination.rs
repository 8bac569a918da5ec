//! What a run must cover: every operator on every type under every storage that the type can have.

use crate::table::{TYPES, type_name};
use std::collections::BTreeSet;
use strandline_proto::schema::DataType;

/// How a column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Storage {
    Dictionary,
    Inverted,
    Range,
    Bloom,
    /// Inverted, range and bloom, so that the engine has a choice.
    Indexed,
    /// Ascending along the rows of every immutable segment, when it has no nulls.
    Sorted,
    Raw,
    RawRange,
    RawBloom,
    RawSorted,
}

impl Storage {
    /// The storages of columns whose rows are in no order.
    pub const UNSORTED: [Self; 8] = [
        Self::Dictionary,
        Self::Inverted,
        Self::Raw,
        Self::Range,
        Self::RawRange,
        Self::Bloom,
        Self::RawBloom,
        Self::Indexed,
    ];
    /// The storages of single-value columns that ascend.
    pub const SORTED: [Self; 2] = [Self::Sorted, Self::RawSorted];

    /// Whether the column is stored without a dictionary.
    pub fn is_raw(self) -> bool {
        matches!(
            self,
            Self::Raw | Self::RawRange | Self::RawBloom | Self::RawSorted
        )
    }

    /// Whether the column ascends.
    pub fn is_sorted(self) -> bool {
        Self::SORTED.contains(&self)
    }

    /// Whether the column has an inverted index.
    pub fn has_inverted(self) -> bool {
        matches!(self, Self::Inverted | Self::Indexed)
    }

    /// Whether the column has a range index.
    pub fn has_range(self) -> bool {
        matches!(self, Self::Range | Self::RawRange | Self::Indexed)
    }

    /// Whether the column, if it is one of texts, has a text index.
    pub fn has_text(self) -> bool {
        matches!(
            self,
            Self::Indexed | Self::Inverted | Self::Raw | Self::RawSorted
        )
    }

    /// Whether the column, if it is one of texts, has an FST index.
    pub fn has_fst(self) -> bool {
        matches!(self, Self::Indexed | Self::Dictionary | Self::Sorted)
    }

    /// Whether the column has a bloom filter.
    pub fn has_bloom(self) -> bool {
        matches!(self, Self::Bloom | Self::RawBloom | Self::Indexed)
    }
}

/// An operator on a type under a storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Combination {
    /// The operator.
    pub operator: &'static str,
    /// The type's name, with `[]` for a multi-value column.
    pub data_type: String,
    /// How the column is stored.
    pub storage: Storage,
}

/// The name of a column's type in combinations.
pub fn column_type(data_type: DataType, multi_value: bool) -> String {
    let brackets = if multi_value { "[]" } else { "" };
    format!("{}{brackets}", type_name(data_type))
}

/// Operators that every type has.
const ANY: [&str; 12] = [
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "BETWEEN",
    "NOT BETWEEN",
    "IN",
    "NOT IN",
    "IS NULL",
    "IS NOT NULL",
];
/// Operators on text.
const TEXT: [&str; 8] = [
    "LIKE",
    "NOT LIKE",
    "ILIKE",
    "~",
    "~*",
    "!~",
    "TEXT_MATCH",
    "NOT TEXT_MATCH",
];

/// The operators that mean something for a column of this type. Some are forms rather than operators: a literal of
/// another type, or the column inside of an expression.
pub fn operators(data_type: DataType, multi_value: bool) -> Vec<&'static str> {
    let mut all = ANY.to_vec();
    if matches!(data_type, DataType::String | DataType::Json) {
        all.extend(TEXT);
    }
    if multi_value {
        return all;
    }
    all.extend(["IS DISTINCT FROM", "IS NOT DISTINCT FROM", "= NULL"]);
    match data_type {
        DataType::Int => all.extend(["vs fraction", "vs out of range"]),
        DataType::Long => all.extend(["vs fraction", "in arithmetic"]),
        DataType::Boolean => all.push("truth"),
        DataType::Timestamp => all.push("vs text"),
        DataType::String => all.push("in function"),
        _ => {}
    }
    all
}

/// Every combination that a table can have: JSON is never multi-value, and lists are not sorted by.
pub fn possible() -> BTreeSet<Combination> {
    let mut all = BTreeSet::new();
    for (_, data_type) in TYPES {
        for multi_value in [false, true] {
            if multi_value && data_type == DataType::Json {
                continue;
            }
            let sorted: &[Storage] = if multi_value { &[] } else { &Storage::SORTED };
            for storage in Storage::UNSORTED.iter().chain(sorted) {
                for operator in operators(data_type, multi_value) {
                    all.insert(Combination {
                        operator,
                        data_type: column_type(data_type, multi_value),
                        storage: *storage,
                    });
                }
            }
        }
    }
    all
}
