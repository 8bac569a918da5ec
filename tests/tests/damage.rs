//! Damage to any file of a data folder: bits that flip, files that end early, blocks of zeros.
//!
//! Whatever was damaged, the server says so, or its answers are those of before; it never ends by a panic. `STRANDLINE_DAMAGE`
//! (60 times) lengthens it, `STRANDLINE_DAMAGE_SEED` damages otherwise, and `STRANDLINE_DAMAGE_FILE` only files whose path has
//! this text in it.

use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use strandline_broker::QueryRequest;
use strandline_proto::v1::{AppendRequest, LoadOptions, Message};
use strandline_proto::{Error, Result};
use strandline_server::engine::{Engine, EngineOptions};
use strandline_tests::process::Process;

const SCHEMA: &str = r#"{"schemaName": "t",
    "dimensionFieldSpecs": [{"name": "n", "dataType": "INT"}, {"name": "word", "dataType": "STRING"}, {"name": "few", "dataType": "INT"},
        {"name": "text", "dataType": "STRING"}, {"name": "document", "dataType": "JSON"}, {"name": "many", "dataType": "STRING", "singleValueField": false}],
    "metricFieldSpecs": [{"name": "f", "dataType": "DOUBLE"}],
    "dateTimeFieldSpecs": [{"name": "at", "dataType": "TIMESTAMP", "format": "1:MILLISECONDS:TIMESTAMP", "granularity": "1:DAYS"}]}"#;
const KEYED: &str = r#"{"schemaName": "u", "primaryKeyColumns": ["k"],
    "dimensionFieldSpecs": [{"name": "k", "dataType": "INT"}], "metricFieldSpecs": [{"name": "v", "dataType": "LONG"}]}"#;
const QUESTIONS: [&str; 10] = [
    "SELECT count(*), sum(n), sum(f), min(at), max(at) FROM t",
    "SELECT few, count(*), sum(n) FROM t GROUP BY few ORDER BY few",
    "SELECT word, n FROM t WHERE word LIKE 'w1%' ORDER BY n",
    "SELECT count(*) FROM t WHERE TEXT_MATCH(text, 'common AND word7')",
    "SELECT count(*), sum(n) FROM t WHERE JSON_MATCH(document, '\"$.a\" = 3')",
    "SELECT date_trunc('day', at) d, count(*) FROM t GROUP BY 1 ORDER BY 1",
    "SELECT count(*), sum(n) FROM t WHERE n BETWEEN 50 AND 250 AND many = 'm2'",
    "SELECT count(*), sum(n) FROM t_OFFLINE",
    "SELECT count(*), sum(n) FROM t_REALTIME WHERE f > 10",
    "SELECT count(*), count(DISTINCT k), sum(v) FROM u",
];
const DAY_MS: i64 = 86_400_000;

fn config(half: &str) -> String {
    let stream = r#", "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [{"streamType": "log", "stream.log.topic.name": "t"}]}}"#;
    let stream = if half == "REALTIME" { stream } else { "" };
    format!(
        r#"{{"tableName": "t", "tableType": "{half}", "segmentsConfig": {{"timeColumnName": "at"}},
        "tableIndexConfig": {{"invertedIndexColumns": ["few", "many"], "rangeIndexColumns": ["n"], "bloomFilterColumns": ["word"], "noDictionaryColumns": ["f"],
            "starTreeIndexConfigs": [{{"dimensionsSplitOrder": ["few"], "functionColumnPairs": ["SUM__n", "COUNT__*"], "maxLeafRecords": 1}}]}},
        "fieldConfigList": [{{"name": "text", "indexTypes": ["TEXT"]}}, {{"name": "word", "indexTypes": ["FST"]}},
            {{"name": "document", "indexes": {{"json": {{}}}}}}, {{"name": "at", "timestampConfig": {{"granularities": ["DAY"]}}}}]{stream}}}"#
    )
}

fn row(n: i64, day: i64) -> String {
    format!(
        r#"{{"n": {n}, "word": "w{n}", "few": {}, "text": "common word{}", "document": {{"a": {}}}, "many": ["m{}", "x"], "f": {}.5, "at": {}}}"#,
        n % 5,
        n % 10,
        n % 7,
        n % 3,
        n % 50,
        day * DAY_MS + n
    )
}

async fn ask(engine: &Engine, sql: &str) -> Result<String> {
    let answer = engine.query(QueryRequest::new(sql)).await?;
    let batches: Vec<_> = answer.batches.try_collect().await?;
    let table = pretty_format_batches(&batches).map_err(|e| Error::internal(e.to_string()))?;
    Ok(table.to_string())
}

async fn append(engine: &Engine, topic: &str, rows: impl Iterator<Item = String>) {
    let messages = rows.map(|row| Message {
        payload: row.into_bytes().into(),
        ..Message::default()
    });
    let request = AppendRequest {
        topic: topic.to_owned(),
        partition: Some(0),
        messages: messages.collect(),
        ..AppendRequest::default()
    };
    engine.append(request).await.expect("rows are appended");
}

/// Fills a data folder, at rest then; all of its rows are in committed segments.
async fn fill(data: &Path, folder: &Path) -> Vec<String> {
    let engine = Engine::open(EngineOptions::new(data)).await.expect("opens");
    for schema in [SCHEMA, KEYED] {
        engine.put_schema(schema).await.expect("a schema");
    }
    for half in ["OFFLINE", "REALTIME"] {
        engine.create_table(&config(half)).await.expect("a table");
    }
    let keyed = r#"{"tableName": "u", "tableType": "REALTIME", "upsertConfig": {"mode": "FULL", "comparisonColumns": ["v"]},
        "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [{"streamType": "log", "stream.log.topic.name": "u"}]}}}"#;
    engine.create_table(keyed).await.expect("a table");
    for part in 0..2 {
        let path = folder.join(format!("{part}.json"));
        let mut rows = String::new();
        for n in part * 150..(part + 1) * 150 {
            writeln!(rows, "{}", row(n, n / 100)).expect("text");
        }
        std::fs::write(&path, rows).expect("a file");
        let options = LoadOptions::default();
        engine
            .load_local("t", vec![path], options, |_| {})
            .await
            .expect("loads");
    }
    append(&engine, "t", (250..400).map(|n| row(n, n / 100))).await;
    // In the last round rows that come late, of keys of which some were deleted.
    for (round, v) in [0, 1, 2, -1].into_iter().enumerate() {
        let row = |k| format!(r#"{{"k": {k}, "v": {v}}}"#);
        append(&engine, "u", (0..100).map(row)).await;
        for _ in 0..500 {
            let read = ask(&engine, "SELECT sum(messages_read) FROM system.ingestion").await;
            if read.is_ok_and(|read| read.contains(&format!(" {} ", 150 + (round + 1) * 100))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        engine.force_commit("u").await.expect("commits");
        if v == 1 {
            let deleted = engine.delete_rows("u", Some("k >= 60")).await;
            assert_eq!(deleted.expect("deletes"), 40);
        } else if v == 2 {
            let deleted = engine.delete_rows("u", Some("k >= 40")).await;
            assert_eq!(deleted.expect("deletes"), 60);
        }
    }
    engine.force_commit("t").await.expect("commits");
    let mut answers = Vec::new();
    for question in QUESTIONS {
        answers.push(ask(&engine, question).await.expect(question));
    }
    engine.shutdown().await;
    drop(engine);
    at_rest(data).await;
    answers
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// Waits until nothing changes in the folder of a server that has ended: what it did in the background may end later.
async fn at_rest(folder: &Path) {
    let state = || {
        let mut all = Vec::new();
        files(folder, &mut all);
        let state = all.into_iter().map(|path| {
            let seen = std::fs::metadata(&path).and_then(|file| Ok((file.len(), file.modified()?)));
            (path, seen.ok())
        });
        state.collect::<Vec<_>>()
    };
    let (mut last, mut same) = (state(), 0);
    while same < 5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = state();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
}

fn copy(from: &Path, to: &Path) {
    let mut all = Vec::new();
    files(from, &mut all);
    for path in all {
        let target = to.join(path.strip_prefix(from).expect("within"));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        if let Err(e) = std::fs::copy(&path, &target) {
            panic!("{} is not copied: {e}", path.display());
        }
    }
}

/// Damages a file; says how.
fn damage(path: &Path, random: &mut StdRng) -> String {
    let mut bytes = std::fs::read(path).expect("it is there");
    let at = random.random_range(0..bytes.len());
    let how = match random.random_range(0..10) {
        0..6 => {
            let bit = random.random_range(0..8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        6..8 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        _ => {
            let end = bytes.len().min(at + 512);
            bytes[at..end].fill(0);
            format!("bytes {at} to {end} zero")
        }
    };
    std::fs::write(path, bytes).expect("written");
    how
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_told_or_changes_nothing() {
    let number = |variable: &str, otherwise| {
        std::env::var(variable).map_or(otherwise, |text| text.parse().expect(variable))
    };
    let (rounds, seed) = (
        number("STRANDLINE_DAMAGE", 60),
        number("STRANDLINE_DAMAGE_SEED", 1),
    );
    let wanted = std::env::var("STRANDLINE_DAMAGE_FILE").unwrap_or_default();
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    let answers = fill(&whole, folder.path()).await;
    let mut paths = Vec::new();
    files(&whole, &mut paths);
    paths.retain(|path| {
        let is_empty = std::fs::metadata(path).expect("a file").len() == 0;
        // Damage to the store's own list of its files ends the process, once: see the test of keys below.
        let is_list = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('v'));
        !is_empty && !is_list && path.to_string_lossy().contains(&wanted)
    });
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        default_hook(info);
    }));
    let mut random = StdRng::seed_from_u64(seed);
    let (mut refused, mut failed, mut same) = (0, 0, 0);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..rounds {
        let data = folder.path().join("damaged");
        copy(&whole, &data);
        let path = &paths[random.random_range(0..paths.len())];
        let name = path.strip_prefix(&whole).expect("within");
        let how = damage(&data.join(name), &mut random);
        let place = format!("round {round} of seed {seed}: {}: {how}", name.display());
        let kind = name.components().next().expect("a name").as_os_str();
        *kinds
            .entry(kind.to_string_lossy().into_owned())
            .or_default() += 1;
        match Engine::open(EngineOptions::new(&data)).await {
            Err(e) => {
                assert!(!e.message().is_empty(), "{place}");
                refused += 1;
            }
            Ok(engine) => {
                check(&engine, &answers, &place, (&mut failed, &mut same)).await;
                engine.shutdown().await;
            }
        }
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "{place}: a panic");
        std::fs::remove_dir_all(&data).expect("removed");
    }
    println!(
        "{rounds} damages ({kinds:?}): {refused} times not opened, {failed} answers refused, {same} the same"
    );
    assert!(same > 0);
}

async fn check(
    engine: &Arc<Engine>,
    answers: &[String],
    place: &str,
    (failed, same): (&mut usize, &mut usize),
) {
    for (question, expected) in QUESTIONS.iter().zip(answers) {
        match ask(engine, question).await {
            Err(e) => {
                assert!(!e.message().is_empty(), "{place}: {question}");
                *failed += 1;
            }
            Ok(answer) => {
                assert_eq!(answer, *expected, "{place}: {question}");
                *same += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_whose_store_cannot_be_opened_are_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let answers = fill(&data, folder.path()).await;
    let mut lists = Vec::new();
    files(&data.join("keys/keyspaces"), &mut lists);
    lists.retain(|path| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with('v')
    });
    let program = env!("CARGO_BIN_EXE_strandline-under-test");
    let mut ended = 0;
    for list in &lists {
        let bytes = std::fs::read(list).expect("it is there");
        // The number of levels stands somewhere by itself, without a checksum.
        let sevens = (0..bytes.len()).filter(|at| bytes[*at] == 7);
        for at in sevens {
            let damaged = folder.path().join("damaged");
            copy(&data, &damaged);
            let mut bytes = bytes.clone();
            bytes[at] = 15;
            let name = list.strip_prefix(&data).expect("within");
            std::fs::write(damaged.join(name), bytes).expect("written");
            ended += usize::from(Process::start(program, &damaged, None).is_err());
            let options = EngineOptions::new(&damaged);
            let engine = Engine::open(options).await.expect("opens");
            let place = format!("byte {at} of {}", name.display());
            let (mut failed, mut same) = (0, 0);
            check(&engine, &answers, &place, (&mut failed, &mut same)).await;
            assert_eq!((failed, same), (0, QUESTIONS.len()), "{place}");
            engine.shutdown().await;
            std::fs::remove_dir_all(&damaged).expect("removed");
        }
    }
    assert!(
        ended > 0,
        "no damage ends the process any more: the test is in vain"
    );
}
