//! What it costs to load: rows a second, bytes on disk, the server's largest memory.

use crate::results::{Results, Table, number, thousands};
use crate::target::{Source, Target, files_bytes};
use crate::wide;
use serde_json::{Value, json};
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

const MIB: f64 = (1 << 20) as f64;

/// What a load took, and left on disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loaded {
    /// Rows.
    pub rows: u64,
    /// How long it took; none when it was done before.
    pub seconds: Option<f64>,
    /// Bytes that the table takes on disk.
    pub bytes: u64,
}

impl Loaded {
    /// Rows a second.
    pub fn rows_per_s(&self) -> Option<f64> {
        self.seconds
            .filter(|seconds| *seconds > 0.0)
            .map(|seconds| self.rows as f64 / seconds)
    }

    /// As it stands in results.
    pub fn document(&self) -> Value {
        json!({
            "rows": self.rows,
            "seconds": self.seconds,
            "rows_per_s": self.rows_per_s(),
            "bytes": self.bytes,
        })
    }

    /// The cells of a table: seconds, rows a second, MiB, bytes a row.
    pub fn cells(&self) -> [String; 4] {
        [
            number(self.seconds, 1),
            match self.rows_per_s() {
                Some(rate) => thousands(rate as u64),
                None => number(None, 0),
            },
            number(Some(self.bytes as f64 / MIB), 1),
            number(Some(self.bytes as f64 / self.rows as f64), 1),
        ]
    }
}

/// The header over [`Loaded::cells`].
pub const CELLS: [&str; 5] = ["", "load s", "rows/s", "MiB", "bytes a row"];

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = thousands(self.rows);
        let mib = self.bytes as f64 / MIB;
        match (self.seconds, self.rows_per_s()) {
            (Some(seconds), Some(rate)) => write!(
                f,
                "{rows} rows in {seconds:.1} s, {} rows/s, {mib:.1} MiB",
                thousands(rate as u64)
            ),
            _ => write!(f, "{rows} rows, {mib:.1} MiB"),
        }
    }
}

/// What to load.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// The file that `load generate` wrote
    #[arg(long)]
    file: PathBuf,
    #[command(flatten)]
    results: Results,
}

/// Loads a file (of [`wide::generate`]), checks that all its rows are there, writes what it took.
pub async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut target = Target::open(&options.source).await?;
    let wanted = rows_of(&options.file)?;
    if target.rows("wide").await.is_some() {
        return Err("the server has a table wide already: drop it first".into());
    }
    let before = target.peak_bytes();
    let loaded = target
        .load(
            "wide",
            &wide::schema_json(),
            &wide::table_json(),
            std::slice::from_ref(&options.file),
            0,
        )
        .await?;
    let counted = target.rows("wide").await;
    if counted != Some(wanted) {
        return Err(format!("the table has {counted:?} rows, the file {wanted}").into());
    }
    target.drop_table("wide").await?;
    let (peak, parquet) = (target.peak_bytes(), files_bytes([&options.file])?);
    let mut document = loaded.document();
    document["parquet_bytes"] = json!(parquet);
    document["peak_memory_bytes"] = json!(peak);
    document["memory_before_bytes"] = json!(before);
    document["debug_build"] = json!(cfg!(debug_assertions));
    let mut table = Table::new(CELLS);
    let name = std::iter::once("Strandline".to_owned());
    table.row(name.chain(loaded.cells()));
    let mib = |bytes: Option<u64>| number(bytes.map(|b| b as f64 / MIB), 0);
    let text = format!(
        "# A load of 20 columns, {} rows\n\n{}\nLargest memory of the server {} MiB, {} MiB of it before the load; Parquet {} MiB.\n",
        thousands(loaded.rows),
        table.text(),
        mib(peak),
        mib(before),
        mib(Some(parquet)),
    );
    println!("{text}");
    options.results.write("wide", &document, &text)?;
    Ok(())
}

/// The rows of a Parquet file, as its footer tells.
pub fn rows_of(file: &Path) -> Result<u64, Box<dyn Error>> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let reader = SerializedFileReader::new(std::fs::File::open(file)?)
        .map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(u64::try_from(reader.metadata().file_metadata().num_rows())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_was_done_before_has_no_rate() {
        let loaded = Loaded {
            rows: 3_000_000,
            seconds: Some(1.5),
            bytes: 6 << 20,
        };
        assert_eq!(loaded.rows_per_s(), Some(2e6));
        assert_eq!(loaded.cells(), ["1.5", "2,000,000", "6.0", "2.1"]);
        let before = Loaded {
            seconds: None,
            ..loaded
        };
        assert_eq!(before.cells(), ["-", "-", "6.0", "2.1"]);
        assert!(before.document()["rows_per_s"].is_null());
        assert_eq!(before.document()["bytes"], 6 << 20);
    }
}
