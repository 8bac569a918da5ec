//! What a query of the table would read, row by row, of one snapshot and the rows that were visible with it.

use super::model::Row;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_broker::transport::{CatalogSource, Watermark};
use strandline_index::DocSelection;
use strandline_proto::catalog::{CatalogSnapshot, TableSnapshot};
use strandline_proto::coverage::Coverage;
use strandline_proto::ids::{Half, StreamPartition};
use strandline_proto::leaf::{SegmentTask, TailTask};
use strandline_proto::schema::DataType;
use strandline_proto::{Error, Result};
use strandline_server::host::Registry;
use strandline_server::leaf::SegmentHost;
use strandline_storage::segment::SegmentReader;
use strandline_storage::segment::arrow::read_array;

/// A snapshot and watermarks, pinned as a query does.
pub(super) struct View {
    snapshot: Arc<CatalogSnapshot>,
    watermarks: Vec<Watermark>,
}

impl View {
    pub(super) fn pin(registry: &Registry, table: &str) -> Result<Self> {
        let snapshot = registry.snapshot();
        let watermarks = match snapshot.tables.get(table) {
            Some(table) => registry.watermarks(table)?.partitions,
            None => Vec::new(),
        };
        Ok(Self {
            snapshot,
            watermarks,
        })
    }

    fn table(&self, name: &str) -> Result<&Arc<TableSnapshot>> {
        let table = self.snapshot.tables.get(name);
        table.ok_or_else(|| Error::not_found(format!("no table {name}")))
    }

    /// Of each partition, the first offset that is not visible.
    pub(super) fn visible(&self, table: &str) -> Result<BTreeMap<u32, u64>> {
        let tails = self.table(table)?.tails.iter();
        let end = |partition: &StreamPartition| {
            let found = self.watermarks.iter().find(|w| w.partition == *partition);
            found.map_or(0, |w| w.to_offset)
        };
        let ends = tails.map(|tail| {
            let number = tail.partition.partition;
            (number, tail.from_offset.max(end(&tail.partition)))
        });
        Ok(ends.collect())
    }

    /// All rows that answer.
    pub(super) fn rows(&self, registry: &Registry, name: &str) -> Result<Vec<Row>> {
        let table = self.table(name)?;
        let hiding = table.coverage.minus(&table.shared);
        let counts = |half, ms| match (table.is_hybrid(), half) {
            (false, _) => true,
            (true, Half::Offline) => table.coverage.contains(ms),
            (true, Half::Realtime) => !Coverage::contains(&hiding, ms),
        };
        let mut rows = Vec::new();
        for segment in &table.segments {
            let task = SegmentTask {
                name: segment.name.clone(),
                checksum: segment.checksum,
                half: segment.half,
                schema_version: segment.schema_version,
            };
            let reader = registry.segment(name, &task, None)?;
            let read = read(&*reader)?;
            rows.extend(read.into_iter().filter(|(_, ms)| counts(segment.half, *ms)));
        }
        for tail in &table.tails {
            let found = self
                .watermarks
                .iter()
                .find(|w| w.partition == tail.partition);
            let Some(to_offset) = found
                .map(|w| w.to_offset)
                .filter(|to| *to > tail.from_offset)
            else {
                continue;
            };
            let task = TailTask {
                partition: tail.partition.clone(),
                from_offset: tail.from_offset,
                to_offset,
            };
            for reader in registry.tail(name, &task, None)? {
                let read = read(&*reader)?;
                rows.extend(
                    read.into_iter()
                        .filter(|(_, ms)| counts(Half::Realtime, *ms)),
                );
            }
        }
        rows.sort_unstable();
        Ok(rows)
    }
}

fn read(segment: &dyn SegmentReader) -> Result<Vec<Row>> {
    let column = |name| {
        let reader = segment.column(name);
        let reader = reader.ok_or_else(|| Error::internal(format!("no column {name}")))?;
        let all = DocSelection::Range(0..segment.num_docs());
        read_array(&*reader, DataType::Long, false, all)
    };
    let (numbers, times) = (column("n")?, column("ms")?);
    let numbers = numbers.as_primitive::<Int64Type>().values().to_vec();
    let times = times.as_primitive::<Int64Type>().values().to_vec();
    Ok(numbers.into_iter().zip(times).collect())
}
