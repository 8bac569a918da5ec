//! `POST /query/sql` and, for reading only, `GET /query/sql?sql=`.
//!
//! As with Pinot, a statement that fails is an answer with `exceptions` under status 200; only a
//! request that is no query gets a status of its own.

use super::pinot::{RowsJson, failure_document};
use super::{Failure, State, WholeBody, json_response};
use crate::front::answer::{Answer, Ask};
use axum::extract::{self, Query};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use strandline_proto::{Error, Result, v1};

/// Bytes of the largest JSON answer: it is made whole before it is sent, so that an error can still be told.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Options that Pinot's clients send of themselves and that ask for what is always so here.
const ALWAYS_SO: [(&str, &str); 3] = [
    ("groupByMode", "sql"),
    ("responseFormat", "sql"),
    ("trace", "false"),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SqlRequest {
    sql: String,
    #[serde(default)]
    query_options: Option<String>,
}

pub(super) async fn post_sql(
    extract::State(state): extract::State<State>,
    WholeBody(body): WholeBody,
) -> Result<Response, Failure> {
    let request: SqlRequest = serde_json::from_slice(&body).map_err(|error| {
        Error::invalid(format!(
            "the body must be a JSON object like {{\"sql\": \"SELECT 1\"}}: {error}"
        ))
    })?;
    run(&state, request).await
}

pub(super) async fn get_sql(
    extract::State(state): extract::State<State>,
    Query(request): Query<SqlRequest>,
) -> Result<Response, Failure> {
    // A link or an image on any page can cause a GET, so it must not change anything.
    if changes_tables(&request.sql) {
        let error = Error::invalid(
            "GET only reads; send statements that change tables with POST /query/sql",
        );
        return Err(Failure(error));
    }
    run(&state, request).await
}

fn changes_tables(sql: &str) -> bool {
    sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .any(|word| {
            [
                "drop", "alter", "create", "insert", "delete", "update", "truncate",
            ]
            .iter()
            .any(|keyword| word.eq_ignore_ascii_case(keyword))
        })
}

async fn run(state: &State, request: SqlRequest) -> Result<Response, Failure> {
    let started = Instant::now();
    let (options, timeout) = query_options(request.query_options.as_deref().unwrap_or_default())?;
    let ask = Ask {
        sql: request.sql,
        parameters: Vec::new(),
        options,
        timeout,
        front: "http",
    };
    let mut statistics = v1::QueryStatistics::default();
    let document = match whole_answer(state, ask, &mut statistics).await {
        Ok(rows) => rows.document(&statistics, started.elapsed().as_millis()),
        Err(error) => failure_document(&error, &statistics, started.elapsed().as_millis()),
    };
    Ok(json_response(StatusCode::OK, document))
}

async fn whole_answer(
    state: &State,
    ask: Ask,
    statistics: &mut v1::QueryStatistics,
) -> Result<RowsJson> {
    let mut answer = Answer::start(&state.engine, ask).await?;
    let mut rows = RowsJson::new(answer.schema());
    let mut outcome = Ok(());
    while let Some(batch) = answer.next().await {
        match batch {
            Ok(batch) => rows.push(&batch),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
        if rows.bytes() > ANSWER_BYTES_MAX {
            outcome = Err(Error::exhausted(format!(
                "the answer has more than {ANSWER_BYTES_MAX} bytes of JSON; add a LIMIT, or use gRPC, which streams"
            )));
            break;
        }
    }
    *statistics = answer.statistics();
    outcome.map(|()| rows)
}

/// Reads `k=v;k=v`; `timeoutMs` is taken out.
fn query_options(text: &str) -> Result<(BTreeMap<String, String>, Option<Duration>)> {
    let mut options = BTreeMap::new();
    let mut timeout = None;
    for option in text
        .split(';')
        .map(str::trim)
        .filter(|option| !option.is_empty())
    {
        let Some((name, value)) = option
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()))
        else {
            return Err(Error::invalid(format!(
                "queryOptions: \"{option}\" is not name=value"
            )));
        };
        if name.eq_ignore_ascii_case("timeoutMs") {
            let millis: u64 = value.parse().map_err(|_| {
                Error::invalid(format!(
                    "queryOptions: timeoutMs must be a whole number, not \"{value}\""
                ))
            })?;
            timeout = (millis > 0).then(|| Duration::from_millis(millis));
        } else if !ALWAYS_SO
            .iter()
            .any(|(n, v)| name.eq_ignore_ascii_case(n) && value.eq_ignore_ascii_case(v))
        {
            options.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok((options, timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_and_the_timeout_taken_out() {
        let (options, timeout) =
            query_options(" timeoutMs = 250 ; groupByMode=sql; usePlanCache=off;").unwrap();
        assert_eq!(timeout, Some(Duration::from_millis(250)));
        assert_eq!(
            options,
            BTreeMap::from([("usePlanCache".to_owned(), "off".to_owned())])
        );
        assert!(query_options("timeoutMs=soon").is_err());
        assert!(query_options("usePlanCache").is_err());
    }

    #[test]
    fn get_refuses_what_changes_tables() {
        assert!(changes_tables("SET a = 1; drop table t"));
        assert!(changes_tables("/* */ ALTER TABLE t RELEASE BOUNDARY"));
        assert!(!changes_tables("SELECT dropped, altered_at FROM t"));
    }
}
