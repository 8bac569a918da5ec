//! The log's promises, held against crashes, faults and damage.

use super::*;
use crate::environment::{FaultyFiles, FileOperation};
use crate::stream::MessageBatch;
use std::path::Path;
use std::time::Duration;
use strandline_proto::ErrorKind;

pub(super) const LONG: Duration = Duration::from_secs(20);

pub(super) fn message(text: impl Into<String>) -> LogMessage {
    LogMessage {
        key: None,
        payload: Bytes::from(text.into()),
        timestamp_ms: 1,
    }
}

pub(super) fn numbered(range: std::ops::Range<u64>) -> Vec<LogMessage> {
    range.map(|i| message(format!("m{i}"))).collect()
}

pub(super) async fn open(dir: &Path) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(dir, Environment::real()).await.unwrap()
}

pub(super) async fn open_small(dir: &Path) -> Arc<EmbeddedLog> {
    EmbeddedLog::open_with(
        dir,
        Environment::real(),
        LogOptions {
            file_bytes_max: 500,
        },
    )
    .await
    .unwrap()
}

pub(super) async fn read_all(
    log: &Arc<EmbeddedLog>,
    partition: u32,
    from: u64,
) -> Result<Vec<String>> {
    let stream = log.stream("t").unwrap();
    let end = stream.offsets(partition).await?.end;
    let mut reader = stream.open(partition, from).await?;
    let (mut all, mut next) = (Vec::new(), from);
    while next < end {
        let batch = reader.next(7, 1 << 20, LONG).await?;
        next = batch.next_offset;
        all.extend(
            batch
                .messages
                .into_iter()
                .map(|m| String::from_utf8(m.payload.to_vec()).unwrap()),
        );
    }
    Ok(all)
}

pub(super) fn names(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|i| format!("m{i}")).collect()
}

pub(super) fn last_file(dir: &Path) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("t/0"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "log"));
    files.sort();
    files.pop().unwrap()
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target)
        } else {
            std::fs::copy(&path, &target).map(drop).unwrap()
        }
    }
}

#[tokio::test]
async fn the_log_keeps_the_stream_contract() {
    let dir = tempfile::tempdir().unwrap();
    for options in [
        LogOptions::default(),
        LogOptions {
            file_bytes_max: 700,
        },
    ] {
        let log = EmbeddedLog::open_with(dir.path(), Environment::real(), options)
            .await
            .unwrap();
        log.create_topic("contract", 2).await.unwrap();
        let stream = log.stream("contract").unwrap();
        let produce = |partition,
                       pairs: Vec<(Option<Bytes>, Bytes)>|
         -> futures::future::BoxFuture<'_, Result<()>> {
            let messages = pairs
                .into_iter()
                .map(|(key, payload)| LogMessage {
                    key,
                    payload,
                    timestamp_ms: 0,
                })
                .collect();
            let log = log.clone();
            Box::pin(async move {
                log.append("contract", Some(partition), messages, "", 0)
                    .await
                    .map(drop)
            })
        };
        crate::stream::contract::check(&*stream, &produce)
            .await
            .unwrap();
        crate::stream::contract::check_times(&*stream, &produce)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_appends_share_syncs_and_keep_each_producers_order() {
    let dir = tempfile::tempdir().unwrap();
    let files = FaultyFiles::new(Environment::real().files);
    let syncs = Arc::new(AtomicU64::new(0));
    let log = EmbeddedLog::open(
        dir.path(),
        Environment::real().with_files(Arc::new(files.clone())),
    )
    .await
    .unwrap();
    log.create_topic("t", 1).await.unwrap();
    let counted = syncs.clone();
    files.set(move |operation, _| {
        if operation == FileOperation::Sync {
            counted.fetch_add(1, Ordering::Relaxed);
            // A disk's sync takes its time; meanwhile the next group gathers.
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    });
    let producers = (0..50_u64).map(|p| {
        let log = log.clone();
        tokio::spawn(async move {
            for i in 0..20 {
                let outcome = log
                    .append(
                        "t",
                        None,
                        vec![message(format!("{p}:{i}"))],
                        &format!("p{p}"),
                        i,
                    )
                    .await
                    .unwrap();
                assert_eq!(outcome.next_offset, outcome.first_offset + 1);
            }
        })
    });
    for task in producers.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let all = read_all(&log, 0, 0).await.unwrap();
    assert_eq!(all.len(), 1000);
    for p in 0..50 {
        let mine: Vec<_> = all
            .iter()
            .filter(|m| m.starts_with(&format!("{p}:")))
            .cloned()
            .collect();
        assert_eq!(
            mine,
            (0..20).map(|i| format!("{p}:{i}")).collect::<Vec<_>>()
        );
    }
    assert!(
        syncs.load(Ordering::Relaxed) < 500,
        "{} syncs for 1000 appends",
        syncs.load(Ordering::Relaxed)
    );
}

#[tokio::test]
async fn repeated_messages_are_stored_once_also_after_restarts_and_in_new_files() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..10_u64 {
        let log = open_small(dir.path()).await;
        log.create_topic("t", 1).await.unwrap();
        for i in 0..round * 10 + 10 {
            if round > 0 && i < (round - 1) * 10 {
                continue;
            }
            let outcome = log
                .append("t", Some(0), numbered(i..i + 1), "p", i)
                .await
                .unwrap();
            let repeated = u64::from(i < round * 10);
            assert_eq!(
                (
                    outcome.duplicates,
                    outcome.first_offset,
                    outcome.next_offset
                ),
                (repeated, i, i + 1),
                "round {round}"
            );
        }
    }
    let log = open_small(dir.path()).await;
    let partly = log
        .append("t", Some(0), numbered(95..105), "p", 95)
        .await
        .unwrap();
    assert_eq!(
        partly,
        AppendOutcome {
            partition: 0,
            first_offset: 95,
            next_offset: 105,
            duplicates: 5
        }
    );
    assert_eq!(read_all(&log, 0, 0).await.unwrap(), names(0..105));
    assert_eq!(read_all(&log, 0, 57).await.unwrap(), names(57..105));
    assert!(std::fs::read_dir(dir.path().join("t/0")).unwrap().count() > 5);
    let gap = log
        .append("t", Some(0), numbered(0..1), "p", 106)
        .await
        .unwrap_err();
    assert_eq!(gap.kind(), ErrorKind::FailedPrecondition);
}

#[tokio::test]
async fn a_reader_that_trimming_overtook_is_told_what_it_lost() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_small(dir.path()).await;
    log.create_topic("t", 1).await.unwrap();
    for i in 0..60 {
        log.append("t", Some(0), numbered(i..i + 1), "p", i)
            .await
            .unwrap();
    }
    let stream = log.stream("t").unwrap();
    let mut reader = stream.open(0, 0).await.unwrap();
    assert_eq!(reader.next(3, 1000, LONG).await.unwrap().next_offset, 3);
    let start = log.trim_before("t", 0, 40).await.unwrap();
    assert!(start > 10 && start <= 40);
    assert_eq!(
        stream.offsets(0).await.unwrap(),
        OffsetRange { start, end: 60 }
    );
    let mut late = stream.open(0, 2).await.unwrap();
    let MessageBatch { lost, messages, .. } = late.next(3, 1000, LONG).await.unwrap();
    assert_eq!(
        (lost, messages[0].offset),
        (
            Some(OffsetRange {
                start: 2,
                end: start
            }),
            start
        )
    );
    assert_eq!(late.next(3, 1000, LONG).await.unwrap().lost, None);
    drop((log, stream, reader, late));
    let log = open_small(dir.path()).await;
    assert_eq!(read_all(&log, 0, start).await.unwrap(), names(start..60));
    assert_eq!(
        log.append("t", Some(0), numbered(50..61), "p", 50)
            .await
            .unwrap()
            .duplicates,
        10
    );
}

#[tokio::test]
async fn bad_names_sizes_and_partitions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await;
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        ".hidden",
        "a b",
        "ü",
        &"x".repeat(250),
    ] {
        assert_eq!(
            log.create_topic(name, 1).await.unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{name:?}"
        );
    }
    for partitions in [0, 1025] {
        assert!(log.create_topic("t", partitions).await.is_err());
    }
    log.create_topic("t", 2).await.unwrap();
    log.create_topic("t", 2).await.unwrap();
    assert_eq!(
        log.create_topic("t", 3).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let large = LogMessage {
        payload: Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]),
        ..LogMessage::default()
    };
    assert!(
        log.append("t", None, vec![large], "", 0)
            .await
            .unwrap_err()
            .message()
            .contains("16777217 bytes")
    );
    assert!(log.append("t", None, vec![], "", 0).await.is_err());
    assert!(
        log.append("t", Some(2), numbered(0..1), "", 0)
            .await
            .unwrap_err()
            .message()
            .contains("no partition 2")
    );
    assert_eq!(
        log.append("u", None, numbered(0..1), "", 0)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    assert!(
        log.append("t", None, numbered(0..1), "p", u64::MAX)
            .await
            .is_err()
    );

    let keyed = |key: &'static str| LogMessage {
        key: Some(Bytes::from(key)),
        ..message(key)
    };
    let (a, b) = (
        "a",
        ["b", "c", "d", "e", "f"]
            .into_iter()
            .find(|k| partition_of(k.as_bytes(), 2) != partition_of(b"a", 2))
            .unwrap(),
    );
    assert_eq!(
        log.append("t", None, vec![keyed(a), keyed(a)], "", 0)
            .await
            .unwrap()
            .partition,
        partition_of(b"a", 2)
    );
    assert!(
        log.append("t", None, vec![keyed(a), keyed(b)], "", 0)
            .await
            .is_err()
    );
    assert_eq!(
        log.route("t", vec![keyed(a), keyed(b), keyed(a)])
            .unwrap()
            .iter()
            .map(|(_, m)| m.len())
            .sum::<usize>(),
        3
    );
    let turns: Vec<_> =
        futures::future::join_all((0..4).map(|_| log.append("t", None, numbered(0..1), "", 0)))
            .await;
    assert_eq!(
        turns
            .iter()
            .filter(|t| t.as_ref().unwrap().partition == 0)
            .count(),
        2
    );

    let largest = LogMessage {
        payload: Bytes::from(vec![3; MESSAGE_BYTES_MAX]),
        ..LogMessage::default()
    };
    let at = log
        .append("t", Some(0), vec![largest.clone()], "", 0)
        .await
        .unwrap()
        .first_offset;
    let mut reader = log.stream("t").unwrap().open(0, at).await.unwrap();
    assert_eq!(
        reader.next(10, 10, LONG).await.unwrap().messages[0].payload,
        largest.payload
    );
}

#[tokio::test]
async fn a_log_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.create_topic("t", 1).await.unwrap();
    std::fs::write(
        dir.path().join("t/topic.json"),
        r#"{"version":2,"partitions":1}"#,
    )
    .unwrap();
    let error = EmbeddedLog::open(dir.path(), Environment::real())
        .await
        .err()
        .unwrap();
    assert!(
        error.kind() == ErrorKind::FailedPrecondition && error.message().contains("newer version")
    );
}
