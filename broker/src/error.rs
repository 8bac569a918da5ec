//! Errors on their way through DataFusion and out to a user.

use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use strandline_proto::{Error, ErrorKind};

/// One of our errors, carried through DataFusion.
pub(crate) fn to_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What a user is told of an error that came out of DataFusion.
pub(crate) fn from_datafusion(error: &DataFusionError) -> Error {
    if let Some(ours) = ours(error) {
        return ours;
    }
    let message = message(error);
    if matches!(error.find_root(), DataFusionError::ResourcesExhausted(text) if text.contains("DiskManager is disabled"))
    {
        return Error::exhausted(
            "the query outgrew its memory limit and the server has no spill directory: narrow the query, raise the limit with SET memoryBytesMax = n, or start the server with a spill directory",
        );
    }
    let kind = match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => ErrorKind::ResourceExhausted,
        DataFusionError::NotImplemented(_) => {
            return Error::unsupported(format!("not supported: {message}"));
        }
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Execution(_) => ErrorKind::InvalidArgument,
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::ExternalError(_) | ArrowError::IoError(..) | ArrowError::MemoryError(_) => {
                ErrorKind::Internal
            }
            _ => ErrorKind::InvalidArgument,
        },
        _ => ErrorKind::Internal,
    };
    Error::new(kind, message)
}

fn ours(error: &DataFusionError) -> Option<Error> {
    let mut current: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = current {
        if let Some(ours) = e.downcast_ref::<Error>() {
            return Some(ours.clone());
        }
        current = e.source();
    }
    match error.find_root() {
        DataFusionError::External(inner) => inner.downcast_ref::<Error>().cloned(),
        _ => None,
    }
}

/// The sentence of a DataFusion error: lowercase, one line, without the engine's own prefixes.
fn message(error: &DataFusionError) -> String {
    let text = match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::AmbiguousReference { field } => format!(
                "the column {} is ambiguous: qualify it with a table's name",
                field.name
            ),
            other => other.to_string(),
        },
        other => other.strip_backtrace(),
    };
    tidy(&text)
}

/// Without prefixes such as `Error during planning: `, starting in lower case.
pub(crate) fn tidy(text: &str) -> String {
    const PREFIXES: [&str; 9] = [
        "Error during planning: ",
        "SQL error: ",
        "Schema error: ",
        "Execution error: ",
        "Arrow error: ",
        "External error: ",
        "type_coercion",
        "This feature is not implemented: ",
        "Internal error: ",
    ];
    let mut rest = text.trim();
    loop {
        let before = rest;
        for prefix in PREFIXES {
            rest = rest.strip_prefix(prefix).unwrap_or(rest).trim_start();
        }
        rest = rest.strip_prefix("caused by").unwrap_or(rest).trim_start();
        // What a function says of its arguments itself stands between what DataFusion says.
        if let Some((_, own)) = rest.split_once("user-defined coercion failed with: ") {
            rest = own
                .split_once(" No function matches the given name and argument types")
                .map_or(own, |(own, _)| own);
        }
        if rest == before {
            break;
        }
    }
    let cut = rest
        .find("This issue was likely caused by a bug in DataFusion")
        .map_or(rest, |at| &rest[..at]);
    let one_line = cut.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut letters = one_line.trim_end_matches('.').chars();
    let second_is_lower = one_line
        .chars()
        .nth(1)
        .is_some_and(|c| c.is_lowercase() || c == ' ');
    match letters.next() {
        Some(first) if second_is_lower => {
            first.to_lowercase().collect::<String>() + letters.as_str()
        }
        _ => one_line.trim_end_matches('.').to_owned(),
    }
}
