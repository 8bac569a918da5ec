//! Where results go: a JSON document, the same as Markdown for people, and sometimes a picture.

use indicatif::HumanCount;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

/// Where the results are written.
#[derive(Clone, Debug, clap::Args)]
pub struct Results {
    /// The folder for the results: a JSON document, Markdown, and pictures as SVG
    #[arg(long, default_value = "benches/results")]
    out: PathBuf,
}

impl Results {
    /// Writes `name.json` and `name.md`.
    pub fn write(&self, name: &str, document: &Value, markdown: &str) -> io::Result<()> {
        std::fs::create_dir_all(&self.out)?;
        replace(
            &self.out.join(format!("{name}.json")),
            &format!("{document:#}\n"),
        )?;
        replace(&self.out.join(format!("{name}.md")), markdown)?;
        eprintln!("written to {}/{name}.{{json,md}}", self.out.display());
        Ok(())
    }

    /// Writes the picture `name.svg`.
    pub fn draw(&self, name: &str, svg: &str) -> io::Result<()> {
        std::fs::create_dir_all(&self.out)?;
        replace(&self.out.join(format!("{name}.svg")), svg)
    }
}

/// A file is its old self or its new one, never a part of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)?;
    std::fs::rename(&partial, path)
}

/// A Markdown table.
#[derive(Clone, Debug)]
pub struct Table {
    columns: usize,
    text: String,
}

impl Table {
    /// A table with these columns.
    pub fn new<S: AsRef<str>>(header: impl IntoIterator<Item = S>) -> Self {
        let mut table = Self {
            columns: 0,
            text: String::new(),
        };
        table.columns = table.line(header);
        table.text.push_str(&"|---".repeat(table.columns));
        table.text.push_str("|\n");
        table
    }

    /// Adds a row; missing cells are empty.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let cells: Vec<String> = cells.into_iter().map(|c| c.as_ref().to_owned()).collect();
        let missing = self.columns.saturating_sub(cells.len());
        self.line(cells.into_iter().chain(vec![String::new(); missing]));
    }

    fn line<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) -> usize {
        let mut columns = 0;
        for cell in cells {
            self.text.push_str("| ");
            self.text.push_str(cell.as_ref());
            self.text.push(' ');
            columns += 1;
        }
        self.text.push_str("|\n");
        columns
    }

    /// The table's lines.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A number of milliseconds, ratio or rate as a cell: a dash where there is none.
pub fn number(value: Option<f64>, digits: usize) -> String {
    match value {
        Some(value) if value.is_finite() => format!("{value:.digits$}"),
        _ => "-".to_owned(),
    }
}

/// A count with its thousands apart.
pub fn thousands(count: u64) -> String {
    HumanCount(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_has_as_many_cells_in_each_line() {
        let mut table = Table::new(["query", "ms", "ratio"]);
        table.row(["Q1.1", "2.00"]);
        assert_eq!(
            table.text(),
            "| query | ms | ratio |\n|---|---|---|\n| Q1.1 | 2.00 |  |\n"
        );
    }

    #[test]
    fn what_is_not_a_number_is_a_dash() {
        assert_eq!(number(Some(1.234), 2), "1.23");
        assert_eq!(number(Some(f64::NAN), 2), "-");
        assert_eq!(number(None, 2), "-");
        assert_eq!(thousands(5_995_299), "5,995,299");
        assert_eq!(thousands(12), "12");
    }

    #[test]
    fn a_second_run_replaces_the_first_ones_files() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new");
        let results = Results { out: out.clone() };
        results.write("ssb", &json!({"rows": 1}), "one").unwrap();
        results.write("ssb", &json!({"rows": 2}), "two").unwrap();
        results.draw("ssb", "<svg/>").unwrap();
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(read("ssb.json"), "{\n  \"rows\": 2\n}\n");
        assert_eq!(
            (read("ssb.md"), read("ssb.svg")),
            ("two".into(), "<svg/>".into())
        );
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 3);
    }
}
