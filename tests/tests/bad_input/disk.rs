//! A disk that is full while rows are loaded, appended and committed: errors say so, queries go on, nothing that was
//! acknowledged is lost, and once there is room the same requests succeed.
//!
//! Needs the right to mount a small file system in memory; without it the test says so and does nothing.

use crate::{ALL, PROGRAM};
use std::fs::File;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use strandline_proto::v1::{ForceCommitRequest, LoadResult};
use strandline_tests::client::Client;
use strandline_tests::refusal::{
    self, TABLE, TOPIC, create_offline, expect, number, push, realtime_json, row, schema_json,
    wait_for,
};

/// A file system in memory of its own size; unmounted when dropped.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .status();
        match mounted {
            Ok(status) if status.success() => Some(Self { folder }),
            other => {
                eprintln!("SKIPPED: a small disk can't be mounted ({other:?}); run as root");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all room that is left.
    fn fill(&self) -> Ballast {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).expect("a file");
        for size in [1 << 20, 64 << 10, 4 << 10, 512, 1] {
            let block = vec![0_u8; size];
            while file.write_all(&block).is_ok() {}
        }
        Ballast(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// What fills a disk; gone when dropped.
struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn rows(ids: std::ops::Range<i64>) -> Vec<Vec<u8>> {
    ids.map(|id| row(id).to_string().into_bytes()).collect()
}

async fn commit(client: &mut Client) -> Result<(), tonic::Status> {
    let table = TABLE.to_owned();
    client
        .admin
        .force_commit(ForceCommitRequest { table })
        .await?;
    Ok(())
}

/// The load that does not fit at first: the same push each time.
async fn load_more(client: &mut Client) -> Result<LoadResult, tonic::Status> {
    let content = Cursor::new(refusal::lines(500..20_000));
    client
        .upload_as("loaded", "more.json", content, push("more"))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_what_was_acknowledged_stays() {
    let Some(disk) = SmallDisk::mount(64) else {
        return;
    };
    let data = disk.path().join("data");
    let (process, mut client) = refusal::server(PROGRAM, &data).await;
    create_offline(&mut client, "loaded", 0..500).await;
    client
        .create(&schema_json(TABLE), &realtime_json(TABLE, TOPIC))
        .await
        .expect("the table is made");
    client
        .append(TOPIC, 0, &rows(0..300), "producer", 0)
        .await
        .expect("rows are taken");
    wait_for(&mut client, ALL, 300).await;

    let ballast = disk.fill();
    let status = load_more(&mut client).await.expect_err("there is no room");
    expect(
        "a load onto a full disk",
        status.message(),
        &["no space left", "free disk space"],
    );
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM loaded").await,
        500
    );

    let large: Vec<Vec<u8>> = rows(300..4_000);
    let status = client
        .append(TOPIC, 0, &large, "producer", 300)
        .await
        .expect_err("there is no room");
    expect(
        "an append onto a full disk",
        status.message(),
        &["no space left", "free disk space"],
    );
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    assert_eq!(number(&mut client, ALL).await, 300);

    let mut committing = client.clone();
    let waiting = tokio::spawn(async move { commit(&mut committing).await });
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let (state, _) = client
        .ask("SELECT state, last_error FROM system.ingestion WHERE table_name = 'facts'")
        .await
        .expect("the state is told");
    if waiting.is_finished() {
        let status = waiting
            .await
            .expect("it ends")
            .expect_err("there is no room");
        expect(
            "a commit onto a full disk",
            status.message(),
            &["no space left"],
        );
    } else {
        // It is tried again until there is room; meanwhile the reason can be seen.
        expect(
            "a commit onto a full disk",
            &state.rows[0][1].to_string(),
            &["no space left"],
        );
        waiting.abort();
    }
    assert_eq!(
        number(&mut client, ALL).await,
        300,
        "rows stay while a commit fails"
    );
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM loaded").await,
        500
    );

    drop(ballast);
    let loaded = load_more(&mut client).await.expect("there is room again");
    assert!(!loaded.already_done && loaded.rows == 19_500, "{loaded:?}");
    client
        .append(TOPIC, 0, &large, "producer", 300)
        .await
        .expect("there is room again");
    wait_for(&mut client, ALL, 4_000).await;
    commit(&mut client).await.expect("there is room again");
    assert_eq!(number(&mut client, ALL).await, 4_000);

    // Full again, and killed: what was acknowledged is there after the next start.
    let ballast = disk.fill();
    drop(process);
    drop(ballast);
    let (_process, mut client) = refusal::server(PROGRAM, &data).await;
    wait_for(&mut client, ALL, 4_000).await;
    assert_eq!(
        number(&mut client, "SELECT count(DISTINCT id) FROM facts").await,
        4_000
    );
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM loaded").await,
        20_000
    );
}
