//! Parquet files: only the columns that the table needs are read, a batch at a time. Text that is dictionary-encoded in the
//! file stays so where the table keeps a dictionary too: each distinct text is then looked up once, not each row's.

use super::columnar::Columnar;
use super::parquet_file::ParquetFile;
use super::{RowSource, Source};
use crate::config::TableConfig;
use crate::convert::RowLayout;
use crate::decode::guarded;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Encoding;
use parquet::errors::ParquetError;
use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
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
    filtered: u64,
}

impl ParquetSource {
    pub(super) fn open(
        file: File,
        source: Source,
        config: &TableConfig,
        layout: RowLayout,
    ) -> Result<Self> {
        let file = ParquetFile::new(file);
        // The file's own types, not the Arrow types its writer had: fewer to convert from.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = guarded(|| ArrowReaderMetadata::load(&file, options.clone()))
            .map_err(Error::invalid)?
            .map_err(|e| Error::invalid(format!("not a complete Parquet file: {e}")))?;
        let columnar = Columnar::new(config, layout)?;
        let layout = columnar.layout();
        let mut roots = Vec::new();
        let mut slots: Vec<usize> = Vec::new();
        for (root, field) in metadata.schema().fields().iter().enumerate() {
            if let Some(slot) = layout
                .slot(field.name())
                .filter(|slot| !slots.contains(slot))
            {
                roots.push(root);
                slots.push(slot);
            }
        }
        if roots.is_empty() {
            let found: Vec<&str> = metadata
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
        let keyed = roots
            .iter()
            .zip(&slots)
            .filter(|(root, slot)| {
                columnar.takes_keyed_text(**slot) && is_keyed_text(&metadata, **root)
            })
            .map(|(root, _)| *root)
            .collect();
        let metadata = with_keyed_text(metadata, &keyed, options)
            .map_err(|e| Error::invalid(format!("the Parquet file can't be read: {e}")))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
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
        Ok(Self {
            source,
            reader,
            slots,
            width: columnar.layout().width(),
            columnar,
            rows: 0,
            rows_total,
            filtered: 0,
        })
    }
}

/// Whether the file's column is text of which every page is dictionary-encoded.
fn is_keyed_text(metadata: &ArrowReaderMetadata, root: usize) -> bool {
    let is_text = matches!(
        metadata.schema().field(root).data_type(),
        DataType::Utf8 | DataType::Binary
    );
    let parquet = metadata.metadata();
    let leaves = parquet.file_metadata().schema_descr();
    let mut leaves =
        (0..leaves.num_columns()).filter(|&leaf| leaves.get_column_root_idx(leaf) == root);
    let (Some(leaf), None) = (leaves.next(), leaves.next()) else {
        return false;
    };
    is_text
        && parquet.row_groups().iter().all(|group| {
            let column = group.column(leaf);
            column.dictionary_page_offset().is_some()
                && column.page_encoding_stats_mask().is_some_and(|pages| {
                    pages.is_only(Encoding::PLAIN_DICTIONARY)
                        || pages.is_only(Encoding::RLE_DICTIONARY)
                })
        })
}

/// The file read so that the columns `keyed` stay dictionary-encoded.
fn with_keyed_text(
    metadata: ArrowReaderMetadata,
    keyed: &HashSet<usize>,
    options: ArrowReaderOptions,
) -> Result<ArrowReaderMetadata, ParquetError> {
    if keyed.is_empty() {
        return Ok(metadata);
    }
    let fields: Vec<Field> = metadata
        .schema()
        .fields()
        .iter()
        .enumerate()
        .map(|(root, field)| {
            let field = field.as_ref().clone();
            match keyed.contains(&root) {
                true => {
                    let texts = Box::new(field.data_type().clone());
                    field.with_data_type(DataType::Dictionary(Box::new(DataType::UInt32), texts))
                }
                false => field,
            }
        })
        .collect();
    let options = options.with_schema(Arc::new(Schema::new(fields)));
    ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)
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
        self.filtered += batch.num_rows().saturating_sub(converted.num_rows()) as u64;
        Ok(Some(converted))
    }

    fn filtered(&self) -> u64 {
        self.filtered
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
