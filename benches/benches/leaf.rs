//! The leaf engine over one segment of the Star Schema Benchmark's table, without a broker above it:
//! `cargo bench --workspace --bench leaf`.
//!
//! One scan thread; the throughput is in rows of the segment, whether or not an index leaves them out.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType as ArrowType, Field, Schema as ArrowSchema};
use criterion::{Criterion, Throughput};
use datafusion::execution::memory_pool::UnboundedMemoryPool;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use strandline_benches::ssb::{data, table};
use strandline_broker::transport::{LeafContext, LeafTransport, Watermarks};
use strandline_proto::catalog::TableSnapshot;
use strandline_proto::ids::Half;
use strandline_proto::leaf::{
    AggregateFunction, ColumnPredicate, ColumnTest, GroupKey, LEAF_QUERY_VERSION, LeafAggregate,
    LeafExpr, LeafFilter, LeafOutput, LeafQuery, LeafWork, Operand, SegmentTask, TailTask,
};
use strandline_proto::schema::{Column, DataType, Schema};
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};
use strandline_server::leaf::{LocalLeaf, ScanPool, SegmentHost};
use strandline_storage::environment::Environment;
use strandline_storage::segment::SegmentReader;
use strandline_storage::segment::builder::SegmentBuilder;
use strandline_storage::segment::immutable::ImmutableSegment;
use strandline_storage::segment::spec::{ColumnSpec, Encoding, SegmentSpec};
use tokio_util::sync::CancellationToken;

/// The scale factor: about half a million rows.
const SCALE: f64 = 0.08;
/// Columns without a dictionary.
const RAW: [&str; 4] = [
    "lo_orderkey",
    "lo_extendedprice",
    "lo_revenue",
    "lo_ordtotalprice",
];

/// Holds one segment.
struct OneSegment(Arc<ImmutableSegment>);

impl fmt::Debug for OneSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OneSegment").field(&self.0.name()).finish()
    }
}

impl SegmentHost for OneSegment {
    fn segment(
        &self,
        _table: &str,
        _task: &SegmentTask,
        _keys_version: Option<u64>,
    ) -> Result<Arc<dyn SegmentReader>> {
        Ok(Arc::clone(&self.0) as Arc<dyn SegmentReader>)
    }

    fn tail(
        &self,
        table: &str,
        _task: &TailTask,
        _keys_version: Option<u64>,
    ) -> Result<Vec<Arc<dyn SegmentReader>>> {
        Err(Error::invalid(format!("{table} has no stream")))
    }

    fn watermarks(&self, _table: &TableSnapshot) -> Result<Watermarks> {
        Ok(Watermarks::default())
    }
}

fn schema() -> Arc<Schema> {
    let column = |field: &Arc<Field>| {
        Column::dimension(
            field.name(),
            match field.data_type() {
                ArrowType::Int32 => DataType::Int,
                ArrowType::Int64 => DataType::Long,
                _ => DataType::String,
            },
        )
    };
    Arc::new(Schema {
        name: "lineorder".to_owned(),
        version: 1,
        columns: data::schema().fields().iter().map(column).collect(),
        primary_key: Vec::new(),
    })
}

fn batches(folder: &Path) -> Vec<RecordBatch> {
    let (files, _) = data::generate(folder, SCALE, 1).expect("the rows are generated");
    let read = |file| {
        let file = File::open(file).expect("the file is there");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|b| b.build());
        reader.expect("the file is Parquet")
    };
    let batches = files.into_iter().flat_map(read);
    batches.map(|b| b.expect("the file can be read")).collect()
}

fn segment(folder: &Path) -> Arc<ImmutableSegment> {
    let mut columns: BTreeMap<String, ColumnSpec> = BTreeMap::new();
    for column in table::INVERTED {
        columns.entry(column.to_owned()).or_default().inverted = true;
    }
    for column in RAW {
        columns.entry(column.to_owned()).or_default().encoding = Encoding::Raw;
    }
    let spec = SegmentSpec {
        schema: schema(),
        columns,
        sorted_column: Some("lo_orderdate".to_owned()),
        time_column: None,
        star_trees: Vec::new(),
    };
    let builder = SegmentBuilder::new(Arc::new(spec), "one", Half::Offline, None);
    let mut builder = builder.expect("the spec can be stored");
    for batch in batches(&folder.join("rows")) {
        builder.push(&batch).expect("the rows are of the schema");
    }
    let path = folder.join("one.segment");
    let files = Environment::real().files;
    builder
        .finish(&files, &path)
        .expect("the segment is written");
    ImmutableSegment::open(&path).expect("the segment opens")
}

fn column(name: &str) -> LeafExpr {
    LeafExpr::Column(name.to_owned())
}

fn equals(name: &str, value: Value) -> LeafFilter {
    LeafFilter::Column(ColumnPredicate {
        column: name.to_owned(),
        test: ColumnTest::In(vec![Operand::Literal(value)]),
        negated: false,
    })
}

/// Below a number, on a column without an index: every row is compared.
fn below(name: &str, value: i32) -> LeafFilter {
    LeafFilter::Column(ColumnPredicate {
        column: name.to_owned(),
        test: ColumnTest::Range {
            low: None,
            high: Some((Operand::Literal(Value::Int(value)), false)),
        },
        negated: false,
    })
}

/// `count(*)` and the sum of revenue, by the values of some columns.
fn work(filters: Vec<LeafFilter>, keys: &[&str]) -> LeafWork {
    let revenue = LeafExpr::Cast {
        expr: Box::new(column("lo_revenue")),
        to: ArrowType::Int64,
        safe: false,
    };
    let schema = schema();
    let key_fields = keys.iter().map(|key| {
        let data_type = schema.column(key).map(Column::arrow_type);
        Field::new(*key, data_type.expect("a column of the table"), true)
    });
    let states = [
        Field::new("count", ArrowType::Int64, false),
        Field::new("sum", ArrowType::Int64, true),
    ];
    let fields: Vec<Field> = key_fields.chain(states).collect();
    let group = keys.iter().map(|key| GroupKey {
        expr: column(key),
        explode: false,
    });
    let aggregate = |function, argument| LeafAggregate {
        function,
        argument,
        filter: None,
    };
    LeafWork {
        filter: LeafFilter::And(filters),
        output: LeafOutput::Aggregate {
            group: group.collect(),
            aggregates: vec![
                aggregate(AggregateFunction::Count, None),
                aggregate(AggregateFunction::Sum, Some(revenue)),
            ],
        },
        schema: Arc::new(ArrowSchema::new(fields)),
    }
}

fn query(segment: &ImmutableSegment, work: LeafWork) -> LeafQuery {
    let info = segment.info();
    LeafQuery {
        version: LEAF_QUERY_VERSION,
        query_id: 1,
        table: "lineorder".into(),
        schema: schema(),
        lineage: Default::default(),
        work: Arc::new(work),
        parameters: Vec::new(),
        segments: vec![SegmentTask {
            name: info.name.clone(),
            checksum: info.checksum,
            half: Half::Offline,
            schema_version: 1,
        }],
        tails: Vec::new(),
        coverage: None,
        keys_version: None,
        batch_rows_max: 8_192,
    }
}

fn context() -> LeafContext {
    LeafContext {
        stats: Arc::default(),
        cancel: CancellationToken::new(),
        deadline: None,
        memory: Arc::new(UnboundedMemoryPool::default()),
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let segment = segment(folder.path());
    let leaf = LocalLeaf::new(Arc::new(OneSegment(Arc::clone(&segment))), ScanPool::new(1));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let run = |query: &LeafQuery| -> Vec<RecordBatch> {
        runtime
            .block_on(async {
                leaf.run(query.clone(), context())
                    .await?
                    .try_collect()
                    .await
            })
            .expect("the leaf answers")
    };
    let text = |text: &str| Value::String(text.to_owned());
    let mut group = criterion.benchmark_group("leaf");
    group.throughput(Throughput::Elements(segment.info().rows));
    for (name, work) in [
        ("sum of all", work(Vec::new(), &[])),
        (
            "sum of those below, compared",
            work(vec![below("lo_quantity", 25)], &[]),
        ),
        (
            "sum of a fifth, by its postings",
            work(vec![equals("s_region", text("ASIA"))], &[]),
        ),
        ("group by 25", work(Vec::new(), &["c_nation"])),
        (
            "group by 15,625",
            work(Vec::new(), &["c_nation", "s_nation", "p_category"]),
        ),
        ("group by a customer", work(Vec::new(), &["c_name"])),
        (
            "group a fifth by 7,000",
            work(
                vec![equals("s_region", text("ASIA"))],
                &["d_year", "p_brand1"],
            ),
        ),
    ] {
        let query = query(&segment, work);
        let groups: usize = run(&query).iter().map(RecordBatch::num_rows).sum();
        assert!(groups > 0, "{name} has no answer");
        group.bench_function(name, |b| b.iter(|| black_box(run(&query))));
    }
    group.finish();
    criterion.final_summary();
}
