//! Parquet files whose nested columns are flattened: all columns are read, row by row.

use super::Source;
use super::arrow_cells::Cells;
use super::lines::Count;
use super::parquet_file::ParquetFile;
use super::rowwise::ReadRow;
use crate::convert::RowBuilder;
use crate::convert::flatten::{Fields, Flattener};
use crate::decode::guarded;
use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use std::borrow::Cow;
use std::fs::File;
use strandline_proto::{Error, Result};

/// Rows read together: a nested one may be large.
const READ_ROWS_MAX: usize = 1_024;

pub(super) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    flattener: Flattener,
    batch: Option<RecordBatch>,
    /// The next row of the batch.
    at: usize,
    rows: u64,
    rows_total: u64,
    bytes_total: u64,
    count: Count,
}

impl ParquetRows {
    pub(super) fn open(
        file: File,
        batch_rows: usize,
        flattener: Flattener,
    ) -> Result<(Self, Count)> {
        let bytes_total = file.metadata().map_or(0, |m| m.len());
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = guarded(|| {
            ParquetRecordBatchReaderBuilder::try_new_with_options(ParquetFile::new(file), options)
        })
        .map_err(Error::invalid)?
        .map_err(|e| Error::invalid(format!("not a complete Parquet file: {e}")))?;
        let rows_total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let reader = guarded(|| {
            builder
                .with_batch_size(batch_rows.min(READ_ROWS_MAX))
                .build()
        })
        .map_err(Error::invalid)?
        .map_err(|e| Error::invalid(format!("the Parquet file can't be read: {e}")))?;
        let count = Count::default();
        let rows = Self {
            reader,
            flattener,
            batch: None,
            at: 0,
            rows: 0,
            rows_total,
            bytes_total,
            count: count.clone(),
        };
        Ok((rows, count))
    }

    /// The next rows of the file; none at its end.
    fn read(&mut self, source: &Source) -> Result<Option<RecordBatch>> {
        let broken = |reason: String| {
            Error::invalid(format!(
                "{}: after row {}: the Parquet file is cut short or broken: {reason}",
                source.place, self.rows
            ))
        };
        match guarded(|| self.reader.next()) {
            Ok(None) if self.rows < self.rows_total => Err(broken("rows are missing".to_owned())),
            Ok(None) => Ok(None),
            Ok(Some(Ok(batch))) => Ok(Some(batch)),
            Ok(Some(Err(error))) => Err(broken(error.to_string())),
            Err(reason) => Err(broken(reason)),
        }
    }
}

impl ReadRow for ParquetRows {
    fn read_row(&mut self, source: &Source, builder: &mut RowBuilder) -> Result<bool> {
        let batch = match self.batch.take().filter(|b| self.at < b.num_rows()) {
            Some(batch) => batch,
            None => {
                self.at = 0;
                match self.read(source)? {
                    Some(batch) => batch,
                    None => {
                        self.count.set(self.bytes_total);
                        return Ok(false);
                    }
                }
            }
        };
        if batch.num_rows() == 0 {
            return Ok(true);
        }
        self.rows += 1;
        let schema = batch.schema();
        let row: Vec<ArrayRef> = (batch.columns().iter())
            .map(|column| column.slice(self.at, 1))
            .collect();
        let mut fields = Fields::with_capacity(row.len());
        for (field, value) in schema.fields().iter().zip(&row) {
            let cells = Cells::new(value).map_err(|reason| {
                let reason = format!("column {}: {reason}", field.name());
                source.row_error(self.rows, reason)
            })?;
            fields.push((Cow::Borrowed(field.name().as_str()), cells.get(0)));
        }
        self.flattener
            .push(&fields, &[], builder)
            .map_err(|e| source.row_error(self.rows, e))?;
        self.at += 1;
        let share = u128::from(self.bytes_total) * u128::from(self.rows)
            / u128::from(self.rows_total.max(1));
        self.count
            .set(u64::try_from(share).unwrap_or(self.bytes_total));
        self.batch = Some(batch);
        Ok(true)
    }
}
