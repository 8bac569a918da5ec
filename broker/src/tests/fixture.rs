//! A hybrid table in memory, and the same rows for plain DataFusion.

use super::reference_leaf::ReferenceLeaf;
use crate::literal::value_of;
use crate::transport::Watermark;
use crate::{Broker, BrokerOptions, QueryRequest, ReadOnly};
use datafusion::arrow::array::BooleanArray;
use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Decimal128Builder, Float32Builder, Float64Builder, Int32Builder,
    Int64Builder, ListBuilder, StringBuilder, TimestampMillisecondBuilder,
};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::MemTable;
use datafusion::common::ScalarValue;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_proto::catalog::{
    CatalogSnapshot, ColumnStats, SegmentInfo, TableSnapshot, TailStart,
};
use strandline_proto::coverage::{Coverage, Interval};
use strandline_proto::ids::{CatalogVersion, Half, OffsetRange, SegmentName, StreamPartition};
use strandline_proto::schema::{Column, ColumnRole, DataType, Schema, virtual_columns};
use strandline_proto::time_format::{TimeFormat, TimeUnit};
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

const DAY_MS: i64 = 86_400_000;
/// The first day that realtime answers.
pub(crate) const BOUNDARY_DAY: i32 = 10;

/// A generator of numbers that gives the same ones every time.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

pub(crate) fn schema() -> Arc<Schema> {
    let column = |name: &str, data_type, multi_value| Column {
        multi_value,
        ..Column::dimension(name, data_type)
    };
    let mut columns = vec![
        column("day", DataType::Int, false),
        column("id", DataType::Long, false),
        column("Delay", DataType::Int, false),
        column("ratio", DataType::Double, false),
        column("speed", DataType::Float, false),
        column(
            "price",
            DataType::BigDecimal {
                precision: 20,
                scale: 4,
            },
            false,
        ),
        column("Carrier", DataType::String, false),
        column("flag", DataType::Boolean, false),
        column("ts", DataType::Timestamp, false),
        column("tags", DataType::String, true),
        column("codes", DataType::Int, true),
    ];
    columns[0].role = ColumnRole::DateTime {
        format: TimeFormat::Epoch {
            size: 1,
            unit: TimeUnit::Days,
        },
        granularity: "1:DAYS".into(),
    };
    Arc::new(Schema {
        name: "trips".into(),
        version: 1,
        columns,
        primary_key: vec![],
    })
}

fn rows(
    count: usize,
    day: impl Fn(&mut Numbers) -> i32,
    numbers: &mut Numbers,
    first_id: i64,
) -> RecordBatch {
    let (mut days, mut ids, mut delays) = (
        Int32Builder::new(),
        Int64Builder::new(),
        Int32Builder::new(),
    );
    let (mut ratios, mut speeds) = (Float64Builder::new(), Float32Builder::new());
    let mut prices = Decimal128Builder::new()
        .with_precision_and_scale(20, 4)
        .unwrap();
    let (mut carriers, mut flags, mut times) = (
        StringBuilder::new(),
        BooleanBuilder::new(),
        TimestampMillisecondBuilder::new(),
    );
    let (mut tags, mut codes) = (
        ListBuilder::new(StringBuilder::new()),
        ListBuilder::new(Int32Builder::new()),
    );
    for i in 0..count {
        let d = day(numbers);
        let some = |n: u64| (n != 0).then_some(());
        days.append_value(d);
        ids.append_value(first_id + i as i64);
        delays.append_option(some(numbers.below(9)).map(|()| numbers.below(80) as i32 - 20));
        ratios.append_option(some(numbers.below(9)).map(|()| numbers.below(40) as f64 / 8.0 - 1.0));
        speeds.append_option(some(numbers.below(9)).map(|()| numbers.below(20) as f32 / 4.0));
        prices.append_option(
            some(numbers.below(9)).map(|()| i128::from(numbers.below(500)) * 2_500 - 300_000),
        );
        carriers.append_option(
            some(numbers.below(9))
                .map(|()| ["AA", "DL", "UA", "a%b", ""][numbers.below(5) as usize]),
        );
        flags.append_option(some(numbers.below(5)).map(|()| numbers.below(2) == 0));
        times.append_option(
            some(numbers.below(9))
                .map(|()| i64::from(d) * DAY_MS + numbers.below(24) as i64 * 3_600_000),
        );
        match numbers.below(6) {
            0 => tags.append_null(),
            n => {
                for _ in 1..n {
                    tags.values()
                        .append_value(["x", "y", "zz", "xy"][numbers.below(4) as usize]);
                }
                tags.append(true);
            }
        }
        for _ in 0..numbers.below(4) {
            codes.values().append_value(numbers.below(6) as i32);
        }
        codes.append(true);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(days.finish()),
        Arc::new(ids.finish()),
        Arc::new(delays.finish()),
        Arc::new(ratios.finish()),
        Arc::new(speeds.finish()),
        Arc::new(prices.finish()),
        Arc::new(carriers.finish()),
        Arc::new(flags.finish()),
        Arc::new(times.finish()),
        Arc::new(tags.finish()),
        Arc::new(codes.finish()),
    ];
    RecordBatch::try_new(schema().arrow(), columns).unwrap()
}

fn days_where(batch: &RecordBatch, keep: impl Fn(i32) -> bool) -> RecordBatch {
    let days = batch.column(0);
    let kept: Vec<bool> = (0..batch.num_rows()).map(|i| matches!(ScalarValue::try_from_array(days, i).unwrap(), ScalarValue::Int32(Some(d)) if keep(d))).collect();
    filter_record_batch(batch, &BooleanArray::from(kept)).unwrap()
}

fn info(
    name: &str,
    half: Half,
    batch: &RecordBatch,
    origin: Option<(StreamPartition, OffsetRange)>,
) -> Arc<SegmentInfo> {
    let columns: Vec<ColumnStats> = schema()
        .columns
        .iter()
        .zip(batch.columns())
        .map(|(column, array)| {
            let mut values = Vec::new();
            let mut nulls = 0;
            for i in 0..array.len() {
                match value_of(&ScalarValue::try_from_array(array, i).unwrap()).unwrap() {
                    Value::Null => nulls += 1,
                    Value::List(elements) => values.extend(elements),
                    one => values.push(one),
                }
            }
            values.sort_by(|a, b| crate::bind::compare::compare(a, b).unwrap_or(Ordering::Equal));
            let end = |v: Option<&Value>| v.cloned().unwrap_or(Value::Null);
            ColumnStats {
                name: column.name.clone(),
                min: end(values.first()),
                max: end(values.last()),
                cardinality: None,
                nulls,
            }
        })
        .collect();
    let ms = |v: &Value| match v {
        Value::Int(d) => i64::from(*d) * DAY_MS,
        other => panic!("{other:?}"),
    };
    Arc::new(SegmentInfo {
        name: SegmentName::new(name),
        checksum: 7,
        half,
        rows: batch.num_rows() as u64,
        bytes: 1000,
        schema_version: 1,
        time_ms: (batch.num_rows() > 0).then(|| (ms(&columns[0].min), ms(&columns[0].max))),
        columns,
        origin,
        stored_as: None,
        moved: false,
        pushed_in: 0,
        rebuilt: false,
    })
}

fn with_virtual(batch: &RecordBatch, segment: &str, offsets: Option<i64>) -> RecordBatch {
    let rows = batch.num_rows();
    let mut columns = batch.columns().to_vec();
    columns.push(
        ScalarValue::Utf8(Some(segment.to_owned()))
            .to_array_of_size(rows)
            .unwrap(),
    );
    columns.push(Arc::new(
        datafusion::arrow::array::Int32Array::from_iter_values(0..rows as i32),
    ));
    columns.push(
        ScalarValue::Int32(offsets.map(|_| 0))
            .to_array_of_size(rows)
            .unwrap(),
    );
    columns.push(Arc::new(datafusion::arrow::array::Int64Array::from_iter(
        (0..rows as i64).map(|i| offsets.map(|first| first + i)),
    )));
    let mut fields: Vec<_> = schema().columns.iter().map(Column::arrow_field).collect();
    fields.extend(
        virtual_columns::ALL
            .iter()
            .map(|(n, t)| datafusion::arrow::datatypes::Field::new(*n, t.clone(), true)),
    );
    RecordBatch::try_new(
        Arc::new(datafusion::arrow::datatypes::Schema::new(fields)),
        columns,
    )
    .unwrap()
}

/// A broker over the table `trips`, and the rows that it must show.
pub(crate) struct Fixture {
    pub(crate) leaf: Arc<ReferenceLeaf>,
    pub(crate) broker: Broker,
    pub(crate) plain: SessionContext,
    pub(crate) visible: usize,
    pub(crate) realtime: usize,
    pub(crate) hidden: (usize, usize),
}

impl Fixture {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_options(
            seed,
            BrokerOptions {
                plans_max: 64,
                partitions: 3,
                ..BrokerOptions::default()
            },
        )
    }

    pub(crate) fn with_options(seed: u64, options: BrokerOptions) -> Self {
        let numbers = &mut Numbers(seed);
        let old = rows(150, |n| n.below(8) as i32, numbers, 0);
        let both = rows(60, |n| 8 + n.below(4) as i32, numbers, 1_000);
        let new = rows(120, |n| 12 + n.below(8) as i32, numbers, 2_000);
        // All inside coverage: realtime does not answer them.
        let repeated = old.slice(0, 30);
        let unseen = rows(20, |n| 12 + n.below(8) as i32, numbers, 9_000);
        let partition = StreamPartition {
            stream: "log".into(),
            topic: "trips".into(),
            partition: 0,
        };
        let committed = repeated.num_rows() + both.num_rows();
        let table: Arc<str> = "trips".into();
        let leaf = ReferenceLeaf::default();
        let segments = vec![
            ("old_0", Half::Offline, old.slice(0, 100)),
            ("old_1", Half::Offline, old.slice(100, 50)),
            ("old_2", Half::Offline, both.clone()),
            ("rt_0", Half::Realtime, repeated.clone()),
            ("rt_1", Half::Realtime, both.clone()),
        ];
        let mut infos = Vec::new();
        for (name, half, batch) in &segments {
            let start = if *name == "rt_1" {
                repeated.num_rows() as u64
            } else {
                0
            };
            let end = start + batch.num_rows() as u64;
            let realtime = *half == Half::Realtime;
            infos.push(info(
                name,
                *half,
                batch,
                realtime.then(|| (partition.clone(), OffsetRange { start, end })),
            ));
            leaf.segments.lock().insert(
                (Arc::clone(&table), (*name).to_owned()),
                with_virtual(batch, name, realtime.then_some(start as i64)),
            );
        }
        let stream = datafusion::arrow::compute::concat_batches(
            &schema().arrow(),
            [&repeated, &both, &new, &unseen],
        )
        .unwrap();
        leaf.tails.lock().insert(
            Arc::clone(&table),
            with_virtual(&stream, "trips__0", Some(0)),
        );
        leaf.watermarks.lock().push(Watermark {
            partition: partition.clone(),
            to_offset: (committed + new.num_rows()) as u64,
        });
        let snapshot = TableSnapshot {
            name: Arc::clone(&table),
            schema: schema(),
            lineage: Default::default(),
            time_column: Some("day".into()),
            has_offline: true,
            has_realtime: true,
            segments: infos,
            tails: vec![TailStart {
                partition,
                from_offset: committed as u64,
            }],
            coverage: Coverage::new([Interval {
                start_ms: 0,
                end_ms: i64::from(BOUNDARY_DAY) * DAY_MS,
            }]),
            shared: Coverage::default(),
            gaps: vec![],
            pinned: false,
            pushed: None,
            text: Default::default(),
        };
        *leaf.snapshot.lock() = Arc::new(CatalogSnapshot {
            version: CatalogVersion(3),
            tables: BTreeMap::from([("trips".to_owned(), Arc::new(snapshot))]),
        });
        let late = days_where(&both, |d| d >= BOUNDARY_DAY).num_rows();
        let shown =
            datafusion::arrow::compute::concat_batches(&schema().arrow(), [&old, &both, &new])
                .unwrap();
        let mut config = SessionConfig::new().with_target_partitions(2);
        config.options_mut().sql_parser.enable_ident_normalization = false;
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let plain = SessionContext::new_with_config(config);
        plain
            .register_table(
                "trips",
                Arc::new(MemTable::try_new(schema().arrow(), vec![vec![shown.clone()]]).unwrap()),
            )
            .unwrap();
        let leaf = Arc::new(leaf);
        let broker = Broker::new(
            Arc::clone(&leaf) as _,
            Arc::clone(&leaf) as _,
            Arc::new(ReadOnly),
            Arc::new(ReadOnly),
            options,
        );
        Self {
            leaf,
            broker,
            plain,
            visible: shown.num_rows(),
            realtime: stream.num_rows() - unseen.num_rows(),
            hidden: (late, committed - late),
        }
    }

    pub(crate) async fn batches(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let answer = self.broker.query(QueryRequest::new(sql)).await?;
        answer.batches.try_collect().await
    }

    /// The rows of an answer as text, sorted.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<String>> {
        Ok(texts(&self.batches(sql).await?))
    }

    pub(crate) async fn plain_rows(&self, sql: &str) -> Result<Vec<String>> {
        let run = async { self.plain.sql(sql).await?.collect().await };
        run.await
            .map(|b| texts(&b))
            .map_err(|e| Error::invalid(e.strip_backtrace()))
    }

    /// One line for each line of EXPLAIN.
    pub(crate) async fn explain(&self, sql: &str) -> String {
        let batches = self.batches(&format!("EXPLAIN {sql}")).await.unwrap();
        let mut lines = Vec::new();
        for batch in &batches {
            for i in 0..batch.num_rows() {
                lines.push(
                    ScalarValue::try_from_array(batch.column(0), i)
                        .unwrap()
                        .to_string(),
                );
            }
        }
        lines.join("\n")
    }
}

/// Rows as sorted text; floats to twelve digits, because sums of them depend on their order.
pub(crate) fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells: Vec<_> = batch
                .columns()
                .iter()
                .map(|c| match ScalarValue::try_from_array(c, row).unwrap() {
                    ScalarValue::Float64(Some(v)) => format!("{v:.9e}"),
                    ScalarValue::Float32(Some(v)) => format!("{v:.4e}"),
                    other => other.to_string(),
                })
                .collect();
            rows.push(cells.join("|"));
        }
    }
    rows.sort();
    rows
}
