//! What every column reader must answer, held against rows.
//!
//! [`check`] asks a reader everything its contract has and compares each answer with a naive look at the rows. It
//! serves the tests of this crate and of whoever composes columns to segments; it is slow and made for tests.

use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::kernels::Bound;
use crate::reader::{
    ColumnReader, DictId, Dictionary, DocId, DocSelection, PhysicalType, Scalar, ValueBuffer,
};
use std::collections::BTreeMap;

/// One document of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// A null document.
    Null,
    /// A single value.
    Value(Scalar<'static>),
    /// A list, its null elements as none.
    List(Vec<Option<Scalar<'static>>>),
}

/// The rows of a column, and how they must be read.
#[derive(Clone, Debug)]
pub struct ColumnRows {
    /// The type of a value, or of an element.
    pub physical: PhysicalType,
    /// Whether documents are lists.
    pub multi_value: bool,
    /// The documents.
    pub rows: Vec<Row>,
}

/// Rows as a writer takes them.
#[derive(Clone, Debug)]
pub struct OwnedData {
    /// One value for each document, or all elements.
    pub values: ValueBuffer,
    /// Multi-value: the end of each document's elements.
    pub list_ends: Option<Vec<u32>>,
    /// Null documents.
    pub null_docs: Vec<DocId>,
    /// Null elements.
    pub null_elements: Vec<u32>,
}

impl OwnedData {
    /// The borrowed form.
    pub fn data(&self) -> crate::column::ColumnData<'_> {
        crate::column::ColumnData {
            values: &self.values,
            list_ends: self.list_ends.as_deref(),
            null_docs: &self.null_docs,
            null_elements: &self.null_elements,
        }
    }
}

impl ColumnRows {
    /// The documents `docs` as a writer takes them.
    pub fn data(&self, docs: std::ops::Range<usize>) -> OwnedData {
        let mut data = OwnedData {
            values: ValueBuffer::new(self.physical),
            list_ends: self.multi_value.then(Vec::new),
            null_docs: Vec::new(),
            null_elements: Vec::new(),
        };
        let placeholder = Scalar::placeholder(self.physical);
        for (doc, row) in self
            .rows
            .iter()
            .skip(docs.start)
            .take(docs.len())
            .enumerate()
        {
            match row {
                Row::Null => {
                    data.null_docs.push(doc as DocId);
                    if !self.multi_value {
                        data.values.push(&placeholder);
                    }
                }
                Row::Value(value) => {
                    data.values.push(value);
                }
                Row::List(list) => {
                    for element in list {
                        if element.is_none() {
                            data.null_elements.push(data.values.len() as u32);
                        }
                        data.values.push(element.as_ref().unwrap_or(&placeholder));
                    }
                }
            }
            if let Some(ends) = &mut data.list_ends {
                ends.push(data.values.len() as u32);
            }
        }
        data
    }

    /// The values of a document that are not null.
    fn values_of(&self, doc: usize) -> Vec<&Scalar<'static>> {
        match self.rows.get(doc) {
            Some(Row::Value(value)) => vec![value],
            Some(Row::List(list)) => list.iter().flatten().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether any value of a document that is not null passes a test.
    fn any_value(&self, doc: usize, test: impl Fn(&Scalar<'static>) -> bool) -> bool {
        match self.rows.get(doc) {
            Some(Row::Value(value)) => test(value),
            Some(Row::List(list)) => list.iter().flatten().any(test),
            _ => false,
        }
    }

    fn is_null(&self, doc: usize) -> bool {
        matches!(self.rows.get(doc), Some(Row::Null))
    }

    /// What a read of `docs` must give: for each document its elements' number, and all values with placeholders.
    fn expected(&self, docs: &[DocId]) -> (Vec<u32>, ValueBuffer, Vec<bool>) {
        let (mut ends, mut values, mut nulls) =
            (Vec::new(), ValueBuffer::new(self.physical), Vec::new());
        let placeholder = Scalar::placeholder(self.physical);
        for &doc in docs {
            match self.rows.get(doc as usize) {
                Some(Row::Value(value)) => {
                    values.push(value);
                }
                Some(Row::List(list)) => {
                    for element in list {
                        values.push(element.as_ref().unwrap_or(&placeholder));
                        nulls.push(element.is_none());
                    }
                }
                _ if !self.multi_value => {
                    values.push(&placeholder);
                }
                _ => {}
            }
            ends.push(values.len() as u32);
        }
        (ends, values, nulls)
    }
}

/// Bits of buffers, so that NaN equals itself.
fn same(a: &ValueBuffer, b: &ValueBuffer) -> bool {
    a.len() == b.len()
        && (0..a.len()).all(|i| match (a.get(i), b.get(i)) {
            (Some(a), Some(b)) => a.physical() == b.physical() && a.total_cmp(&b).is_eq(),
            _ => false,
        })
}

macro_rules! ensure {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(format!($($what)*));
        }
    };
}

/// Whether a value lies between two bounds.
pub fn is_between(value: &Scalar<'_>, low: Bound<'_>, high: Bound<'_>) -> bool {
    let above = low.is_none_or(|(low, included)| {
        let order = value.total_cmp(low);
        order.is_gt() || (included && order.is_eq())
    });
    above
        && high.is_none_or(|(high, included)| {
            let order = value.total_cmp(high);
            order.is_lt() || (included && order.is_eq())
        })
}

/// Asks `reader` everything and compares with `rows`; `probes` are values of the column's type to look up beside
/// those that it holds.
///
/// # Errors
/// The first difference.
pub fn check(
    reader: &dyn ColumnReader,
    rows: &ColumnRows,
    probes: &[Scalar<'static>],
) -> Result<(), String> {
    let docs = rows.rows.len() as u32;
    ensure!(
        reader.physical() == rows.physical,
        "type {:?}",
        reader.physical()
    );
    ensure!(
        reader.is_multi_value() == rows.multi_value,
        "multi-value {}",
        reader.is_multi_value()
    );
    ensure!(
        reader.num_docs() == docs,
        "{} documents, {docs} expected",
        reader.num_docs()
    );
    check_nulls(reader, rows)?;
    for docs in selections(docs) {
        check_blocks(reader, rows, &docs)?;
    }
    for range in ranges(docs) {
        check_range(reader, rows, range)?;
    }
    if let Some(dictionary) = reader.dictionary() {
        check_dictionary(dictionary, rows, probes)?;
    }
    if reader.is_sorted() {
        let values: Vec<_> = (0..docs as usize).map(|doc| rows.values_of(doc)).collect();
        let ascending = values
            .windows(2)
            .all(|w| w[0][0].total_cmp(w[1][0]).is_le());
        ensure!(
            values.iter().all(|v| v.len() == 1) && ascending,
            "is_sorted, and the rows are not"
        );
    }
    check_lookups(reader, rows, probes)?;
    match reader.fault() {
        Some(fault) => Err(format!("fault: {fault}")),
        None => Ok(()),
    }
}

/// The documents of a chunk.
fn chunk_docs(docs: u32, chunk: u32) -> std::ops::Range<DocId> {
    let start = (chunk * CHUNK_DOCS).min(docs);
    start..docs.min(start.saturating_add(CHUNK_DOCS))
}

/// Sparse and dense lists of documents.
fn selections(docs: u32) -> Vec<Vec<DocId>> {
    let mut selections = vec![Vec::new(), (0..docs).collect()];
    for step in [2, 3, 31, 997, 40_000] {
        selections.push((0..docs).step_by(step).collect());
    }
    selections.push((0..docs).filter(|doc| doc % 700 < 140).collect());
    selections
}

/// Ranges about the ends of blocks and chunks.
fn ranges(docs: u32) -> Vec<std::ops::Range<DocId>> {
    let mut ends = vec![
        0, 1, 7, 1000, 1023, 1024, 1025, 2048, 8192, 65_535, 65_536, 65_537, 70_000, docs,
    ];
    ends.retain(|&end| end <= docs);
    ends.sort_unstable();
    ends.dedup();
    let mut ranges: Vec<std::ops::Range<u32>> = std::iter::once(0..docs).collect();
    for (i, &start) in ends.iter().enumerate() {
        ranges.extend(ends.iter().skip(i).take(2).map(|&end| start..end));
    }
    ranges
}

fn check_nulls(reader: &dyn ColumnReader, rows: &ColumnRows) -> Result<(), String> {
    let docs = rows.rows.len();
    let any = (0..docs).any(|doc| rows.is_null(doc));
    ensure!(
        reader.has_nulls() == any,
        "has_nulls {}",
        reader.has_nulls()
    );
    for chunk in 0..=docs as u32 / CHUNK_DOCS {
        let mut bits = DocBits::new();
        reader.null_bits(chunk, &mut bits);
        let mut found = Vec::new();
        bits.append_docs(chunk * CHUNK_DOCS, &mut found);
        let expected = chunk_docs(docs as u32, chunk).filter(|&doc| rows.is_null(doc as usize));
        ensure!(expected.eq(found), "null documents of chunk {chunk}");
    }
    Ok(())
}

fn check_range(
    reader: &dyn ColumnReader,
    rows: &ColumnRows,
    range: std::ops::Range<DocId>,
) -> Result<(), String> {
    let docs: Vec<DocId> = range.clone().collect();
    check_selection(reader, rows, &docs, || DocSelection::Range(range.clone()))
}

fn check_blocks(
    reader: &dyn ColumnReader,
    rows: &ColumnRows,
    docs: &[DocId],
) -> Result<(), String> {
    check_selection(reader, rows, docs, || DocSelection::Docs(docs))
}

fn check_selection<'a>(
    reader: &dyn ColumnReader,
    rows: &ColumnRows,
    docs: &[DocId],
    selection: impl Fn() -> DocSelection<'a>,
) -> Result<(), String> {
    let about = format!("{} documents from {:?}", docs.len(), docs.first());
    let (mut ends, expected, expected_nulls) = rows.expected(docs);
    // what buffers hold before stays, and ends count from the buffer's start
    let mut values = ValueBuffer::new(rows.physical);
    let mut ids: Vec<DictId> = Vec::new();
    let first = Scalar::placeholder(rows.physical);
    values.push(&first);
    let mut with_first = ValueBuffer::new(rows.physical);
    with_first.push(&first);
    for value in (0..expected.len()).filter_map(|i| expected.get(i)) {
        with_first.push(&value);
    }
    ends.iter_mut().for_each(|end| *end += 1);
    if rows.multi_value {
        let mut found = Vec::new();
        reader.multi_values(selection(), &mut found, &mut values);
        ensure!(found == ends, "ends of values of {about}");
        let mut nulls = Vec::new();
        reader.null_elements(selection(), &mut nulls);
        let any = rows
            .rows
            .iter()
            .any(|row| matches!(row, Row::List(list) if list.contains(&None)));
        ensure!(
            nulls == if any { expected_nulls } else { Vec::new() },
            "null elements of {about}"
        );
    } else {
        reader.values(selection(), &mut values);
    }
    ensure!(same(&values, &with_first), "values of {about}");
    let Some(dictionary) = reader.dictionary() else {
        return Ok(());
    };
    if rows.multi_value {
        let mut found = Vec::new();
        reader.multi_dict_ids(selection(), &mut found, &mut ids);
        ensure!(
            found.iter().map(|end| end + 1).eq(ends),
            "ends of ids of {about}"
        );
    } else {
        reader.dict_ids(selection(), &mut ids);
    }
    ensure!(
        ids.iter().all(|&id| id < dictionary.len()),
        "ids beyond the dictionary in {about}"
    );
    let mut through = ValueBuffer::new(rows.physical);
    dictionary.gather(&ids, &mut through);
    ensure!(same(&through, &expected), "ids of {about}");
    Ok(())
}

fn check_dictionary(
    dictionary: &dyn Dictionary,
    rows: &ColumnRows,
    probes: &[Scalar<'static>],
) -> Result<(), String> {
    let (_, values, _) = rows.expected(&(0..rows.rows.len() as DocId).collect::<Vec<_>>());
    let mut distinct: Vec<Scalar<'_>> = (0..values.len()).filter_map(|i| values.get(i)).collect();
    distinct.sort_by(Scalar::total_cmp);
    distinct.dedup_by(|a, b| a.total_cmp(b).is_eq());
    ensure!(
        dictionary.physical() == rows.physical,
        "the dictionary's type"
    );
    ensure!(
        dictionary.len() as usize == distinct.len(),
        "{} values, {} expected",
        dictionary.len(),
        distinct.len()
    );
    for value in distinct.iter().chain(probes) {
        let held = distinct.binary_search_by(|d| d.total_cmp(value)).is_ok();
        match dictionary.id_of(value) {
            Some(id) => {
                ensure!(held && id < dictionary.len(), "{value:?} has the id {id}");
                ensure!(
                    dictionary.value(id).total_cmp(value).is_eq(),
                    "id {id} is not {value:?}"
                );
            }
            None => ensure!(!held, "{value:?} has no id"),
        }
    }
    if !dictionary.is_sorted() {
        return Ok(());
    }
    ensure!(
        (0..dictionary.len())
            .map(|id| dictionary.value(id))
            .eq_by_total(&distinct),
        "the dictionary's order"
    );
    for (low, high) in bounds(probes) {
        let expected = distinct
            .iter()
            .filter(|value| is_between(value, low, high))
            .count();
        let ids = dictionary.range(low, high);
        ensure!(
            ids.len() == expected,
            "{} ids in {low:?}..{high:?}, {expected} expected",
            ids.len()
        );
        let all = ids
            .clone()
            .all(|id| is_between(&dictionary.value(id), low, high));
        ensure!(
            all && ids.end <= dictionary.len(),
            "ids in {low:?}..{high:?}"
        );
    }
    Ok(())
}

trait EqByTotal {
    fn eq_by_total(self, other: &[Scalar<'_>]) -> bool;
}

impl<'a, I: Iterator<Item = Scalar<'a>>> EqByTotal for I {
    fn eq_by_total(self, other: &[Scalar<'_>]) -> bool {
        let own: Vec<_> = self.collect();
        own.len() == other.len() && own.iter().zip(other).all(|(a, b)| a.total_cmp(b).is_eq())
    }
}

/// Pairs of bounds out of some values.
fn bounds<'a>(probes: &'a [Scalar<'static>]) -> Vec<(Bound<'a>, Bound<'a>)> {
    let mut bounds = vec![(None, None)];
    for (i, a) in probes.iter().enumerate() {
        bounds.push((Some((a, i % 2 == 0)), None));
        bounds.push((None, Some((a, i % 3 == 0))));
        bounds.push((Some((a, true)), Some((a, true))));
        if let Some(b) = probes.get(probes.len() - 1 - i) {
            bounds.push((Some((a, i % 3 != 0)), Some((b, i % 2 != 0))));
        }
    }
    bounds
}

fn check_lookups(
    reader: &dyn ColumnReader,
    rows: &ColumnRows,
    probes: &[Scalar<'static>],
) -> Result<(), String> {
    let docs = rows.rows.len() as u32;
    // the documents of each id by the rows; nulls are left open by the contract
    if let Some(dictionary) = reader.dictionary() {
        let mut lists: BTreeMap<DictId, Vec<DocId>> = BTreeMap::new();
        for doc in 0..docs {
            for value in rows.values_of(doc as usize) {
                let id = dictionary
                    .id_of(value)
                    .ok_or_else(|| format!("{value:?} has no id"))?;
                let list = lists.entry(id).or_default();
                if list.last() != Some(&doc) {
                    list.push(doc);
                }
            }
        }
        let step = (dictionary.len() / 50).max(1);
        for id in (0..dictionary.len()).step_by(step as usize) {
            let expected = lists.get(&id).map_or(&[][..], Vec::as_slice);
            if let Some(postings) = reader.inverted() {
                let mut found = Vec::new();
                let mut bits = DocBits::new();
                for chunk in 0..=docs / CHUNK_DOCS {
                    bits.clear();
                    postings.fill(id, chunk, &mut bits);
                    bits.append_docs(chunk * CHUNK_DOCS, &mut found);
                }
                ensure!(
                    found.iter().all(|&doc| doc < docs),
                    "postings of id {id} go beyond the documents"
                );
                let mut list = Vec::new();
                ensure!(
                    !postings.append_docs(id, &mut list) || list == found,
                    "postings of id {id}: a list of {} documents",
                    list.len()
                );
                found.retain(|&doc| !rows.is_null(doc as usize));
                ensure!(
                    found == expected,
                    "postings of id {id}: {} documents",
                    found.len()
                );
                ensure!(
                    postings.count(id) >= expected.len() as u64,
                    "count of id {id}"
                );
            }
            if let Some(found) = reader.sorted_docs(id..id + 1) {
                ensure!(
                    found.eq(expected.iter().copied()),
                    "sorted documents of id {id}"
                );
            }
        }
    }
    for doc in (0..docs as usize).step_by((docs as usize / 200).max(1)) {
        for value in rows.values_of(doc) {
            ensure!(
                reader.may_contain(value),
                "the bloom filter lacks {value:?}"
            );
        }
    }
    for (low, high) in bounds(probes) {
        for chunk in 0..=docs / CHUNK_DOCS {
            let mut bits = DocBits::new();
            let answered = reader.range_fill(low, high, chunk, &mut bits);
            ensure!(
                answered == reader.has_range_index(),
                "range_fill answers {answered}"
            );
            if !answered {
                ensure!(
                    bits.is_empty(),
                    "range_fill without a range index sets bits"
                );
                continue;
            }
            for doc in chunk_docs(docs, chunk) {
                let expected = rows.any_value(doc as usize, |value| is_between(value, low, high));
                let found = bits.contains(doc as u16);
                ensure!(
                    found == expected || rows.is_null(doc as usize),
                    "range {low:?}..{high:?}, document {doc}: {found}"
                );
            }
            ensure!(
                bits.iter()
                    .all(|d| chunk * CHUNK_DOCS + u32::from(d) < docs),
                "range_fill beyond the documents"
            );
        }
    }
    Ok(())
}
