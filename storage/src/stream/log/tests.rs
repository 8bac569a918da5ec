//! The log's promises, held against crashes, faults and damage.

use super::*;
use crate::environment::{FaultyFiles, FileOperation};
use crate::stream::MessageBatch;
use proptest::prelude::*;
use std::io;
use std::path::Path;
use std::time::Duration;
use strandline_proto::ErrorKind;

const LONG: Duration = Duration::from_secs(20);

fn message(text: impl Into<String>) -> LogMessage {
    LogMessage {
        key: None,
        payload: Bytes::from(text.into()),
        timestamp_ms: 1,
    }
}

fn numbered(range: std::ops::Range<u64>) -> Vec<LogMessage> {
    range.map(|i| message(format!("m{i}"))).collect()
}

async fn open(dir: &Path) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(dir, Environment::real()).await.unwrap()
}

async fn open_small(dir: &Path) -> Arc<EmbeddedLog> {
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

async fn read_all(log: &Arc<EmbeddedLog>, partition: u32, from: u64) -> Result<Vec<String>> {
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

fn names(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|i| format!("m{i}")).collect()
}

fn last_file(dir: &Path) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("t/0"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "log"));
    files.sort();
    files.pop().unwrap()
}

fn copy(from: &Path, to: &Path) {
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

/// A kill may leave any prefix of what was written since the last acknowledgement.
#[tokio::test]
async fn after_a_kill_at_any_byte_what_was_acknowledged_is_there_and_retries_add_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut acknowledged) = (open(dir.path()).await, Vec::new());
    log.create_topic("t", 1).await.unwrap();
    for i in 0..6 {
        log.append("t", Some(0), numbered(i * 3..i * 3 + 3), "p", i * 3)
            .await
            .unwrap();
        acknowledged.push(std::fs::metadata(last_file(dir.path())).unwrap().len());
    }
    drop(log);
    let whole = std::fs::read(last_file(dir.path())).unwrap();
    let begin = acknowledged[0] as usize;
    for cut in begin..=whole.len() {
        let garbage: &[&[u8]] = if cut % 9 == 0 {
            &[b"", &[0; 40], &[0xff; 3]]
        } else {
            &[b""]
        };
        for garbage in garbage {
            let crashed = tempfile::tempdir().unwrap();
            copy(dir.path(), crashed.path());
            let mut bytes = whole[..cut].to_vec();
            bytes.extend_from_slice(garbage);
            std::fs::write(last_file(crashed.path()), &bytes).unwrap();
            let groups = acknowledged
                .iter()
                .filter(|end| **end <= cut as u64)
                .count() as u64;
            let note = partition::acknowledged_note(0, acknowledged[groups as usize - 1]);
            std::fs::write(crashed.path().join("t/0/acknowledged"), note).unwrap();

            let log = open(crashed.path()).await;
            assert_eq!(
                read_all(&log, 0, 0).await.unwrap(),
                names(0..groups * 3),
                "cut at {cut}"
            );
            let outcome = log
                .append("t", Some(0), numbered(0..20), "p", 0)
                .await
                .unwrap();
            assert_eq!(
                (
                    outcome.duplicates,
                    outcome.first_offset,
                    outcome.next_offset
                ),
                (groups * 3, 0, 20)
            );
            drop(log);
            assert_eq!(
                read_all(&open(crashed.path()).await, 0, 0).await.unwrap(),
                names(0..20)
            );
        }
    }
}

#[tokio::test]
async fn acknowledged_bytes_that_are_missing_or_changed_are_an_error_that_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await;
    log.create_topic("t", 1).await.unwrap();
    let mut ends = Vec::new();
    for i in 0..4 {
        log.append("t", Some(0), numbered(i..i + 1), "p", i)
            .await
            .unwrap();
        ends.push(std::fs::metadata(last_file(dir.path())).unwrap().len() as usize);
    }
    drop(log);
    let whole = std::fs::read(last_file(dir.path())).unwrap();
    let check = async |bytes: Vec<u8>, note: bool, what: String| {
        let damaged = tempfile::tempdir().unwrap();
        copy(dir.path(), damaged.path());
        std::fs::write(last_file(damaged.path()), bytes).unwrap();
        if !note {
            std::fs::remove_file(damaged.path().join("t/0/acknowledged")).unwrap();
        }
        let log = open(damaged.path()).await;
        let error = read_all(&log, 0, 0).await.expect_err(&what);
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{what}: {error}");
        assert!(
            error.message().contains("00000000000000000000.log"),
            "{what}: {error}"
        );
        let append = log
            .append("t", Some(0), numbered(4..5), "p", 4)
            .await
            .unwrap_err();
        assert_eq!(append.kind(), ErrorKind::DataLoss, "{what}");
    };
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        check(bytes.clone(), true, format!("byte {at} flipped")).await;
        // Without the note the batches behind still prove it, but for the last group.
        if at < ends[2] && at % 5 == 0 {
            check(bytes, false, format!("byte {at} flipped, no note")).await;
        }
    }
    for len in (0..whole.len()).step_by(3) {
        check(whole[..len].to_vec(), true, format!("cut to {len}")).await;
    }
}

#[tokio::test]
async fn damage_in_an_older_file_is_met_when_it_is_read_and_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_small(dir.path()).await;
    log.create_topic("t", 1).await.unwrap();
    for i in 0..50 {
        log.append("t", Some(0), numbered(i..i + 1), "", 0)
            .await
            .unwrap();
    }
    drop(log);
    let mut files: Vec<_> = std::fs::read_dir(dir.path().join("t/0"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    let mut bytes = std::fs::read(&files[1]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&files[1], bytes).unwrap();
    let log = open_small(dir.path()).await;
    let error = read_all(&log, 0, 0).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::DataLoss && error.message().contains(files[1].to_str().unwrap()),
        "{error}"
    );
    // The tail can still be written and read.
    log.append("t", Some(0), numbered(50..51), "", 0)
        .await
        .unwrap();
    assert_eq!(read_all(&log, 0, 45).await.unwrap(), names(45..51));
}

#[tokio::test]
async fn on_a_full_disk_appends_fail_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let files = FaultyFiles::new(Environment::real().files);
    let environment = Environment::real().with_files(Arc::new(files.clone()));
    let log = EmbeddedLog::open_with(
        dir.path(),
        environment,
        LogOptions {
            file_bytes_max: 500,
        },
    )
    .await
    .unwrap();
    log.create_topic("t", 1).await.unwrap();
    let mut next = 0;
    for fault in [
        FileOperation::WriteAt,
        FileOperation::WriteDurable,
        FileOperation::Sync,
        FileOperation::SetLen,
        FileOperation::Open,
    ] {
        for _ in 0..7 {
            log.append("t", Some(0), numbered(next..next + 1), "p", next)
                .await
                .unwrap();
            next += 1;
        }
        files.set(move |operation, _| {
            let fails = operation == fault
                || (fault == FileOperation::SetLen && operation == FileOperation::WriteAt);
            fails.then(|| io::Error::from(io::ErrorKind::StorageFull))
        });
        let mut failed = None;
        let end = log.stream("t").unwrap().offsets(0).await.unwrap().end;
        for _ in 0..8 {
            match log
                .append("t", Some(0), numbered(next..next + 1), "p", next)
                .await
            {
                Ok(_) => next += 1,
                Err(error) => failed = Some(error),
            }
        }
        // Opening happens only with a new file, and a new file only when the last is full.
        let failed = failed.unwrap_or_else(|| panic!("{fault:?} did not fail"));
        assert_eq!(
            failed.kind(),
            ErrorKind::ResourceExhausted,
            "{fault:?}: {failed}"
        );
        assert!(log.stream("t").unwrap().offsets(0).await.unwrap().end >= end);
        files.clear();
        assert_eq!(
            read_all(&log, 0, 0).await.unwrap(),
            names(0..next),
            "{fault:?}"
        );
        let outcome = log
            .append("t", Some(0), numbered(next..next + 1), "p", next)
            .await
            .unwrap();
        assert_eq!(outcome.duplicates, 0);
        next += 1;
        drop(read_all(&log, 0, 0).await.unwrap());
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        assert_eq!(
            read_all(&open(copied.path()).await, 0, 0).await.unwrap(),
            names(0..next),
            "reopened after {fault:?}"
        );
    }
}

#[tokio::test]
async fn a_failed_sync_of_the_first_group_replaces_the_empty_file_under_a_waiting_reader() {
    let dir = tempfile::tempdir().unwrap();
    let files = FaultyFiles::new(Environment::real().files);
    let log = EmbeddedLog::open(
        dir.path(),
        Environment::real().with_files(Arc::new(files.clone())),
    )
    .await
    .unwrap();
    log.create_topic("t", 1).await.unwrap();
    let mut reader = log.stream("t").unwrap().open(0, 0).await.unwrap();
    assert!(
        reader
            .next(1, 1, Duration::ZERO)
            .await
            .unwrap()
            .messages
            .is_empty()
    );
    files.set(|operation, _| {
        (operation == FileOperation::Sync).then(|| io::Error::other("the disk is gone"))
    });
    assert_eq!(
        log.append("t", None, numbered(0..1), "p", 0)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        log.append("t", None, numbered(0..1), "p", 0)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Unavailable
    );
    files.clear();
    log.append("t", None, numbered(0..1), "p", 0).await.unwrap();
    assert_eq!(reader.next(10, 1000, LONG).await.unwrap().messages.len(), 1);
    log.append("t", None, numbered(1..2), "p", 1).await.unwrap();
    assert_eq!(reader.next(10, 1000, LONG).await.unwrap().messages.len(), 1);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Any interleaving of producers, repetitions, restarts and failing operations leaves each message once and in order.
    #[test]
    fn each_message_is_stored_once_whatever_fails(steps in prop::collection::vec((0_u64..3, 1_u64..5, 0_u64..4, 0_u8..8), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let files = FaultyFiles::new(Environment::real().files);
            let environment = Environment::real().with_files(Arc::new(files.clone()));
            let reopen = || EmbeddedLog::open_with(dir.path(), environment.clone(), LogOptions { file_bytes_max: 400 });
            let mut log = reopen().await.unwrap();
            log.create_topic("t", 1).await.unwrap();
            let (mut acknowledged, mut tried) = ([0_u64; 3], [0_u64; 3]);
            for (producer, count, back, event) in steps {
                let fault = match event {
                    0 => Some(FileOperation::WriteAt),
                    1 => Some(FileOperation::Sync),
                    2 => Some(FileOperation::WriteDurable),
                    _ => None,
                };
                if event == 3 {
                    log = reopen().await.unwrap();
                }
                files.set(move |operation, _| (Some(operation) == fault).then(|| io::Error::other("injected")));
                let first = acknowledged[producer as usize].saturating_sub(back);
                let messages = (first..first + count).map(|i| message(format!("{producer}:{i}"))).collect();
                let outcome = log.append("t", Some(0), messages, &format!("p{producer}"), first).await;
                files.clear();
                tried[producer as usize] = tried[producer as usize].max(first + count);
                if outcome.is_ok() {
                    let next = &mut acknowledged[producer as usize];
                    *next = (*next).max(first + count);
                }
            }
            for log in [log.clone(), reopen().await.unwrap()] {
                let all = read_all(&log, 0, 0).await.unwrap();
                for (producer, next) in acknowledged.iter().enumerate() {
                    let mine: Vec<_> = all.iter().filter(|m| m.starts_with(&format!("{producer}:"))).cloned().collect();
                    // What was refused may be there all the same, when it was the sync that failed.
                    let there = mine.len() as u64;
                    prop_assert!(there >= *next && there <= tried[producer], "{producer}: {there} of {next} to {}", tried[producer]);
                    prop_assert_eq!(mine, (0..there).map(|i| format!("{producer}:{i}")).collect::<Vec<_>>());
                }
            }
            Ok(())
        })?;
    }
}
