//! A round as files, for the oracle that is not ours: `duckdb_oracle.py` makes the same tables on a server and asks both.

use crate::answer::{Answer, Cell};
use crate::arrow_files::write_parquet;
use crate::pinot::{messages, offline_json, realtime_json, schema_json};
use crate::query::{Query, named};
use crate::table::Table;
use serde_json::{Value as Json, json};
use std::io::{self, Write};
use std::path::Path;

const PARTITIONS: u32 = 2;

/// Writes the round's hybrid tables and the queries that DuckDB can be asked, each with its seed and the answer
/// of plain DataFusion.
pub fn write_round(
    folder: &Path,
    round: usize,
    t: &Table,
    u: &Table,
    queries: &[(u64, Query, Option<Answer>)],
) -> io::Result<()> {
    let folder = folder.join(format!("round-{round:04}"));
    std::fs::create_dir_all(&folder)?;
    let names = [format!("dt{round}"), format!("du{round}")];
    let mut tables = Vec::new();
    for (table, name) in [t, u].into_iter().zip(&names) {
        write_parquet(
            &folder.join(format!("{}.parquet", table.name)),
            &table.visible(),
        )?;
        tables.push(write_hybrid(&folder, table, name)?);
    }
    std::fs::write(
        folder.join("tables.json"),
        json!({"tables": tables}).to_string(),
    )?;
    let mut lines = io::BufWriter::new(std::fs::File::create(folder.join("queries.jsonl"))?);
    for (seed, query, answer) in queries {
        let Some(duck) = &query.sql.duck else {
            continue;
        };
        let unlimited = query.unlimited.as_ref().and_then(|q| q.duck.as_ref());
        let line = json!({
            "seed": seed,
            "kind": query.kind,
            "ours": query.ours(&names[0], &names[1]),
            "duck": named(duck, "t", "u"),
            "duck_unlimited": unlimited.map(|sql| named(sql, "t", "u")),
            "order": query.order,
            "rows": answer.as_ref().map(|a| a.rows.iter().map(|row| row.iter().map(cell_json).collect()).collect::<Vec<Vec<Json>>>()),
        });
        writeln!(lines, "{line}")?;
    }
    lines.flush()
}

/// Text, booleans, nulls and lists as themselves, all else tagged.
fn cell_json(cell: &Cell) -> Json {
    match cell {
        Cell::Null => Json::Null,
        Cell::Boolean(v) => json!(v),
        Cell::Number(..) => json!({"number": cell.to_string()}),
        Cell::Float(v) => json!({"float": format!("{v:?}")}),
        Cell::Text(v) => json!(v),
        Cell::Bytes(v) => json!({"bytes": v}),
        Cell::Instant(nanos) => json!({"ms": nanos.div_euclid(1_000_000).to_string()}),
        Cell::Date(_) => json!(cell.to_string()),
        Cell::List(v) => Json::Array(v.iter().map(cell_json).collect()),
    }
}

fn write_hybrid(folder: &Path, table: &Table, name: &str) -> io::Result<Json> {
    let topic = format!("{name}-topic");
    let rows = table.together(&[&table.hidden_realtime, &table.outside]);
    let flush_rows = (rows.num_rows() as u64 / u64::from(PARTITIONS) * 2 / 5).max(1);
    let mut pushes = Vec::new();
    let share = table.inside.num_rows() / table.covered.len();
    for (push, (start_ms, end_ms)) in table.covered.iter().enumerate() {
        let last = push + 1 == table.covered.len();
        let from = push * share;
        let length = if last {
            table.inside.num_rows() - from
        } else {
            share
        };
        let mut loaded = table.inside.slice(from, length);
        if push == 0 {
            loaded = table.together(&[&loaded, &table.hidden_offline]);
        }
        let file = format!("{name}-{push}.parquet");
        write_parquet(&folder.join(&file), &loaded)?;
        pushes.push(json!({"file": file, "coverage": [start_ms, end_ms]}));
    }
    let file = format!("{name}.messages");
    let mut out = io::BufWriter::new(std::fs::File::create(folder.join(&file))?);
    for message in messages(&table.columns, &rows) {
        out.write_all(&message)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(json!({
        "name": name,
        "schema": schema_json(table, name),
        "configs": [offline_json(table, name), realtime_json(table, name, &topic, PARTITIONS, flush_rows)],
        "topic": topic,
        "partitions": PARTITIONS,
        "messages": file,
        "pushes": pushes,
    }))
}
