//! Files of statements with their answers (`slt/*.slt`), written by `slt_from_duckdb.py`.

use crate::answer::{Answer, Cell};
use std::path::Path;

/// One statement with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The line it starts at, from 1.
    pub line: usize,
    /// Whether the rows' order counts.
    pub ordered: bool,
    /// The statement.
    pub sql: String,
    /// The rows, cells separated by tabs.
    pub rows: Vec<String>,
}

/// Reads the records of a file.
///
/// # Panics
/// When the file can't be read or a record has no end.
pub fn records(path: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut lines = text.lines().enumerate();
    let mut records = Vec::new();
    while let Some((number, line)) = lines.next() {
        let Some(order) = line.strip_prefix("query ") else {
            continue;
        };
        let ordered = match order {
            "ordered" => true,
            "unordered" => false,
            other => panic!("{}:{}: {other:?}", path.display(), number + 1),
        };
        let sql: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "----")
            .collect();
        let rows = lines
            .by_ref()
            .map(|(_, line)| line.to_owned())
            .take_while(|line| !line.is_empty())
            .collect();
        records.push(Record {
            line: number + 1,
            ordered,
            sql: sql.join("\n"),
            rows,
        });
    }
    assert!(!records.is_empty(), "{} has no records", path.display());
    records
}

/// A cell as the files write it.
pub fn cell_text(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Text(text) if text.is_empty() => "(empty)".to_owned(),
        Cell::Text(text) => text.clone(),
        Cell::Float(v) => format!("{v:?}"),
        Cell::Instant(nanos) => crate::sql::timestamp_text((nanos / 1_000_000) as i64),
        Cell::List(list) => {
            let cells: Vec<String> = list.iter().map(cell_text).collect();
            format!("[{}]", cells.join(", "))
        }
        other => other.to_string(),
    }
}

fn same_row(ours: &str, expected: &str) -> bool {
    let (a, b): (Vec<&str>, Vec<&str>) =
        (ours.split('\t').collect(), expected.split('\t').collect());
    a.len() == b.len()
        && a.iter().zip(&b).all(|(a, b)| {
            a == b
                || match (a.parse::<f64>(), b.parse::<f64>()) {
                    (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
                    _ => false,
                }
        })
}

/// Whether `answer` is what the record says.
pub fn check(record: &Record, answer: &Answer) -> Result<(), String> {
    let mut ours: Vec<String> = answer
        .rows
        .iter()
        .map(|row| row.iter().map(cell_text).collect::<Vec<_>>().join("\t"))
        .collect();
    if !record.ordered {
        ours.sort();
    }
    if ours.len() != record.rows.len() {
        return Err(format!(
            "{} rows, not {}: {ours:?}",
            ours.len(),
            record.rows.len()
        ));
    }
    match ours
        .iter()
        .zip(&record.rows)
        .position(|(a, b)| !same_row(a, b))
    {
        None => Ok(()),
        Some(row) => Err(format!(
            "row {row} is {:?}, not {:?}",
            ours[row], record.rows[row]
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_compare_by_text_or_by_number() {
        assert!(same_row("AA\t1.50", "AA\t1.5"));
        assert!(!same_row("AA\t1.51", "AA\t1.5"));
        assert!(!same_row("AA", "AA\t1"));
    }

    #[test]
    fn every_file_has_records_with_answers() {
        let folder = Path::new("slt");
        let mut records_in_all = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let records = records(&entry.unwrap().path());
            assert!(records.iter().all(|r| !r.sql.is_empty()));
            records_in_all += records.len();
        }
        assert!(records_in_all >= 60);
    }
}
