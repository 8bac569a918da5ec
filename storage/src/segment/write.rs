//! Pinned rows become a segment file: sorted, one column after the other.

use super::DeletedKeys;
use super::file::{
    DELETED_KEYS_KIND, METADATA_KIND, OFFSETS_COLUMN, SectionId, SegmentFileWriter,
    TRUNCATED_COLUMNS, WHOLE_SEGMENT,
};
use super::growing::column_options;
use super::json::json_section;
use super::metadata::{SegmentMetadata, lower_bound, scalar_value, upper_bound};
use super::spec::{SegmentSpec, StarMeasure, StarTreeSpec};
use super::star_tree::{WrittenTree, write_tree};
use super::text::write_text;
use super::time_range::time_range;
use super::truncated::write_truncated;
use crate::environment::Files;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use strandline_index::column::{
    ColumnOptions, SectionKind, WrittenColumn, rewrite_column, sorted_order,
};
use strandline_index::{ColumnReader, DocId, IndexError, null_docs};
use strandline_proto::catalog::{ColumnStats, SegmentInfo};
use strandline_proto::granularity::Granularity;
use strandline_proto::ids::{Half, OffsetRange, SegmentName, StreamPartition};
use strandline_proto::schema::Column;
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

/// Which segment is written.
pub(super) struct SegmentIdentity {
    pub(super) name: SegmentName,
    pub(super) half: Half,
    pub(super) origin: Option<(StreamPartition, OffsetRange)>,
    pub(super) deleted_keys: DeletedKeys,
}

/// Rows as they are read: columns in schema order, the stream offsets of a segment with an origin.
pub(super) struct RowsToWrite {
    pub(super) spec: Arc<SegmentSpec>,
    pub(super) rows: u32,
    pub(super) columns: Vec<Arc<dyn ColumnReader>>,
    pub(super) offsets: Option<Arc<dyn ColumnReader>>,
    /// Columns that are made ready at a time.
    pub(super) threads: usize,
}

/// Writes `rows` as the segment file `path`, each column being let go once it is written.
///
/// The same rows give the same bytes.
pub(super) fn write_segment(
    files: &Arc<dyn Files>,
    path: &Path,
    identity: SegmentIdentity,
    rows: RowsToWrite,
) -> Result<SegmentInfo> {
    let RowsToWrite {
        spec,
        rows,
        columns,
        offsets,
        threads,
    } = rows;
    let schema = &*spec.schema;
    let order = match &spec.sorted_column {
        Some(sorted) => match schema
            .columns
            .iter()
            .zip(&columns)
            .find(|(column, _)| &column.name == sorted)
        {
            Some((column, reader)) => {
                sort_order(&**reader).map_err(|e| column_error(&column.name, &e))?
            }
            None => None,
        },
        None => None,
    };
    let mut writer = SegmentFileWriter::create(files, path, schema.version)?;
    let mut stats = Vec::with_capacity(columns.len());
    let mut time_ms = None;
    let mut star_trees = Vec::new();
    let mut granularities = Vec::new();
    let named: Vec<_> = schema.columns.iter().zip(columns).collect();
    // Trees take longest, so they come first.
    let trees = spec.star_trees.iter().filter(|_| rows > 0).map(|tree| {
        let has = |column: &Column| {
            let mut measured = tree.measures.iter().filter_map(StarMeasure::column);
            tree.dimensions.contains(&column.name) || measured.any(|name| name == column.name)
        };
        let columns = named.iter().filter(|(column, _)| has(column));
        let columns = columns.map(|(column, reader)| (*column, Arc::clone(reader)));
        Part::Tree(tree, columns.collect())
    });
    let truncated = named.iter().flat_map(|(column, reader)| {
        let of_column = spec.columns.get(&column.name);
        let wanted = of_column.into_iter().flat_map(|spec| &spec.granularities);
        wanted.map(move |&to| Part::Truncated(column, to, Arc::clone(reader)))
    });
    let parts: Vec<Part<'_>> = trees.chain(truncated).collect();
    let columns = named.into_iter().map(|(c, reader)| Part::Column(c, reader));
    let parts = parts.into_iter().chain(columns).collect();
    let rewritten = |part: Part<'_>| {
        let (column, reader) = match part {
            Part::Column(column, reader) => (column, reader),
            Part::Truncated(column, to, reader) => {
                let written = write_truncated(&*reader, order.as_deref(), to)
                    .map_err(|e| column_error(&to.column_of(&column.name), &e))?;
                return Ok(Written::Truncated(column.name.clone(), to, written));
            }
            Part::Tree(tree, columns) => {
                let of_name = |name: &str| {
                    let found = columns.iter().find(|(column, _)| column.name == name);
                    found.map(|(_, reader)| Arc::clone(reader))
                };
                return write_tree(tree, of_name).map(Written::Tree);
            }
        };
        let of_column = spec.column(&column.name);
        let options = column_options(&of_column);
        let mut written = rewrite_column(&*reader, order.as_deref(), &options)
            .map_err(|e| column_error(&column.name, &e))?;
        if let Some(settings) = &of_column.text {
            let bytes = write_text(&*reader, order.as_deref(), settings)
                .map_err(|e| column_error(&column.name, &e))?;
            written.sections.push((SectionKind::Text, bytes));
        }
        if let Some(json) = &of_column.json {
            let bytes = json_section(&*reader, order.as_deref(), json)
                .map_err(|e| column_error(&column.name, &e))?;
            written.sections.push((SectionKind::Json, bytes));
        }
        let is_time = spec.time_column.as_deref() == Some(column.name.as_str());
        let range = if is_time {
            time_range(&*reader, column, &written.stats)?
        } else {
            None
        };
        Ok(Written::Column(
            column_stats(column, &written),
            written,
            range,
        ))
    };
    in_order(threads, parts, rewritten, |written| match written {
        Written::Column(of_column, written, range) => {
            write_sections(&mut writer, stats.len() as u32, &written)?;
            time_ms = time_ms.or(range);
            stats.push(of_column);
            Ok(())
        }
        Written::Truncated(column, to, Some(written)) => {
            let number = TRUNCATED_COLUMNS + granularities.len() as u32;
            write_sections(&mut writer, number, &written)?;
            granularities.push((column, to));
            Ok(())
        }
        Written::Truncated(_, _, None) => Ok(()),
        Written::Tree(tree) => {
            for (id, bytes) in tree.sections(star_trees.len()) {
                writer.section(id, bytes)?;
            }
            star_trees.push(tree.metadata);
            Ok(())
        }
    })?;
    if let Some(offsets) = offsets {
        let raw = ColumnOptions {
            dictionary: false,
            ..ColumnOptions::default()
        };
        let written = rewrite_column(&*offsets, order.as_deref(), &raw)
            .map_err(|e| column_error("$offset", &e))?;
        write_sections(&mut writer, OFFSETS_COLUMN, &written)?;
    }
    if !identity.deleted_keys.is_empty() {
        let id = SectionId {
            column: WHOLE_SEGMENT,
            kind: DELETED_KEYS_KIND,
        };
        writer.section(id, identity.deleted_keys.bytes())?;
    }
    let metadata = SegmentMetadata {
        name: identity.name,
        half: identity.half,
        rows: u64::from(rows),
        time_ms,
        origin: identity.origin,
        sorted_column: spec.sorted_column.clone(),
        schema: schema.clone(),
        columns: stats,
        star_trees,
        granularities,
    };
    let json = serde_json::to_vec(&metadata)
        .map_err(|e| Error::internal(format!("metadata of {}: {e}", metadata.name)))?;
    writer.section(
        SectionId {
            column: WHOLE_SEGMENT,
            kind: METADATA_KIND,
        },
        &json,
    )?;
    let (bytes, checksum) = writer.finish()?;
    Ok(metadata.info(bytes, checksum))
}

/// What is made ready at a time.
enum Part<'a> {
    Column(&'a Column, Arc<dyn ColumnReader>),
    /// A column of timestamps, of which one is made that is truncated.
    Truncated(&'a Column, Granularity, Arc<dyn ColumnReader>),
    /// With the columns that it is of.
    Tree(&'a StarTreeSpec, Vec<(&'a Column, Arc<dyn ColumnReader>)>),
}

/// What was made of it.
enum Written {
    /// With its times, if it is the time column.
    Column(ColumnStats, WrittenColumn, Option<(i64, i64)>),
    /// With the column that it is of; none where some of its times can't be truncated.
    Truncated(String, Granularity, Option<WrittenColumn>),
    Tree(WrittenTree),
}

/// Calls `make` with each of `items`, `threads` at a time, and `take` with what it made of them, in their order.
pub(super) fn in_order<I: Send, T: Send>(
    threads: usize,
    items: Vec<I>,
    make: impl Fn(I) -> Result<T> + Sync,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.into_iter().try_for_each(|item| take(make(item)?));
    }
    let left = Mutex::new(items.into_iter().enumerate());
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (left, make, send) = (&left, &make, send.clone());
            scope.spawn(move || {
                while let Some((number, item)) = { left.lock().next() } {
                    // Nobody waits for it after an error.
                    if send.send((number, make(item))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (number, made) in receive {
            early.insert(number, made?);
            while let Some(made) = early.remove(&next) {
                take(made)?;
                next += 1;
            }
        }
        Ok(())
    })
}

fn write_sections(
    writer: &mut SegmentFileWriter,
    column: u32,
    written: &WrittenColumn,
) -> Result<()> {
    for (kind, bytes) in &written.sections {
        writer.section(
            SectionId {
                column,
                kind: kind.code(),
            },
            bytes,
        )?;
    }
    Ok(())
}

fn column_stats(column: &Column, written: &WrittenColumn) -> ColumnStats {
    let stats = &written.stats;
    let value = |scalar: &Option<_>| {
        scalar
            .as_ref()
            .map(|scalar| scalar_value(scalar, column.data_type))
    };
    ColumnStats {
        name: column.name.clone(),
        min: value(&stats.min).map_or(Value::Null, lower_bound),
        max: value(&stats.max).map_or(Value::Null, upper_bound),
        cardinality: stats.cardinality.map(u64::from),
        nulls: stats.nulls,
    }
}

/// The order that sorts the rows by a column, nulls first, equal rows as they came; none when they are in order.
fn sort_order(reader: &dyn ColumnReader) -> Result<Option<Vec<DocId>>, IndexError> {
    let mut order = sorted_order(reader)?;
    if reader.has_nulls() {
        let mut is_null = vec![false; order.len()];
        let nulls = null_docs(reader);
        for &doc in &nulls {
            if let Some(mark) = is_null.get_mut(doc as usize) {
                *mark = true;
            }
        }
        let values = order
            .iter()
            .copied()
            .filter(|&doc| !is_null.get(doc as usize).copied().unwrap_or(false));
        order = nulls.iter().copied().chain(values).collect();
    }
    Ok(if order.is_sorted() { None } else { Some(order) })
}

fn column_error(column: &str, error: &IndexError) -> Error {
    Error::exhausted(format!("column {column} can't be written: {error}"))
}
