use super::*;
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use std::collections::BTreeMap;
use strandline_proto::ids::StreamPartition;
use strandline_proto::schema::{Column, DataType, Schema};
use strandline_storage::segment::spec::SegmentSpec;

fn spec() -> Arc<SegmentSpec> {
    let schema = Schema {
        name: "t".to_owned(),
        version: 1,
        columns: vec![Column::dimension("n", DataType::Long)],
        primary_key: Vec::new(),
    };
    Arc::new(SegmentSpec {
        schema: Arc::new(schema),
        columns: BTreeMap::new(),
        sorted_column: None,
        time_column: None,
        star_trees: Vec::new(),
    })
}

fn partition(partition: u32) -> StreamPartition {
    StreamPartition {
        stream: Arc::from("log"),
        topic: Arc::from("t"),
        partition,
    }
}

fn segment(number: u32, start: u64) -> Arc<ConsumingSegment> {
    let name = format!("t__{number}__{start}");
    Arc::new(ConsumingSegment::new(&name, spec(), partition(number), start).unwrap())
}

fn append(segment: &ConsumingSegment, rows: u64) {
    let from = segment.next_offset();
    let offsets: Vec<u64> = (from..from + rows).collect();
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(
        offsets.iter().map(|&o| o as i64),
    ));
    let batch = RecordBatch::try_new(segment_schema(), vec![values]).unwrap();
    segment.append(&batch, &offsets, from + rows).unwrap();
}

fn segment_schema() -> arrow::datatypes::SchemaRef {
    spec().schema.arrow()
}

/// A registry with one tail for each number of rows.
fn registry(rows: &[u64]) -> Arc<Registry> {
    let registry = Arc::new(Registry::default());
    for (number, &rows) in (0..).zip(rows) {
        let active = segment(number, 0);
        append(&active, rows);
        registry
            .table("t")
            .add_tail(Arc::new(Tail::new(partition(number), active)));
    }
    registry
}

#[test]
fn memory_is_what_the_segments_have() {
    let registry = registry(&[10_000, 100_000]);
    let budget = ConsumingBudget::new(Arc::clone(&registry), usize::MAX);
    let tails = registry.table("t").tails();
    assert_eq!(budget.used(), tails[0].bytes() + tails[1].bytes());
    assert!(budget.used() >= 110_000 * 8);
    registry.table("t").clear_tails();
    assert_eq!(budget.used(), 0);
}

#[test]
fn with_no_memory_left_the_large_segments_are_sealed_and_the_small_ones_wait() {
    let registry = registry(&[0, 1_000, 200_000]);
    let tails = registry.table("t").tails();
    let budget = |bytes_max| ConsumingBudget::new(Arc::clone(&registry), bytes_max);
    let pressures = |budget: ConsumingBudget| -> Vec<Pressure> {
        let active = tails.iter().map(|t| t.active().bytes());
        active.map(|bytes| budget.pressure(bytes)).collect()
    };
    let used = budget(0).used();
    assert_eq!(pressures(budget(used + 1)), [Pressure::None; 3]);
    assert_eq!(
        pressures(budget(used)),
        [Pressure::Wait, Pressure::Wait, Pressure::Seal]
    );
    // What is sealed counts until it has left memory, and takes part in no comparison.
    let large = &tails[2];
    large.seal(segment(2, large.watermark()));
    assert_eq!(
        budget(used).pressure(tails[1].active().bytes()),
        Pressure::Seal
    );
    large.retire(0);
    assert_eq!(
        budget(used).pressure(tails[1].active().bytes()),
        Pressure::None
    );
}

#[test]
fn only_an_empty_segment_is_replaced() {
    let tail = Tail::new(partition(0), segment(0, 7));
    let fresh = segment(0, 7);
    tail.replace_empty(Arc::clone(&fresh));
    assert!(Arc::ptr_eq(&tail.active(), &fresh));
    append(&fresh, 3);
    tail.replace_empty(segment(0, 7));
    assert!(Arc::ptr_eq(&tail.active(), &fresh));
    assert_eq!(tail.watermark(), 10);
}
