//! JSON documents through SQL: both halves, with and without an index, give what the documents say.

use super::{server, wait_for};
use serde_json::{Value, json};
use strandline_proto::v1::{ForceCommitRequest, LoadOptions, TimeInterval};
use strandline_tests::answer::Cell;
use strandline_tests::client::Client;
use strandline_tests::pinot::log_stream;

const DAY_MS: i64 = 86_400_000;

/// Row `i`, of day `i / 30`: its document is one of a few forms.
fn document(i: i64) -> Option<Value> {
    match i % 6 {
        0 => None,
        1 => {
            Some(json!({"name": format!("n{}", i % 4), "size": i as f64 / 2.0, "tags": ["x", "y"]}))
        }
        2 => Some(
            json!({"name": "adam", "homes": [{"city": "york", "no": i % 5}, {"city": "hull", "no": 3}]}),
        ),
        3 => Some(json!({"homes": [{"city": "york", "no": 3}], "tags": [], "size": i})),
        4 => Some(json!([i % 3, {"name": null}])),
        _ => Some(json!({"name": "eve", "size": i.to_string(), "homes": {"city": "york"}})),
    }
}

fn row(i: i64) -> Value {
    let mut row = json!({"id": i, "ms": i / 30 * DAY_MS});
    if let Some(document) = document(i) {
        row["indexed"] = document.clone();
        row["plain"] = document;
    }
    row
}

fn table_json(half: &str, stream: Option<Value>) -> String {
    let mut config = json!({
        "tableName": "docs",
        "tableType": half,
        "segmentsConfig": {"timeColumnName": "ms", "replication": "1"},
        "tableIndexConfig": {"noDictionaryColumns": ["plain"]},
        "fieldConfigList": [{"name": "indexed", "indexes": {"json": {}}}],
    });
    if let Some(stream) = stream {
        config["ingestionConfig"] =
            json!({"streamIngestionConfig": {"streamConfigMaps": [stream]}});
    }
    config.to_string()
}

/// Days 0 to 3 offline, days 2 to 5 in the stream.
async fn load(client: &mut Client) {
    let schema = json!({
        "schemaName": "docs",
        "dimensionFieldSpecs": [
            {"name": "id", "dataType": "LONG"},
            {"name": "indexed", "dataType": "JSON"},
            {"name": "plain", "dataType": "JSON"},
        ],
        "dateTimeFieldSpecs": [
            {"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:DAYS"},
        ],
    })
    .to_string();
    let stream = log_stream("docs-topic", 1, 10_000);
    client
        .create(&schema, &table_json("OFFLINE", None))
        .await
        .expect("offline");
    client
        .create(&schema, &table_json("REALTIME", Some(stream)))
        .await
        .expect("realtime");
    let lines: String = (0..120).map(|i| format!("{}\n", row(i))).collect();
    let options = LoadOptions {
        push_id: "days".to_owned(),
        declared_coverage: Some(TimeInterval {
            start_ms: 0,
            end_ms: 4 * DAY_MS,
        }),
        ..LoadOptions::default()
    };
    client
        .upload_as(
            "docs",
            "days.jsonl",
            std::io::Cursor::new(lines.into_bytes()),
            options,
        )
        .await
        .expect("a file loads");
    let payloads: Vec<Vec<u8>> = (60..180).map(|i| row(i).to_string().into_bytes()).collect();
    client
        .append("docs-topic", 0, &payloads, "", 0)
        .await
        .expect("rows are taken");
    wait_for(client, "docs_REALTIME", 120).await;
}

async fn ids(client: &mut Client, filter: &str) -> Vec<i64> {
    let sql = format!("SELECT id FROM docs WHERE {filter} ORDER BY id");
    let (answer, _) = client
        .ask(&sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    let id = |row: &Vec<Cell>| match &row[0] {
        Cell::Number(id, 0) => *id as i64,
        other => panic!("{other:?}"),
    };
    answer.rows.iter().map(id).collect()
}

/// Whether a filter holds for a document.
type Holds = fn(&Value) -> bool;

/// The filters, and for which documents they hold.
fn filters() -> Vec<(&'static str, Holds)> {
    vec![
        (r#""$.name" = 'adam'"#, |d| d["name"] == "adam"),
        (r#""$.name" != 'adam'"#, |d| {
            d["name"].is_string() && d["name"] != "adam"
        }),
        (r#""$.name" IS NULL"#, |d| d["name"].is_null()),
        (
            r#""$.homes[*].city" = 'york' AND "$.homes[*].no" = 3"#,
            |d| {
                d["homes"]
                    .as_array()
                    .is_some_and(|h| h.iter().any(|h| h["city"] == "york" && h["no"] == 3))
            },
        ),
        (r#""$.homes[0].no" = 3"#, |d| d["homes"][0]["no"] == 3),
        (r#""$.homes.city" = 'york'"#, |d| {
            d["homes"]["city"] == "york"
        }),
        (r#""$.size" > 100.5"#, |d| {
            let text = d["size"]
                .as_str()
                .map(str::to_owned)
                .unwrap_or(d["size"].to_string());
            text.parse::<f64>().is_ok_and(|v| v > 100.5)
        }),
        (r#""$[0]" IN (1, 2)"#, |d| d[0] == 1 || d[0] == 2),
        (r#"NOT "$.tags[*]" = 'x'"#, |d| {
            !d["tags"]
                .as_array()
                .is_some_and(|t| t.iter().any(|t| t == "x"))
        }),
        (
            r#"REGEXP_LIKE("$.name", 'n[0-1]|e.e') OR "$.tags[1]" = 'x'"#,
            |d| d["name"] == "n0" || d["name"] == "n1" || d["name"] == "eve",
        ),
    ]
}

async fn check(client: &mut Client, place: &str) {
    for (filter, holds) in filters() {
        let quoted = filter.replace('\'', "''");
        let expected = |negated: bool| -> Vec<i64> {
            let passes = |d: &Value| holds(d) != negated;
            (0..180)
                .filter(|&i| document(i).as_ref().is_some_and(passes))
                .collect()
        };
        for column in ["indexed", "plain"] {
            let found = ids(client, &format!("JSON_MATCH({column}, '{quoted}')")).await;
            assert_eq!(found, expected(false), "{place}: {column}: {filter}");
            let found = ids(client, &format!("NOT jsonMatch({column}, '{quoted}')")).await;
            assert_eq!(found, expected(true), "{place}: not {column}: {filter}");
            // Beside another condition, and above the leaf.
            let both = format!("id % 7 > 2 AND (JSON_MATCH({column}, '{quoted}') OR id = 0)");
            let found = ids(client, &both).await;
            let mut some = expected(false);
            some.retain(|i| i % 7 > 2);
            assert_eq!(found, some, "{place}: {column}: {filter}");
        }
    }
    let extracted = [
        (
            "JSON_EXTRACT_SCALAR(indexed, '$.name', 'STRING', 'none') = 'adam'",
            2,
        ),
        (
            "JSON_EXTRACT_SCALAR(plain, '$.homes[0].no', 'INT', -1) = 3 AND id % 6 = 3",
            3,
        ),
        (
            "jsonExtractScalar(indexed, '$.size', 'DOUBLE', 0) = CAST(id AS DOUBLE) AND id > 0 AND id % 6 = 5",
            5,
        ),
        (
            "cardinality(JSON_EXTRACT_SCALAR(plain, '$.tags[*]', 'STRING_ARRAY')) = 2",
            1,
        ),
    ];
    for (filter, form) in extracted {
        let expected: Vec<i64> = (0..180).filter(|i| i % 6 == form).collect();
        assert_eq!(ids(client, filter).await, expected, "{place}: {filter}");
    }
    let sql = "SELECT JSON_EXTRACT_SCALAR(indexed, '$.name', 'STRING', NULL) AS name, count(*) FROM docs GROUP BY 1 ORDER BY 1";
    let (answer, _) = client.ask(sql).await.expect(sql);
    let groups: Vec<String> = answer.rows.iter().map(|r| format!("{:?}", r)).collect();
    assert_eq!(answer.rows.len(), 5, "{place}: {groups:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_found_alike_in_both_halves_and_with_and_without_an_index() {
    let data = tempfile::tempdir().expect("a folder");
    let (process, mut client) = server(data.path()).await;
    load(&mut client).await;
    check(&mut client, "consuming").await;
    let explained = async |client: &mut Client| {
        let sql =
            r#"EXPLAIN SELECT count(*) FROM docs WHERE JSON_MATCH(indexed, '"$.name" = ''adam''')"#;
        let (answer, _) = client.ask(sql).await.expect(sql);
        format!("{:?}", answer.rows)
    };
    let text = explained(&mut client).await;
    assert!(text.contains("by json") && text.contains("scan"), "{text}");
    let all = ForceCommitRequest {
        table: "docs".to_owned(),
    };
    client.admin.force_commit(all).await.expect("it commits");
    check(&mut client, "committed").await;
    let text = explained(&mut client).await;
    assert!(text.contains("by json (2 of 2"), "{text}");

    for (sql, part) in [
        (
            r#"SELECT count(*) FROM docs WHERE JSON_MATCH(indexed, '"$.a" = ')"#,
            "at character 9",
        ),
        (
            r#"SELECT count(*) FROM docs WHERE JSON_MATCH(id, '"$.a" = 1')"#,
            "JSON_MATCH takes a column of type JSON",
        ),
        (
            "SELECT JSON_EXTRACT_SCALAR(plain, '$.name', 'STRING') FROM docs WHERE id = 3",
            "give a default",
        ),
        (
            "SELECT JSON_EXTRACT_SCALAR(plain, '$.name', 'WORD') FROM docs",
            "knows no type 'WORD'",
        ),
        (
            "SELECT JSON_EXTRACT_SCALAR(plain, '$..name', 'STRING') FROM docs",
            "not supported",
        ),
        (
            "SELECT JSON_EXTRACT_SCALAR(plain, '$.name', 'INT', 'x') FROM docs",
            "the default x is not of the type INT",
        ),
    ] {
        let error = client.ask(sql).await.expect_err(sql);
        assert!(
            error.contains(part) && !error.starts_with("Internal"),
            "{sql}: {error}"
        );
    }
    drop(process);
    let (_process, mut client) = server(data.path()).await;
    check(&mut client, "restarted").await;
}
