//! The smallest and largest instant of a segment, for pruning by time.

use super::metadata::scalar_value;
use std::collections::BTreeSet;
use strandline_index::column::ColumnStats;
use strandline_index::{CHUNK_DOCS, ColumnReader, DictId, DocBits, DocSelection, ValueBuffer};
use strandline_proto::schema::{Column, ColumnRole};
use strandline_proto::time_format::TimeFormat;
use strandline_proto::{Error, Result};

/// The first and last instant that a time column's rows write, in milliseconds since the epoch; none when no row does.
///
/// Where the order of values is the order of instants, the column's smallest and largest value decide;
/// otherwise, or when these write no instant, every distinct value is looked at.
pub(super) fn time_range(
    reader: &dyn ColumnReader,
    column: &Column,
    stats: &ColumnStats,
) -> Result<Option<(i64, i64)>> {
    let ColumnRole::DateTime { format, .. } = &column.role else {
        return Err(Error::invalid(format!(
            "the time column {} is not a dateTime field of the schema",
            column.name
        )));
    };
    if column.multi_value {
        return Err(Error::invalid(format!(
            "the time column {} is multi-value",
            column.name
        )));
    }
    let (Some(min), Some(max)) = (&stats.min, &stats.max) else {
        return Ok(None);
    };
    if format.is_sortable_in(column.data_type) {
        let bounds = (
            format.to_ms(&scalar_value(min, column.data_type)),
            format.to_ms(&scalar_value(max, column.data_type)),
        );
        if let (Some(first), Some(last)) = bounds {
            return Ok(Some((first, last)));
        }
    }
    Ok(range_of_values(reader, column, format))
}

fn range_of_values(
    reader: &dyn ColumnReader,
    column: &Column,
    format: &TimeFormat,
) -> Option<(i64, i64)> {
    let mut range: Option<(i64, i64)> = None;
    let mut add = |time_ms: Option<i64>| {
        if let Some(ms) = time_ms {
            let (first, last) = range.unwrap_or((ms, ms));
            range = Some((first.min(ms), last.max(ms)));
        }
    };
    let mut seen: BTreeSet<DictId> = BTreeSet::new();
    let mut nulls = DocBits::new();
    let mut ids = Vec::new();
    let mut values = ValueBuffer::new(reader.physical());
    for chunk in 0..reader.num_docs().div_ceil(CHUNK_DOCS) {
        let start = chunk * CHUNK_DOCS;
        let docs = start..reader.num_docs().min(start.saturating_add(CHUNK_DOCS));
        nulls.clear();
        reader.null_bits(chunk, &mut nulls);
        let counts = |i: &usize| !nulls.contains(*i as u16);
        if reader.dictionary().is_some() {
            ids.clear();
            reader.dict_ids(DocSelection::Range(docs), &mut ids);
            seen.extend((0..ids.len()).filter(counts).filter_map(|i| ids.get(i)));
        } else {
            values.clear();
            reader.values(DocSelection::Range(docs), &mut values);
            for i in (0..values.len()).filter(counts) {
                add(values
                    .get(i)
                    .and_then(|value| format.to_ms(&scalar_value(&value, column.data_type))));
            }
        }
    }
    if let Some(dictionary) = reader.dictionary() {
        for id in seen {
            add(format.to_ms(&scalar_value(&dictionary.value(id), column.data_type)));
        }
    }
    range
}
