//! The byte sections of an immutable column, their numbers and the description that opens them.

use crate::reader::{IndexError, PhysicalType};
use crate::wire::{corrupt, u8_at, u32_at};

/// A part of a column's stored bytes. The numbers are part of the file format and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum SectionKind {
    /// What the column is: type, lists or single values, counts.
    Description = 1,
    /// The sorted [dictionary](crate::dictionary).
    Dictionary = 2,
    /// The [forward index](crate::forward).
    Forward = 3,
    /// For each document of a multi-value column the end of its elements, a [frame](crate::frame).
    ListEnds = 4,
    /// The null documents, a [portable roaring bitmap](crate::portable).
    NullDocs = 5,
    /// The null elements of a multi-value column, by position, a portable roaring bitmap.
    NullElements = 6,
    /// The [inverted index](crate::inverted).
    Inverted = 7,
    /// The [range index](crate::range).
    Range = 8,
    /// The sorted distinct values that the range index of a raw text column counts in, a dictionary.
    RangeDictionary = 9,
    /// The [bloom filter](crate::bloom).
    Bloom = 10,
    /// The [text index](crate::text), which is opened by itself.
    Text = 11,
    /// The [FST index](crate::fst).
    Fst = 12,
    /// The [JSON index](crate::json).
    Json = 13,
}

impl SectionKind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Description,
        Self::Dictionary,
        Self::Forward,
        Self::ListEnds,
        Self::NullDocs,
        Self::NullElements,
        Self::Inverted,
        Self::Range,
        Self::RangeDictionary,
        Self::Bloom,
        Self::Text,
        Self::Fst,
        Self::Json,
    ];

    /// The stored number.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The section of a stored number; none: made by a later version, to be skipped.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

const FORMAT: u8 = 1;
const MULTI_VALUE: u8 = 1;
const SORTED: u8 = 2;

/// The description section:
///
/// ```text
/// | format u8 = 1 | type u8 | flags u8: 1 multi-value, 2 sorted | 0 u8 | documents u32 | values u32 |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) physical: PhysicalType,
    pub(crate) multi_value: bool,
    pub(crate) sorted: bool,
    pub(crate) docs: u32,
    /// Elements of all documents; as many as documents in a single-value column.
    pub(crate) values: u32,
}

impl Description {
    pub(crate) fn write(&self) -> Vec<u8> {
        let flags =
            if self.multi_value { MULTI_VALUE } else { 0 } | if self.sorted { SORTED } else { 0 };
        let mut out = vec![FORMAT, self.physical.code(), flags, 0];
        out.extend_from_slice(&self.docs.to_le_bytes());
        out.extend_from_slice(&self.values.to_le_bytes());
        out
    }

    pub(crate) fn open(bytes: &[u8]) -> Result<Self, IndexError> {
        let format = u8_at(bytes, 0)?;
        if format != FORMAT {
            return Err(corrupt(format!(
                "column format {format} is not known: a later version may have written it"
            )));
        }
        let code = u8_at(bytes, 1)?;
        let physical = PhysicalType::from_code(code)
            .ok_or_else(|| corrupt(format!("a column of the unknown type {code}")))?;
        let flags = u8_at(bytes, 2)?;
        let (multi_value, sorted) = (flags & MULTI_VALUE != 0, flags & SORTED != 0);
        let (docs, values) = (u32_at(bytes, 4)?, u32_at(bytes, 8)?);
        if (!multi_value && docs != values) || (multi_value && sorted) {
            return Err(corrupt("a column's description contradicts itself"));
        }
        Ok(Self {
            physical,
            multi_value,
            sorted,
            docs,
            values,
        })
    }
}
