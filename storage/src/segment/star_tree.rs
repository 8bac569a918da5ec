//! Star-trees of a segment: built beside its columns, stored as columns of their records and the nodes.
//!
//! Records are read as rows of a segment are: a dimension is a column with a dictionary of its own, a measure is
//! a raw column of whole or floating numbers, or lists of the distinct values of a column, with a dictionary of their own.

use super::SegmentReader;
use super::file::{SectionId, SegmentFile, damage};
use super::spec::{StarMeasure, StarTreeSpec};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use strandline_index::column::{
    ColumnData, ColumnOptions, ImmutableColumn, WrittenColumn, gather_column, gathered_ids,
    write_column, write_lists,
};
use strandline_index::star_tree::{self, Fold, Measure, Numbers, Options, Sets, StarTree};
use strandline_index::{ColumnReader, DocId, DocSelection, IndexError, ValueBuffer, null_docs};
use strandline_proto::ids::{OffsetRange, StreamPartition};
use strandline_proto::{Error, Result};

/// The first of the numbers of trees' columns; the tree's number is in the bits from 16 on.
const COLUMNS_OF_TREES: u32 = 1 << 31;
/// The place of the nodes among a tree's columns.
const NODES: u32 = 0xffff;
/// The kind of the nodes' section.
const NODES_KIND: u16 = 1;
/// Trees of a segment.
pub(crate) const TREES_MAX: usize = 1 << 10;
/// Dimensions, and measures, of a tree.
pub(crate) const COLUMNS_MAX: usize = 1 << 10;

/// What the metadata say of a tree. Its columns are the dimensions, then the measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StarTreeMetadata {
    pub(crate) dimensions: Vec<String>,
    pub(crate) measures: Vec<StarMeasure>,
}

/// A tree as it will be stored.
pub(super) struct WrittenTree {
    pub(super) metadata: StarTreeMetadata,
    columns: Vec<WrittenColumn>,
    nodes: Vec<u8>,
}

impl WrittenTree {
    /// The sections of the segment's tree `number`.
    pub(super) fn sections(&self, number: usize) -> impl Iterator<Item = (SectionId, &[u8])> {
        let columns = self
            .columns
            .iter()
            .enumerate()
            .flat_map(move |(i, column)| {
                let column_number = column_of(number, i as u32);
                column.sections.iter().map(move |(kind, bytes)| {
                    let id = SectionId {
                        column: column_number,
                        kind: kind.code(),
                    };
                    (id, bytes.as_slice())
                })
            });
        columns.chain([(nodes_of(number), self.nodes.as_slice())])
    }
}

fn column_of(tree: usize, column: u32) -> u32 {
    COLUMNS_OF_TREES | (tree as u32) << 16 | column
}

fn nodes_of(tree: usize) -> SectionId {
    SectionId {
        column: column_of(tree, NODES),
        kind: NODES_KIND,
    }
}

/// Builds the tree of `spec` from a segment's columns, which `column` gives by name.
///
/// # Errors
/// When a column is damaged, or not one that the tree can be of.
pub(super) fn write_tree(
    spec: &StarTreeSpec,
    column: impl Fn(&str) -> Option<Arc<dyn ColumnReader>>,
) -> Result<WrittenTree> {
    let column = |name: &str| {
        column(name).ok_or_else(|| {
            Error::internal(format!(
                "a star-tree over a column {name} that is not there"
            ))
        })
    };
    let mut readers = Vec::with_capacity(spec.dimensions.len());
    let mut dimensions = Vec::with_capacity(spec.dimensions.len());
    for name in &spec.dimensions {
        let reader = column(name)?;
        let gathered = gathered_ids(&*reader).map_err(|e| of_column(name, &e))?;
        let mut ids = gathered.ids;
        for doc in gathered.null_docs {
            if let Some(id) = ids.get_mut(doc as usize) {
                *id = star_tree::NULL;
            }
        }
        dimensions.push(ids);
        readers.push(reader);
    }
    let rows = dimensions.first().map_or(0, Vec::len);
    // What the ids of each measure's sets stand for.
    let mut dictionaries = vec![None];
    let mut measures = vec![StarMeasure::Count];
    let mut values = vec![Measure {
        fold: Fold::Sum,
        values: Numbers::I64(vec![1; rows]),
        valid: Vec::new(),
    }];
    for measure in &spec.measures {
        let Some(name) = measure.column() else {
            continue;
        };
        let reader = column(name)?;
        // Where no value is null, the rows' number is the values'.
        let one_each = !reader.has_nulls() && !reader.is_multi_value();
        if matches!(measure, StarMeasure::Values(_)) && one_each {
            continue;
        }
        let (read, dictionary) = match measure {
            StarMeasure::Distinct(_) => distinct(&*reader),
            _ => read_measure(measure, &*reader).map(|measure| (measure, None)),
        }
        .map_err(|e| of_column(name, &e))?;
        values.push(read);
        measures.push(measure.clone());
        dictionaries.push(dictionary);
    }
    let options = Options {
        leaf_records_max: spec.leaf_records_max,
        skip_star: (spec.dimensions.iter())
            .map(|dimension| spec.skip_star.contains(dimension))
            .collect(),
    };
    let whole = |e: IndexError| Error::internal(format!("a star-tree: {e}"));
    let built = star_tree::build(dimensions, values, &options).map_err(whole)?;
    let mut columns = Vec::with_capacity(readers.len() + built.measures.len());
    for (name, reader) in spec.dimensions.iter().zip(readers) {
        let written = gather_column(&*reader, &built.rows, &ColumnOptions::default());
        columns.push(written.map_err(|e| of_column(name, &e))?);
    }
    for (measure, dictionary) in built.measures.into_iter().zip(dictionaries) {
        columns.push(write_measure(measure, dictionary).map_err(whole)?);
    }
    Ok(WrittenTree {
        metadata: StarTreeMetadata {
            dimensions: spec.dimensions.clone(),
            measures,
        },
        columns,
        nodes: built.nodes,
    })
}

fn of_column(name: &str, error: &IndexError) -> Error {
    Error::internal(format!("a star-tree's column {name}: {error}"))
}

/// The measure of a column's values that are not null: of a multi-value column, of each list's elements.
fn read_measure(measure: &StarMeasure, reader: &dyn ColumnReader) -> Result<Measure, IndexError> {
    let all = || DocSelection::Range(0..reader.num_docs());
    let mut values = ValueBuffer::new(reader.physical());
    let (mut ends, mut valid) = (Vec::new(), Vec::new());
    if reader.is_multi_value() {
        reader.multi_values(all(), &mut ends, &mut values);
        let mut nulls = Vec::new();
        reader.null_elements(all(), &mut nulls);
        valid.extend(nulls.iter().map(|is_null| !is_null));
    } else {
        reader.values(all(), &mut values);
        if reader.has_nulls() {
            valid.resize(values.len(), true);
        }
        for doc in null_docs(reader) {
            if let Some(valid) = valid.get_mut(doc as usize) {
                *valid = false;
            }
        }
    }
    if let Some(fault) = reader.fault() {
        return Err(fault);
    }
    let is_count = matches!(measure, StarMeasure::Values(_));
    let one_each = Measure {
        fold: match measure {
            StarMeasure::Min(_) => Fold::Min,
            StarMeasure::Max(_) => Fold::Max,
            _ => Fold::Sum,
        },
        values: match values {
            _ if is_count => {
                let one = |at| i64::from(valid.get(at).is_none_or(|valid| *valid));
                Numbers::I64((0..values.len()).map(one).collect())
            }
            ValueBuffer::I32(values) => Numbers::I64(values.into_iter().map(i64::from).collect()),
            ValueBuffer::I64(values) => Numbers::I64(values),
            ValueBuffer::F32(values) => Numbers::F64(values.into_iter().map(f64::from).collect()),
            ValueBuffer::F64(values) => Numbers::F64(values),
            ValueBuffer::I128(_) | ValueBuffer::Bytes { .. } => {
                return Err(IndexError(
                    "not supported: a measure that is no whole or floating number".to_owned(),
                ));
            }
        },
        valid,
    };
    let folded = match reader.is_multi_value() {
        true => one_each.of_lists(&ends)?,
        false => one_each,
    };
    Ok(match is_count {
        // No values are a number of them, too.
        true => Measure {
            valid: Vec::new(),
            ..folded
        },
        false => folded,
    })
}

/// Of each document the set of its value; of a null one the empty set. With what the ids stand for.
fn distinct(reader: &dyn ColumnReader) -> Result<(Measure, Option<ValueBuffer>), IndexError> {
    let gathered = gathered_ids(reader)?;
    let mut nulls = gathered.null_docs.into_iter().peekable();
    let mut sets = Sets::default();
    for (doc, id) in (0..).zip(gathered.ids) {
        if nulls.next_if_eq(&doc).is_none() {
            sets.ids.push(id);
        }
        sets.ends.push(sets.ids.len());
    }
    let measure = Measure {
        fold: Fold::Sum,
        values: Numbers::Sets(sets),
        valid: Vec::new(),
    };
    Ok((measure, Some(gathered.values)))
}

/// `dictionary`: what the ids of sets stand for.
fn write_measure(
    measure: Measure,
    dictionary: Option<ValueBuffer>,
) -> Result<WrittenColumn, IndexError> {
    let values = match (measure.values, dictionary) {
        (Numbers::I64(values), _) => ValueBuffer::I64(values),
        (Numbers::F64(values), _) => ValueBuffer::F64(values),
        (Numbers::Sets(sets), Some(values)) => return write_lists(values, sets.ids, &sets.ends),
        (Numbers::Sets(_), None) => return Err(IndexError("sets of no values".to_owned())),
    };
    let null_docs: Vec<DocId> = (0..)
        .zip(&measure.valid)
        .filter(|(_, valid)| !**valid)
        .map(|(doc, _)| doc)
        .collect();
    let data = ColumnData {
        null_docs: &null_docs,
        ..ColumnData::single(&values)
    };
    let raw = ColumnOptions {
        dictionary: false,
        ..ColumnOptions::default()
    };
    write_column(&data, &raw)
}

/// A star-tree of a segment. As a [`SegmentReader`] it is its records: its columns are the dimensions.
pub struct SegmentStarTree {
    segment: String,
    tree: StarTree,
    dimensions: Vec<(String, Arc<ImmutableColumn>)>,
    measures: Vec<(StarMeasure, Arc<ImmutableColumn>)>,
}

impl SegmentStarTree {
    pub(super) fn open(
        file: &SegmentFile,
        segment: &str,
        number: usize,
        metadata: &StarTreeMetadata,
    ) -> Result<Self> {
        let part = format!("star-tree {number}");
        let contradiction = || damage(&part, "it is not what the metadata says");
        let nodes = file
            .section(nodes_of(number))
            .ok_or_else(|| damage(&part, "its nodes are missing"))?;
        let tree = StarTree::open(&nodes).map_err(|e| damage(&part, &e.to_string()))?;
        if tree.dimensions() as usize != metadata.dimensions.len()
            || metadata.measures.first() != Some(&StarMeasure::Count)
        {
            return Err(contradiction());
        }
        let mut next = 0;
        let mut open = || {
            let sections = file.column_sections(column_of(number, next));
            next += 1;
            let column =
                ImmutableColumn::open(sections).map_err(|e| damage(&part, &e.to_string()))?;
            if column.num_docs() != tree.records() {
                return Err(contradiction());
            }
            Ok(Arc::new(column))
        };
        let mut dimensions = Vec::with_capacity(metadata.dimensions.len());
        for name in &metadata.dimensions {
            let column = open()?;
            if column.dictionary().is_none() || column.is_multi_value() {
                return Err(contradiction());
            }
            dimensions.push((name.clone(), column));
        }
        let mut measures = Vec::with_capacity(metadata.measures.len());
        for measure in &metadata.measures {
            let column = open()?;
            let is_lists = column.is_multi_value() && column.dictionary().is_some();
            let fits = match measure {
                StarMeasure::Distinct(_) => is_lists,
                _ => !column.is_multi_value(),
            };
            if !fits {
                return Err(contradiction());
            }
            measures.push((measure.clone(), column));
        }
        Ok(Self {
            segment: segment.to_owned(),
            tree,
            dimensions,
            measures,
        })
    }

    /// The nodes.
    pub fn tree(&self) -> &StarTree {
        &self.tree
    }

    /// The names of the dimensions, in the order in which nodes are split.
    pub fn dimensions(&self) -> impl Iterator<Item = &str> {
        self.dimensions.iter().map(|(name, _)| name.as_str())
    }

    /// The values of a measure, one a record.
    pub fn measure(&self, measure: &StarMeasure) -> Option<Arc<dyn ColumnReader>> {
        let found = self.measures.iter().find(|(stored, _)| stored == measure);
        found.map(|(_, column)| Arc::clone(column) as Arc<dyn ColumnReader>)
    }
}

impl SegmentReader for SegmentStarTree {
    fn name(&self) -> &str {
        &self.segment
    }

    fn num_docs(&self) -> u32 {
        self.tree.records()
    }

    fn column(&self, name: &str) -> Option<Arc<dyn ColumnReader>> {
        let found = self.dimensions.iter().find(|(stored, _)| stored == name);
        found.map(|(_, column)| Arc::clone(column) as Arc<dyn ColumnReader>)
    }

    fn origin(&self) -> Option<(&StreamPartition, OffsetRange)> {
        None
    }

    fn offsets(&self, _docs: DocSelection<'_>, _out: &mut Vec<i64>) {}
}
