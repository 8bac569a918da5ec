//! A segment of an earlier schema, read by a later one: columns that came since are absent, renamed ones are found under the
//! names they had, narrower numbers are widened.

use super::arrow::physical_type;
use super::widened::{WidenedColumn, widens};
use super::{DeletedKeys, SegmentReader, SegmentStarTree, ValidDocs};
use std::collections::HashMap;
use std::sync::Arc;
use strandline_index::text::TextPostings;
use strandline_index::{ColumnReader, DocSelection, PhysicalType};
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::granularity::Granularity;
use strandline_proto::ids::{OffsetRange, StreamPartition};
use strandline_proto::lineage::Lineage;
use strandline_proto::schema::Schema;

/// Where a column is.
enum Place {
    Absent,
    /// Under this name; where it has to be widened, to which type.
    Stored(String, Option<PhysicalType>),
}

struct AdaptedSegment {
    inner: Arc<dyn SegmentReader>,
    /// Columns that are not simply there under their own names.
    places: HashMap<String, Place>,
    /// Whether a name stands for another column than it stands for in the segment.
    is_ambiguous: bool,
}

/// `segment`, which is of the schema's `version`, as the later `schema` reads it.
pub fn adapt(
    segment: Arc<dyn SegmentReader>,
    version: u32,
    schema: &Schema,
    lineage: &Lineage,
) -> Arc<dyn SegmentReader> {
    if version >= schema.version {
        return segment;
    }
    let mut places = HashMap::new();
    let mut is_ambiguous = false;
    for column in &schema.columns {
        let Some(stored) = lineage.stored_name(&column.name, version) else {
            is_ambiguous |= segment.column(&column.name).is_some();
            places.insert(column.name.clone(), Place::Absent);
            continue;
        };
        is_ambiguous |= stored != column.name;
        let to = physical_type(column.data_type);
        let reader = segment.column(stored);
        let is_narrow = reader.is_some_and(|reader| {
            reader.is_multi_value() == column.multi_value && widens(reader.physical(), to)
        });
        // A star-tree's sums are of the type they were built with.
        is_ambiguous |= is_narrow;
        if is_narrow || stored != column.name {
            let place = Place::Stored(stored.to_owned(), is_narrow.then_some(to));
            places.insert(column.name.clone(), place);
        }
    }
    if places.is_empty() {
        return segment;
    }
    Arc::new(AdaptedSegment {
        inner: segment,
        places,
        is_ambiguous,
    })
}

/// What is known of a segment, in the names of a later schema.
pub fn adapt_info(info: &Arc<SegmentInfo>, schema: &Schema, lineage: &Lineage) -> Arc<SegmentInfo> {
    let version = info.schema_version;
    let is_same = |name: &str| lineage.stored_name(name, version) == Some(name);
    if version >= schema.version
        || info.columns.iter().all(|c| is_same(&c.name)) && lineage.is_plain()
    {
        return Arc::clone(info);
    }
    let columns = schema.columns.iter().filter_map(|column| {
        let stored = lineage.stored_name(&column.name, version)?;
        let mut stats = info.columns.iter().find(|c| c.name == stored)?.clone();
        stats.name.clone_from(&column.name);
        Some(stats)
    });
    Arc::new(SegmentInfo {
        columns: columns.collect(),
        ..(**info).clone()
    })
}

impl AdaptedSegment {
    /// The stored name of a column, or of a column of a timestamp index.
    fn stored<'a>(&'a self, name: &'a str) -> Option<(String, Option<PhysicalType>)> {
        if let Some((base, to)) = Granularity::of_column(name) {
            return match self.places.get(base) {
                None => Some((name.to_owned(), None)),
                Some(Place::Stored(stored, None)) => Some((to.column_of(stored), None)),
                Some(_) => None,
            };
        }
        match self.places.get(name) {
            None => Some((name.to_owned(), None)),
            Some(Place::Stored(stored, widened)) => Some((stored.clone(), *widened)),
            Some(Place::Absent) => None,
        }
    }
}

impl SegmentReader for AdaptedSegment {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn num_docs(&self) -> u32 {
        self.inner.num_docs()
    }

    fn schema_version(&self) -> u32 {
        self.inner.schema_version()
    }

    fn column(&self, name: &str) -> Option<Arc<dyn ColumnReader>> {
        let (stored, widened) = self.stored(name)?;
        let column = self.inner.column(&stored)?;
        Some(match widened {
            Some(to) => Arc::new(WidenedColumn::new(column, to)),
            None => column,
        })
    }

    fn origin(&self) -> Option<(&StreamPartition, OffsetRange)> {
        self.inner.origin()
    }

    fn offsets(&self, docs: DocSelection<'_>, out: &mut Vec<i64>) {
        self.inner.offsets(docs, out);
    }

    fn bounds(&self, column: &str) -> Option<(i64, i64)> {
        match self.stored(column)? {
            (stored, None | Some(PhysicalType::I64)) => self.inner.bounds(&stored),
            _ => None,
        }
    }

    fn text(&self, column: &str) -> Option<Arc<dyn TextPostings>> {
        self.inner.text(&self.stored(column)?.0)
    }

    fn star_trees(&self) -> &[Arc<SegmentStarTree>] {
        // Their columns go by the names of the segment.
        if self.is_ambiguous {
            &[]
        } else {
            self.inner.star_trees()
        }
    }

    fn deleted_keys(&self) -> DeletedKeys {
        self.inner.deleted_keys()
    }

    fn valid_docs(&self) -> Option<Arc<dyn ValidDocs>> {
        self.inner.valid_docs()
    }
}
