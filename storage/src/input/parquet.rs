//! Parquet files: only the columns that the table needs are read, a batch at a time.

use super::columnar::Columnar;
use super::{RowSource, Source};
use crate::config::TableConfig;
use crate::convert::RowLayout;
use crate::decode::guarded;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use std::fs::File;
use strandline_proto::{Error, Result};

pub(super) struct ParquetSource {
    source: Source,
    reader: ParquetRecordBatchReader,
    /// By column of the batches: its field of the layout.
    slots: Vec<usize>,
    width: usize,
    columnar: Columnar,
    rows: u64,
    rows_total: u64,
}

impl ParquetSource {
    pub(super) fn open(
        file: File,
        source: Source,
        config: &TableConfig,
        layout: RowLayout,
    ) -> Result<Self> {
        // The file's own types, not the Arrow types its writer had: fewer to convert from.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder =
            guarded(|| ParquetRecordBatchReaderBuilder::try_new_with_options(file, options))
                .map_err(Error::invalid)?
                .map_err(|e| Error::invalid(format!("not a complete Parquet file: {e}")))?;
        let mut roots = Vec::new();
        let mut slots: Vec<usize> = Vec::new();
        for (root, field) in builder.schema().fields().iter().enumerate() {
            if let Some(slot) = layout
                .slot(field.name())
                .filter(|slot| !slots.contains(slot))
            {
                roots.push(root);
                slots.push(slot);
            }
        }
        if roots.is_empty() {
            let found: Vec<&str> = builder
                .schema()
                .fields()
                .iter()
                .take(20)
                .map(|f| f.name().as_str())
                .collect();
            return Err(Error::invalid(format!(
                "the file has none of the columns of the table {}; it has {}",
                config.name,
                found.join(", ")
            )));
        }
        let rows_total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let reader = guarded(|| {
            builder
                .with_projection(mask)
                .with_batch_size(source.batch_rows)
                .build()
        })
        .map_err(Error::invalid)?
        .map_err(|e| Error::invalid(format!("the Parquet file can't be read: {e}")))?;
        let width = layout.width();
        let columnar = Columnar::new(config, layout)?;
        Ok(Self {
            source,
            reader,
            slots,
            width,
            columnar,
            rows: 0,
            rows_total,
        })
    }
}

impl RowSource for ParquetSource {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let broken = |reason: String| {
            let after = format_args!(
                "{}: after row {}: the Parquet file is cut short or broken: {reason}",
                self.source.place, self.rows
            )
            .to_string();
            Error::invalid(after)
        };
        let batch = match guarded(|| self.reader.next()) {
            Ok(None) if self.rows < self.rows_total => {
                return Err(broken("rows are missing".to_owned()));
            }
            Ok(None) => return Ok(None),
            Ok(Some(Ok(batch))) => batch,
            Ok(Some(Err(error))) => return Err(broken(error.to_string())),
            Err(reason) => return Err(broken(reason)),
        };
        let mut arrays = vec![None; self.width];
        for (slot, array) in self.slots.iter().zip(batch.columns()) {
            if let Some(place) = arrays.get_mut(*slot) {
                *place = Some(array);
            }
        }
        let converted = self
            .columnar
            .convert(&arrays, batch.num_rows())
            .map_err(|(row, error)| self.source.row_error(self.rows + row as u64 + 1, error))?;
        self.rows += batch.num_rows() as u64;
        Ok(Some(converted))
    }

    fn bytes_read(&self) -> u64 {
        let share = u128::from(self.source.bytes_total) * u128::from(self.rows)
            / u128::from(self.rows_total.max(1));
        u64::try_from(share).unwrap_or(self.source.bytes_total)
    }

    fn bytes_total(&self) -> u64 {
        self.source.bytes_total
    }
}
