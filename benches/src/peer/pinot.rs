//! Apache Pinot's broker, over HTTP.
//!
//! Its dialect differs in three ways that matter here: an answer without LIMIT has ten rows, a sum of no rows is 0 (or
//! a minimum of no rows infinite), and sums are doubles. The first is written into the statement, the second
//! taken out of the answer, the third does not matter where numbers are compared as numbers.

use super::Peer;
use crate::load::Loaded;
use crate::rows::Rows;
use crate::ssb;
use serde_json::{Value, json};
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};
use ureq::Agent;

/// Rows that are asked for where the statement says no number.
const ROWS_MAX: u64 = 1_000_000;
/// Bytes of the largest answer.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(900);

/// Where a Pinot broker is.
#[derive(Clone, Debug, clap::Args)]
pub struct PinotOptions {
    /// A running Pinot broker that holds the same rows, as in http://127.0.0.1:8099, as one more peer
    #[arg(long)]
    pinot: Option<String>,
    /// Its table
    #[arg(long, default_value = "lineorder", requires = "pinot")]
    pinot_table: String,
    /// The options that its statements are sent with
    #[arg(
        long,
        default_value = "numGroupsLimit=100000000;timeoutMs=600000",
        requires = "pinot"
    )]
    pinot_options: String,
}

impl PinotOptions {
    /// Whether none was named.
    pub fn is_empty(&self) -> bool {
        self.pinot.is_none()
    }

    /// The broker, if one was named; its table must hold `rows` rows.
    pub fn connect(&self, rows: u64) -> Result<Option<Pinot>, Box<dyn Error>> {
        let Some(url) = &self.pinot else {
            return Ok(None);
        };
        let mut pinot = Pinot::connect(url, &self.pinot_table, &self.pinot_options)?;
        super::count(&mut pinot, rows)?;
        Ok(Some(pinot))
    }
}

/// A table behind a broker.
#[derive(Debug)]
pub struct Pinot {
    agent: Agent,
    url: String,
    table: String,
    options: String,
    version: String,
}

impl Pinot {
    /// Reaches the broker at `url`.
    pub fn connect(url: &str, table: &str, options: &str) -> io::Result<Self> {
        let config = Agent::config_builder()
            .timeout_global(Some(ANSWER_WITHIN))
            .http_status_as_error(false)
            .build();
        let mut pinot = Self {
            agent: config.into(),
            url: url.trim_end_matches('/').to_owned(),
            table: table.to_owned(),
            options: options.to_owned(),
            version: String::new(),
        };
        pinot.version = pinot.read_version()?;
        Ok(pinot)
    }

    /// The version that the broker tells, or "unknown": not every build does.
    fn read_version(&self) -> io::Result<String> {
        let url = format!("{}/version", self.url);
        let mut response = self.agent.get(url).call().map_err(io::Error::other)?;
        let known = response.status().is_success();
        let text = response.body_mut().read_to_string();
        let versions: Value = match text {
            Ok(text) if known => serde_json::from_str(&text).unwrap_or_default(),
            _ => Value::Null,
        };
        let broker = versions["pinot-broker"].as_str();
        Ok(broker.unwrap_or("of unknown version").to_owned())
    }

    /// Sends a statement in Pinot's dialect; gives the answer's text.
    fn send(&self, sql: &str) -> io::Result<String> {
        let body = json!({"sql": sql, "queryOptions": self.options}).to_string();
        let mut response = self
            .agent
            .post(format!("{}/query/sql", self.url))
            .header("content-type", "application/json")
            .send(body)
            .map_err(io::Error::other)?;
        let status = response.status();
        let text = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(io::Error::other)?;
        match status.is_success() {
            true => Ok(text),
            false => Err(io::Error::other(format!("Pinot: {status}: {text}"))),
        }
    }
}

/// The statement in Pinot's dialect, over `table`.
fn dialect(sql: &str, table: &str) -> String {
    let mut sql = ssb::over(sql, table);
    if !ssb::has_limit(&sql) {
        sql.push_str(&format!(" LIMIT {ROWS_MAX}"));
    }
    sql
}

/// The rows of an answer, or what is wrong with it: an exception, or rows that the broker itself calls incomplete.
fn rows_of(text: &str) -> Result<Rows, String> {
    let answer: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let exceptions = answer["exceptions"].as_array().ok_or("no exceptions")?;
    if let Some(exception) = exceptions.first() {
        return Err(exception["message"].to_string());
    }
    for flag in ["partialResult", "numGroupsLimitReached"] {
        if answer[flag] == Value::Bool(true) {
            return Err(format!("the answer is not complete: {flag}"));
        }
    }
    let table = &answer["resultTable"];
    let rows = table["rows"].as_array().ok_or("an answer without rows")?;
    let names = table["dataSchema"]["columnNames"]
        .as_array()
        .ok_or("an answer without column names")?;
    // An aggregate of nothing is one row.
    let of_nothing = answer["numDocsScanned"] == 0 && rows.len() == 1;
    let cell = |(cell, name): (&Value, &Value)| match cell {
        _ if of_nothing && !is_count(name) => "NULL".to_owned(),
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let row = |row: &Value| -> Result<Vec<String>, String> {
        let cells = row.as_array().ok_or("a row that is no list")?;
        Ok(cells.iter().zip(names).map(cell).collect())
    };
    rows.iter().map(row).collect()
}

fn is_count(name: &Value) -> bool {
    name.as_str()
        .is_some_and(|name| name.to_ascii_lowercase().contains("count"))
}

impl Peer for Pinot {
    fn key(&self) -> &'static str {
        "pinot"
    }

    fn title(&self) -> String {
        format!("Pinot {}", self.version)
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn loaded(&self) -> Option<Loaded> {
        None
    }

    fn answer(&mut self, sql: &str) -> io::Result<Rows> {
        let sql = dialect(sql, &self.table);
        rows_of(&self.send(&sql)?).map_err(|e| io::Error::other(format!("Pinot: {e}: {sql}")))
    }

    fn times_ms(&mut self, sql: &str, runs: usize) -> io::Result<Vec<f64>> {
        self.answer(sql)?;
        let sql = dialect(sql, &self.table);
        let mut times = Vec::new();
        for _ in 0..runs {
            let start = Instant::now();
            let text = self.send(&sql)?;
            times.push(start.elapsed().as_secs_f64() * 1000.0);
            rows_of(&text).map_err(|e| io::Error::other(format!("Pinot: {e}: {sql}")))?;
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(rows: &str, rest: &str) -> String {
        format!(
            r#"{{"resultTable":{{"dataSchema":{{"columnNames":["count(*)","revenue"],"columnDataTypes":["LONG","DOUBLE"]}},"rows":{rows}}},"exceptions":[],{rest}}}"#
        )
    }

    #[test]
    fn statements_name_the_table_and_ask_for_all_rows() {
        assert_eq!(
            dialect(
                "SELECT count(*) FROM lineorder WHERE c = 'lineorder limit'",
                "t"
            ),
            "SELECT count(*) FROM t WHERE c = 'lineorder limit' LIMIT 1000000"
        );
        assert_eq!(
            dialect("SELECT c FROM lineorder LIMIT 10", "lineorder"),
            "SELECT c FROM lineorder LIMIT 10"
        );
        for (name, sql) in ssb::queries() {
            let translated = dialect(sql, "orders_OFFLINE");
            assert_eq!(translated.matches("LIMIT").count(), 1, "{name}");
            assert!(translated.contains("FROM orders_OFFLINE"), "{name}");
        }
    }

    #[test]
    fn rows_are_read_and_aggregates_of_nothing_are_null() {
        let some = rows_of(&answer("[[3,1.25E9],[4,null]]", r#""numDocsScanned":7"#)).unwrap();
        assert_eq!(some, [["3", "1250000000.0"], ["4", "NULL"]]);
        let nothing = rows_of(&answer("[[0,0.0]]", r#""numDocsScanned":0"#)).unwrap();
        assert_eq!(nothing, [["0", "NULL"]]);
    }

    #[test]
    fn an_answer_that_is_not_whole_is_an_error() {
        let failed = r#"{"exceptions":[{"errorCode":700,"message":"no column x"}]}"#;
        assert!(rows_of(failed).unwrap_err().contains("no column x"));
        for flag in ["partialResult", "numGroupsLimitReached"] {
            let cut = answer("[[1,2.0]]", &format!(r#""numDocsScanned":1,"{flag}":true"#));
            assert!(rows_of(&cut).unwrap_err().contains(flag));
        }
        assert!(rows_of("<html>").is_err());
    }
}
