//! Timestamp indexes: a column of timestamps once more, truncated, so that filters and groups by hour or month read few
//! distinct values.

use strandline_index::column::{ColumnData, ColumnOptions, WrittenColumn, write_column};
use strandline_index::{ColumnReader, DocId, DocSelection, IndexError, ValueBuffer, null_docs};
use strandline_proto::granularity::Granularity;

/// The column that `reader` reads, truncated, its documents in the order of `order` (none: as they are); none when one of its
/// times can't be truncated.
pub(super) fn write_truncated(
    reader: &dyn ColumnReader,
    order: Option<&[DocId]>,
    to: Granularity,
) -> Result<Option<WrittenColumn>, IndexError> {
    let docs = reader.num_docs();
    let mut is_null = vec![false; docs as usize];
    for doc in null_docs(reader) {
        if let Some(is_null) = is_null.get_mut(doc as usize) {
            *is_null = true;
        }
    }
    let mut values = ValueBuffer::new(reader.physical());
    reader.values(DocSelection::Range(0..docs), &mut values);
    if let Some(fault) = reader.fault() {
        return Err(fault);
    }
    let ValueBuffer::I64(times) = values else {
        return Err(IndexError("its values are no timestamps".to_owned()));
    };
    let truncated = times
        .iter()
        .zip(&is_null)
        .map(|(&time, &is_null)| match is_null {
            true => Some(0),
            false => to.truncate(time),
        });
    let Some(mut truncated) = truncated.collect::<Option<Vec<i64>>>() else {
        return Ok(None);
    };
    if let Some(order) = order {
        let at = |doc: &DocId| *doc as usize;
        truncated = order
            .iter()
            .filter_map(|doc| truncated.get(at(doc)).copied())
            .collect();
        is_null = order
            .iter()
            .filter_map(|doc| is_null.get(at(doc)).copied())
            .collect();
    }
    let nulls = (0..).zip(&is_null).filter(|(_, is_null)| **is_null);
    let null_docs: Vec<DocId> = nulls.map(|(doc, _)| doc).collect();
    let values = ValueBuffer::I64(truncated);
    let data = ColumnData {
        null_docs: &null_docs,
        ..ColumnData::single(&values)
    };
    let options = ColumnOptions {
        range: true,
        ..ColumnOptions::default()
    };
    write_column(&data, &options).map(Some)
}
