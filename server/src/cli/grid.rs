//! Answers as text: an aligned table, CSV (RFC 4180) or JSON lines.
//!
//! Control characters are written as escapes, so that a value can't steer the terminal.

use crate::front::cells::{Cell, cell, write_timestamp};
use crate::front::json::{write_cell, write_string};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use std::io::{self, Write};

/// Rows that decide the width of a table's columns; later rows that are wider stand out.
const WIDTH_ROWS_MAX: usize = 1000;

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// CSV with a header line.
    Csv,
    /// One JSON object a row.
    Json,
}

/// Prints one answer as its batches arrive. Batches must have plain types.
#[derive(Debug)]
pub struct Printer {
    format: Format,
    names: Vec<String>,
    right: Vec<bool>,
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
    rows: u64,
}

impl Printer {
    /// A printer of answers with these columns.
    pub fn new(format: Format, schema: &SchemaRef) -> Self {
        let numeric = |data_type: &DataType| data_type.is_numeric();
        Self {
            format,
            names: schema
                .fields()
                .iter()
                .map(|field| shown(field.name()))
                .collect(),
            right: schema
                .fields()
                .iter()
                .map(|field| numeric(field.data_type()))
                .collect(),
            waiting: Vec::new(),
            widths: None,
            rows: 0,
        }
    }

    /// Prints a batch, or keeps it until the widths are known.
    pub fn push(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> io::Result<()> {
        if self.format == Format::Csv && self.rows == 0 {
            self.csv_header(out)?;
        }
        for row in 0..batch.num_rows() {
            let cells = || {
                batch
                    .columns()
                    .iter()
                    .map(move |column| cell(column.as_ref(), row))
            };
            self.rows += 1;
            match self.format {
                Format::Table => {
                    self.waiting
                        .push(cells().map(|value| table_text(&value)).collect());
                    if self.widths.is_some() || self.waiting.len() >= WIDTH_ROWS_MAX {
                        self.flush_table(out)?;
                    }
                }
                Format::Csv => {
                    let line: Vec<String> = cells().map(|value| csv_text(&value)).collect();
                    writeln!(out, "{}", line.join(","))?;
                }
                Format::Json => {
                    let mut line = String::from("{");
                    for (at, (name, value)) in
                        batch.schema_ref().fields().iter().zip(cells()).enumerate()
                    {
                        if at > 0 {
                            line.push(',');
                        }
                        write_string(name.name(), &mut line);
                        line.push(':');
                        write_cell(&value, &mut line);
                    }
                    writeln!(out, "{line}}}")?;
                }
            }
        }
        Ok(())
    }

    /// Prints what waits, and the row count under a table.
    pub fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match self.format {
            Format::Table => {
                self.flush_table(out)?;
                writeln!(
                    out,
                    "({} row{})",
                    self.rows,
                    if self.rows == 1 { "" } else { "s" }
                )
            }
            Format::Csv if self.rows == 0 => self.csv_header(out),
            Format::Csv | Format::Json => Ok(()),
        }
    }

    fn csv_header(&self, out: &mut dyn Write) -> io::Result<()> {
        let line: Vec<String> = self
            .names
            .iter()
            .map(|name| csv_quoted(name, false))
            .collect();
        writeln!(out, "{}", line.join(","))
    }

    fn flush_table(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.widths.is_none() {
            let width = |at: usize, name: &String| {
                let cells = self.waiting.iter().filter_map(|row| row.get(at));
                cells
                    .chain([name])
                    .flat_map(|text| text.lines())
                    .map(|line| line.chars().count())
                    .max()
                    .unwrap_or(0)
            };
            let widths: Vec<usize> = self
                .names
                .iter()
                .enumerate()
                .map(|(at, name)| width(at, name))
                .collect();
            self.row(&self.names, &widths, out)?;
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            writeln!(out, "{}", rules.join("+"))?;
            self.widths = Some(widths);
        }
        let widths = self.widths.clone().unwrap_or_default();
        for row in std::mem::take(&mut self.waiting) {
            self.row(&row, &widths, out)?;
        }
        Ok(())
    }

    /// A row takes as many lines as its tallest cell (a plan of EXPLAIN has many).
    fn row(&self, cells: &[String], widths: &[usize], out: &mut dyn Write) -> io::Result<()> {
        let height = cells
            .iter()
            .map(|cell| cell.lines().count())
            .max()
            .unwrap_or(0)
            .max(1);
        for at in 0..height {
            let texts: Vec<&str> = cells
                .iter()
                .map(|cell| cell.lines().nth(at).unwrap_or_default())
                .collect();
            self.line(&texts, widths, out)?;
        }
        Ok(())
    }

    fn line(&self, texts: &[&str], widths: &[usize], out: &mut dyn Write) -> io::Result<()> {
        let mut line = String::new();
        for (at, ((text, &width), &right)) in texts.iter().zip(widths).zip(&self.right).enumerate()
        {
            line.push_str(if at > 0 { "| " } else { " " });
            let padding = " ".repeat(width.saturating_sub(text.chars().count()));
            if right {
                line.push_str(&padding);
            }
            line.push_str(text);
            if !right {
                line.push_str(&padding);
            }
            line.push(' ');
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// `text` with control characters, line breaks apart, escaped.
fn shown(text: &str) -> String {
    let steers = |c: char| c.is_control() && c != '\n';
    if text.chars().any(steers) {
        text.chars()
            .map(|c| {
                if steers(c) {
                    c.escape_default().to_string()
                } else {
                    c.to_string()
                }
            })
            .collect()
    } else {
        text.to_owned()
    }
}

fn table_text(value: &Cell<'_>) -> String {
    shown(&bare_text(value).unwrap_or_else(|| "NULL".to_owned()))
}

/// A cell without quotes; none for null.
fn bare_text(value: &Cell<'_>) -> Option<String> {
    Some(match value {
        Cell::Null => return None,
        Cell::Text(text) => (*text).to_owned(),
        Cell::Other(text) | Cell::Decimal(text) => text.clone(),
        Cell::Bytes(bytes) => hex::encode(bytes),
        Cell::Timestamp(nanos) => {
            let mut text = String::new();
            write_timestamp(*nanos, &mut text);
            text
        }
        Cell::Float(v) => v.to_string(),
        Cell::Double(v) => v.to_string(),
        other => {
            let mut text = String::new();
            write_cell(other, &mut text);
            text
        }
    })
}

/// A cell of CSV: null is empty, the empty text is `""`.
fn csv_text(value: &Cell<'_>) -> String {
    match bare_text(value) {
        None => String::new(),
        Some(text) => csv_quoted(&text, matches!(value, Cell::Text(_) | Cell::Other(_))),
    }
}

fn csv_quoted(text: &str, is_text: bool) -> String {
    if text.contains([',', '"', '\n', '\r']) || (is_text && text.is_empty()) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    fn printed(format: Format) -> String {
        let names: ArrayRef = Arc::new(StringArray::from(vec![
            Some("Zürich"),
            None,
            Some("a,\"b\"\u{1b}[2J"),
            Some(""),
        ]));
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![
            Some(7),
            Some(12_345),
            None,
            Some(-1),
        ]));
        let batch =
            RecordBatch::try_from_iter_with_nullable([("City", names, true), ("n", counts, true)])
                .unwrap();
        let mut printer = Printer::new(format, batch.schema_ref());
        let mut out = Vec::new();
        printer.push(&batch, &mut out).unwrap();
        printer.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_is_aligned_and_harmless() {
        let expected = [
            " City              |     n",
            "-------------------+-------",
            " Zürich            |     7",
            " NULL              | 12345",
            " a,\"b\"\\u{1b}[2J    |  NULL",
            "                   |    -1",
            "(4 rows)",
            "",
        ];
        let got = printed(Format::Table);
        let widest = " a,\"b\"\\u{1b}[2J ".chars().count();
        assert!(got.lines().all(|line| !line.contains('\u{1b}')));
        assert_eq!(got.lines().nth(1).unwrap().find('+').unwrap(), widest);
        let squeeze = |text: &str| {
            text.split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .replace("--", "")
        };
        assert_eq!(
            squeeze(&got).replace('-', ""),
            squeeze(&expected.join("\n")).replace('-', "")
        );
    }

    #[test]
    fn csv_tells_null_from_the_empty_text() {
        assert_eq!(
            printed(Format::Csv),
            "City,n\nZürich,7\n,12345\n\"a,\"\"b\"\"\u{1b}[2J\",\n\"\",-1\n"
        );
    }

    #[test]
    fn json_is_one_object_a_row() {
        let text = printed(Format::Json);
        let rows: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(rows[1], serde_json::json!({ "City": null, "n": 12345 }));
        assert_eq!(rows.len(), 4);
    }
}
