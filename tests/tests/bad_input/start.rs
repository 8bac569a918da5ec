//! Folders and ports that a server can't take.

use crate::{ALL, PROGRAM, server};
use std::net::TcpListener;
use strandline_tests::process::Process;
use strandline_tests::refusal::{TABLE, create_offline, expect, number};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_can_not_start_says_why_and_what_to_do() {
    let data = tempfile::tempdir().expect("a folder");
    let (process, mut client) = server(data.path()).await;
    create_offline(&mut client, TABLE, 0..10).await;

    let error = Process::start(PROGRAM, data.path(), None).expect_err("the folder is taken");
    expect(
        "a data folder in use",
        &error,
        &["in use by process", &process.id().to_string(), "--data"],
    );
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    let other = tempfile::tempdir().expect("a folder");
    let error =
        Process::start_on(PROGRAM, other.path(), &address, None).expect_err("the port is taken");
    expect("a port in use", &error, &[&address, "in use", "--grpc"]);
    assert_eq!(number(&mut client, ALL).await, 10);

    drop(process);
    let metastore = data.path().join("meta.sqlite");
    let url = format!("sqlite://{}", metastore.display());
    let newer = async |statement: &'static str| {
        use sqlx::Connection as _;
        let mut connection = sqlx::SqliteConnection::connect(&url)
            .await
            .expect("it opens");
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .expect("it is written");
        connection.close().await.expect("it closes");
    };
    newer("INSERT INTO migrations (version, applied_ms) VALUES (999, 0)").await;
    let error = Process::start(PROGRAM, data.path(), None).expect_err("it is newer");
    expect(
        "a data folder written by a newer version",
        &error,
        &["newer version", "999", "upgrade"],
    );
    newer("DELETE FROM migrations WHERE version = 999").await;
    let (process, mut client) = server(data.path()).await;
    assert_eq!(number(&mut client, ALL).await, 10);

    drop(process);
    let content = std::fs::read(&metastore).expect("the metastore");
    std::fs::write(
        &metastore,
        b"this is no database at all, and longer than a header of one",
    )
    .expect("it is written");
    for side in ["meta.sqlite-wal", "meta.sqlite-shm"] {
        let _ = std::fs::remove_file(data.path().join(side));
    }
    let error = Process::start(PROGRAM, data.path(), None).expect_err("it is no metastore");
    expect("a metastore that is none", &error, &["meta.sqlite"]);
    drop(content);
}
