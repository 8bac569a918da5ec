//! The immutable segment: a segment file, mapped, verified as a whole and then only read.

use super::arrow::physical_type;
use super::consuming::append_i64;
use super::file::{
    DELETED_KEYS_KIND, METADATA_KIND, OFFSETS_COLUMN, SectionId, SegmentFile, TRUNCATED_COLUMNS,
    WHOLE_SEGMENT, damage,
};
use super::json::Coverage;
use super::metadata::SegmentMetadata;
use super::star_tree::SegmentStarTree;
use super::{DeletedKeys, SegmentReader};
use hashbrown::HashMap;
use std::path::Path;
use std::sync::Arc;
use strandline_index::column::{ImmutableColumn, SectionKind};
use strandline_index::text::{ImmutableText, TextPostings};
use strandline_index::{ColumnReader, DocSelection};
use strandline_proto::Result;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::{OffsetRange, StreamPartition};
use strandline_proto::schema::{DataType, Schema};
use strandline_proto::value::Value;

/// Larger metadata is taken for damage: it is a few hundred bytes a column.
const METADATA_BYTES_MAX: usize = 256 << 20;

/// A segment over its mapped file.
///
/// Opening reads and checks every byte once. A file that has been deleted since stays readable until the last
/// reader of it is gone.
pub struct ImmutableSegment {
    info: SegmentInfo,
    schema: Arc<Schema>,
    rows: u32,
    sorted_column: Option<String>,
    columns: HashMap<String, StoredColumn>,
    offsets: Option<Arc<ImmutableColumn>>,
    star_trees: Vec<Arc<SegmentStarTree>>,
    deleted_keys: DeletedKeys,
}

/// A column, the bounds of its whole numbers when it is single-valued, and its text index.
struct StoredColumn {
    reader: Arc<ImmutableColumn>,
    bounds: Option<(i64, i64)>,
    text: Option<Arc<ImmutableText>>,
}

impl ImmutableSegment {
    /// Maps and verifies the segment file at `path`.
    ///
    /// # Errors
    /// `DataLoss` when the file is not what was written (it should be quarantined and replaced), naming the file
    /// and the part; `Unsupported` when a newer version wrote it.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        let file = SegmentFile::open(path)?;
        Self::from_file(&file)
            .map(Arc::new)
            .map_err(|e| e.at(path.display()))
    }

    fn from_file(file: &SegmentFile) -> Result<Self> {
        let metadata = read_metadata(file)?;
        let rows = u32::try_from(metadata.rows)
            .map_err(|_| damage("metadata", "it has over 2^32 rows"))?;
        let stats_fit = metadata.columns.iter().map(|c| &c.name).eq(metadata
            .schema
            .columns
            .iter()
            .map(|c| &c.name));
        if metadata.schema.version != file.schema_version() || !stats_fit {
            return Err(damage("metadata", "it contradicts itself"));
        }
        let mut columns = HashMap::with_capacity(metadata.schema.columns.len());
        for (number, column) in metadata.schema.columns.iter().enumerate() {
            let reader = open_column(
                file,
                number as u32,
                &column.name,
                rows,
                column.data_type,
                column.multi_value,
            )?;
            // Statistics stand in the order of the columns.
            let stats = metadata.columns.get(number);
            let bounds = stats.filter(|_| !column.multi_value).and_then(|stats| {
                match (&stats.min, &stats.max) {
                    (Value::Int(min), Value::Int(max)) => Some((i64::from(*min), i64::from(*max))),
                    (Value::Long(min), Value::Long(max))
                    | (Value::Timestamp(min), Value::Timestamp(max)) => Some((*min, *max)),
                    _ => None,
                }
            });
            let stored = StoredColumn {
                reader: Arc::new(reader),
                bounds,
                text: open_text(file, number as u32, &column.name, rows)?,
            };
            columns.insert(column.name.clone(), stored);
        }
        for (number, (name, to)) in (TRUNCATED_COLUMNS..).zip(&metadata.granularities) {
            let name = to.column_of(name);
            let reader = open_column(file, number, &name, rows, DataType::Timestamp, false)?;
            let stored = StoredColumn {
                reader: Arc::new(reader),
                bounds: None,
                text: None,
            };
            columns.insert(name, stored);
        }
        let offsets = match metadata.origin {
            Some(_) => Some(Arc::new(open_column(
                file,
                OFFSETS_COLUMN,
                "$offset",
                rows,
                DataType::Long,
                false,
            )?)),
            None => None,
        };
        let mut star_trees = Vec::with_capacity(metadata.star_trees.len());
        for (number, tree) in metadata.star_trees.iter().enumerate() {
            let tree = SegmentStarTree::open(file, &metadata.name.0, number, tree)?;
            star_trees.push(Arc::new(tree));
        }
        let deleted_keys = file.section(SectionId {
            column: WHOLE_SEGMENT,
            kind: DELETED_KEYS_KIND,
        });
        Ok(Self {
            info: metadata.info(file.bytes(), file.checksum()),
            schema: Arc::new(metadata.schema),
            rows,
            sorted_column: metadata.sorted_column,
            columns,
            offsets,
            star_trees,
            deleted_keys: DeletedKeys::open(deleted_keys.unwrap_or_default())?,
        })
    }

    /// What the catalog keeps of the segment.
    pub fn info(&self) -> &SegmentInfo {
        &self.info
    }

    /// The schema that the segment was built with.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The stream offset of each row, of a segment with an origin.
    pub(super) fn offsets_reader(&self) -> Option<Arc<dyn ColumnReader>> {
        let offsets = self.offsets.as_ref()?;
        Some(Arc::clone(offsets) as Arc<dyn ColumnReader>)
    }

    /// The column that the rows are sorted by, nulls first.
    pub fn sorted_column(&self) -> Option<&str> {
        self.sorted_column.as_deref()
    }
}

impl SegmentReader for ImmutableSegment {
    fn name(&self) -> &str {
        self.info.name.as_str()
    }

    fn num_docs(&self) -> u32 {
        self.rows
    }

    fn schema_version(&self) -> u32 {
        self.info.schema_version
    }

    fn column(&self, name: &str) -> Option<Arc<dyn ColumnReader>> {
        self.columns
            .get(name)
            .map(|column| Arc::clone(&column.reader) as Arc<dyn ColumnReader>)
    }

    fn bounds(&self, column: &str) -> Option<(i64, i64)> {
        self.columns.get(column)?.bounds
    }

    fn text(&self, column: &str) -> Option<Arc<dyn TextPostings>> {
        let text = self.columns.get(column)?.text.as_ref()?;
        Some(Arc::clone(text) as Arc<dyn TextPostings>)
    }

    fn origin(&self) -> Option<(&StreamPartition, OffsetRange)> {
        self.info
            .origin
            .as_ref()
            .map(|(partition, range)| (partition, *range))
    }

    fn star_trees(&self) -> &[Arc<SegmentStarTree>] {
        &self.star_trees
    }

    fn deleted_keys(&self) -> DeletedKeys {
        self.deleted_keys.clone()
    }

    fn offsets(&self, docs: DocSelection<'_>, out: &mut Vec<i64>) {
        if let Some(offsets) = &self.offsets {
            append_i64(&**offsets, docs, out);
        }
    }
}

fn read_metadata(file: &SegmentFile) -> Result<SegmentMetadata> {
    let Some(bytes) = file.section(SectionId {
        column: WHOLE_SEGMENT,
        kind: METADATA_KIND,
    }) else {
        return Err(damage("metadata", "it is missing"));
    };
    if bytes.len() > METADATA_BYTES_MAX {
        return Err(damage("metadata", "it is too long to be metadata"));
    }
    serde_json::from_slice(&bytes).map_err(|e| damage("metadata", &e.to_string()))
}

/// A column's text index, if it has one.
fn open_text(
    file: &SegmentFile,
    number: u32,
    name: &str,
    rows: u32,
) -> Result<Option<Arc<ImmutableText>>> {
    let Some(section) = file.section(SectionId {
        column: number,
        kind: SectionKind::Text.code(),
    }) else {
        return Ok(None);
    };
    let part = format!("column {name}");
    let text = ImmutableText::open(&section).map_err(|e| damage(&part, &e.to_string()))?;
    if text.num_docs() != rows {
        return Err(damage(&part, "its text index is of other rows"));
    }
    Ok(Some(Arc::new(text)))
}

fn open_column(
    file: &SegmentFile,
    number: u32,
    name: &str,
    rows: u32,
    data_type: DataType,
    multi_value: bool,
) -> Result<ImmutableColumn> {
    let part = format!("column {name}");
    let column = ImmutableColumn::open(file.column_sections(number))
        .map_err(|e| damage(&part, &e.to_string()))?;
    if column.physical() != physical_type(data_type)
        || column.is_multi_value() != multi_value
        || column.num_docs() != rows
    {
        return Err(damage(&part, "it is not what the metadata says"));
    }
    if let Some(json) = column.json() {
        Coverage::read(json.coverage())
            .map_err(|e| damage(&part, &format!("the coverage of its JSON index: {e}")))?;
    }
    Ok(column)
}
