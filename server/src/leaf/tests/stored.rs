//! Rows as the segments that servers really hold.

use super::memory::Storage;
use arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use datafusion::common::ScalarValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_broker::literal::scalar_of;
use strandline_proto::granularity::Granularity;
use strandline_proto::ids::{Half, OffsetRange, StreamPartition};
use strandline_proto::schema::{Column, DataType, Schema};
use strandline_proto::text::TextSettings;
use strandline_proto::value::Value;
use strandline_storage::environment::Environment;
use strandline_storage::segment::SegmentReader;
use strandline_storage::segment::builder::SegmentBuilder;
use strandline_storage::segment::consuming::ConsumingSegment;
use strandline_storage::segment::immutable::ImmutableSegment;
use strandline_storage::segment::json::JsonSpec;
use strandline_storage::segment::spec::{
    ColumnSpec, Encoding, SegmentSpec, StarMeasure, StarTreeSpec,
};

/// One segment to be: columns with their storage and values, in the order of the schema.
pub(super) struct ToStore {
    pub(super) name: String,
    pub(super) half: Half,
    pub(super) origin: Option<(StreamPartition, OffsetRange)>,
    pub(super) columns: Vec<(Column, Storage, Vec<Value>)>,
    pub(super) sorted_column: Option<String>,
    pub(super) docs: usize,
}

/// An index of everything, or of a part, as the name has it.
fn json_spec(column: &Column, storage: &Storage) -> Option<JsonSpec> {
    let text = column.data_type.is_text();
    (storage.json && text && !column.multi_value).then(|| match column.name.len() % 2 {
        0 if storage.bloom => JsonSpec {
            levels_max: Some(2),
            ..JsonSpec::default()
        },
        _ if storage.range => JsonSpec {
            value_chars_max: Some(1),
            ..JsonSpec::default()
        },
        _ => JsonSpec::default(),
    })
}

impl ToStore {
    fn spec(&self) -> Arc<SegmentSpec> {
        let columns: Vec<Column> = self
            .columns
            .iter()
            .map(|(column, _, _)| Column {
                not_null: false,
                ..column.clone()
            })
            .collect();
        let storage: BTreeMap<String, ColumnSpec> = self
            .columns
            .iter()
            .map(|(column, storage, _)| {
                let encoding = if storage.dictionary {
                    Encoding::Dictionary
                } else {
                    Encoding::Raw
                };
                let spec = ColumnSpec {
                    encoding,
                    inverted: storage.inverted,
                    range: storage.range,
                    bloom: storage.bloom,
                    text: storage.text.then(TextSettings::default),
                    fst: storage.text && storage.dictionary,
                    json: json_spec(column, storage),
                    granularities: match storage.range && column.is_single_timestamp() {
                        true => Granularity::ALL.into(),
                        false => BTreeSet::new(),
                    },
                };
                (column.name.clone(), spec)
            })
            .collect();
        let schema = Schema {
            name: "t".to_owned(),
            version: 1,
            columns,
            primary_key: Vec::new(),
        };
        Arc::new(SegmentSpec {
            schema: Arc::new(schema),
            columns: storage,
            sorted_column: self.sorted_column.clone(),
            time_column: None,
            star_trees: self.star_trees(),
        })
    }

    /// A tree over the first single-value columns that has all measures it can have, and one over others, backwards.
    fn star_trees(&self) -> Vec<StarTreeSpec> {
        let singles = self.columns.iter().map(|(column, ..)| column);
        let singles: Vec<&Column> = singles.filter(|column| !column.multi_value).collect();
        let names = |columns: &[&Column]| columns.iter().map(|c| c.name.clone()).collect();
        let distinct = singles
            .iter()
            .map(|c| StarMeasure::Distinct(c.name.clone()));
        let lists = self.columns.iter().map(|(column, ..)| column);
        let lists = lists.filter(|column| column.multi_value);
        let measures: Vec<StarMeasure> = (singles.iter().copied().chain(lists))
            .filter(|column| {
                matches!(
                    column.data_type,
                    DataType::Int | DataType::Long | DataType::Float | DataType::Double
                )
            })
            .flat_map(|column| {
                let of = |measure: fn(String) -> StarMeasure| measure(column.name.clone());
                [
                    of(StarMeasure::Values),
                    of(StarMeasure::Sum),
                    of(StarMeasure::Min),
                    of(StarMeasure::Max),
                ]
            })
            .chain(distinct)
            .collect();
        let (first, rest) = singles.split_at(singles.len().div_ceil(2));
        let backwards: Vec<&Column> = rest.iter().rev().copied().collect();
        let trees = [(first, 1), (backwards.as_slice(), 7)];
        (trees.into_iter())
            .filter(|(dimensions, _)| !dimensions.is_empty())
            .map(|(dimensions, leaf_records_max)| StarTreeSpec {
                dimensions: names(dimensions),
                skip_star: names(dimensions.get(2..).unwrap_or_default()),
                measures: measures.clone(),
                leaf_records_max,
            })
            .collect()
    }

    fn batch(&self, rows: std::ops::Range<usize>) -> RecordBatch {
        let arrays: Vec<ArrayRef> = self
            .columns
            .iter()
            .map(|(column, _, values)| {
                let data_type = column.arrow_type();
                let scalar = |value: &Value| match value {
                    // A list of one stands for a single value, as in a default.
                    Value::List(_) | Value::Null => scalar_of(value, &data_type).unwrap(),
                    single if column.multi_value => {
                        scalar_of(&Value::List(vec![single.clone()]), &data_type).unwrap()
                    }
                    single => scalar_of(single, &data_type).unwrap(),
                };
                match rows.is_empty() {
                    true => new_empty_array(&data_type),
                    false => {
                        ScalarValue::iter_to_array(values[rows.clone()].iter().map(scalar)).unwrap()
                    }
                }
            })
            .collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(self.spec().schema.arrow(), arrays, &options).unwrap()
    }

    /// An immutable segment, written to a file and opened.
    pub(super) fn immutable(&self) -> Arc<dyn SegmentReader> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        let mut builder =
            SegmentBuilder::new(self.spec(), &self.name, self.half, self.origin.clone()).unwrap();
        let batch = self.batch(0..self.docs);
        match &self.origin {
            Some((_, range)) => builder
                .push_with_offsets(&batch, &(range.start..range.end).collect::<Vec<_>>())
                .unwrap(),
            None => builder.push(&batch).unwrap(),
        }
        builder.finish(&Environment::real().files, &path).unwrap();
        ImmutableSegment::open(&path).unwrap()
    }

    /// A view of a consuming segment that holds more rows than the view.
    pub(super) fn consuming(&self) -> Arc<dyn SegmentReader> {
        let (partition, range) = self.origin.clone().unwrap();
        let segment =
            ConsumingSegment::new(&self.name, self.spec(), partition, range.start).unwrap();
        let half = self.docs / 2;
        for rows in [0..half, half..self.docs] {
            let offsets: Vec<u64> = rows.clone().map(|row| range.start + row as u64).collect();
            segment
                .append(
                    &self.batch(rows.clone()),
                    &offsets,
                    range.start + rows.end as u64,
                )
                .unwrap();
        }
        let beyond: Vec<u64> = (0..half as u64).map(|i| range.end + i).collect();
        segment
            .append(&self.batch(0..half), &beyond, range.end + half as u64)
            .unwrap();
        segment.view_until(range.end)
    }
}
