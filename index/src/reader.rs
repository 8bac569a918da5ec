//! The contract by which a column is read, alike for immutable and consuming segments.
//!
//! Readers hand out blocks of dictionary ids and of values, never rows. A reader is a view of a fixed
//! number of documents: a consuming column gives a view pinned at a published row count.
//!
//! Null rows hold a placeholder in the forward index (the type's zero, or the empty text or list);
//! whoever reads values asks [`ColumnReader::null_bits`] as well. Placeholders may occur in the
//! dictionary, so an index lookup for the placeholder's value can name null rows too: callers take
//! nulls away.

use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::fst::FstIndex;
use crate::json::JsonIndex;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

/// A document's number within its segment, from 0.
pub type DocId = u32;
/// A value's number within a column's dictionary, from 0.
pub type DictId = u32;

/// How values are stored, below the logical types: BOOLEAN as I32 (0, 1), TIMESTAMP as I64, text and JSON as Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each name is its type")]
pub enum PhysicalType {
    I32,
    I64,
    F32,
    F64,
    I128,
    Bytes,
}

impl PhysicalType {
    /// The number that stands for the type in stored bytes.
    pub fn code(self) -> u8 {
        match self {
            Self::I32 => 1,
            Self::I64 => 2,
            Self::F32 => 3,
            Self::F64 => 4,
            Self::I128 => 5,
            Self::Bytes => 6,
        }
    }

    /// The type that a stored number stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::I32,
            2 => Self::I64,
            3 => Self::F32,
            4 => Self::F64,
            5 => Self::I128,
            6 => Self::Bytes,
            _ => return None,
        })
    }
}

/// One physical value. Floats compare by total order (`f64::total_cmp`).
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each name is its type")]
pub enum Scalar<'a> {
    I32(i32),
    I64(i64),
    F32(f32),
    F64(f64),
    I128(i128),
    Bytes(Cow<'a, [u8]>),
}

impl Scalar<'_> {
    /// The type of the value.
    pub fn physical(&self) -> PhysicalType {
        match self {
            Self::I32(_) => PhysicalType::I32,
            Self::I64(_) => PhysicalType::I64,
            Self::F32(_) => PhysicalType::F32,
            Self::F64(_) => PhysicalType::F64,
            Self::I128(_) => PhysicalType::I128,
            Self::Bytes(_) => PhysicalType::Bytes,
        }
    }

    /// The order of two values of one type: floats by total order, bytes bytewise; values of different
    /// types order by their types.
    pub fn total_cmp(&self, other: &Scalar<'_>) -> Ordering {
        match (self, other) {
            (Self::I32(a), Scalar::I32(b)) => a.cmp(b),
            (Self::I64(a), Scalar::I64(b)) => a.cmp(b),
            (Self::F32(a), Scalar::F32(b)) => a.total_cmp(b),
            (Self::F64(a), Scalar::F64(b)) => a.total_cmp(b),
            (Self::I128(a), Scalar::I128(b)) => a.cmp(b),
            (Self::Bytes(a), Scalar::Bytes(b)) => a.cmp(b),
            (a, b) => a.physical().code().cmp(&b.physical().code()),
        }
    }

    /// The value with its own bytes.
    pub fn into_owned(self) -> Scalar<'static> {
        match self {
            Self::I32(v) => Scalar::I32(v),
            Self::I64(v) => Scalar::I64(v),
            Self::F32(v) => Scalar::F32(v),
            Self::F64(v) => Scalar::F64(v),
            Self::I128(v) => Scalar::I128(v),
            Self::Bytes(v) => Scalar::Bytes(Cow::Owned(v.into_owned())),
        }
    }

    /// The type's zero, or the empty text: what a null row holds in the forward index.
    pub fn placeholder(physical: PhysicalType) -> Scalar<'static> {
        match physical {
            PhysicalType::I32 => Scalar::I32(0),
            PhysicalType::I64 => Scalar::I64(0),
            PhysicalType::F32 => Scalar::F32(0.0),
            PhysicalType::F64 => Scalar::F64(0.0),
            PhysicalType::I128 => Scalar::I128(0),
            PhysicalType::Bytes => Scalar::Bytes(Cow::Borrowed(&[])),
        }
    }
}

/// A block of physical values.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each name is its type")]
pub enum ValueBuffer {
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I128(Vec<i128>),
    /// Value `i` is `data[offsets[i]..offsets[i + 1]]`; `offsets` begins with 0.
    Bytes {
        offsets: Vec<i32>,
        data: Vec<u8>,
    },
}

impl ValueBuffer {
    /// An empty buffer of a type.
    pub fn new(physical: PhysicalType) -> Self {
        match physical {
            PhysicalType::I32 => Self::I32(Vec::new()),
            PhysicalType::I64 => Self::I64(Vec::new()),
            PhysicalType::F32 => Self::F32(Vec::new()),
            PhysicalType::F64 => Self::F64(Vec::new()),
            PhysicalType::I128 => Self::I128(Vec::new()),
            PhysicalType::Bytes => Self::Bytes {
                offsets: vec![0],
                data: Vec::new(),
            },
        }
    }

    /// The type of the values.
    pub fn physical(&self) -> PhysicalType {
        match self {
            Self::I32(_) => PhysicalType::I32,
            Self::I64(_) => PhysicalType::I64,
            Self::F32(_) => PhysicalType::F32,
            Self::F64(_) => PhysicalType::F64,
            Self::I128(_) => PhysicalType::I128,
            Self::Bytes { .. } => PhysicalType::Bytes,
        }
    }

    /// Value `i`; none past the end, or when the offsets are not ascending within the data.
    pub fn get(&self, i: usize) -> Option<Scalar<'_>> {
        Some(match self {
            Self::I32(v) => Scalar::I32(*v.get(i)?),
            Self::I64(v) => Scalar::I64(*v.get(i)?),
            Self::F32(v) => Scalar::F32(*v.get(i)?),
            Self::F64(v) => Scalar::F64(*v.get(i)?),
            Self::I128(v) => Scalar::I128(*v.get(i)?),
            Self::Bytes { .. } => Scalar::Bytes(Cow::Borrowed(self.bytes(i)?)),
        })
    }

    /// Value `i` of a buffer of bytes; none past the end and in buffers of other types.
    pub fn bytes(&self, i: usize) -> Option<&[u8]> {
        match self {
            Self::Bytes { offsets, data } => {
                let (start, end) = (*offsets.get(i)?, *offsets.get(i.checked_add(1)?)?);
                data.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
            }
            _ => None,
        }
    }

    /// Appends one value of the buffer's type; false: the value is of another type and nothing changed.
    pub fn push(&mut self, value: &Scalar<'_>) -> bool {
        match (self, value) {
            (Self::I32(v), Scalar::I32(x)) => v.push(*x),
            (Self::I64(v), Scalar::I64(x)) => v.push(*x),
            (Self::F32(v), Scalar::F32(x)) => v.push(*x),
            (Self::F64(v), Scalar::F64(x)) => v.push(*x),
            (Self::I128(v), Scalar::I128(x)) => v.push(*x),
            (buffer @ Self::Bytes { .. }, Scalar::Bytes(x)) => buffer.push_bytes(x),
            _ => return false,
        }
        true
    }

    /// Appends one value to a buffer of bytes; nothing in buffers of other types.
    ///
    /// # Panics
    /// When the buffer would hold 2 GiB or more, which its offsets can't express: read fewer documents at once.
    pub fn push_bytes(&mut self, value: &[u8]) {
        if let Self::Bytes { offsets, data } = self {
            data.extend_from_slice(value);
            offsets.push(bytes_offset(data.len()));
        }
    }

    /// The values at `positions`, in their order; those past the end are left out.
    pub fn gathered(&self, positions: &[u32]) -> Self {
        fn of<T: Copy>(values: &[T], positions: &[u32]) -> Vec<T> {
            let value = |&i: &u32| values.get(i as usize).copied();
            positions.iter().filter_map(value).collect()
        }
        match self {
            Self::I32(v) => Self::I32(of(v, positions)),
            Self::I64(v) => Self::I64(of(v, positions)),
            Self::F32(v) => Self::F32(of(v, positions)),
            Self::F64(v) => Self::F64(of(v, positions)),
            Self::I128(v) => Self::I128(of(v, positions)),
            Self::Bytes { .. } => {
                let texts = || positions.iter().filter_map(|&i| self.bytes(i as usize));
                let mut offsets = Vec::with_capacity(positions.len() + 1);
                offsets.push(0);
                let mut data = Vec::with_capacity(texts().map(<[u8]>::len).sum());
                for text in texts() {
                    data.extend_from_slice(text);
                    offsets.push(bytes_offset(data.len()));
                }
                Self::Bytes { offsets, data }
            }
        }
    }

    /// Makes room for so many more values, texts of `data_len` bytes together.
    pub fn reserve(&mut self, values: usize, data_len: usize) {
        match self {
            Self::I32(v) => v.reserve(values),
            Self::I64(v) => v.reserve(values),
            Self::F32(v) => v.reserve(values),
            Self::F64(v) => v.reserve(values),
            Self::I128(v) => v.reserve(values),
            Self::Bytes { offsets, data } => {
                offsets.reserve(values);
                data.reserve(data_len);
            }
        }
    }

    /// Bytes of the texts; 0 in a buffer of another type.
    pub fn data_len(&self) -> usize {
        match self {
            Self::Bytes { data, .. } => data.len(),
            _ => 0,
        }
    }

    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Self::I32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::I128(v) => v.len(),
            Self::Bytes { offsets, .. } => offsets.len().saturating_sub(1),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the values, keeps the memory.
    pub fn clear(&mut self) {
        match self {
            Self::I32(v) => v.clear(),
            Self::I64(v) => v.clear(),
            Self::F32(v) => v.clear(),
            Self::F64(v) => v.clear(),
            Self::I128(v) => v.clear(),
            Self::Bytes { offsets, data } => {
                offsets.truncate(1);
                data.clear();
            }
        }
    }
}

/// The offset that ends a block of bytes.
///
/// # Panics
/// From 2 GiB on: a block must be read in smaller steps.
pub(crate) fn bytes_offset(len: usize) -> i32 {
    match i32::try_from(len) {
        Ok(offset) => offset,
        Err(_) => panic!("a block of values is longer than 2 GiB; read fewer documents at once"),
    }
}

/// Which documents a block read is about.
#[derive(Clone, Debug)]
pub enum DocSelection<'a> {
    /// All of a range, in order.
    Range(Range<DocId>),
    /// These, ascending.
    Docs(&'a [DocId]),
}

impl DocSelection<'_> {
    /// How many documents.
    pub fn len(&self) -> usize {
        match self {
            Self::Range(r) => r.len(),
            Self::Docs(d) => d.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Stored bytes that can't be what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IndexError(pub String);

/// The indexes a column can have beside its forward index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each name is its index")]
pub enum Index {
    Sorted,
    Inverted,
    Range,
    Bloom,
}

/// The distinct values of a column.
pub trait Dictionary: Send + Sync {
    /// How many values.
    fn len(&self) -> u32;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The type of the values.
    fn physical(&self) -> PhysicalType;
    /// Whether ids are in the order of their values (floats by total order, bytes bytewise). True for immutable segments.
    fn is_sorted(&self) -> bool;
    /// The id of a value of the dictionary's type.
    fn id_of(&self, value: &Scalar<'_>) -> Option<DictId>;
    /// The value of an id below [`Dictionary::len`].
    fn value(&self, id: DictId) -> Scalar<'_>;
    /// Appends the values of `ids` to `out`, which is of the dictionary's type.
    fn gather(&self, ids: &[DictId], out: &mut ValueBuffer);
    /// For a sorted dictionary: the ids whose values lie between the bounds (value, included).
    fn range(
        &self,
        low: Option<(&Scalar<'_>, bool)>,
        high: Option<(&Scalar<'_>, bool)>,
    ) -> Range<DictId>;
}

/// Raw values that are stored once each: a number stands for a value within the column, without an order.
pub trait DistinctValues: Send + Sync {
    /// How many values; numbers are below it.
    fn len(&self) -> u32;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Appends the number of each document's value.
    fn numbers(&self, docs: &DocSelection<'_>, out: &mut Vec<u32>);
    /// Appends the values of `numbers` to `out`, which is of the column's type.
    fn gather(&self, numbers: &[u32], out: &mut ValueBuffer);
}

/// Document lists by dictionary id.
pub trait Postings: Send + Sync {
    /// Adds the documents of `id` that lie in `chunk` to `out`, numbered within the chunk.
    fn fill(&self, id: DictId, chunk: u32, out: &mut DocBits);
    /// Appends the documents of `id`, ascending, to `out`; false when they can only be had chunk by chunk.
    fn append_docs(&self, _id: DictId, _out: &mut Vec<DocId>) -> bool {
        false
    }
    /// How many documents hold `id` (for a consuming segment an upper bound).
    fn count(&self, id: DictId) -> u64;
}

/// One column of one segment, as a view of a fixed number of documents.
///
/// Buffers given as `out` are appended to. Selections lie within [`ColumnReader::num_docs`]. What asks an index has a default: a
/// column without that index.
pub trait ColumnReader: Send + Sync {
    /// How values are stored.
    fn physical(&self) -> PhysicalType;
    /// Whether a document holds a list.
    fn is_multi_value(&self) -> bool;
    /// Documents.
    fn num_docs(&self) -> u32;
    /// The dictionary; none: values are raw.
    fn dictionary(&self) -> Option<&dyn Dictionary>;
    /// Whether documents are in ascending order of their values (and none is null).
    fn is_sorted(&self) -> bool;

    /// Whether any document is null.
    fn has_nulls(&self) -> bool;
    /// Adds the null documents of `chunk` to `out`, numbered within the chunk.
    fn null_bits(&self, chunk: u32, out: &mut DocBits);
    /// Multi-value columns: appends, for every element that a read of `docs` gives, whether it is null; nothing when no element of the column is.
    fn null_elements(&self, docs: DocSelection<'_>, out: &mut Vec<bool>);

    /// Single-value with a dictionary: appends ids.
    fn dict_ids(&self, docs: DocSelection<'_>, out: &mut Vec<DictId>);
    /// Single-value: appends values, through the dictionary when there is one.
    fn values(&self, docs: DocSelection<'_>, out: &mut ValueBuffer);
    /// Multi-value with a dictionary: appends the elements' ids, and for each document the end of its elements counted from the start of `ids`.
    fn multi_dict_ids(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, ids: &mut Vec<DictId>);
    /// Multi-value: appends the elements' values, and for each document the end of its elements counted from the start of `values`.
    fn multi_values(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, values: &mut ValueBuffer);

    /// Without a dictionary: the values (of a multi-value column the elements) where storage holds each once.
    fn distinct(&self) -> Option<&dyn DistinctValues> {
        None
    }
    /// For a sorted single-value column: the documents of `ids`.
    fn sorted_docs(&self, _ids: Range<DictId>) -> Option<Range<DocId>> {
        None
    }
    /// The inverted index.
    fn inverted(&self) -> Option<&dyn Postings> {
        None
    }
    /// With a range index: sets in `out` the documents of `chunk` whose value (any element) lies between the
    /// bounds (value of the column's type, included), exactly. False: there is no range index, and `out` is as before.
    fn range_fill(
        &self,
        _low: Option<(&Scalar<'_>, bool)>,
        _high: Option<(&Scalar<'_>, bool)>,
        _chunk: u32,
        _out: &mut DocBits,
    ) -> bool {
        false
    }
    /// Whether the column has a range index.
    fn has_range_index(&self) -> bool {
        false
    }
    /// With a bloom filter: false when no document can hold `value`; true otherwise.
    fn may_contain(&self, _value: &Scalar<'_>) -> bool {
        true
    }

    /// The FST index of the dictionary.
    fn fst(&self) -> Option<&FstIndex> {
        None
    }

    /// The index of the values in a text column's JSON documents.
    fn json(&self) -> Option<&JsonIndex> {
        None
    }

    /// Damage that a read since the column was opened came upon (a compressed block that can't be
    /// decompressed): what that read gave must not be used. Checked after reading, once per segment.
    fn fault(&self) -> Option<IndexError> {
        None
    }
}

/// The null documents of a whole column, ascending.
pub fn null_docs(reader: &dyn ColumnReader) -> Vec<DocId> {
    let mut docs = Vec::new();
    if reader.has_nulls() {
        let mut bits = DocBits::new();
        for chunk in 0..reader.num_docs().div_ceil(CHUNK_DOCS) {
            bits.clear();
            reader.null_bits(chunk, &mut bits);
            bits.append_docs(chunk * CHUNK_DOCS, &mut docs);
        }
    }
    docs
}
