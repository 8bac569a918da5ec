//! Files and segments that are wrong, and pushes that are repeated.

use crate::{ALL, PROGRAM, server};
use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use serde_json::json;
use std::io::Cursor;
use std::sync::Arc;
use strandline_tests::answer::Cell;
use strandline_tests::arrow_files::write_parquet;
use strandline_tests::process::run;
use strandline_tests::refusal::{
    self, TABLE, create_offline, expect, number, offline_json, push, row, schema_json,
};

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows.parquet");
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    write_parquet(&path, &batch).expect("a file");
    std::fs::read(path).expect("the file")
}

fn ints(values: &[i32]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

fn times(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// Files that must be refused as a whole, with what their errors must name.
fn bad_files() -> Vec<(&'static str, Vec<u8>, Vec<&'static str>)> {
    let good = parquet(vec![
        ("id", ints(&[1, 2])),
        ("at", times(&[Some(1), Some(2)])),
    ]);
    let line = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut bad = row(2);
        change(&mut bad);
        format!("{}\n{bad}\n", row(1)).into_bytes()
    };
    let time = |value: serde_json::Value| line(&|row| row["at"] = value.clone());
    let mut long = row(1).to_string().into_bytes();
    long.push(b'\n');
    long.extend(
        format!(
            "{{\"id\": 2, \"at\": 1, \"word\": \"{}\"}}",
            "x".repeat(17 << 20)
        )
        .bytes(),
    );
    let words: ArrayRef = Arc::new(StringArray::from(vec!["1", "many"]));
    vec![
        (
            "cut.parquet",
            good[..good.len() / 2].to_vec(),
            vec!["cut.parquet"],
        ),
        ("empty.parquet", Vec::new(), vec!["empty.parquet"]),
        (
            "text.parquet",
            b"id,at\n1,2\n".to_vec(),
            vec!["text.parquet"],
        ),
        (
            "other-columns.parquet",
            parquet(vec![("x", ints(&[1])), ("y", ints(&[2]))]),
            vec!["other-columns.parquet", "none of the columns", "x, y"],
        ),
        (
            "no-time.parquet",
            parquet(vec![("id", ints(&[1]))]),
            vec!["no-time.parquet", "column at", "null"],
        ),
        (
            "wrong-type.parquet",
            parquet(vec![("id", words), ("at", times(&[Some(1), Some(2)]))]),
            vec!["wrong-type.parquet", "column id", "row 2", "many"],
        ),
        (
            "null-time.parquet",
            parquet(vec![("id", ints(&[1, 2])), ("at", times(&[Some(1), None]))]),
            vec!["null-time.parquet", "column at", "row 2", "null"],
        ),
        (
            "absurd-time.parquet",
            parquet(vec![
                ("id", ints(&[1, 2])),
                ("at", times(&[Some(1), Some(i64::MAX)])),
            ]),
            vec![
                "absurd-time.parquet",
                "column at",
                "row 2",
                "years 1 to 9999",
            ],
        ),
        (
            "no.json",
            b"{\"id\": 1, \"at\": 1}\nno JSON\n".to_vec(),
            vec!["no.json", "row 2"],
        ),
        (
            "cut.json",
            b"{\"id\": 1, \"at\": 1}\n{\"id\": 2, \"at".to_vec(),
            vec!["cut.json", "row 2"],
        ),
        (
            "list.json",
            b"[1, 2]\n".to_vec(),
            vec!["list.json", "row 1"],
        ),
        (
            "bytes.json",
            b"{\"id\": 1, \"at\": 1}\n\xff\xfe\n".to_vec(),
            vec!["bytes.json", "row 2"],
        ),
        ("long.json", long, vec!["long.json", "row 2", "16777216"]),
        (
            "wrong-type.json",
            line(&|row| row["id"] = json!("many")),
            vec!["wrong-type.json", "row 2", "column id", "many"],
        ),
        (
            "too-large.json",
            line(&|row| row["id"] = json!(3_000_000_000_u64)),
            vec!["too-large.json", "row 2", "column id", "3000000000", "INT"],
        ),
        (
            "list-in-single.json",
            line(&|row| row["word"] = json!(["a", "b"])),
            vec![
                "list-in-single.json",
                "row 2",
                "column word",
                "singleValueField",
            ],
        ),
        (
            "no-time.json",
            line(&|row| {
                row.as_object_mut().expect("a row").remove("at");
            }),
            vec!["no-time.json", "row 2", "column at", "null"],
        ),
        (
            "null-time.json",
            time(json!(null)),
            vec!["null-time.json", "row 2", "column at", "null"],
        ),
        (
            "text-time.json",
            time(json!("yesterday")),
            vec!["text-time.json", "row 2", "column at", "yesterday"],
        ),
        (
            "late-time.json",
            time(json!(9_000_000_000_000_000_000_i64)),
            vec!["late-time.json", "row 2", "column at", "years 1 to 9999"],
        ),
        (
            "early-time.json",
            time(json!(-9_000_000_000_000_000_000_i64)),
            vec!["early-time.json", "row 2", "column at", "years 1 to 9999"],
        ),
        (
            "short.csv",
            b"id,word,at\n1,a,1\n2,b\n".to_vec(),
            vec!["short.csv", "row 2"],
        ),
        (
            "long.csv",
            b"id,word,at\n1,a,1\n2,b,3,4,5\n".to_vec(),
            vec!["long.csv", "row 2"],
        ),
        (
            "quote.csv",
            b"id,word,at\n1,\"a,1\n2,b,3\n".to_vec(),
            vec!["quote.csv"],
        ),
        (
            "../../evil.json",
            refusal::lines(0..1),
            vec!["../../evil.json"],
        ),
        ("rows.xlsx", b"PK".to_vec(), vec!["rows.xlsx", "parquet"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_wrong_are_refused_whole_by_file_row_and_column() {
    let data = tempfile::tempdir().expect("a folder");
    let (_process, mut client) = server(data.path()).await;
    create_offline(&mut client, TABLE, 0..10).await;
    for (name, content, parts) in bad_files() {
        let status = client
            .upload_as(TABLE, name, Cursor::new(content), push(name))
            .await
            .expect_err(name);
        expect(name, status.message(), &parts);
        assert!(
            matches!(
                status.code(),
                tonic::Code::InvalidArgument | tonic::Code::DataLoss
            ),
            "{name}: {status}"
        );
        assert_eq!(number(&mut client, ALL).await, 10, "after {name}");
    }
    for folder in ["staging", "staging/uploads"] {
        for entry in std::fs::read_dir(data.path().join(folder)).expect("it is there") {
            let path = entry.expect("an entry").path();
            assert!(path.ends_with("uploads"), "{} is left", path.display());
        }
    }
    let status = client
        .upload_as("no_such_table", "a.json", &b"{}"[..], push("x"))
        .await
        .expect_err("no table");
    expect("a load into no table", status.message(), &["no_such_table"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_are_missing_are_null_and_others_are_left_out() {
    let data = tempfile::tempdir().expect("a folder");
    let (_process, mut client) = server(data.path()).await;
    create_offline(&mut client, TABLE, 0..10).await;
    let odd = &b"{\"at\": 1}\n{\"at\": 2, \"id\": 77, \"more\": {\"a\": [1, 2]}}\n\n"[..];
    let loaded = client
        .upload_as(TABLE, "odd.json", odd, push("odd"))
        .await
        .expect("it loads");
    assert_eq!(loaded.rows, 2);
    let (answer, _) = client
        .ask("SELECT id, word, amount FROM facts WHERE at <= 2 ORDER BY at")
        .await
        .expect("an answer");
    assert_eq!(
        answer.rows,
        [
            vec![Cell::Null, Cell::Null, Cell::Null],
            vec![Cell::Number(77, 0), Cell::Null, Cell::Null]
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_repeated_adds_nothing_and_a_segment_pushed_twice_stays() {
    let data = tempfile::tempdir().expect("a folder");
    let (process, mut client) = server(data.path()).await;
    create_offline(&mut client, TABLE, 0..10).await;
    let again = client
        .upload_as(
            TABLE,
            "first.json",
            Cursor::new(refusal::lines(0..10)),
            push("first"),
        )
        .await
        .expect("a no-op");
    assert!(again.already_done && again.rows == 10, "{again:?}");
    println!("bad input: a push repeated under its id: {again:?}");
    assert_eq!(number(&mut client, ALL).await, 10);

    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &[u8]| -> String {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.to_string_lossy().into_owned()
    };
    let (schema, config, rows) = (
        file("schema.json", schema_json(TABLE).as_bytes()),
        file("config.json", offline_json(TABLE).as_bytes()),
        file("rows.json", &refusal::lines(100..150)),
    );
    let out = folder.path().join("out");
    let out = out.to_string_lossy();
    let built = run(
        PROGRAM,
        &[
            "build", "--schema", &schema, "--config", &config, "--out", &out, &rows,
        ],
    );
    assert!(built.status.success(), "{built:?}");
    let segments: Vec<String> = std::fs::read_dir(&*out)
        .expect("the segments")
        .map(|entry| {
            entry
                .expect("an entry")
                .path()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(segments.len(), 1);
    let pushed = |id: &str, segment: &str| {
        run(
            PROGRAM,
            &[
                "push",
                TABLE,
                segment,
                "--push-id",
                id,
                "--server",
                &process.grpc,
            ],
        )
    };
    let first = pushed("one", &segments[0]);
    assert!(first.status.success(), "{first:?}");
    assert_eq!(number(&mut client, ALL).await, 60);
    let repeated = pushed("one", &segments[0]);
    assert!(repeated.status.success(), "{repeated:?}");
    assert_eq!(number(&mut client, ALL).await, 60);
    let other = pushed("two", &segments[0]);
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    expect(
        "a segment pushed again under another push id",
        &String::from_utf8_lossy(&other.stderr),
        &["is there already", "same push id", TABLE],
    );
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM facts WHERE id >= 100").await,
        50
    );

    let mut bytes = std::fs::read(&segments[0]).expect("the segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    let damaged = pushed("three", &file("damaged.segment", &bytes));
    expect(
        "a segment file with a flipped bit, pushed",
        &String::from_utf8_lossy(&damaged.stderr),
        &["damaged.segment"],
    );
    let cut = pushed("four", &file("cut.segment", &bytes[..middle]));
    expect(
        "a segment file cut short, pushed",
        &String::from_utf8_lossy(&cut.stderr),
        &["cut.segment"],
    );
    assert!(!damaged.status.success() && !cut.status.success());
    assert_eq!(number(&mut client, ALL).await, 60);
    // What the refused pushes left must not take the live segment with it at the next start.
    drop(process);
    let (_process, mut client) = server(data.path()).await;
    assert_eq!(number(&mut client, ALL).await, 60);
}
