//! Writing a column: values in document order become byte sections and statistics.

use super::order::{ascending, same};
use super::section::{Description, SectionKind};
use crate::bloom::BloomFilter;
use crate::dictionary;
use crate::fixed::{Fixed, Key, by_type};
use crate::forward;
use crate::frame::Frame;
use crate::fst::FstIndex;
use crate::hash::hash_bytes;
use crate::inverted::{InvertedIndex, PostingLists};
use crate::mutable::MutableDictionary;
use crate::portable;
use crate::range::RangeIndex;
use crate::reader::{DictId, Dictionary, DocId, IndexError, PhysicalType, Scalar, ValueBuffer};
use crate::text_blocks::Compression;
use crate::wire::corrupt;

/// Values of consecutive documents, as a writer takes them.
///
/// Null documents and null elements hold placeholders (the type's zero, the empty text or list).
#[derive(Clone, Copy, Debug)]
pub struct ColumnData<'a> {
    /// One value for each document, or all elements of all documents.
    pub values: &'a ValueBuffer,
    /// Multi-value: for each document the end of its elements in `values`. None: single-value.
    pub list_ends: Option<&'a [u32]>,
    /// The null documents, ascending, counted from the first one here.
    pub null_docs: &'a [DocId],
    /// Multi-value: the null elements by their position in `values`, ascending.
    pub null_elements: &'a [u32],
}

impl<'a> ColumnData<'a> {
    /// One value for each document, none null.
    pub fn single(values: &'a ValueBuffer) -> Self {
        Self {
            values,
            list_ends: None,
            null_docs: &[],
            null_elements: &[],
        }
    }

    /// A list for each document, none null.
    pub fn multi(values: &'a ValueBuffer, list_ends: &'a [u32]) -> Self {
        Self {
            values,
            list_ends: Some(list_ends),
            null_docs: &[],
            null_elements: &[],
        }
    }

    /// How many documents.
    pub fn num_docs(&self) -> usize {
        self.list_ends
            .map_or_else(|| self.values.len(), <[u32]>::len)
    }

    /// Where the values belong.
    pub(super) fn shape(&self) -> Shape<'a> {
        Shape {
            docs: self.num_docs(),
            list_ends: self.list_ends,
            null_docs: self.null_docs,
            null_elements: self.null_elements,
        }
    }

    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// When offsets, list ends or nulls are not ascending or point beyond the values.
    pub fn check(&self) -> Result<(), IndexError> {
        let fail = |what: &str| Err(corrupt(format!("a column's data: {what}")));
        let (docs, values) = (self.num_docs(), self.values.len());
        if u32::try_from(docs).is_err() || u32::try_from(values).is_err() {
            return fail("more than 4 billion values in one segment; seal segments earlier");
        }
        if let ValueBuffer::Bytes { offsets, data } = self.values {
            let in_order = offsets.first() == Some(&0) && offsets.is_sorted();
            if !in_order
                || offsets
                    .last()
                    .is_none_or(|&last| last as usize != data.len())
            {
                return fail("offsets of texts don't ascend from 0 to the end of the text");
            }
        }
        if let Some(ends) = self.list_ends
            && (!ends.is_sorted() || ends.last().copied().unwrap_or(0) as usize != values)
        {
            return fail("ends of lists don't ascend to the number of elements");
        }
        let below = |positions: &[u32], limit: usize| {
            positions.is_sorted_by(|a, b| a < b)
                && positions.last().is_none_or(|&last| (last as usize) < limit)
        };
        if !below(self.null_docs, docs) || !below(self.null_elements, values) {
            return fail("positions of nulls don't ascend within the data");
        }
        if self.list_ends.is_none() && !self.null_elements.is_empty() {
            return fail("null elements in a single-value column");
        }
        Ok(())
    }
}

/// Which values belong to which documents, and which are null.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    pub(super) docs: usize,
    pub(super) list_ends: Option<&'a [u32]>,
    pub(super) null_docs: &'a [DocId],
    pub(super) null_elements: &'a [u32],
}

/// How a column is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnOptions {
    /// A sorted dictionary and ids; otherwise raw values.
    pub dictionary: bool,
    /// An inverted index; needs a dictionary.
    pub inverted: bool,
    /// A range index.
    pub range: bool,
    /// A bloom filter.
    pub bloom: bool,
    /// An FST index of a dictionary of texts.
    pub fst: bool,
    /// How raw texts are compressed.
    pub compression: Compression,
}

impl Default for ColumnOptions {
    /// A dictionary and no further index.
    fn default() -> Self {
        Self {
            dictionary: true,
            inverted: false,
            range: false,
            bloom: false,
            fst: false,
            compression: Compression::default(),
        }
    }
}

/// What a written column holds. Nulls count in none of the values' numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnStats {
    /// Documents.
    pub docs: u32,
    /// Values, or elements, that are not null.
    pub values: u64,
    /// Null documents.
    pub nulls: u64,
    /// Distinct values; known with a dictionary only.
    pub cardinality: Option<u32>,
    /// The smallest value (floats in total order); none when all are null.
    pub min: Option<Scalar<'static>>,
    /// The largest value.
    pub max: Option<Scalar<'static>>,
    /// Whether documents are in ascending order of their values and none is null.
    pub is_sorted: bool,
    /// Elements of the longest list; 1 in a single-value column.
    pub list_len_max: u32,
}

/// A column's stored form.
#[derive(Clone, Debug)]
pub struct WrittenColumn {
    /// The sections, each once.
    pub sections: Vec<(SectionKind, Vec<u8>)>,
    /// What they hold.
    pub stats: ColumnStats,
}

/// A column's values as they will be stored.
pub(super) enum Encoded<'a> {
    /// Ids in document order, and the dictionary, strictly ascending.
    Ids {
        ids: Vec<DictId>,
        dictionary: ValueBuffer,
    },
    Raw(&'a ValueBuffer),
}

/// Writes a column from its values in document order.
///
/// # Errors
/// When the data's parts don't fit each other, or an inverted index is asked for without a dictionary.
pub fn write_column(
    data: &ColumnData<'_>,
    options: &ColumnOptions,
) -> Result<WrittenColumn, IndexError> {
    data.check()?;
    let encoded = if options.dictionary {
        let (ids, dictionary) = encode(data.values)?;
        Encoded::Ids { ids, dictionary }
    } else {
        Encoded::Raw(data.values)
    };
    assemble(data.values.physical(), &data.shape(), &encoded, options)
}

/// Ids of `values` in the sorted dictionary of them.
pub(super) fn encode(values: &ValueBuffer) -> Result<(Vec<DictId>, ValueBuffer), IndexError> {
    let (mut writer, dictionary) = MutableDictionary::new(values.physical());
    let mut ids = Vec::with_capacity(values.len());
    if values.len() > 2 * SAMPLE as usize {
        let sample: Vec<u32> = (0..SAMPLE).collect();
        writer.intern(&values.gathered(&sample), &mut ids)?;
        if writer.len() > SAMPLE / 2 {
            return Ok(encode_sorted(values));
        }
        ids.clear();
    }
    writer.intern(values, &mut ids)?;
    let dictionary = dictionary.view(writer.len());
    let (sorted, ranks) = sort_dictionary(&dictionary, &(0..dictionary.len()).collect::<Vec<_>>())?;
    for id in &mut ids {
        *id = ranks.get(*id as usize).copied().unwrap_or(0);
    }
    Ok((ids, sorted))
}

/// The first values that tell whether most are others: then they are sorted, otherwise looked up.
const SAMPLE: u32 = 4096;

fn encode_sorted(values: &ValueBuffer) -> (Vec<DictId>, ValueBuffer) {
    let order = ascending(values);
    let mut ids = vec![0; values.len()];
    let mut first = Vec::with_capacity(values.len());
    let mut last = None;
    for &i in &order {
        if last.is_none_or(|last| !same(values, last, i)) {
            first.push(i);
            last = Some(i);
        }
        if let Some(id) = ids.get_mut(i as usize) {
            *id = first.len() as DictId - 1;
        }
    }
    (ids, values.gathered(&first))
}

/// The values of `ids` in order, and for each place in `ids` the rank of its value.
pub(super) fn sort_dictionary(
    dictionary: &dyn Dictionary,
    ids: &[DictId],
) -> Result<(ValueBuffer, Vec<DictId>), IndexError> {
    let physical = dictionary.physical();
    if physical == PhysicalType::Bytes {
        let mut len = 0usize;
        for &id in ids {
            if let Scalar::Bytes(value) = dictionary.value(id) {
                len += value.len();
            }
        }
        if i32::try_from(len).is_err() {
            return Err(corrupt(
                "a dictionary of 2 GiB or more; store the column raw or seal segments earlier",
            ));
        }
    }
    let mut values = ValueBuffer::new(physical);
    dictionary.gather(ids, &mut values);
    let order = ascending(&values);
    let mut ranks = vec![0; ids.len()];
    for (rank, &i) in order.iter().enumerate() {
        if let Some(slot) = ranks.get_mut(i as usize) {
            *slot = rank as DictId;
        }
    }
    let sorted = values.gathered(&order);
    Ok((sorted, ranks))
}

/// Positions as bits.
struct Positions(Vec<u64>);

impl Positions {
    fn contains(&self, i: usize) -> bool {
        self.0
            .get(i / 64)
            .is_some_and(|word| word >> (i % 64) & 1 == 1)
    }

    fn insert(&mut self, i: usize) {
        if self.0.len() <= i / 64 {
            self.0.resize(i / 64 + 1, 0);
        }
        if let Some(word) = self.0.get_mut(i / 64) {
            *word |= 1 << (i % 64);
        }
    }

    /// The values that are null: null elements and all elements of null documents.
    fn null_values(data: &Shape<'_>) -> Self {
        let mut nulls = Self(Vec::new());
        data.null_elements
            .iter()
            .for_each(|&i| nulls.insert(i as usize));
        for &doc in data.null_docs {
            lists(data, doc as usize).for_each(|i| nulls.insert(i));
        }
        nulls
    }
}

/// The positions of a document's values.
fn lists(data: &Shape<'_>, doc: usize) -> std::ops::Range<usize> {
    match data.list_ends {
        None => doc..doc + 1,
        Some(ends) => {
            let end = |doc: usize| ends.get(doc).map_or(0, |&end| end as usize);
            doc.checked_sub(1).map_or(0, end)..end(doc)
        }
    }
}

/// Writes all sections from checked data.
pub(super) fn assemble(
    physical: PhysicalType,
    data: &Shape<'_>,
    encoded: &Encoded<'_>,
    options: &ColumnOptions,
) -> Result<WrittenColumn, IndexError> {
    let docs = data.docs as u32;
    let nulls = Positions::null_values(data);
    let multi_value = data.list_ends.is_some();
    let count = match encoded {
        Encoded::Ids { ids, .. } => ids.len(),
        Encoded::Raw(values) => values.len(),
    };
    let sorted = !multi_value && data.null_docs.is_empty() && encoded.is_ascending();
    let description = Description {
        physical,
        multi_value,
        sorted,
        docs,
        values: count as u32,
    };
    let mut sections = vec![(SectionKind::Description, description.write())];
    let mut add = |kind: SectionKind, write: &mut dyn FnMut(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        sections.push((kind, bytes));
    };
    match encoded {
        Encoded::Ids { ids, dictionary } => {
            let cardinality = dictionary.len() as u32;
            add(SectionKind::Dictionary, &mut |out| {
                dictionary::write(dictionary, out)
            });
            add(SectionKind::Forward, &mut |out| {
                *out = forward::write_ids(ids, cardinality, physical, sorted)
            });
            if options.fst && physical == PhysicalType::Bytes {
                let mut bytes = Vec::new();
                FstIndex::write(dictionary, &mut bytes)?;
                add(SectionKind::Fst, &mut |out| {
                    *out = std::mem::take(&mut bytes)
                });
            }
            if options.inverted && !sorted {
                let lists = PostingLists::group(cardinality, |sink| {
                    for doc in 0..docs {
                        for i in lists(data, doc as usize).filter(|&i| !nulls.contains(i)) {
                            sink(ids.get(i..=i).unwrap_or_default(), doc);
                        }
                    }
                });
                add(SectionKind::Inverted, &mut |out| {
                    InvertedIndex::write(&lists, out)
                });
            }
        }
        Encoded::Raw(values) => {
            if options.fst {
                return Err(corrupt(
                    "not supported: an FST index on a column without a dictionary",
                ));
            }
            if options.inverted {
                return Err(corrupt(
                    "not supported: an inverted index on a column without a dictionary",
                ));
            }
            let bytes = forward::write_values(values, options.compression)?;
            add(SectionKind::Forward, &mut |out| out.clone_from(&bytes));
        }
    }
    if let Some(ends) = data.list_ends {
        add(SectionKind::ListEnds, &mut |out| {
            Frame::write(
                ends.len(),
                |i| ends.get(i).copied().unwrap_or(0).into(),
                out,
            );
        });
    }
    if !data.null_docs.is_empty() {
        add(SectionKind::NullDocs, &mut |out| {
            portable::write(data.null_docs, out)
        });
    }
    if !data.null_elements.is_empty() {
        add(SectionKind::NullElements, &mut |out| {
            portable::write(data.null_elements, out)
        });
    }
    if options.range {
        let write = |key: &dyn Fn(usize) -> u128, out: &mut Vec<u8>| {
            // nulls take the place of some value, so that they widen no block
            let stand_in = (0..count).find(|&i| !nulls.contains(i)).map_or(0, key);
            RangeIndex::write(
                count as u32,
                |i| if nulls.contains(i) { stand_in } else { key(i) },
                out,
            );
        };
        let id = |ids: &[DictId], i: usize| u128::from(ids.get(i).copied().unwrap_or(0));
        match encoded {
            Encoded::Ids { ids, .. } => {
                add(SectionKind::Range, &mut |out| write(&|i| id(ids, i), out))
            }
            Encoded::Raw(values) => by_type!(physical, T => {
                let values = T::slice(values).unwrap_or_default();
                let key = |i: usize| values.get(i).map_or(0, |v| v.key().wide());
                add(SectionKind::Range, &mut |out| write(&key, out));
            }, bytes => {
                let (ids, dictionary) = encode(values)?;
                add(SectionKind::RangeDictionary, &mut |out| dictionary::write(&dictionary, out));
                add(SectionKind::Range, &mut |out| write(&|i| id(&ids, i), out));
            }),
        }
    }
    if options.bloom {
        let mut hashes = match encoded {
            Encoded::Ids { dictionary, .. } => hashes(dictionary),
            Encoded::Raw(values) => hashes(values),
        };
        hashes.sort_unstable();
        hashes.dedup();
        add(SectionKind::Bloom, &mut |out| {
            BloomFilter::write(hashes.len() as u64, hashes.iter().copied(), out)
        });
    }
    let stats = stats(data, encoded, &nulls, count, sorted);
    Ok(WrittenColumn { sections, stats })
}

impl Encoded<'_> {
    fn is_ascending(&self) -> bool {
        match self {
            Self::Ids { ids, .. } => ids.is_sorted(),
            Self::Raw(values) => by_type!(values.physical(), T => {
                T::slice(values).unwrap_or_default().is_sorted_by_key(|v| v.key())
            }, bytes => (1..values.len()).all(|i| values.bytes(i - 1) <= values.bytes(i))),
        }
    }
}

fn hashes(values: &ValueBuffer) -> Vec<u64> {
    by_type!(values.physical(), T => {
        T::slice(values).unwrap_or_default().iter().map(|v| v.hash()).collect()
    }, bytes => (0..values.len()).filter_map(|i| values.bytes(i)).map(hash_bytes).collect())
}

fn stats(
    data: &Shape<'_>,
    encoded: &Encoded<'_>,
    nulls: &Positions,
    count: usize,
    is_sorted: bool,
) -> ColumnStats {
    let present = (0..count).filter(|&i| !nulls.contains(i));
    let values = present.clone().count() as u64;
    let owned = |values: &ValueBuffer, i: usize| values.get(i).map(Scalar::into_owned);
    let (cardinality, min, max) = match encoded {
        Encoded::Ids { ids, dictionary } => {
            let mut seen = Positions(vec![0; dictionary.len().div_ceil(64)]);
            present
                .filter_map(|i| ids.get(i))
                .for_each(|&id| seen.insert(id as usize));
            let cardinality = seen.0.iter().map(|word| word.count_ones()).sum();
            let first = (0..dictionary.len()).find(|&id| seen.contains(id));
            let last = (0..dictionary.len()).rfind(|&id| seen.contains(id));
            let value = |id: Option<usize>| id.and_then(|id| owned(dictionary, id));
            (Some(cardinality), value(first), value(last))
        }
        Encoded::Raw(values) => by_type!(values.physical(), T => {
            let values = T::slice(values).unwrap_or_default();
            let present = present.filter_map(|i| values.get(i).copied());
            let min = present.clone().min_by_key(|v| v.key()).map(|v| v.scalar());
            (None, min, present.max_by_key(|v| v.key()).map(|v| v.scalar()))
        }, bytes => {
            let min = present.clone().min_by_key(|&i| values.bytes(i)).and_then(|i| owned(values, i));
            (None, min, present.max_by_key(|&i| values.bytes(i)).and_then(|i| owned(values, i)))
        }),
    };
    let docs = data.docs;
    let list_len_max = match data.list_ends {
        None => u32::from(docs > 0),
        Some(_) => (0..docs)
            .map(|doc| lists(data, doc).len())
            .max()
            .unwrap_or(0) as u32,
    };
    ColumnStats {
        docs: docs as u32,
        values,
        nulls: data.null_docs.len() as u64,
        cardinality,
        min,
        max,
        is_sorted,
        list_len_max,
    }
}
