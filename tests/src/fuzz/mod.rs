//! What reads bytes of strangers, as functions of bytes that must neither panic nor take memory without bound: each is a target
//! of `tests/fuzz`, and each is given some thousand mutations of its seeds by `tests/tests/fuzz.rs`. They tell whether the bytes
//! were taken for what they are to be.

mod documents;
mod files;
mod messages;
mod mutate;
mod segments;
mod statements;

pub use documents::{documents, seeds_of_documents};
pub use files::{files, seeds_of_files};
pub use messages::{messages, seeds_of_messages};
pub use mutate::Mutator;
pub use segments::{seeds_of_segments, segments};
pub use statements::{seeds_of_statements, statements};

use std::path::PathBuf;
use std::sync::Arc;
use strandline_storage::config::{TableConfig, parse_schema, parse_table};

/// A column of each type.
const SCHEMA: &str = r#"{"schemaName": "t",
    "dimensionFieldSpecs": [{"name": "name", "dataType": "STRING"}, {"name": "n", "dataType": "INT"},
        {"name": "flag", "dataType": "BOOLEAN"}, {"name": "raw", "dataType": "BYTES"},
        {"name": "tags", "dataType": "STRING", "singleValueField": false}, {"name": "codes", "dataType": "LONG", "singleValueField": false},
        {"name": "doc", "dataType": "JSON"}],
    "metricFieldSpecs": [{"name": "price", "dataType": "BIG_DECIMAL", "precision": 38, "scale": 6}, {"name": "ratio", "dataType": "DOUBLE"},
        {"name": "speed", "dataType": "FLOAT"}],
    "dateTimeFieldSpecs": [
        {"name": "day", "dataType": "INT", "format": "1:DAYS:EPOCH", "granularity": "1:DAYS"},
        {"name": "date", "dataType": "STRING", "format": "1:DAYS:SIMPLE_DATE_FORMAT:yyyy-MM-dd", "granularity": "1:DAYS"},
        {"name": "ts", "dataType": "TIMESTAMP", "format": "TIMESTAMP", "granularity": "1:DAYS"}]}"#;

/// Transforms and a filter over what comes in.
const INGESTION: &str = r#""transformConfigs": [{"columnName": "ts", "transformFunction": "fromEpochDays(day)"}],
    "filterConfig": {"filterFunction": "n > 1000000 AND name LIKE 'x%'"}"#;

/// A table of a half, with more in its ingestion's config.
fn table(half: &str, more: &str) -> TableConfig {
    let schema = parse_schema(SCHEMA, 1).expect("the schema is right").0;
    let text = format!(
        r#"{{"tableName": "t", "tableType": "{half}", "segmentsConfig": {{"timeColumnName": "day"}},
            "ingestionConfig": {{{INGESTION} {more}}}}}"#
    );
    let parsed = parse_table(&text, &Arc::new(schema));
    parsed.unwrap_or_else(|e| panic!("{e}: {text}")).0
}

/// Arrays that become rows.
const UNNESTED: &str =
    r#", "complexTypeConfig": {"fieldsToUnnest": ["items", "items.parts"], "delimiter": "."}"#;

/// A file of this process, in memory where there is such a folder.
fn file_of_this_process(name: &str) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let folder = match memory.is_dir() {
        true => memory,
        false => std::env::temp_dir(),
    };
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    folder.join(format!("strandline-{}-{thread}-{name}", std::process::id()))
}

/// Before a run of libFuzzer: puts seeds among the inputs that are in the folder that its first argument names. A panic that is
/// caught is none; one that is not ends the process all the same.
pub fn begin(seeds: &[Vec<u8>]) {
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let folder = std::env::args().nth(1).map(PathBuf::from);
    if let Some(folder) = folder.filter(|folder| folder.is_dir()) {
        for (number, seed) in seeds.iter().enumerate() {
            let written = std::fs::write(folder.join(format!("seed-{number}")), seed);
            written.expect("a seed is written");
        }
    }
}
