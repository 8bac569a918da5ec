//! What becomes of messages: filters, nested records, several streams, limits, strict streams and other configs, over restarts.

use super::{server, wait_for};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use strandline_proto::v1::{ForceCommitRequest, GetTableRequest, LoadOptions, UpdateTableRequest};
use strandline_tests::answer::Cell;
use strandline_tests::client::Client;
use strandline_tests::pinot::log_stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn schema() -> String {
    json!({
        "schemaName": "orders",
        "dimensionFieldSpecs": [
            {"name": "kind", "dataType": "STRING"},
            {"name": "sku", "dataType": "STRING"},
            {"name": "size", "dataType": "STRING"},
            {"name": "__metadata$partition", "dataType": "INT"},
        ],
        "metricFieldSpecs": [{"name": "n", "dataType": "LONG"}],
        "dateTimeFieldSpecs": [
            {"name": "at", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"},
        ],
    })
    .to_string()
}

fn stream(topic: &str, properties: &[(&str, &str)]) -> Value {
    let mut stream = log_stream(topic, 2, 40);
    stream["stream.log.metadata.populate"] = "true".into();
    for (key, value) in properties {
        stream[*key] = (*value).into();
    }
    stream
}

fn config(half: &str, streams: &[Value], filter: &str) -> String {
    let mut ingestion = json!({
        "complexTypeConfig": {"fieldsToUnnest": ["lines"], "prefixesToRename": {"lines.": ""}},
        "filterConfig": {"filterFunction": filter},
        "transformConfigs": [
            {"columnName": "size", "transformFunction": "CASE WHEN n >= 10 THEN 'large' ELSE 'small' END"},
        ],
    });
    if half == "REALTIME" {
        ingestion["streamIngestionConfig"] = json!({"streamConfigMaps": streams});
    }
    json!({
        "tableName": "orders",
        "tableType": half,
        "segmentsConfig": {"timeColumnName": "at", "replication": "1"},
        "ingestionConfig": ingestion,
    })
    .to_string()
}

/// Message `i`: `i % 3` lines, of which those of 7 pieces are left out, or rubbish.
fn order(kind: &str, i: i64) -> Vec<u8> {
    if i % 17 == 5 {
        return b"rubbish".to_vec();
    }
    let lines: Vec<Value> = (0..i % 3)
        .map(|line| json!({"sku": format!("s{line}"), "n": i % 20 + line}))
        .collect();
    json!({"kind": kind, "at": 1_000 + i, "lines": lines})
        .to_string()
        .into_bytes()
}

#[derive(Debug, Default, PartialEq)]
struct Expected {
    messages: i128,
    rows: i128,
    filtered: i128,
    dead: i128,
    sum: i128,
    large: i128,
}

/// What messages `0..count` give, by hand.
fn expected(count: i64) -> Expected {
    let mut all = Expected::default();
    for i in 0..count {
        all.messages += 1;
        if i % 17 == 5 {
            all.dead += 1;
            continue;
        }
        if i % 3 == 0 {
            all.rows += 1;
        }
        for line in 0..i % 3 {
            let n = i % 20 + line;
            if n == 7 {
                all.filtered += 1;
            } else {
                all.rows += 1;
                all.sum += i128::from(n);
                all.large += i128::from(n >= 10);
            }
        }
    }
    all
}

async fn numbers(client: &mut Client, sql: &str) -> Vec<i128> {
    let (answer, _) = client
        .ask(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    let number = |cell: &Cell| match cell {
        Cell::Number(n, 0) => *n,
        other => panic!("{sql}: {other}"),
    };
    answer.rows[0].iter().map(number).collect()
}

async fn append(client: &mut Client, topic: &str, kind: &str, orders: std::ops::Range<i64>) {
    for i in orders {
        client
            .append(topic, (i % 2) as u32, &[order(kind, i)], "", 0)
            .await
            .expect("it is appended");
    }
}

async fn check(client: &mut Client, kinds: &[(&str, Expected)]) {
    for (kind, expected) in kinds {
        let sql = format!(
            "SELECT count(*), coalesce(sum(n), 0), count(*) FILTER (WHERE size = 'large'), min(\"__metadata$partition\"),
             max(\"__metadata$partition\") FROM orders WHERE kind = '{kind}'"
        );
        let found = numbers(client, &sql).await;
        let large = vec![expected.rows, expected.sum, expected.large, 0, 1];
        assert_eq!(found, large, "{kind}");
    }
    let sum = |of: fn(&Expected) -> i128| kinds.iter().map(|(_, e)| of(e)).sum::<i128>();
    let accounted = "SELECT sum(messages_read), sum(rows_committed) + sum(rows_consuming), sum(rows_filtered), sum(dead_letters),
        sum(messages_read) + sum(rows_unnested) - sum(rows_committed) - sum(rows_consuming) - sum(rows_filtered) - sum(dead_letters)
        FROM system.ingestion WHERE table_name = 'orders'";
    assert_eq!(
        numbers(client, accounted).await,
        [
            sum(|e| e.messages),
            sum(|e| e.rows),
            sum(|e| e.filtered),
            sum(|e| e.dead),
            0
        ]
    );
}

async fn state_of(client: &mut Client) -> Vec<(String, String)> {
    let request = GetTableRequest {
        table: "orders".to_owned(),
    };
    let table = client.admin.get_table(request).await.expect("the table");
    let partitions = table.into_inner().partitions.into_iter();
    partitions.map(|p| (p.state, p.last_error)).collect()
}

async fn update(client: &mut Client, config_json: String) {
    client
        .admin
        .update_table(UpdateTableRequest { config_json })
        .await
        .expect("another config");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_messages_of_two_streams_add_up_over_restarts() {
    let data = tempfile::tempdir().expect("a folder");
    let (mut process, mut client) = server(data.path()).await;
    let streams = [stream("web", &[]), stream("shop", &[])];
    let config = config("REALTIME", &streams, "n = 7");
    client.create(&schema(), &config).await.expect("the table");
    append(&mut client, "web", "web", 0..150).await;
    append(&mut client, "shop", "shop", 0..60).await;
    let rows = expected(150).rows + expected(60).rows;
    wait_for(&mut client, "orders", rows).await;
    let kinds = || [("web", expected(150)), ("shop", expected(60))];
    check(&mut client, &kinds()).await;
    process.kill();
    let (mut process, mut client) = server(data.path()).await;
    wait_for(&mut client, "orders", rows).await;
    check(&mut client, &kinds()).await;
    let request = ForceCommitRequest {
        table: "orders".to_owned(),
    };
    client.admin.force_commit(request).await.expect("committed");
    check(&mut client, &kinds()).await;
    append(&mut client, "shop", "shop", 60..90).await;
    wait_for(
        &mut client,
        "orders",
        expected(150).rows + expected(90).rows,
    )
    .await;
    process.kill();
    let (_process, mut client) = server(data.path()).await;
    let rows = expected(150).rows + expected(90).rows;
    wait_for(&mut client, "orders", rows).await;
    check(
        &mut client,
        &[("web", expected(150)), ("shop", expected(90))],
    )
    .await;
    let names =
        "SELECT count(DISTINCT segment_name) = count(*) AND count(*) > 8 FROM system.segments";
    let (answer, _) = client.ask(names).await.expect("the segments");
    assert_eq!(answer.rows[0][0], Cell::Boolean(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_stream_halts_until_its_config_changes_and_nothing_is_lost() {
    let data = tempfile::tempdir().expect("a folder");
    let (_process, mut client) = server(data.path()).await;
    let strict = |strict: &str| {
        let streams = [stream("web", &[("stream.log.strict", strict)])];
        config("REALTIME", &streams, "n = 7")
    };
    client
        .create(&schema(), &strict("true"))
        .await
        .expect("the table");
    append(&mut client, "web", "web", 0..100).await;
    let since = Instant::now();
    let halted = loop {
        let states = state_of(&mut client).await;
        if states.len() == 2 && states.iter().all(|(state, _)| state == "HALTED") {
            break states;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{states:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // Messages 5 and 22 are the third and the twelfth of their partitions.
    for ((_, error), offset) in halted.iter().zip(["offset 11", "offset 2"]) {
        assert!(error.contains(offset), "{error}");
        assert!(
            error.contains("not JSON") && error.contains("strict"),
            "{error}"
        );
    }
    let before: i128 = (0..22)
        .filter(|i| i % 2 == 0 || *i < 5)
        .map(|i| i128::from((i % 3).max(1)))
        .sum::<i128>()
        - (0..22)
            .filter(|i| i % 2 == 0 || *i < 5)
            .flat_map(|i| (0..i % 3).map(move |l| i % 20 + l))
            .filter(|n| *n == 7)
            .count() as i128;
    assert_eq!(
        numbers(&mut client, "SELECT count(*) FROM orders").await,
        [before]
    );
    let sql = "SELECT count(*) FROM system.dead_letters WHERE table_name = 'orders'";
    assert_eq!(numbers(&mut client, sql).await, [0]);
    update(&mut client, strict("false")).await;
    wait_for(&mut client, "orders", expected(100).rows).await;
    check(&mut client, &[("web", expected(100))]).await;

    // Another filter is for what comes then; a stream can be added, and not be taken away.
    let two = [
        stream("web", &[]),
        stream("shop", &[("topic.consumption.rate.limit", "50")]),
    ];
    update(&mut client, config("REALTIME", &two, "TRUE")).await;
    append(&mut client, "shop", "shop", 0..40).await;
    append(&mut client, "web", "late", 0..40).await;
    let read =
        "SELECT coalesce(sum(messages_read), 0) FROM system.ingestion WHERE table_name = 'orders'";
    let since = Instant::now();
    while numbers(&mut client, read).await != [180] {
        assert!(since.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        numbers(&mut client, "SELECT count(*) FROM orders").await,
        [expected(100).rows]
    );
    let request = UpdateTableRequest {
        config_json: config("REALTIME", &two[1..], "TRUE"),
    };
    let error = client.admin.update_table(request).await.expect_err("web");
    assert!(
        error.message().contains("taking the stream log/web"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_say_what_was_left_out_and_partitions_begin_where_they_are_told() {
    let data = tempfile::tempdir().expect("a folder");
    let (_process, mut client) = server(data.path()).await;
    client
        .create(&schema(), &config("OFFLINE", &[], "n = 7"))
        .await
        .expect("the table");
    let lines: Vec<u8> = (0..60)
        .filter(|i| i % 17 != 5)
        .flat_map(|i| [order("web", i), b"\n".to_vec()].concat())
        .collect();
    let options = LoadOptions {
        push_id: "once".to_owned(),
        ..LoadOptions::default()
    };
    for again in [false, true] {
        let loaded = client
            .upload_as(
                "orders",
                "a.json",
                std::io::Cursor::new(lines.clone()),
                options.clone(),
            )
            .await
            .expect("it is loaded");
        let counts = (i128::from(loaded.rows), i128::from(loaded.rows_filtered));
        assert_eq!(counts, (expected(60).rows, expected(60).filtered));
        assert_eq!(loaded.already_done, again);
    }
    let late =
        std::io::Cursor::new(b"{\"at\": 1, \"lines\": [{\"n\": 1}, {\"n\": \"x\"}]}".to_vec());
    let error = client
        .upload_as("orders", "b.json", late, LoadOptions::default())
        .await
        .expect_err("x is no number");
    // The transform is the first to look at it.
    assert!(
        error.message().contains("row 1") && error.message().contains("'x'"),
        "{error}"
    );
    assert_eq!(
        numbers(&mut client, "SELECT count(*) FROM orders").await,
        [expected(60).rows]
    );

    // A topic that holds messages before the table reads it.
    let filler = json!({
        "tableName": "filler", "tableType": "REALTIME", "segmentsConfig": {"timeColumnName": "at", "replication": "1"},
        "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [log_stream("web", 2, 1_000)]}},
    });
    let filler_schema = schema().replace("\"orders\"", "\"filler\"");
    client
        .create(&filler_schema, &filler.to_string())
        .await
        .expect("the filler");
    for i in 0..10 {
        let message = json!({"kind": "k", "n": i, "at": 5})
            .to_string()
            .into_bytes();
        client
            .append("web", (i % 2) as u32, &[message], "", 0)
            .await
            .expect("it is appended");
    }
    let offsets = stream(
        "web",
        &[
            ("stream.log.start.offsets", "0:3"),
            ("stream.log.consumer.prop.auto.offset.reset", "1h"),
        ],
    );
    client
        .create(&schema(), &config("REALTIME", &[offsets], "n = 7"))
        .await
        .expect("the realtime half");
    // Partition 0 holds 0, 2, 4, 6, 8 and begins at its fourth; partition 1 at what came in the last hour.
    wait_for(&mut client, "orders_REALTIME", 2 + 4).await;
    let sum = "SELECT sum(n), min(n) FROM orders_REALTIME WHERE \"__metadata$partition\" = 0";
    assert_eq!(numbers(&mut client, sum).await, [14, 6]);
}

/// A non-negative number as Avro writes it.
fn zigzag(number: u64) -> Vec<u8> {
    let mut rest = number << 1;
    let mut out = Vec::new();
    while rest > 0x7f {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

/// Answers each request with one schema.
async fn serve_schema(address: std::net::SocketAddr) {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .expect("the port is free");
    let schema = r#"{"type": "record", "name": "r", "fields": [{"name": "at", "type": "long"}, {"name": "kind", "type": "string"}]}"#;
    let body = json!({"schema": schema}).to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    while let Ok((mut socket, _)) = listener.accept().await {
        let mut request = [0; 1_024];
        let _ = socket.read(&mut request).await;
        let _ = socket.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_wait_for_a_registry_that_is_away() {
    let data = tempfile::tempdir().expect("a folder");
    let (_process, mut client) = server(data.path()).await;
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let url = format!("http://{address}");
    let registered = stream(
        "web",
        &[
            (
                "stream.log.decoder.class.name",
                "x.KafkaConfluentSchemaRegistryAvroMessageDecoder",
            ),
            ("stream.log.decoder.prop.schema.registry.rest.url", &url),
        ],
    );
    client
        .create(&schema(), &config("REALTIME", &[registered], "n = 7"))
        .await
        .expect("the table");
    for i in 0..20 {
        let wire = [
            vec![0, 0, 0, 0, 9],
            zigzag(1_000 + i),
            zigzag(3),
            b"web".to_vec(),
        ]
        .concat();
        client
            .append("web", (i % 2) as u32, &[wire], "", 0)
            .await
            .expect("it is appended");
    }
    let since = Instant::now();
    loop {
        let states = state_of(&mut client).await;
        let waits = |(state, error): &(String, String)| {
            state == "RETRYING" && error.contains(&url) && error.contains("consumption waits")
        };
        if states.len() == 2 && states.iter().all(waits) {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{states:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let counted =
        "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM system.dead_letters)";
    assert_eq!(numbers(&mut client, counted).await, [0, 0]);
    let registry = tokio::spawn(serve_schema(address));
    wait_for(&mut client, "orders", 20).await;
    let sums = "SELECT sum(at), count(*) FILTER (WHERE kind = 'web') FROM orders";
    assert_eq!(numbers(&mut client, sums).await, [20_190, 20]);
    assert_eq!(numbers(&mut client, counted).await, [20, 0]);
    registry.abort();

    // A descriptor set is a file of the server, which must be one that clients may have it read.
    let protobuf = stream(
        "shop",
        &[
            ("stream.log.decoder.class.name", "ProtoBufMessageDecoder"),
            ("stream.log.decoder.prop.protoClassName", "x"),
            ("stream.log.decoder.prop.descriptorFile", "/etc/passwd"),
        ],
    );
    let config_json = config("REALTIME", &[protobuf], "n = 7").replace("\"orders\"", "\"others\"");
    let error = client
        .create(&schema().replace("\"orders\"", "\"others\""), &config_json)
        .await
        .expect_err("it is no file to be read");
    let message = error.message();
    assert!(message.contains("may not read /etc/passwd"), "{message}");
    assert!(message.contains("decoder.prop.descriptorSet"), "{message}");
}
