//! Avro messages by the schemas of a registry, which is played here.

use super::*;
use crate::decode::registry::RegistryUrl;
use crate::environment::Environment;
use apache_avro::types::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use strandline_proto::ErrorKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const SCHEMA: &str = r#"{"type": "record", "name": "r", "fields": [{"name": "day", "type": "int"}, {"name": "name", "type": "string"}]}"#;

/// Answers each connection's one request by the schema's id, and counts them.
async fn serve(answers: Vec<(u32, &'static str, String)>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = vec![0; 4_096];
            let read = socket.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let asks =
                |id: u32| request.starts_with(&format!("GET /api/schemas/ids/{id} HTTP/1.1"));
            let answer = answers.iter().find(|(id, ..)| asks(*id));
            let (status, body) =
                answer.map_or(("500 Oops", ""), |(_, status, body)| (*status, body));
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked)
}

fn wire(id: u32, name: &str) -> Vec<u8> {
    let schema = AvroSchema::parse_str(SCHEMA).unwrap();
    let record = Value::Record(vec![
        ("day".into(), Value::Int(1)),
        ("name".into(), Value::String(name.into())),
    ]);
    let mut out = vec![0];
    out.extend(id.to_be_bytes());
    out.extend(apache_avro::to_avro_datum(&schema, record).unwrap());
    out
}

fn parts(url: &str) -> (Decoder, Arc<SchemaRegistry>) {
    let config = config(&format!(
        r#", "stream.log.decoder.class.name": "x.KafkaConfluentSchemaRegistryAvroMessageDecoder", "stream.log.decoder.prop.schema.registry.rest.url": "{url}""#
    ));
    let url = RegistryUrl::parse(url).unwrap();
    let registry = Arc::new(SchemaRegistry::new(url, Environment::real()));
    let decoder = Decoder::new(&config, &config.streams[0], 0, Some(Arc::clone(&registry)));
    (decoder.unwrap(), registry)
}

#[tokio::test]
async fn schemas_are_asked_for_once_and_messages_wait_for_them() {
    let schema = serde_json::json!({"schema": SCHEMA}).to_string();
    let missing = r#"{"error_code": 40403, "message": "Schema 9 not found"}"#.to_owned();
    let json = r#"{"schema": "{}", "schemaType": "JSON"}"#.to_owned();
    let (url, asked) = serve(vec![
        (7, "200 OK", schema),
        (9, "404 Not Found", missing),
        (10, "200 OK", json),
        (11, "401 Unauthorized", "{}".to_owned()),
    ])
    .await;
    let (mut decoder, registry) = parts(&url);
    let messages = [
        message(1, wire(7, "a")),
        message(2, "{}"),
        message(3, wire(9, "b")),
        message(4, wire(10, "c")),
        message(5, wire(7, "d")),
        message(6, wire(11, "e")),
    ];
    let (mut done, mut names, mut rejected) = (0, Vec::new(), Vec::new());
    let waits_for = loop {
        let decoded = decoder.decode(&messages[done..]);
        done += decoded.read;
        names.extend(texts(&decoded.batch, "name").into_iter().flatten());
        rejected.extend(decoded.rejected.into_iter().map(|r| r.reason));
        let Some(Stopped::Schema(id)) = decoded.stopped else {
            panic!("{:?}", decoded.stopped);
        };
        if let Err(error) = registry.fetch(id).await {
            break error;
        }
    };
    assert_eq!((done, names), (5, vec!["a".to_owned(), "d".to_owned()]));
    assert_eq!(rejected.len(), 3);
    let parts = [
        "does not begin with 0",
        "Schema 9 not found",
        "of the type JSON",
    ];
    for (reason, part) in rejected.iter().zip(parts) {
        assert!(reason.contains(part), "{reason}");
    }
    // A registry that says nothing of the schema is waited for.
    assert_eq!(waits_for.kind(), ErrorKind::Unavailable);
    assert!(
        waits_for
            .message()
            .contains("schema 11: the answer 401 Unauthorized"),
        "{waits_for}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    // One that it did not have may be there by now.
    decoder.forget_failures();
    assert_eq!(
        decoder.decode(&messages[2..3]).stopped,
        Some(Stopped::Schema(9))
    );
}

#[tokio::test]
async fn a_registry_that_is_away_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (_, registry) = parts(&url);
    let error = registry.fetch(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let expected = format!("{url}: schema 1: can't be reached");
    assert!(error.message().contains(&expected), "{error}");
}

#[test]
fn addresses_are_read() {
    for (text, shown) in [
        ("http://r:8081", "http://r:8081"),
        (" HTTP://r/ ", "http://r:80"),
        ("http://[::1]:8081/api/v1/", "http://[::1]:8081/api/v1"),
    ] {
        let url = RegistryUrl::parse(text).unwrap();
        assert_eq!(url.to_string(), shown, "{text}");
    }
    for text in [
        "https://r:1",
        "http://u:p@r:1",
        "r:8081",
        "http://",
        "http://r:x",
        "http://r:1/a b",
        "http://r\r\nX: 1",
    ] {
        assert!(RegistryUrl::parse(text).is_err(), "{text}");
    }
}
