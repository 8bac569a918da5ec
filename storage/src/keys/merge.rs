//! Rows that say only what has changed, made whole by the row of their key before them.

use super::entry::Place;
use crate::config::{KeysConfig, MergeStrategy, Merging};
use crate::segment::SegmentReader;
use crate::segment::merge::column_or_default;
use ::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, PrimitiveArray, RecordBatch,
    RecordBatchOptions, new_null_array,
};
use ::arrow::buffer::{NullBuffer, OffsetBuffer};
use ::arrow::compute::interleave;
use ::arrow::datatypes::{
    DataType as ArrowType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
};
use ::arrow::error::ArrowError;
use ::arrow::row::{RowConverter, SortField};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use strandline_index::{DocId, DocSelection};
use strandline_proto::schema::{Column, Schema};
use strandline_proto::{Error, Result};

/// What a row is laid onto.
#[derive(Clone, Copy, Debug)]
enum Onto {
    Nothing,
    /// An earlier row of the batch.
    Row(usize),
    /// A row that is read, by its number among these.
    Read(usize),
}

/// A value, by where it stands: in the batch, or among the rows that are read.
type At = (usize, usize);
const IN_BATCH: usize = 0;
const READ: usize = 1;

/// A batch's rows, each laid onto the one of its key before it.
pub(super) struct Merger<'a> {
    batch: &'a RecordBatch,
    merging: &'a Merging,
    config: &'a KeysConfig,
    onto: Vec<Onto>,
    places: Vec<Place>,
}

impl<'a> Merger<'a> {
    pub(super) fn new(
        batch: &'a RecordBatch,
        merging: &'a Merging,
        config: &'a KeysConfig,
    ) -> Self {
        Self {
            batch,
            merging,
            config,
            onto: Vec::with_capacity(batch.num_rows()),
            places: Vec::new(),
        }
    }

    /// The next row is the first of its key.
    pub(super) fn alone(&mut self) {
        self.onto.push(Onto::Nothing);
    }

    /// The next row follows another one of the batch.
    pub(super) fn onto_row(&mut self, row: usize) {
        self.onto.push(Onto::Row(row));
    }

    /// The next row follows one of a segment.
    pub(super) fn onto_place(&mut self, place: Place) {
        self.onto.push(Onto::Read(self.places.len()));
        self.places.push(place);
    }

    /// The rows, of `schema`, as they are to be stored. `segment`: opens the segment of a number.
    pub(super) fn finish(
        self,
        schema: &Schema,
        segment: impl Fn(u32) -> Result<Arc<dyn SegmentReader>>,
    ) -> Result<RecordBatch> {
        if self.onto.iter().all(|onto| matches!(onto, Onto::Nothing)) {
            return Ok(self.batch.clone());
        }
        let read = ReadPlaces::new(&self.places, segment)?;
        let arrays = schema.columns.iter().zip(self.batch.columns());
        let arrays = arrays.map(|(column, array)| {
            let strategy = self.merging.of(&column.name);
            let is_own = self.config.columns().any(|own| *own == column.name);
            if is_own || strategy == MergeStrategy::ForceOverwrite {
                return Ok(Arc::clone(array));
            }
            let earlier = read.column(column)?;
            let merged = self.column(strategy, array, &earlier);
            merged.map_err(|e| {
                Error::internal(format!(
                    "column {} of rows that are merged: {e}",
                    column.name
                ))
            })
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.batch.num_rows()));
        RecordBatch::try_new_with_options(self.batch.schema(), arrays, &options)
            .map_err(|e| Error::internal(format!("rows that are merged: {e}")))
    }

    fn column(
        &self,
        strategy: MergeStrategy,
        new: &ArrayRef,
        earlier: &ArrayRef,
    ) -> Result<ArrayRef, ArrowError> {
        match strategy {
            MergeStrategy::Increment => return self.sums(new, earlier),
            MergeStrategy::Append => return self.lists(new, earlier, false),
            MergeStrategy::Union => return self.lists(new, earlier, true),
            _ => {}
        }
        let order = match strategy {
            MergeStrategy::Min | MergeStrategy::Max => {
                let field = SortField::new(new.data_type().clone());
                let converter = RowConverter::new(vec![field])?;
                let rows =
                    |array: &ArrayRef| converter.convert_columns(std::slice::from_ref(array));
                Some([rows(new)?, rows(earlier)?])
            }
            _ => None,
        };
        let sources = [new, earlier];
        let is_null = |(source, row): At| sources.get(source).is_none_or(|a| a.is_null(row));
        let picked = self.picked(|own, before| {
            if is_null(own) || is_null(before) {
                return if is_null(own) { before } else { own };
            }
            let greater = order.as_ref().map(|[new, earlier]| {
                let row = |(source, row): At| match source {
                    IN_BATCH => new.row(row),
                    _ => earlier.row(row),
                };
                row(own) > row(before)
            });
            match (strategy, greater) {
                (MergeStrategy::Ignore, _) | (MergeStrategy::Min, Some(true)) => before,
                (MergeStrategy::Max, Some(false)) => before,
                _ => own,
            }
        });
        interleave(&[&**new, &**earlier], &picked)
    }

    /// For each row the value that `pick` takes of its own and of that of the row before it.
    fn picked(&self, pick: impl Fn(At, At) -> At) -> Vec<At> {
        let mut picked: Vec<At> = Vec::with_capacity(self.onto.len());
        for (row, onto) in self.onto.iter().enumerate() {
            let own = (IN_BATCH, row);
            let before = match onto {
                Onto::Nothing => None,
                Onto::Row(earlier) => picked.get(*earlier).copied(),
                Onto::Read(number) => Some((READ, *number)),
            };
            picked.push(before.map_or(own, |before| pick(own, before)));
        }
        picked
    }

    fn sums(&self, new: &ArrayRef, earlier: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        Ok(match new.data_type() {
            ArrowType::Int32 => self.sums_of::<Int32Type>(new, earlier, |a, b| a.saturating_add(b)),
            ArrowType::Int64 => self.sums_of::<Int64Type>(new, earlier, |a, b| a.saturating_add(b)),
            ArrowType::Float32 => self.sums_of::<Float32Type>(new, earlier, |a, b| a + b),
            ArrowType::Float64 => self.sums_of::<Float64Type>(new, earlier, |a, b| a + b),
            ArrowType::Decimal128(..) => {
                self.sums_of::<Decimal128Type>(new, earlier, |a, b| a.saturating_add(b))
            }
            other => {
                return Err(ArrowError::InvalidArgumentError(format!(
                    "values of {other} can't be added up"
                )));
            }
        })
    }

    fn sums_of<T: ArrowPrimitiveType>(
        &self,
        new: &ArrayRef,
        earlier: &ArrayRef,
        add: impl Fn(T::Native, T::Native) -> T::Native,
    ) -> ArrayRef {
        let (new, earlier) = (new.as_primitive::<T>(), earlier.as_primitive::<T>());
        let value = |array: &PrimitiveArray<T>, row| array.is_valid(row).then(|| array.value(row));
        let mut sums: Vec<Option<T::Native>> = Vec::with_capacity(self.onto.len());
        for (row, onto) in self.onto.iter().enumerate() {
            let before = match onto {
                Onto::Nothing => None,
                Onto::Row(earlier) => sums.get(*earlier).copied().flatten(),
                Onto::Read(number) => value(earlier, *number),
            };
            sums.push(match (before, value(new, row)) {
                (Some(before), Some(more)) => Some(add(before, more)),
                (before, own) => own.or(before),
            });
        }
        let sums: PrimitiveArray<T> = sums.into_iter().collect();
        Arc::new(sums.with_data_type(new.data_type().clone()))
    }

    /// Lists with the elements of the rows before them in front, of equal ones only the first where `distinct`.
    fn lists(
        &self,
        new: &ArrayRef,
        earlier: &ArrayRef,
        distinct: bool,
    ) -> Result<ArrayRef, ArrowError> {
        let (Some(new), Some(earlier)) = (new.as_list_opt::<i32>(), earlier.as_list_opt::<i32>())
        else {
            return Err(ArrowError::InvalidArgumentError(
                "only multi-value columns are appended to".to_owned(),
            ));
        };
        let ArrowType::List(field) = new.data_type() else {
            return Err(ArrowError::InvalidArgumentError("not a list".to_owned()));
        };
        let converter = RowConverter::new(vec![SortField::new(field.data_type().clone())])?;
        let elements =
            [new, earlier].map(|list| converter.convert_columns(&[Arc::clone(list.values())]));
        let [of_new, of_earlier] = elements;
        let (of_new, of_earlier) = (of_new?, of_earlier?);
        let element = |(source, at): At| match source {
            IN_BATCH => of_new.row(at),
            _ => of_earlier.row(at),
        };
        let all = |source: usize, row: usize| -> Option<Vec<At>> {
            let list = [new, earlier].get(source).copied()?;
            let range = *list.value_offsets().get(row)?..*list.value_offsets().get(row + 1)?;
            list.is_valid(row)
                .then(|| range.map(|at| (source, at as usize)).collect())
        };
        let mut lists: Vec<Option<Vec<At>>> = Vec::with_capacity(self.onto.len());
        for (row, onto) in self.onto.iter().enumerate() {
            let before = match onto {
                Onto::Nothing => None,
                Onto::Row(earlier) => lists.get(*earlier).cloned().flatten(),
                Onto::Read(number) => all(READ, *number),
            };
            let is_first = before.is_none();
            let mut joined = match (before, all(IN_BATCH, row)) {
                (Some(mut before), Some(own)) => {
                    before.extend(own);
                    Some(before)
                }
                (before, own) => own.or(before),
            };
            if distinct && !(is_first && matches!(onto, Onto::Nothing)) {
                let mut seen = HashSet::new();
                if let Some(joined) = &mut joined {
                    joined.retain(|at| seen.insert(element(*at)));
                }
            }
            lists.push(joined);
        }
        let nulls = NullBuffer::from_iter(lists.iter().map(Option::is_some));
        let lengths = lists.iter().map(|list| list.as_ref().map_or(0, Vec::len));
        let ends = OffsetBuffer::from_lengths(lengths);
        let picked: Vec<At> = lists.into_iter().flatten().flatten().collect();
        let values = interleave(&[&**new.values(), &**earlier.values()], &picked)?;
        Ok(Arc::new(ListArray::try_new(
            Arc::clone(field),
            ends,
            values,
            Some(nulls),
        )?))
    }
}

/// Rows of segments that others are laid onto.
struct ReadPlaces {
    segments: Vec<(Arc<dyn SegmentReader>, Vec<DocId>)>,
    /// By row: where it is among the rows of all segments, one after the other.
    order: Vec<At>,
}

impl ReadPlaces {
    fn new(
        places: &[Place],
        segment: impl Fn(u32) -> Result<Arc<dyn SegmentReader>>,
    ) -> Result<Self> {
        let mut docs: BTreeMap<u32, Vec<DocId>> = BTreeMap::new();
        for place in places {
            docs.entry(place.segment).or_default().push(place.doc);
        }
        for docs in docs.values_mut() {
            docs.sort_unstable();
            docs.dedup();
        }
        let find = |place: &Place| {
            let number = docs.range(..place.segment).count();
            let of_segment = docs.get(&place.segment)?;
            Some((number, of_segment.binary_search(&place.doc).ok()?))
        };
        let order = places.iter().map(|place| find(place).unwrap_or_default());
        let order = order.collect();
        let open = |(number, docs)| Ok((segment(number)?, docs));
        let segments = docs.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        Ok(Self { segments, order })
    }

    fn column(&self, column: &Column) -> Result<ArrayRef> {
        let arrays = self
            .segments
            .iter()
            .map(|(segment, docs)| column_or_default(&**segment, column, DocSelection::Docs(docs)));
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let arrays: Vec<&dyn Array> = arrays.iter().map(|array| &**array).collect();
        let failed = |e| Error::internal(format!("rows that came earlier: {e}"));
        if arrays.is_empty() {
            return Ok(new_null_array(&column.arrow_type(), 0));
        }
        interleave(&arrays, &self.order).map_err(failed)
    }
}
