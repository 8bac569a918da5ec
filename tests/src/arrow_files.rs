//! Rows to Parquet files.

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use std::fs::File;
use std::io;
use std::path::Path;

/// Writes `rows` to the Parquet file `path`.
pub fn write_parquet(path: &Path, rows: &RecordBatch) -> io::Result<()> {
    let mut writer = ArrowWriter::try_new(File::create(path)?, rows.schema(), None)?;
    writer.write(rows)?;
    writer.close()?;
    Ok(())
}
