//! The whole main job through a server of its own: tables, rows, SQL over gRPC, kills, bad statements.

use std::path::Path;
use std::time::Duration;
use strandline_proto::v1::{
    ForceCommitRequest, GetBoundaryRequest, LoadOptions, PinBoundaryRequest,
    ReleaseBoundaryRequest, TimeInterval,
};
use strandline_tests::answer::Cell;
use strandline_tests::client::Client;
use strandline_tests::kills::{self, Plan};
use strandline_tests::pinot::log_stream;
use strandline_tests::process::Process;
use strandline_tests::process::number_from;
use strandline_tests::slt;

#[path = "end_to_end/ingestion.rs"]
mod ingestion;
#[path = "end_to_end/json.rs"]
mod json;
#[path = "end_to_end/reload.rs"]
mod reload;
#[path = "end_to_end/versions.rs"]
mod versions;

const PROGRAM: &str = env!("CARGO_BIN_EXE_strandline-under-test");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_the_embedded_log_survive_kills_exactly() {
    survive_kills(Plan {
        seed: number_from("STRANDLINE_KILL_SEED", 1),
        partitions: 3,
        rows_per_partition: number_from("STRANDLINE_KILL_ROWS", 3_000),
        kills: u32::try_from(number_from("STRANDLINE_KILLS", 5)).expect("few kills"),
        flush_rows: 400,
        batch_rows: 25,
        pause: Duration::from_millis(15),
        keyed: false,
        each_step: None,
        full_disks: 0,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_with_keys_survive_kills_before_and_after_each_step() {
    let times = number_from("STRANDLINE_KILL_EACH_STEP", 1);
    survive_kills(Plan {
        seed: number_from("STRANDLINE_KILL_SEED", 1),
        partitions: 2,
        rows_per_partition: number_from("STRANDLINE_KILL_STEP_ROWS", 4_000 * times),
        kills: 2,
        flush_rows: 200,
        batch_rows: 20,
        pause: Duration::from_millis(40),
        keyed: number_from("STRANDLINE_KILL_KEYED", 1) > 0,
        each_step: Some(u32::try_from(times).expect("few times")),
        full_disks: 0,
    })
    .await;
}

/// `STRANDLINE_SMALL_DISK` names a folder of a small file system that nothing else uses; `tests/small_disk.sh` makes one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_survive_full_disks() {
    let Ok(disk) = std::env::var("STRANDLINE_SMALL_DISK") else {
        eprintln!(
            "SKIPPED rows_survive_full_disks: STRANDLINE_SMALL_DISK (a folder) is not set; see tests/small_disk.sh"
        );
        return;
    };
    let times = number_from("STRANDLINE_FULL_DISKS", 2);
    for keyed in [false, true] {
        let plan = Plan {
            seed: number_from("STRANDLINE_KILL_SEED", 1),
            partitions: 2,
            rows_per_partition: 3_000 * times,
            kills: 0,
            flush_rows: 200,
            batch_rows: 20,
            pause: Duration::from_millis(15),
            keyed,
            each_step: None,
            full_disks: u32::try_from(times).expect("few times"),
        };
        let data = tempfile::tempdir_in(&disk).expect("a folder");
        survive_kills_in(data, plan).await;
    }
}

async fn survive_kills(plan: Plan) {
    let data = tempfile::tempdir().expect("a folder");
    survive_kills_in(data, plan).await;
}

async fn survive_kills_in(data: tempfile::TempDir, plan: Plan) {
    let stream = log_stream("kills-topic", plan.partitions, plan.flush_rows);
    let report = kills::run(
        PROGRAM,
        data.path(),
        plan.clone(),
        &stream,
        |address, progress| {
            (0..plan.partitions)
                .map(|partition| {
                    tokio::spawn(kills::produce_to_log(
                        address.clone(),
                        "kills-topic".to_owned(),
                        partition,
                        plan.clone(),
                        progress.clone(),
                    ))
                })
                .collect()
        },
    )
    .await;
    println!(
        "{} rows {report}",
        plan.rows_per_partition * u64::from(plan.partitions)
    );
    assert!(report.answers > 0, "queries were answered meanwhile");
}

async fn server(data: &std::path::Path) -> (Process, Client) {
    let process = Process::start(PROGRAM, data, None).unwrap_or_else(|e| panic!("{e}"));
    let client = Client::connect(&process.grpc).await.expect("it is up");
    (process, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_statements_get_an_error_and_the_server_goes_on() {
    let data = tempfile::tempdir().expect("a folder");
    let (_process, mut client) = server(data.path()).await;
    client
        .create(
            &kills::schema_json(false),
            &kills::table_json(&log_stream("bad-topic", 1, 1000), false),
        )
        .await
        .expect("the table is made");
    let payloads: Vec<Vec<u8>> = (0..10).map(|s| kills::message(0, s)).collect();
    client
        .append("bad-topic", 0, &payloads, "", 0)
        .await
        .expect("rows are taken");
    for (sql, part) in [
        ("SELECT * FROM no_such_table", "no_such_table"),
        ("SELECT word2 FROM kills", "word"),
        (
            "SELECT no_such_function(seq) FROM kills",
            "no_such_function",
        ),
        ("SELECT FROM WHERE", ""),
        ("COPY kills TO '/tmp/strandline-must-not-exist.csv'", ""),
        (
            "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
            "",
        ),
        ("SELECT * FROM '/etc/passwd'", ""),
        ("INSERT INTO kills VALUES (1, 2, 'x', 3)", ""),
        ("SET datafusion.execution.batch_size = 1", ""),
        ("SELECT sum(word) FROM kills", ""),
        ("", ""),
    ] {
        let error = client.ask(sql).await.expect_err(sql);
        println!("{sql:?}: {error}");
        assert!(error.contains(part), "{sql}: {error}");
        assert!(!error.starts_with("Internal"), "{sql}: {error}");
    }
    let since = std::time::Instant::now();
    loop {
        let (answer, _) = client
            .ask("SELECT count(*) FROM kills")
            .await
            .expect("the server goes on");
        if answer.rows[0][0] == Cell::Number(10, 0) {
            break;
        }
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "rows do not appear"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Puts the quickstart's rows into `airlineStats`: three declared days-long files, and a stream that overlaps the last.
async fn load_flights(client: &mut Client) {
    let folder = Path::new("../server/quickstart");
    let read =
        |name: &str| std::fs::read_to_string(folder.join(name)).expect("the quickstart has it");
    let schema = read("schema.json");
    client
        .create(&schema, &read("offline.json"))
        .await
        .expect("offline");
    client
        .create(&schema, &read("realtime.json"))
        .await
        .expect("realtime");
    let day = |day: i64| (16_071 + day - 1) * 86_400_000;
    for (days, from, to) in [("01_08", 1, 9), ("09_16", 9, 17), ("17_24", 17, 25)] {
        let options = LoadOptions {
            push_id: days.to_owned(),
            declared_coverage: Some(TimeInterval {
                start_ms: day(from),
                end_ms: day(to),
            }),
            ..LoadOptions::default()
        };
        let path = folder.join(format!("airlineStats_2014-01-{days}.parquet"));
        client
            .upload("airlineStats", &path, options)
            .await
            .expect("a file loads");
    }
    let packed = std::fs::File::open(folder.join("airlineStats_2014-01-20_31.jsonl.zst"))
        .expect("the quickstart has it");
    let lines = zstd::decode_all(packed).expect("zstd");
    let payloads: Vec<Vec<u8>> = lines
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    assert_eq!(payloads.len(), 3_705);
    for partition in 0..2 {
        let mine: Vec<Vec<u8>> = payloads
            .iter()
            .skip(partition as usize)
            .step_by(2)
            .cloned()
            .collect();
        for chunk in mine.chunks(500) {
            client
                .append("flights", partition, chunk, "", 0)
                .await
                .expect("rows are taken");
        }
    }
    wait_for(client, "airlineStats_REALTIME", 3_705).await;
}

async fn wait_for(client: &mut Client, table: &str, rows: i128) {
    let since = std::time::Instant::now();
    let sql = format!("SELECT count(*) FROM {table}");
    loop {
        let (answer, _) = client.ask(&sql).await.expect("the server answers");
        if answer.rows[0][0] == Cell::Number(rows, 0) {
            return;
        }
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "{sql}: {:?}",
            answer.rows
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flights_answer_as_duckdb_does_and_alike_at_every_boundary() {
    let data = tempfile::tempdir().expect("a folder");
    let (process, mut client) = server(data.path()).await;
    load_flights(&mut client).await;
    let check_all = async |client: &mut Client| {
        let mut wrong = Vec::new();
        let mut checked = 0;
        let folder = Path::new("slt");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .expect("the folder is there")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        for path in files {
            for record in slt::records(&path) {
                checked += 1;
                let result = match client.ask(&record.sql).await {
                    Ok((answer, _)) => slt::check(&record, &answer),
                    Err(error) => Err(error),
                };
                if let Err(what) = result {
                    wrong.push(format!(
                        "{}:{}: {what}\n  {}",
                        path.display(),
                        record.line,
                        record.sql
                    ));
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "{} of {checked} records:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    };
    check_all(&mut client).await;

    let boundary = client
        .admin
        .get_boundary(GetBoundaryRequest {
            table: "airlineStats".to_owned(),
        })
        .await
        .expect("a boundary")
        .into_inner();
    assert_eq!(boundary.boundary_ms, 16_095 * 86_400_000);
    assert_eq!(
        (
            boundary.visible_offline_rows,
            boundary.visible_realtime_rows,
            boundary.hidden_realtime_rows
        ),
        (7_589, 2_157, 1_548)
    );
    // The halves hold the same days 20 to 24, so the total stands wherever the boundary is pinned between them.
    let mut splits = Vec::new();
    for day in [21, 22, 24] {
        let pin = PinBoundaryRequest {
            table: "airlineStats".to_owned(),
            boundary_ms: (16_071 + day - 1) * 86_400_000,
        };
        let pinned = client
            .admin
            .pin_boundary(pin)
            .await
            .expect("it is pinned")
            .into_inner();
        splits.push((pinned.visible_offline_rows, pinned.visible_realtime_rows));
        let (answer, _) = client
            .ask("SELECT count(*) FROM airlineStats")
            .await
            .expect("an answer");
        assert_eq!(
            answer.rows[0][0],
            Cell::Number(9_746, 0),
            "pinned at day {day}"
        );
    }
    splits.dedup();
    assert_eq!(
        splits.len(),
        3,
        "each boundary has its own split: {splits:?}"
    );
    assert!(
        splits
            .iter()
            .all(|(offline, realtime)| offline + realtime == 9_746)
    );
    let release = ReleaseBoundaryRequest {
        table: "airlineStats".to_owned(),
    };
    client
        .admin
        .release_boundary(release)
        .await
        .expect("it is released");

    let all = ForceCommitRequest {
        table: "airlineStats".to_owned(),
    };
    client.admin.force_commit(all).await.expect("it commits");
    check_all(&mut client).await;
    drop(process);
    let (_process, mut client) = server(data.path()).await;
    wait_for(&mut client, "airlineStats_REALTIME", 3_705).await;
    check_all(&mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn advice_follows_from_what_was_asked() {
    let data = tempfile::tempdir().expect("a folder");
    let (process, mut client) = server(data.path()).await;
    let schema = r#"{"schemaName": "sales", "dimensionFieldSpecs": [
        {"name": "region", "dataType": "STRING"}, {"name": "city", "dataType": "STRING"},
        {"name": "receipt", "dataType": "INT"}, {"name": "price", "dataType": "INT"}]}"#;
    let config = r#"{"tableName": "sales", "tableType": "OFFLINE", "segmentsConfig": {},
        "tableIndexConfig": {"sortedColumn": ["receipt"]}}"#;
    client.create(schema, config).await.expect("a table");
    let advise = || {
        let arguments = ["advise", "sales", "--server", &process.grpc];
        let output = strandline_tests::process::run(PROGRAM, &arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(advise().starts_with("nothing was asked of sales since the server started"));

    let mut rows = "region,city,receipt,price\n".to_owned();
    for receipt in 0..2_000 {
        let city = receipt * 7 % 40;
        rows += &format!("r{},c{city},{receipt},{}\n", city % 4, receipt % 90);
    }
    let file = data.path().join("sales.csv");
    std::fs::write(&file, rows).expect("a file");
    let options = LoadOptions::default();
    client
        .upload("sales", &file, options)
        .await
        .expect("loaded");
    for city in 0..30 {
        let sql =
            format!("SELECT region, sum(price) FROM sales WHERE city = 'c{city}' GROUP BY region");
        client.ask(&sql).await.expect("an answer");
    }
    let advice = advise();
    for part in [
        "30 queries of 1 shapes",
        "invertedIndexColumns: city   100 % of the time; held against one of 40 values",
        "starTreeIndexConfigs: for 1 of 1 shapes, 100 % of the time\n  about 52 records for the 2000 rows of a segment",
        "<= 40  SUM(price) where city = by region",
        r#""dimensionsSplitOrder":["city","region"],"functionColumnPairs":["COUNT__*","SUM__price"]"#,
    ] {
        assert!(advice.contains(part), "{part:?} is not in\n{advice}");
    }
    // What it asked itself is no advice.
    assert!(advise().starts_with("30 queries of 1 shapes"));
}
