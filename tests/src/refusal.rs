//! What a server says to bad input, and that it goes on: the table that the tests of bad input work on.

use crate::answer::Cell;
use crate::client::Client;
use crate::process::Process;
use serde_json::{Value as Json, json};
use std::io::{Cursor, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use strandline_proto::v1::LoadOptions;

/// The table's name.
pub const TABLE: &str = "facts";
/// The topic of its realtime half.
pub const TOPIC: &str = "facts-topic";

/// Prints what `input` got, and checks that the message names all of `parts`, in whatever case.
///
/// # Panics
/// When it does not.
pub fn expect(input: &str, message: &str, parts: &[&str]) {
    println!("bad input: {input}: {message}");
    let lower = message.to_lowercase();
    for part in parts {
        assert!(
            lower.contains(&part.to_lowercase()),
            "{input}: the message lacks {part:?}: {message}"
        );
    }
    assert!(
        !lower.contains("panic") && !lower.starts_with("internal"),
        "{input}: {message}"
    );
}

/// The schema document of a table of this name.
pub fn schema_json(name: &str) -> String {
    json!({
        "schemaName": name,
        "dimensionFieldSpecs": [
            {"name": "id", "dataType": "INT"},
            {"name": "word", "dataType": "STRING"},
            {"name": "tags", "dataType": "STRING", "singleValueField": false},
        ],
        "metricFieldSpecs": [{"name": "amount", "dataType": "DOUBLE"}],
        "dateTimeFieldSpecs": [
            {"name": "at", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"},
        ],
    })
    .to_string()
}

/// The config of the offline half of a table of this name.
pub fn offline_json(name: &str) -> String {
    json!({
        "tableName": name,
        "tableType": "OFFLINE",
        "segmentsConfig": {"timeColumnName": "at", "segmentPushType": "APPEND", "replication": "1"},
        "tableIndexConfig": {"invertedIndexColumns": ["word"]},
        "tenants": {},
        "metadata": {},
    })
    .to_string()
}

/// The config of the realtime half, over the embedded log.
pub fn realtime_json(name: &str, topic: &str) -> String {
    json!({
        "tableName": name,
        "tableType": "REALTIME",
        "segmentsConfig": {"timeColumnName": "at", "replication": "1"},
        "tableIndexConfig": {"invertedIndexColumns": ["word"]},
        "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [{
            "streamType": "log",
            "stream.log.topic.name": topic,
            "stream.log.partitions": "1",
            "stream.log.decoder.class.name": "org.apache.pinot.plugin.inputformat.json.JSONMessageDecoder",
            "realtime.segment.flush.threshold.rows": "100000",
            "realtime.segment.flush.threshold.time": "24h",
        }]}},
        "tenants": {},
        "metadata": {},
    })
    .to_string()
}

/// A row as JSON.
pub fn row(id: i64) -> Json {
    json!({"id": id, "word": format!("word{}", id % 7), "tags": ["a", "b"], "amount": id as f64 / 2.0, "at": 1_400_000_000_000_i64 + id})
}

/// Rows as lines of JSON.
pub fn lines(ids: std::ops::Range<i64>) -> Vec<u8> {
    ids.map(|id| format!("{}\n", row(id)))
        .collect::<String>()
        .into_bytes()
}

/// Options of a push with this id.
pub fn push(id: &str) -> LoadOptions {
    LoadOptions {
        push_id: id.to_owned(),
        ..LoadOptions::default()
    }
}

/// A server over `data`, and a client of it.
///
/// # Panics
/// When it does not start.
pub async fn server(program: &str, data: &Path) -> (Process, Client) {
    let process = Process::start(program, data, None).unwrap_or_else(|e| panic!("{e}"));
    let client = Client::connect(&process.grpc).await.expect("it is up");
    (process, client)
}

/// Makes an offline table of this name with rows of these ids.
///
/// # Panics
/// When the server refuses.
pub async fn create_offline(client: &mut Client, name: &str, ids: std::ops::Range<i64>) {
    client
        .create(&schema_json(name), &offline_json(name))
        .await
        .expect("the table is made");
    let rows = ids.end - ids.start;
    let loaded = client
        .upload_as(name, "first.json", Cursor::new(lines(ids)), push("first"))
        .await
        .expect("the rows load");
    assert_eq!(i64::try_from(loaded.rows), Ok(rows));
}

/// The one number that a statement gives.
///
/// # Panics
/// When it gives anything else.
pub async fn number(client: &mut Client, sql: &str) -> i128 {
    let (answer, _) = client
        .ask(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    match &answer.rows[0][0] {
        Cell::Number(count, 0) => *count,
        other => panic!("{sql} gave {other}"),
    }
}

/// Waits until a statement gives this number.
///
/// # Panics
/// When it does not within a minute.
pub async fn wait_for(client: &mut Client, sql: &str, expected: i128) {
    let since = Instant::now();
    loop {
        let found = number(client, sql).await;
        if found == expected {
            return;
        }
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "{sql}: {found}, not {expected}, after a minute"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends `body` to `http://host:port` + `path`; gives the status code and the answer's body.
///
/// # Panics
/// When there is no answer.
pub fn post(server: &str, path: &str, body: &[u8]) -> (u16, String) {
    let address = server.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout can be set");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .expect("it reads the head");
    // A server may answer, and close, before it has read a body that is too large.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
    let body = answer
        .split_once("\r\n\r\n")
        .map_or(String::new(), |(_, body)| body.to_owned());
    (status, body)
}
