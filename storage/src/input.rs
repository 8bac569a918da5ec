//! Files into record batches of the table's Arrow schema, in bounded memory whatever a file's size.
//!
//! An offline load is all or nothing, so the first value that does not fit ends it, with an error that names
//! file, row and column.

mod arrow_cells;
mod avro;
mod columnar;
mod csv;
mod json_lines;
mod lines;
mod nested;
mod parquet;
mod parquet_file;
mod paths;
mod rowwise;
#[cfg(test)]
mod tests;

pub use paths::{expand, total_bytes};

use crate::config::TableConfig;
use crate::convert::RowBuilder;
use crate::convert::flatten::Flattener;
use arrow::record_batch::RecordBatch;
use rowwise::Rowwise;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use strandline_proto::{Error, Result};

/// Bytes of a batch before it is handed over with fewer rows than asked for.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Bytes of one line, and of one row of CSV.
const LINE_BYTES_MAX: usize = 16 << 20;

/// How a file holds rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputFormat {
    /// Apache Parquet.
    Parquet,
    /// Avro's object container file.
    Avro,
    /// One JSON object a line.
    Json,
    /// Comma separated values with a header line; `;` between the elements of a multi-value column; empty is null.
    Csv,
}

impl InputFormat {
    /// The format by a file's ending.
    pub fn of_ending(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "parquet" => Some(Self::Parquet),
            "avro" => Some(Self::Avro),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    /// The format by its name, in any case.
    pub fn parse(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "parquet" => Ok(Self::Parquet),
            "avro" => Ok(Self::Avro),
            "json" | "jsonl" | "ndjson" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            _ => Err(Error::invalid(format!(
                "unknown format '{}': use parquet, avro, json or csv",
                name.escape_debug()
            ))),
        }
    }
}

/// A file read batch by batch. Blocking.
pub trait RowSource: Send {
    /// The next rows, in the table's Arrow schema, transforms and filter applied; none at the end. There may be batches
    /// without rows. Text may come as a dictionary array. After an error the source is not to be read on.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>>;
    /// Rows left out by the table's filter so far.
    fn filtered(&self) -> u64;
    /// Bytes of the file that were read so far, for a progress bar.
    fn bytes_read(&self) -> u64;
    /// Bytes of the file.
    fn bytes_total(&self) -> u64;
}

/// Opens a file for a table; without a format, by the file's ending or first bytes. Batches have up to
/// `batch_rows` rows.
pub fn open(
    path: &Path,
    format: Option<InputFormat>,
    config: &TableConfig,
    batch_rows: usize,
) -> Result<Box<dyn RowSource>> {
    open_file(path, format, config, batch_rows.max(1)).map_err(|e| e.at(path.display()))
}

fn open_file(
    path: &Path,
    format: Option<InputFormat>,
    config: &TableConfig,
    batch_rows: usize,
) -> Result<Box<dyn RowSource>> {
    let mut file = File::open(path).map_err(|e| read_error(&e))?;
    let metadata = file.metadata().map_err(|e| read_error(&e))?;
    if !metadata.is_file() {
        return Err(Error::invalid("not a file"));
    }
    let format = match format.or_else(|| InputFormat::of_ending(path)) {
        Some(format) => format,
        None => by_first_bytes(&mut file)?,
    };
    let source = Source {
        place: path.display().to_string(),
        bytes_total: metadata.len(),
        batch_rows,
    };
    let (layout, builder) = RowBuilder::of_table(config)?;
    // What a CSV file holds is flat.
    let complex_types = config.complex_types.as_ref();
    let flattener = complex_types.map(|c| Flattener::new(c, &layout));
    Ok(match (format, flattener) {
        (InputFormat::Parquet, Some(flattener)) => {
            let (rows, count) = nested::ParquetRows::open(file, batch_rows, flattener)?;
            Box::new(Rowwise::new(source, builder, rows, count))
        }
        (InputFormat::Parquet, None) => {
            Box::new(parquet::ParquetSource::open(file, source, config, layout)?)
        }
        (InputFormat::Avro, flattener) => {
            let (rows, count) = avro::AvroRows::open(file, &layout, flattener)?;
            Box::new(Rowwise::new(source, builder, rows, count))
        }
        (InputFormat::Json, flattener) => {
            let (rows, count) = json_lines::JsonRows::open(file, layout, flattener);
            Box::new(Rowwise::new(source, builder, rows, count))
        }
        (InputFormat::Csv, _) => {
            let (rows, count) = csv::CsvRows::open(file, config, &layout)?;
            Box::new(Rowwise::new(source, builder, rows, count))
        }
    })
}

/// What all sources know.
struct Source {
    place: String,
    bytes_total: u64,
    batch_rows: usize,
}

impl Source {
    /// An error about a row (from 1) of the file.
    fn row_error(&self, row: u64, reason: impl std::fmt::Display) -> Error {
        Error::invalid(format!("{}: row {row}: {reason}", self.place))
    }
}

fn read_error(error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::not_found("no such file"),
        std::io::ErrorKind::PermissionDenied => {
            Error::precondition("the file may not be read: permission denied")
        }
        _ => Error::invalid(format!("the file can't be read: {error}")),
    }
}

fn by_first_bytes(file: &mut File) -> Result<InputFormat> {
    use std::io::Seek as _;
    let mut first = [0; 4];
    let mut read = 0;
    while read < first.len() {
        match file.read(&mut first[read..]).map_err(|e| read_error(&e))? {
            0 => break,
            n => read += n,
        }
    }
    file.rewind().map_err(|e| read_error(&e))?;
    match &first {
        b"PAR1" => Ok(InputFormat::Parquet),
        b"Obj\x01" => Ok(InputFormat::Avro),
        [b'{', ..] => Ok(InputFormat::Json),
        _ => Err(Error::invalid(
            "the format is not known: name it, or end the file's name in .parquet, .avro, .json, .jsonl, .ndjson or .csv",
        )),
    }
}
