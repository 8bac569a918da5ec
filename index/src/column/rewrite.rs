//! Writing a column from a reader of it: how a consuming column becomes an immutable one, and how rows are
//! put in order.

use super::order::ascending;
use super::write::{
    ColumnData, ColumnOptions, Encoded, Shape, WrittenColumn, assemble, encode, sort_dictionary,
    write_column,
};
use crate::fixed::{Fixed, by_type};
use crate::reader::{
    ColumnReader, DictId, DocId, DocSelection, IndexError, ValueBuffer, null_docs,
};
use crate::wire::corrupt;

/// Documents read at once where values are not of fixed width.
const STEP: u32 = 8192;
/// Bytes of texts that room is made for before they come.
const ROOM_MAX: usize = 64 << 20;

/// Writes the column that `reader` reads, its documents in the order of `order` (each once; none: as they are).
///
/// Dictionary ids are translated, values are not looked up again.
///
/// # Errors
/// When `order` is not one of the reader's documents, reading meets damage, or a text column is too large.
pub fn rewrite_column(
    reader: &dyn ColumnReader,
    order: Option<&[DocId]>,
    options: &ColumnOptions,
) -> Result<WrittenColumn, IndexError> {
    let docs = reader.num_docs();
    match order {
        Some(order) if order.len() != docs as usize => Err(corrupt(format!(
            "an order of {} documents for a column of {docs}",
            order.len()
        ))),
        Some(order) => gather_column(reader, order, options),
        None => {
            let source = Source::read(reader, options.dictionary)?;
            source.write(reader, options)
        }
    }
}

/// Writes a column of `docs` of the column that `reader` reads, in their order, each any number of times.
///
/// # Errors
/// When `docs` are not all documents of the reader, reading meets damage, or a text column is too large.
pub fn gather_column(
    reader: &dyn ColumnReader,
    docs: &[DocId],
    options: &ColumnOptions,
) -> Result<WrittenColumn, IndexError> {
    if let Some(doc) = docs.iter().find(|&&doc| doc >= reader.num_docs()) {
        return Err(corrupt(format!(
            "document {doc} of a column of {}",
            reader.num_docs()
        )));
    }
    let source = Source::read(reader, options.dictionary)?;
    source.arrange(docs).write(reader, options)
}

/// A single-value column as [`gather_column`] writes it with a dictionary, every value being among the gathered.
#[derive(Debug)]
pub struct Gathered {
    /// The id of each document's value.
    pub ids: Vec<DictId>,
    /// The null documents, ascending.
    pub null_docs: Vec<DocId>,
    /// The dictionary's values.
    pub values: ValueBuffer,
}

/// The ids that the values of a single-value column get where they are written, and what they stand for.
///
/// # Errors
/// As [`gather_column`].
pub fn gathered_ids(reader: &dyn ColumnReader) -> Result<Gathered, IndexError> {
    let source = Source::read(reader, true)?;
    let (ids, values) = match source.values {
        Values::Ids(ids) => translated(reader, ids)?,
        Values::Raw(values) => encode(&values)?,
    };
    Ok(Gathered {
        ids,
        null_docs: source.null_docs,
        values,
    })
}

/// Writes lists of `values`, a dictionary's: their ids, and the end of each list among them.
///
/// # Errors
/// When there are too many ids.
pub fn write_lists(
    values: ValueBuffer,
    ids: Vec<DictId>,
    ends: &[usize],
) -> Result<WrittenColumn, IndexError> {
    let ends: Option<Vec<u32>> = ends.iter().map(|&end| u32::try_from(end).ok()).collect();
    let Some(ends) = ends else {
        return Err(corrupt("lists of 2^32 values or more"));
    };
    let shape = Shape {
        docs: ends.len(),
        list_ends: Some(&ends),
        null_docs: &[],
        null_elements: &[],
    };
    let physical = values.physical();
    let dictionary = values;
    let encoded = Encoded::Ids { ids, dictionary };
    assemble(physical, &shape, &encoded, &ColumnOptions::default())
}

/// Ids of the dictionary that is written, which holds the values that occur, and its values.
fn translated(
    reader: &dyn ColumnReader,
    mut ids: Vec<DictId>,
) -> Result<(Vec<DictId>, ValueBuffer), IndexError> {
    let Some(dictionary) = reader.dictionary() else {
        return Err(corrupt("a column has ids and no dictionary"));
    };
    let mut used = vec![false; dictionary.len() as usize];
    for &id in &ids {
        match used.get_mut(id as usize) {
            Some(used) => *used = true,
            None => {
                return Err(corrupt(format!(
                    "id {id} is beyond its dictionary of {}",
                    dictionary.len()
                )));
            }
        }
    }
    let used = positions(used.into_iter());
    let (sorted, ranks) = sort_dictionary(dictionary, &used)?;
    let mut translation = vec![0; dictionary.len() as usize];
    for (&id, &rank) in used.iter().zip(&ranks) {
        if let Some(slot) = translation.get_mut(id as usize) {
            *slot = rank;
        }
    }
    for id in &mut ids {
        *id = translation.get(*id as usize).copied().unwrap_or(0);
    }
    Ok((ids, sorted))
}

/// The documents of a single-value column in ascending order of their values; equal values keep their order.
pub fn sorted_order(reader: &dyn ColumnReader) -> Result<Vec<DocId>, IndexError> {
    let source = Source::read(reader, true)?;
    match source.values {
        Values::Raw(values) => Ok(ascending(&values)),
        Values::Ids(ids) => {
            let ranks = match reader.dictionary() {
                Some(dictionary) if !dictionary.is_sorted() => {
                    sort_dictionary(dictionary, &(0..dictionary.len()).collect::<Vec<_>>())?.1
                }
                Some(dictionary) => (0..dictionary.len()).collect(),
                None => Vec::new(),
            };
            let mut order: Vec<DocId> = (0..reader.num_docs()).collect();
            order.sort_by_key(|&doc| ids.get(doc as usize).and_then(|&id| ranks.get(id as usize)));
            Ok(order)
        }
    }
}

enum Values {
    Ids(Vec<DictId>),
    Raw(ValueBuffer),
}

/// A whole column in memory.
struct Source {
    values: Values,
    list_ends: Option<Vec<u32>>,
    null_docs: Vec<DocId>,
    null_elements: Vec<u32>,
}

/// The positions of true flags.
fn positions(flags: impl Iterator<Item = bool>) -> Vec<u32> {
    flags
        .enumerate()
        .filter(|(_, flag)| *flag)
        .map(|(i, _)| i as u32)
        .collect()
}

impl Source {
    fn read(reader: &dyn ColumnReader, with_ids: bool) -> Result<Self, IndexError> {
        let docs = reader.num_docs();
        let mut list_ends = reader.is_multi_value().then(Vec::new);
        let values = if with_ids && reader.dictionary().is_some() {
            let mut ids = Vec::new();
            match &mut list_ends {
                None => reader.dict_ids(DocSelection::Range(0..docs), &mut ids),
                Some(ends) => reader.multi_dict_ids(DocSelection::Range(0..docs), ends, &mut ids),
            }
            Values::Ids(ids)
        } else {
            let mut values = ValueBuffer::new(reader.physical());
            let mut step = ValueBuffer::new(reader.physical());
            for start in (0..docs).step_by(STEP as usize) {
                let range = DocSelection::Range(start..docs.min(start.saturating_add(STEP)));
                step.clear();
                match &mut list_ends {
                    None => reader.values(range, &mut step),
                    Some(ends) => {
                        let (from, first) = (values.len() as u32, ends.len());
                        reader.multi_values(range, ends, &mut step);
                        ends.iter_mut().skip(first).for_each(|end| *end += from);
                    }
                }
                if start == 0 {
                    // What follows is likely as long as the first step; it then grows in one piece of memory.
                    let steps = docs.div_ceil(STEP) as usize;
                    let data_len = step.data_len().saturating_mul(steps);
                    values.reserve(docs as usize, data_len.min(ROOM_MAX));
                }
                extend(&mut values, &step)?;
            }
            Values::Raw(values)
        };
        let null_docs = null_docs(reader);
        let mut null_elements = Vec::new();
        if list_ends.is_some() {
            let mut flags = Vec::new();
            reader.null_elements(DocSelection::Range(0..docs), &mut flags);
            null_elements = positions(flags.into_iter());
        }
        if let Some(fault) = reader.fault() {
            return Err(fault);
        }
        Ok(Self {
            values,
            list_ends,
            null_docs,
            null_elements,
        })
    }

    fn len(&self) -> usize {
        match &self.values {
            Values::Ids(ids) => ids.len(),
            Values::Raw(values) => values.len(),
        }
    }

    /// The documents of `order`, each any number of times.
    fn arrange(self, order: &[DocId]) -> Self {
        let docs = self.list_ends.as_ref().map_or(self.len(), Vec::len);
        let flags = |positions: &[u32], len: usize| {
            let mut flags = vec![false; len];
            for &i in positions {
                if let Some(flag) = flags.get_mut(i as usize) {
                    *flag = true;
                }
            }
            flags
        };
        let mut ends = self
            .list_ends
            .as_ref()
            .map(|_| Vec::with_capacity(order.len()));
        let mut from = Vec::with_capacity(self.len());
        match (&self.list_ends, &mut ends) {
            (Some(old), Some(ends)) => {
                for &doc in order {
                    let end = |doc: usize| old.get(doc).copied().unwrap_or(0);
                    from.extend((doc as usize).checked_sub(1).map_or(0, end)..end(doc as usize));
                    ends.push(from.len() as u32);
                }
            }
            _ => from.extend_from_slice(order),
        }
        let values = match &self.values {
            Values::Ids(ids) => Values::Ids(
                from.iter()
                    .map(|&i| ids.get(i as usize).copied().unwrap_or(0))
                    .collect(),
            ),
            Values::Raw(values) => {
                let mut arranged = ValueBuffer::new(values.physical());
                for value in from.iter().filter_map(|&i| values.get(i as usize)) {
                    arranged.push(&value);
                }
                Values::Raw(arranged)
            }
        };
        let pick = |old: &[u32], len: usize, from: &[u32]| {
            if old.is_empty() {
                return Vec::new();
            }
            let old = flags(old, len);
            positions(
                from.iter()
                    .map(|&i| old.get(i as usize).copied().unwrap_or(false)),
            )
        };
        Self {
            null_docs: pick(&self.null_docs, docs, order),
            null_elements: pick(&self.null_elements, self.len(), &from),
            values,
            list_ends: ends,
        }
    }

    fn write(
        self,
        reader: &dyn ColumnReader,
        options: &ColumnOptions,
    ) -> Result<WrittenColumn, IndexError> {
        let ids = match self.values {
            Values::Raw(values) => {
                let data = ColumnData {
                    values: &values,
                    list_ends: self.list_ends.as_deref(),
                    null_docs: &self.null_docs,
                    null_elements: &self.null_elements,
                };
                return write_column(&data, options);
            }
            Values::Ids(ids) => ids,
        };
        let (ids, dictionary) = translated(reader, ids)?;
        let shape = Shape {
            docs: self.list_ends.as_ref().map_or(ids.len(), Vec::len),
            list_ends: self.list_ends.as_deref(),
            null_docs: &self.null_docs,
            null_elements: &self.null_elements,
        };
        assemble(
            reader.physical(),
            &shape,
            &Encoded::Ids { ids, dictionary },
            options,
        )
    }
}

/// Appends one buffer to another of its type.
fn extend(values: &mut ValueBuffer, more: &ValueBuffer) -> Result<(), IndexError> {
    by_type!(more.physical(), T => {
        if let (Some(values), Some(more)) = (T::buffer(values), T::slice(more)) {
            values.extend_from_slice(more);
        }
    }, bytes => {
        if let (ValueBuffer::Bytes { offsets, data }, ValueBuffer::Bytes { offsets: ends, data: more }) = (values, more) {
            let base = data.len();
            if i32::try_from(base + more.len()).is_err() {
                return Err(corrupt("a text column of 2 GiB or more in one segment; seal segments earlier"));
            }
            data.extend_from_slice(more);
            offsets.extend(ends.iter().skip(1).map(|&end| base as i32 + end));
        }
    });
    Ok(())
}
