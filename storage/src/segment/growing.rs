//! Rows that are still being added to, column by column: what a builder fills and what a consuming
//! segment serves.
//!
//! Both are the index crate's mutable columns: the values of a dictionary column are held once each, ids
//! take four bytes, raw values their width. A consuming segment whose first rows come in a large batch holds those columns
//! without a dictionary in which nearly every row of it has a value of its own: the dictionary would only take time and memory
//! until the segment is built, which makes it by sorting.
//!
//! *Invariant*: all columns are appended to or none: a batch is converted and checked as a whole before
//! the first column is touched. Should a column refuse it even so, no more rows are taken.

use super::arrow::physical_type;
use super::spec::{ColumnSpec, Encoding, SegmentSpec};
use super::text::GrowingText;
use super::values::{ColumnValues, KeyedValues};
use super::write::in_order;
use ::arrow::array::{Array, ArrayRef, RecordBatch};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use strandline_index::column::{ColumnData, ColumnOptions};
use strandline_index::mutable::{KeyedTexts, MutableColumn, MutableOptions};
use strandline_index::text::TextPostings;
use strandline_index::{ColumnReader, DictId, IndexError, PhysicalType, ValueBuffer};
use strandline_proto::schema::{Column, ColumnRole, DataType};
use strandline_proto::{Error, Result};

/// Rows of one segment: `$docId` is an Int32.
pub const SEGMENT_ROWS_MAX: u32 = i32::MAX as u32;

/// Rows from which on a batch tells whether a dictionary is of use.
const LARGE_BATCH_ROWS: usize = 1024;

/// How a stored column is written.
pub(super) fn column_options(spec: &ColumnSpec) -> ColumnOptions {
    ColumnOptions {
        dictionary: spec.encoding == Encoding::Dictionary,
        inverted: spec.inverted,
        range: spec.range,
        bloom: spec.bloom,
        fst: spec.fst,
        ..ColumnOptions::default()
    }
}

/// Columns of equal length, one for each of the schema's, and the stream offsets.
///
/// Appended to by one thread at a time, read by any.
pub(super) struct GrowingRows {
    spec: Arc<SegmentSpec>,
    /// Replaced before the first rows come, if at all.
    columns: ArcSwap<Vec<MutableColumn>>,
    /// Whether columns may do without the dictionary that they will be stored with.
    may_be_raw: bool,
    numbers: HashMap<String, usize>,
    /// By column, where there is one.
    words: Vec<Option<GrowingText>>,
    offsets: Option<MutableColumn>,
    /// By column: the texts of keyed rows that came last, and their ids.
    texts: Mutex<Vec<Option<Texts>>>,
    rows: AtomicU32,
    broken: AtomicBool,
}

/// A dictionary of texts that rows are keyed by.
struct Texts {
    array: ArrayRef,
    values: ValueBuffer,
    /// Ids of those of the texts that rows hold.
    known: Vec<DictId>,
}

/// A batch's rows of one column, on their way in.
enum Incoming {
    Plain(ColumnValues),
    Keyed(KeyedValues),
}

/// A column of a batch with where it goes, before and after it was checked.
type Checked<'a> = (
    ((&'a ArrayRef, &'a Column), &'a MutableColumn),
    &'a mut Option<Texts>,
);
type Appended<'a> = (
    ((&'a Incoming, &'a MutableColumn), &'a Column),
    &'a mut Option<Texts>,
);

impl GrowingRows {
    /// No rows. `with_indexes`: columns keep the inverted and text indexes that the spec asks for while they grow.
    ///
    /// # Errors
    /// `InvalidArgument` when the spec asks for what can't be stored.
    pub(super) fn new(
        spec: Arc<SegmentSpec>,
        with_offsets: bool,
        with_indexes: bool,
    ) -> Result<Self> {
        check_spec(&spec)?;
        let columns = spec.schema.columns.iter().map(|column| {
            let of_column = spec.column(&column.name);
            let options = MutableOptions {
                dictionary: of_column.encoding == Encoding::Dictionary,
                inverted: with_indexes && of_column.inverted,
            };
            new_column(column, options)
        });
        let columns = columns.collect::<Result<_>>()?;
        let new_words = |column: &Column| {
            let settings = spec.column(&column.name).text.filter(|_| with_indexes);
            settings.map(|settings| GrowingText::new(&settings))
        };
        let words = spec.schema.columns.iter().map(new_words).collect();
        let numbers = spec
            .schema
            .columns
            .iter()
            .enumerate()
            .map(|(number, column)| (column.name.clone(), number))
            .collect();
        let raw = MutableOptions {
            dictionary: false,
            inverted: false,
        };
        let offsets = if with_offsets {
            Some(
                MutableColumn::new(PhysicalType::I64, false, raw)
                    .map_err(|e| Error::internal(format!("$offset: {e}")))?,
            )
        } else {
            None
        };
        let texts = spec.schema.columns.iter().map(|_| None).collect();
        Ok(Self {
            spec,
            columns: ArcSwap::from_pointee(columns),
            may_be_raw: with_indexes,
            numbers,
            words,
            texts: Mutex::new(texts),
            offsets,
            rows: AtomicU32::new(0),
            broken: AtomicBool::new(false),
        })
    }

    pub(super) fn spec(&self) -> &Arc<SegmentSpec> {
        &self.spec
    }

    /// Rows that all columns hold.
    pub(super) fn rows(&self) -> u32 {
        self.rows.load(Ordering::Acquire)
    }

    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        let columns = self.columns.load();
        columns
            .iter()
            .chain(&self.offsets)
            .map(MutableColumn::bytes)
            .chain(self.texts.lock().iter().flatten().map(Texts::bytes))
            .chain(self.words.iter().flatten().map(GrowingText::bytes))
            .sum()
    }

    /// The first `rows` rows of the column `name`.
    pub(super) fn column(&self, name: &str, rows: u32) -> Option<Arc<dyn ColumnReader>> {
        let number = *self.numbers.get(name)?;
        let columns = self.columns.load();
        columns.get(number).map(|column| column.view(rows))
    }

    /// Bounds of the whole numbers, nulls apart, of a single-value column: those of all its rows lie within.
    pub(super) fn bounds(&self, name: &str) -> Option<(i64, i64)> {
        let number = *self.numbers.get(name)?;
        self.columns.load().get(number)?.bounds()
    }

    /// The text index of the first `rows` rows of the column `name`; it may hold fewer.
    pub(super) fn text(&self, name: &str, rows: u32) -> Option<Arc<dyn TextPostings>> {
        let number = *self.numbers.get(name)?;
        let words = self.words.get(number)?.as_ref()?;
        Some(words.view(rows))
    }

    /// The first `rows` rows of all columns, in schema order.
    pub(super) fn columns(&self, rows: u32) -> Vec<Arc<dyn ColumnReader>> {
        let columns = self.columns.load();
        columns.iter().map(|column| column.view(rows)).collect()
    }

    /// The stream offsets of the first `rows` rows.
    pub(super) fn offsets(&self, rows: u32) -> Option<Arc<dyn ColumnReader>> {
        self.offsets.as_ref().map(|offsets| offsets.view(rows))
    }

    /// Appends the rows of `batch`, in the layout of `Schema::arrow`, with their stream offsets, to so many columns at a time.
    ///
    /// # Errors
    /// `InvalidArgument` for rows of another layout, `ResourceExhausted` when the segment is full; nothing was appended then.
    pub(super) fn append(
        &self,
        batch: &RecordBatch,
        offsets: Option<&[u64]>,
        threads: usize,
    ) -> Result<()> {
        let (data, offsets) = self.checked(batch, offsets, threads)?;
        if self.may_be_raw && self.rows() == 0 && batch.num_rows() >= LARGE_BATCH_ROWS {
            self.leave_out_dictionaries(&data)?;
        }
        if self.broken.swap(true, Ordering::AcqRel) {
            return Err(Error::internal(
                "the segment takes no more rows, because an earlier batch failed halfway: its rows go into the next segment",
            ));
        }
        let mut texts = self.texts.lock();
        let mutable_columns = self.columns.load();
        let columns = data
            .iter()
            .zip(&**mutable_columns)
            .zip(&self.spec.schema.columns)
            .zip(texts.iter_mut());
        let append = |(((incoming, mutable), column), texts): Appended<'_>| {
            match (incoming, texts) {
                (Incoming::Plain(values), _) => mutable.append(&values.data()),
                (Incoming::Keyed(KeyedValues { keys, .. }), Some(texts)) => {
                    let data = KeyedTexts {
                        texts: &texts.values,
                        keys,
                    };
                    mutable.append_keyed(&data, &mut texts.known)
                }
                (Incoming::Keyed(_), None) => {
                    return Err(Error::internal("keyed rows without their texts"));
                }
            }
            .map_err(|e| column_full(&column.name, &e))
        };
        in_order(threads, columns.collect(), append, Ok)?;
        drop(texts);
        for (words, column) in self.words.iter().zip(&**mutable_columns) {
            if let Some(words) = words {
                words.extend(&*column.view(u32::MAX));
            }
        }
        if let (Some(mutable), Some(values)) = (&self.offsets, &offsets) {
            mutable
                .append(&ColumnData::single(values))
                .map_err(|e| column_full("$offset", &e))?;
        }
        self.rows
            .fetch_add(batch.num_rows() as u32, Ordering::Release);
        self.broken.store(false, Ordering::Release);
        Ok(())
    }

    /// Before the first rows: has columns do without a dictionary that would hold nearly each of their values.
    fn leave_out_dictionaries(&self, data: &[Incoming]) -> Result<()> {
        let columns = data.iter().zip(&self.spec.schema.columns);
        let columns = columns.map(|(incoming, column)| {
            let of_column = self.spec.column(&column.name);
            let is_free = !of_column.inverted && !column.multi_value;
            let is_raw = match incoming {
                Incoming::Plain(values) if is_free => {
                    // Texts are long, so that holding them more than once is dear.
                    let is_long = column.data_type.is_text() || column.data_type == DataType::Bytes;
                    let rows = values.data().num_docs();
                    let repeated_max = if is_long { 0 } else { rows / 16 };
                    rows - values.distinct() <= repeated_max
                }
                _ => false,
            };
            let options = MutableOptions {
                dictionary: of_column.encoding == Encoding::Dictionary && !is_raw,
                inverted: of_column.inverted,
            };
            new_column(column, options)
        });
        let columns = columns.collect::<Result<_>>()?;
        self.columns.store(Arc::new(columns));
        Ok(())
    }

    /// The batch as columns will take it.
    fn checked(
        &self,
        batch: &RecordBatch,
        offsets: Option<&[u64]>,
        threads: usize,
    ) -> Result<(Vec<Incoming>, Option<ValueBuffer>)> {
        let schema = &self.spec.schema;
        if batch.num_columns() != schema.columns.len() {
            return Err(Error::invalid(format!(
                "rows come with {} columns, the schema of table {} has {}",
                batch.num_columns(),
                schema.name,
                schema.columns.len()
            )));
        }
        let rows = u32::try_from(batch.num_rows())
            .ok()
            .and_then(|more| self.rows().checked_add(more));
        if rows.is_none_or(|rows| rows > SEGMENT_ROWS_MAX) {
            return Err(Error::exhausted(format!(
                "a segment holds {SEGMENT_ROWS_MAX} rows: seal it earlier"
            )));
        }
        let offsets = self.offset_values(batch.num_rows(), offsets)?;
        let mut data = Vec::with_capacity(batch.num_columns());
        let mut texts = self.texts.lock();
        let mutable_columns = self.columns.load();
        let columns = batch
            .columns()
            .iter()
            .zip(&schema.columns)
            .zip(&**mutable_columns)
            .zip(texts.iter_mut());
        let check = |(((array, column), mutable), texts): Checked<'_>| {
            let keyed = KeyedValues::from_array(array, column, &self.spec);
            let (incoming, checked) = match keyed.filter(|_| mutable.has_dictionary()) {
                Some(keyed) => {
                    let texts = Texts::of(texts, &keyed, column)?;
                    let data = KeyedTexts {
                        texts: &texts.values,
                        keys: &keyed.keys,
                    };
                    let checked = mutable.check_keyed(&data);
                    (Incoming::Keyed(keyed), checked)
                }
                None => {
                    let values = ColumnValues::from_array(array, column)?;
                    let checked = mutable.check(&values.data());
                    (Incoming::Plain(values), checked)
                }
            };
            checked.map_err(|e| column_full(&column.name, &e))?;
            Ok(incoming)
        };
        in_order(threads, columns.collect(), check, |incoming| {
            data.push(incoming);
            Ok(())
        })?;
        Ok((data, offsets))
    }

    fn offset_values(&self, rows: usize, offsets: Option<&[u64]>) -> Result<Option<ValueBuffer>> {
        match (offsets, &self.offsets) {
            (None, None) => Ok(None),
            (Some(offsets), Some(_)) if offsets.len() == rows => {
                let signed: Result<Vec<i64>, _> = offsets
                    .iter()
                    .map(|&offset| i64::try_from(offset))
                    .collect();
                let signed =
                    signed.map_err(|_| Error::invalid("a stream offset is beyond 2^63 - 1"))?;
                Ok(Some(ValueBuffer::I64(signed)))
            }
            (Some(offsets), Some(_)) => Err(Error::invalid(format!(
                "{} stream offsets for {rows} rows",
                offsets.len()
            ))),
            (Some(_), None) => Err(Error::invalid(
                "rows with stream offsets for a segment without an origin",
            )),
            (None, Some(_)) => Err(Error::invalid(
                "rows without stream offsets for a segment of a stream partition",
            )),
        }
    }
}

fn new_column(column: &Column, options: MutableOptions) -> Result<MutableColumn> {
    MutableColumn::new(physical_type(column.data_type), column.multi_value, options)
        .map_err(|e| Error::invalid(format!("column {}: {e}", column.name)))
}

impl Texts {
    /// Makes `last` the texts of `keyed`, unless they are already.
    fn of<'a>(
        last: &'a mut Option<Self>,
        keyed: &KeyedValues,
        column: &Column,
    ) -> Result<&'a Self> {
        let same = last
            .as_ref()
            .is_some_and(|texts| Arc::ptr_eq(&texts.array, &keyed.texts));
        if !same {
            *last = Some(Self {
                array: Arc::clone(&keyed.texts),
                values: KeyedValues::physical_texts(&keyed.texts, column)?,
                known: Vec::new(),
            });
        }
        last.as_ref()
            .ok_or_else(|| Error::internal("keyed rows without their texts"))
    }

    /// Memory held: the texts twice, and their ids.
    fn bytes(&self) -> usize {
        2 * self.array.get_array_memory_size() + self.known.capacity() * size_of::<DictId>()
    }
}

fn column_full(column: &str, error: &IndexError) -> Error {
    Error::exhausted(format!("column {column}: {error}"))
}

/// Refuses what no column can hold.
pub(super) fn check_spec(spec: &SegmentSpec) -> Result<()> {
    for (name, of_column) in &spec.columns {
        for (wanted, kind) in [
            (of_column.inverted, "an inverted"),
            (of_column.fst, "an FST"),
        ] {
            if wanted && of_column.encoding == Encoding::Raw {
                return Err(Error::invalid(format!(
                    "column {name}: {kind} index needs a dictionary, but the column is raw: take one of the two out of the table config"
                )));
            }
        }
        let column = spec.schema.column(name);
        if (of_column.text.is_some() || of_column.fst)
            && !column.is_some_and(|column| column.data_type.is_text())
        {
            return Err(Error::invalid(format!(
                "column {name}: a text or FST index is for columns of text (STRING, JSON)"
            )));
        }
        if !of_column.granularities.is_empty() && !column.is_none_or(Column::is_single_timestamp) {
            return Err(Error::invalid(format!(
                "column {name}: a timestamp index needs a single-value column of type TIMESTAMP"
            )));
        }
        if let Some(json) = &of_column.json {
            if !column.is_none_or(Column::is_single_text) {
                return Err(Error::invalid(format!(
                    "column {name}: a JSON index needs a single-value column of type JSON or STRING"
                )));
            }
            json.check()
                .map_err(|e| e.at(format_args!("column {name}")))?;
        }
    }
    if let Some(time) = &spec.time_column {
        match spec.schema.column(time) {
            Some(column)
                if matches!(column.role, ColumnRole::DateTime { .. }) && !column.multi_value => {}
            Some(_) => {
                return Err(Error::invalid(format!(
                    "the time column {time} is not a single-value dateTime field of the schema of table {}",
                    spec.schema.name
                )));
            }
            None => return Err(missing("time", time, spec)),
        }
    }
    if let Some(sorted) = &spec.sorted_column {
        match spec.schema.column(sorted) {
            Some(column) if !column.multi_value => {}
            Some(_) => {
                return Err(Error::invalid(format!(
                    "rows can't be sorted by the multi-value column {sorted}"
                )));
            }
            None => return Err(missing("sorted", sorted, spec)),
        }
    }
    Ok(())
}

fn missing(which: &str, column: &str, spec: &SegmentSpec) -> Error {
    Error::invalid(format!(
        "the {which} column {column} is not in the schema of table {}",
        spec.schema.name
    ))
}
