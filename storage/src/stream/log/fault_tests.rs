//! The log against kills at any byte, damage and failing disks.

use super::tests::{LONG, copy, last_file, message, names, numbered, open, open_small, read_all};
use super::*;
use crate::environment::{FaultyFiles, FileOperation};
use proptest::prelude::*;
use std::io;
use strandline_proto::ErrorKind;

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
            .next(1, 1, std::time::Duration::ZERO)
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

/// After a failed sync the system takes for written what is in memory alone; only what is written once more reaches the disk.
#[tokio::test]
async fn what_a_failed_sync_left_is_written_again_when_the_log_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyFiles::new(Environment::real().files);
    let environment = Environment::real().with_files(Arc::new(faulty.clone()));
    let log = EmbeddedLog::open(dir.path(), environment.clone())
        .await
        .unwrap();
    log.create_topic("t", 1).await.unwrap();
    log.append("t", Some(0), numbered(0..3), "p", 0)
        .await
        .unwrap();
    let acknowledged = std::fs::metadata(last_file(dir.path())).unwrap().len();
    faulty.set(|operation, _| {
        (operation == FileOperation::Sync).then(|| io::Error::from(io::ErrorKind::StorageFull))
    });
    let failed = log.append("t", Some(0), numbered(3..6), "p", 3).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::ResourceExhausted);
    // Killed before the next append would have cut it off.
    drop(log);
    let file = last_file(dir.path());
    let whole = std::fs::metadata(&file).unwrap().len();
    assert!(whole > acknowledged);
    let done = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let note = Arc::clone(&done);
    faulty.set(move |operation, path| {
        if path == file {
            note.lock().push(operation);
        }
        None
    });
    let log = EmbeddedLog::open(dir.path(), environment).await.unwrap();
    assert_eq!(read_all(&log, 0, 0).await.unwrap(), names(0..6));
    let done = done.lock();
    let first = |of| done.iter().position(|operation| *operation == of).unwrap();
    assert!(
        first(FileOperation::WriteAt) < first(FileOperation::Sync),
        "{done:?}"
    );
}

/// A file whose folder could not be synced would be gone after a power loss, with all that was acknowledged in it since.
#[tokio::test]
async fn the_folder_is_synced_before_a_log_that_is_opened_takes_messages() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyFiles::new(Environment::real().files);
    let environment = Environment::real().with_files(Arc::new(faulty.clone()));
    let log = open(dir.path()).await;
    log.create_topic("t", 1).await.unwrap();
    log.append("t", Some(0), numbered(0..3), "p", 0)
        .await
        .unwrap();
    drop(log);
    let folder = last_file(dir.path()).parent().unwrap().to_owned();
    faulty.set(move |operation, path| {
        (operation == FileOperation::SyncDir && path == folder)
            .then(|| io::Error::from(io::ErrorKind::StorageFull))
    });
    let log = EmbeddedLog::open(dir.path(), environment).await.unwrap();
    let failed = log.append("t", Some(0), numbered(3..6), "p", 3).await;
    assert!(failed.is_err());
    faulty.clear();
    let appended = log.append("t", Some(0), numbered(3..6), "p", 3).await;
    assert_eq!(appended.unwrap().next_offset, 6);
}
