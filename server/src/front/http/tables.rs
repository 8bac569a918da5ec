//! Schemas and tables, in the shapes of Pinot's controller.

use super::pinot::coverage_json;
use super::{Failure, State, json_response, ok};
use axum::body::Bytes;
use axum::extract::{self, FromRequest as _, Multipart, Path, Query, Request};
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use strandline_proto::{Error, Result, v1};

type Answer = Result<Response, Failure>;

pub(super) async fn list(extract::State(state): extract::State<State>) -> Response {
    ok(&json!({ "tables": state.engine.tables() }))
}

/// Both halves' configs as they were given.
pub(super) async fn describe(
    extract::State(state): extract::State<State>,
    Path(table): Path<String>,
) -> Answer {
    let description = state.engine.table(&table)?;
    let mut halves = serde_json::Map::new();
    for (half, config) in [
        ("OFFLINE", &description.offline_config_json),
        ("REALTIME", &description.realtime_config_json),
    ] {
        if !config.is_empty() {
            halves.insert(half.to_owned(), stored_json(config)?);
        }
    }
    halves.insert("warnings".to_owned(), warnings_json(&description.warnings));
    let partitions = description.partitions.iter().map(|partition| {
        json!({
            "stream": partition.stream,
            "partition": partition.partition,
            "nextOffset": partition.next_offset,
            "committedOffset": partition.committed_offset,
            "consumingRows": partition.consuming_rows,
            "state": partition.state,
            "lastError": partition.last_error,
        })
    });
    halves.insert("partitions".to_owned(), partitions.collect());
    if let Some(reload) = &description.reload {
        halves.insert("reload".to_owned(), reload_json(reload));
    }
    Ok(ok(&Value::Object(halves)))
}

pub(super) async fn schema(
    extract::State(state): extract::State<State>,
    Path(table): Path<String>,
) -> Answer {
    let description = state.engine.table(&table)?;
    // Given back as it was stored, so that long numbers keep their digits.
    let text = serde_json::from_str::<&RawValue>(&description.schema_json).map_err(|error| {
        Error::data_loss(format!("the stored schema of {table} is not JSON: {error}"))
    })?;
    Ok(json_response(StatusCode::OK, text.get().to_owned()))
}

pub(super) async fn segments(
    extract::State(state): extract::State<State>,
    Path(table): Path<String>,
) -> Answer {
    let segments = state.engine.segments(&table)?;
    let list = segments.iter().map(|segment| {
        json!({
            "segmentName": segment.name,
            "tableName": segment.table,
            "totalDocs": segment.rows,
            "sizeInBytes": segment.bytes,
            "checksum": segment.checksum,
            "startTimeMs": segment.min_time_ms,
            "endTimeMs": segment.max_time_ms,
            "status": if segment.consuming { "CONSUMING" } else { "ONLINE" },
            "partition": segment.partition,
            "startOffset": segment.start_offset,
            "endOffset": segment.end_offset,
        })
    });
    Ok(ok(&list.collect()))
}

pub(super) async fn boundary(
    extract::State(state): extract::State<State>,
    Path(table): Path<String>,
) -> Answer {
    let boundary = state.engine.boundary(&table).await?;
    Ok(ok(&json!({
        "coverage": boundary.coverage.as_ref().map(coverage_json),
        "boundaryMs": boundary.boundary_ms,
        "boundary": boundary.boundary,
        "offlineRows": boundary.offline_rows,
        "realtimeRows": boundary.realtime_rows,
        "visibleOfflineRows": boundary.visible_offline_rows,
        "visibleRealtimeRows": boundary.visible_realtime_rows,
        "hiddenOfflineRows": boundary.hidden_offline_rows,
        "hiddenRealtimeRows": boundary.hidden_realtime_rows,
    })))
}

pub(super) async fn put_schema(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Answer {
    let text = document(request).await?;
    let (name, warnings) = state.engine.put_schema(&text).await?;
    Ok(added(&name, warnings))
}

pub(super) async fn create(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Answer {
    let text = document(request).await?;
    let (name, warnings) = state.engine.create_table(&text).await?;
    Ok(added(&format!("Table {name}"), warnings))
}

/// Another config for a half of the table that the path names.
pub(super) async fn update(
    extract::State(state): extract::State<State>,
    Path(table): Path<String>,
    request: Request,
) -> Answer {
    let text = document(request).await?;
    let (name, half) = strandline_storage::config::table_name_and_half(&text)?;
    if table != name && table != format!("{name}_{half}") {
        return Err(Error::invalid(format!(
            "the config is one of table {name}_{half}, the path names {table}"
        ))
        .into());
    }
    let (name, warnings) = state.engine.update_table(&text).await?;
    Ok(ok(&json!({
        "status": format!("Table config updated for {name}"),
        "unrecognizedProperties": {},
        "warnings": warnings_json(&warnings),
    })))
}

pub(super) async fn reload(
    extract::State(state): extract::State<State>,
    Path(table): Path<String>,
) -> Answer {
    let status = state.engine.reload(&table).await?;
    let mut answer = reload_json(&status);
    answer["status"] = json!(format!(
        "{} of {} segments of {table} are to be rewritten",
        status.waiting, status.segments
    ));
    Ok(ok(&answer))
}

pub(super) async fn reload_status(
    extract::State(state): extract::State<State>,
    Path(table): Path<String>,
) -> Answer {
    Ok(ok(&reload_json(&state.engine.reload_status(&table)?)))
}

/// In the names of Pinot's reload status.
fn reload_json(status: &v1::ReloadStatus) -> Value {
    let errors = status
        .errors
        .iter()
        .map(|error| json!({ "segmentName": error.segment, "message": error.message }));
    json!({
        "totalSegmentCount": status.segments,
        "successCount": status.segments - status.waiting.min(status.segments),
        "pendingCount": status.waiting,
        "current": status.current,
        "failures": errors.collect::<Value>(),
    })
}

#[derive(Deserialize)]
pub(super) struct Removal {
    #[serde(rename = "type")]
    half: Option<String>,
}

pub(super) async fn remove(
    extract::State(state): extract::State<State>,
    Path(table): Path<String>,
    Query(removal): Query<Removal>,
) -> Answer {
    let name = match removal
        .half
        .as_deref()
        .map(str::to_ascii_uppercase)
        .as_deref()
    {
        None => table,
        Some(half @ ("OFFLINE" | "REALTIME")) if table.ends_with(&format!("_{half}")) => table,
        Some(half @ ("OFFLINE" | "REALTIME")) => format!("{table}_{half}"),
        Some(other) => {
            return Err(Error::invalid(format!(
                "type must be offline or realtime, not \"{other}\""
            ))
            .into());
        }
    };
    let segments = state.engine.drop_table(&name).await?;
    Ok(ok(
        &json!({ "status": format!("Tables: [{name}] deleted"), "segmentsDropped": segments }),
    ))
}

pub(super) async fn remove_schema(
    extract::State(state): extract::State<State>,
    Path(schema): Path<String>,
) -> Answer {
    state.engine.delete_schema(&schema).await?;
    Ok(ok(&json!({ "status": format!("Schema {schema} deleted") })))
}

/// The request's document: the body, or the first part of a form as `curl -F` sends it.
async fn document(request: Request) -> Result<String, Failure> {
    let is_form = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("multipart/form-data"));
    let unreadable = |error: &dyn std::fmt::Display| {
        Error::invalid(format!("the request's body can't be read: {error}"))
    };
    let bytes = if is_form {
        let mut form = Multipart::from_request(request, &())
            .await
            .map_err(|error| unreadable(&error))?;
        let field = form
            .next_field()
            .await
            .map_err(|error| unreadable(&error))?;
        let field = field
            .ok_or_else(|| Error::invalid("the form has no part; send the document as a file"))?;
        field.bytes().await.map_err(|error| unreadable(&error))?
    } else {
        Bytes::from_request(request, &())
            .await
            .map_err(|error| unreadable(&error))?
    };
    String::from_utf8(bytes.into())
        .map_err(|_| Failure(Error::invalid("the document is not UTF-8 text")))
}

fn added(what: &str, warnings: Vec<v1::ConfigWarning>) -> Response {
    ok(&json!({
        "status": format!("{what} successfully added"),
        "unrecognizedProperties": {},
        "warnings": warnings_json(&warnings),
    }))
}

fn warnings_json(warnings: &[v1::ConfigWarning]) -> Value {
    warnings
        .iter()
        .map(|warning| json!({ "path": warning.path, "message": warning.message }))
        .collect()
}

fn stored_json(text: &str) -> Result<Value> {
    serde_json::from_str(text)
        .map_err(|error| Error::data_loss(format!("a stored table config is not JSON: {error}")))
}
