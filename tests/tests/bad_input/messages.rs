//! Stream messages that are wrong.

use crate::{ALL, server};
use serde_json::json;
use strandline_tests::answer::Cell;
use strandline_tests::refusal::{
    TABLE, TOPIC, expect, number, post, realtime_json, row, schema_json, wait_for,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_wrong_become_dead_letters_with_reasons() {
    let data = tempfile::tempdir().expect("a folder");
    let (process, mut client) = server(data.path()).await;
    client
        .create(&schema_json(TABLE), &realtime_json(TABLE, TOPIC))
        .await
        .expect("the table is made");
    let message = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut bad = row(1);
        change(&mut bad);
        bad.to_string().into_bytes()
    };
    let bad: Vec<(&str, Vec<u8>, Vec<&str>)> = vec![
        (
            "a message that isn't JSON",
            b"no JSON".to_vec(),
            vec!["JSON"],
        ),
        (
            "a message that is a list",
            b"[1, 2]".to_vec(),
            vec!["object"],
        ),
        (
            "a message cut short",
            b"{\"id\": 1, \"at\"".to_vec(),
            vec!["JSON"],
        ),
        ("a message that isn't UTF-8", b"\xff\xfe".to_vec(), vec![]),
        (
            "a message with a wrong type",
            message(&|row| row["id"] = json!("many")),
            vec!["column id", "many"],
        ),
        (
            "a message without a time",
            message(&|row| {
                row.as_object_mut().expect("a row").remove("at");
            }),
            vec!["column at", "null"],
        ),
        (
            "a message with a null time",
            message(&|row| row["at"] = json!(null)),
            vec!["column at", "null"],
        ),
        (
            "a message with an absurd time",
            message(&|row| row["at"] = json!(i64::MAX)),
            vec!["column at", "years 1 to 9999"],
        ),
        (
            "a message with a time in words",
            message(&|row| row["at"] = json!("noon")),
            vec!["column at", "noon"],
        ),
    ];
    let mut payloads = Vec::new();
    for (i, (_, payload, _)) in bad.iter().enumerate() {
        payloads.push(payload.clone());
        payloads.push(row(i as i64).to_string().into_bytes());
    }
    // Missing and additional fields are no errors.
    payloads.push(b"{\"at\": 5}".to_vec());
    payloads.push(b"{\"at\": 6, \"more\": [1, {\"a\": null}]}".to_vec());
    client
        .append(TOPIC, 0, &payloads, "", 0)
        .await
        .expect("what is in messages is the consumer's matter");
    wait_for(&mut client, ALL, bad.len() as i128 + 2).await;
    let (letters, _) = client
        .ask("SELECT reason, payload_bytes FROM system.dead_letters WHERE table_name = 'facts' ORDER BY \"offset\"")
        .await
        .expect("the dead letters");
    assert_eq!(letters.rows.len(), bad.len());
    for ((input, payload, parts), letter) in bad.iter().zip(&letters.rows) {
        expect(input, &letter[0].to_string().replace("\\\"", "\""), parts);
        assert_eq!(letter[1], Cell::Number(payload.len() as i128, 0), "{input}");
    }
    let counted = "SELECT dead_letters FROM system.ingestion WHERE table_name = 'facts'";
    assert_eq!(number(&mut client, counted).await, bad.len() as i128);

    // A message of 50 MB, by both ways in.
    let large = format!("{{\"at\": 1, \"word\": \"{}\"}}", "x".repeat(50 << 20)).into_bytes();
    let status = client
        .append(TOPIC, 0, std::slice::from_ref(&large), "", 0)
        .await
        .expect_err("it is too large");
    expect(
        "a message of 50 MB over gRPC",
        status.message(),
        &["16777216", "message"],
    );
    let (code, body) = post(&process.http, &format!("/topics/{TOPIC}/messages"), &large);
    assert!((400..500).contains(&code), "{code}: {body}");
    expect(
        "a message of 50 MB over HTTP",
        &body,
        &["16777216", "message"],
    );
    let (code, body) = post(
        &process.http,
        &format!("/topics/{TOPIC}/messages"),
        &vec![b' '; 70 << 20],
    );
    assert_eq!(code, 413, "{body}");
    expect(
        "a body of 70 MB over HTTP",
        &body,
        &["64 MiB", "several requests"],
    );
    client
        .append(TOPIC, 0, &[b"{\"at\": 7}".to_vec()], "", 0)
        .await
        .expect("the log goes on");
    wait_for(&mut client, ALL, bad.len() as i128 + 3).await;
}
