//! Rows over HTTP: appends to the embedded log, and Pinot's `ingestFromFile`.

use super::{Failure, State, WholeBody, ok};
use crate::front::ingest;
use axum::body::Bytes;
use axum::extract::{self, Multipart, Path, Query};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_proto::v1::{AppendRequest, LoadOptions, Message, PushMode, TimeInterval};
use strandline_proto::{Error, Result};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppendParameters {
    partition: Option<u32>,
    producer_id: Option<String>,
    sequence: Option<u64>,
}

/// Appends each non-empty line of the body as one message; answers when they are on disk.
pub(super) async fn append(
    extract::State(state): extract::State<State>,
    Path(topic): Path<String>,
    Query(parameters): Query<AppendParameters>,
    WholeBody(body): WholeBody,
) -> Result<Response, Failure> {
    if parameters.producer_id.is_some() != parameters.sequence.is_some() {
        let error = Error::invalid(
            "give producerId and sequence together: the sequence numbers the first line",
        );
        return Err(error.into());
    }
    let request = AppendRequest {
        topic,
        partition: parameters.partition,
        messages: lines(&body),
        producer_id: parameters.producer_id.unwrap_or_default(),
        first_sequence: parameters.sequence.unwrap_or_default(),
    };
    let response = ingest::append(&state.engine, request).await?;
    Ok(ok(&json!({
        "partition": response.partition,
        "firstOffset": response.first_offset,
        "nextOffset": response.next_offset,
        "duplicates": response.duplicates,
    })))
}

/// The body's lines as messages that share its bytes.
fn lines(body: &Bytes) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut from = 0;
    while from < body.len() {
        let rest = body.get(from..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(rest.len());
        let line = rest.get(..length).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.iter().all(u8::is_ascii_whitespace) {
            messages.push(Message {
                key: Bytes::new(),
                payload: body.slice_ref(line),
                timestamp_ms: 0,
            });
        }
        from += length + 1;
    }
    messages
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileParameters {
    table_name_with_type: String,
    batch_config_map_str: Option<String>,
}

/// Loads the first file of a form into an offline table.
pub(super) async fn from_file(
    extract::State(state): extract::State<State>,
    Query(parameters): Query<FileParameters>,
    mut form: Multipart,
) -> Result<Response, Failure> {
    let table = match parameters.table_name_with_type.strip_suffix("_OFFLINE") {
        Some(table) if !table.is_empty() => table.to_owned(),
        _ => {
            let error = Error::invalid(
                "tableNameWithType must end in _OFFLINE: files are loaded into the offline half",
            );
            return Err(error.into());
        }
    };
    let options = load_options(parameters.batch_config_map_str.as_deref().unwrap_or("{}"))?;
    let unreadable = |error: extract::multipart::MultipartError| {
        Error::invalid(format!("the form can't be read: {}", error.body_text()))
    };
    let mut stage = state.staging.begin().await?;
    let mut field = form
        .next_field()
        .await
        .map_err(unreadable)?
        .ok_or_else(|| {
            Error::invalid("the form has no file; send it as in `curl -F file=@data.csv`")
        })?;
    let name = field.file_name().unwrap_or("upload").to_owned();
    stage.file(&name).await?;
    while let Some(bytes) = field.chunk().await.map_err(unreadable)? {
        stage.write(&bytes).await?;
    }
    let files = stage.finish().await?;
    let engine = Arc::clone(&state.engine);
    // A load that has begun runs to its end also when the client goes away.
    let loaded = tokio::spawn(async move {
        let loaded = engine.load_local(&table, files, options, |_| {}).await;
        drop(stage);
        ingest::counted(&table, loaded)
    });
    let result = loaded
        .await
        .unwrap_or_else(|error| Err(Error::internal(format!("the load ended early: {error}"))))?;
    Ok(ok(&json!({
        "status": format!("Successfully ingested file into table: {}", parameters.table_name_with_type),
        "rows": result.rows,
        "rowsFiltered": result.rows_filtered,
        "segments": result.segments,
        "pushId": result.push_id,
        "alreadyDone": result.already_done,
    })))
}

/// Reads `batchConfigMapStr`: `inputFormat` as in Pinot; `pushId`, `mode` and `coverageStartMs` with `coverageEndMs` are ours.
fn load_options(text: &str) -> Result<LoadOptions> {
    let map: BTreeMap<String, String> = serde_json::from_str(text).map_err(|error| {
        Error::invalid(format!(
            "batchConfigMapStr must be a JSON object of strings: {error}"
        ))
    })?;
    let mut options = LoadOptions::default();
    let (mut start_ms, mut end_ms) = (None, None);
    for (name, value) in map {
        let millis = || {
            value.parse::<i64>().map_err(|_| {
                Error::invalid(format!(
                    "batchConfigMapStr.{name} must be milliseconds since the epoch, not \"{value}\""
                ))
            })
        };
        match name.as_str() {
            "inputFormat" => options.input_format = value.to_ascii_lowercase(),
            "pushId" => options.push_id = value,
            "mode" => {
                options.mode = match value.to_ascii_uppercase().as_str() {
                    "APPEND" => PushMode::Append.into(),
                    "REFRESH" => PushMode::Refresh.into(),
                    _ => {
                        return Err(Error::invalid(format!(
                            "batchConfigMapStr.mode must be APPEND or REFRESH, not \"{value}\""
                        )));
                    }
                };
            }
            "coverageStartMs" => start_ms = Some(millis()?),
            "coverageEndMs" => end_ms = Some(millis()?),
            other => {
                return Err(Error::unsupported(format!(
                    "not supported: batchConfigMapStr.{other}; supported are inputFormat, pushId, mode, coverageStartMs and coverageEndMs"
                )));
            }
        }
    }
    options.declared_coverage = match (start_ms, end_ms) {
        (None, None) => None,
        (Some(start_ms), Some(end_ms)) => Some(TimeInterval { start_ms, end_ms }),
        _ => {
            return Err(Error::invalid(
                "batchConfigMapStr: give coverageStartMs and coverageEndMs together",
            ));
        }
    };
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_messages_whatever_ends_them() {
        let body = Bytes::from_static(b"{\"a\":1}\r\n\n  \n{\"a\":2}");
        let payloads: Vec<_> = lines(&body)
            .into_iter()
            .map(|message| message.payload)
            .collect();
        assert_eq!(payloads, [&b"{\"a\":1}"[..], b"{\"a\":2}"]);
        assert!(lines(&Bytes::new()).is_empty());
    }

    #[test]
    fn unknown_load_options_are_named() {
        let error = load_options(r#"{"recordReader.prop.delimiter":"|"}"#).unwrap_err();
        assert!(error.message().contains("recordReader.prop.delimiter"));
        let options = load_options(
            r#"{"inputFormat":"CSV","coverageStartMs":"0","coverageEndMs":"86400000"}"#,
        )
        .unwrap();
        assert_eq!(options.input_format, "csv");
        assert_eq!(
            options.declared_coverage,
            Some(TimeInterval {
                start_ms: 0,
                end_ms: 86_400_000
            })
        );
        assert!(load_options(r#"{"coverageStartMs":"0"}"#).is_err());
    }
}
