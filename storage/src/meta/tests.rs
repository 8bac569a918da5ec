//! The promises of every metastore, checked on the SQL one, and those of its file.

mod ledger;

use super::coverage::CoverageFacts;
use super::sql::SqlMetastore;
use super::*;
use crate::environment::{Clock, ManualClock};
use std::future::{Future, poll_fn};
use std::path::Path;
use std::task::Poll;
use strandline_proto::coverage::Coverage;
use strandline_proto::ids::OffsetRange;
use strandline_proto::{Error, ErrorKind};

const NOW: i64 = 1_400_000_000_000;

async fn open(dir: &Path) -> SqlMetastore {
    SqlMetastore::open(&dir.join("meta.sqlite"), Arc::new(ManualClock::new(NOW)))
        .await
        .unwrap()
}

fn partition(number: u32) -> StreamPartition {
    StreamPartition {
        stream: Arc::from("log"),
        topic: Arc::from("t"),
        partition: number,
    }
}

fn segment(name: &str, checksum: u64, half: Half, offsets: Option<(u64, u64)>) -> SegmentInfo {
    SegmentInfo {
        name: SegmentName::new(name),
        checksum,
        half,
        rows: 10,
        bytes: 100,
        schema_version: 1,
        time_ms: Some((1, 2)),
        columns: Vec::new(),
        origin: offsets.map(|(start, end)| (partition(0), OffsetRange { start, end })),
        stored_as: None,
        moved: false,
        pushed_in: 0,
        rebuilt: false,
    }
}

fn schema(name: &str, version: u32, json: &str) -> SchemaRecord {
    SchemaRecord {
        name: name.into(),
        version,
        json: json.into(),
        lineage: Arc::default(),
    }
}

fn table(half: Half) -> NewTable {
    NewTable {
        name: "t".into(),
        half,
        schema: "t".into(),
        config_json: format!("{{\"half\":\"{half}\"}}"),
    }
}

fn realtime(name: &str, checksum: u64, start: u64, end: u64) -> CommitRealtime {
    CommitRealtime {
        table: "t".into(),
        segment: segment(name, checksum, Half::Realtime, Some((start, end))),
        counts: IngestCounts {
            read: end - start,
            indexed: end - start,
            ..IngestCounts::default()
        }
        .into(),
        dead_letters: Vec::new(),
    }
}

fn push(
    id: &str,
    names: &[(&str, u64)],
    mode: PushType,
    declared: Option<(i64, i64)>,
) -> PushOffline {
    PushOffline {
        table: "t".into(),
        push_id: id.into(),
        segments: names
            .iter()
            .map(|(name, checksum)| segment(name, *checksum, Half::Offline, None))
            .collect(),
        mode,
        declared: declared.map(|(start_ms, end_ms)| Interval { start_ms, end_ms }),
        replaces: None,
        keeps_replaced: false,
        rebuilt: false,
        result_json: format!("result of {id}"),
    }
}

fn letter(offset: u64, payload: &[u8]) -> DeadLetter {
    DeadLetter {
        partition: partition(0),
        offset,
        reason: "not JSON".into(),
        payload: Bytes::copy_from_slice(payload),
        payload_bytes: payload.len() as u64,
        timestamp_ms: NOW + offset as i64,
    }
}

fn content(name: &str, checksum: u64) -> SegmentContent {
    (SegmentName::new(name), checksum)
}

fn change(
    removed: &[SegmentContent],
    added: Vec<SegmentInfo>,
    reason: ChangeReason,
) -> ChangeSegments {
    ChangeSegments {
        table: "t".into(),
        removed: removed.to_vec(),
        added,
        reason,
        left: Vec::new(),
    }
}

async fn hybrid(store: &dyn Metastore) {
    store.put_schema(schema("t", 1, "{}")).await.unwrap();
    store.create_table(table(Half::Offline)).await.unwrap();
    store.create_table(table(Half::Realtime)).await.unwrap();
}

fn names(record: &TableRecord) -> Vec<&str> {
    record.segments.iter().map(|s| s.name.as_str()).collect()
}

async fn only_table(store: &dyn Metastore) -> TableRecord {
    let state = store.state().await.unwrap();
    assert_eq!(state.tables.len(), 1);
    TableRecord::clone(&state.tables[0])
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn schemas_and_tables_are_created_once_and_dropped_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    assert_eq!(
        kind(store.create_table(table(Half::Offline)).await),
        ErrorKind::FailedPrecondition
    );
    assert_eq!(
        store.put_schema(schema("t", 1, "{}")).await.unwrap(),
        Outcome::Done(1)
    );
    let version = store.state().await.unwrap().version;
    assert_eq!(
        store.put_schema(schema("t", 1, "{}")).await.unwrap(),
        Outcome::AlreadyDone(1)
    );
    assert_eq!(store.state().await.unwrap().version, version);
    assert_eq!(
        store.put_schema(schema("t", 2, "{ }")).await.unwrap(),
        Outcome::Done(2)
    );
    assert_eq!(
        kind(store.put_schema(schema("t", 2, "{  }")).await),
        ErrorKind::FailedPrecondition
    );

    let Outcome::Done(created) = store.create_table(table(Half::Offline)).await.unwrap() else {
        panic!()
    };
    assert!(created > version);
    assert_eq!(
        store.create_table(table(Half::Offline)).await.unwrap(),
        Outcome::AlreadyDone(created)
    );
    let other = NewTable {
        config_json: "{}".into(),
        ..table(Half::Offline)
    };
    assert_eq!(
        kind(store.create_table(other).await),
        ErrorKind::AlreadyExists
    );
    store.create_table(table(Half::Realtime)).await.unwrap();
    assert_eq!(
        kind(store.delete_schema("t").await),
        ErrorKind::FailedPrecondition
    );
    assert_eq!(kind(store.delete_schema("u").await), ErrorKind::NotFound);
    let record = only_table(&store).await;
    assert_eq!(
        (record.schema.version, record.offline_json.as_deref()),
        (2, Some("{\"half\":\"OFFLINE\"}"))
    );
    assert_eq!(record.coverage, CoverageFacts::default());

    store.drop_table("t", Some(Half::Offline)).await.unwrap();
    assert_eq!(
        kind(store.drop_table("t", Some(Half::Offline)).await),
        ErrorKind::NotFound
    );
    assert_eq!(only_table(&store).await.offline_json, None);
    store.drop_table("t", None).await.unwrap();
    assert_eq!(kind(store.drop_table("t", None).await), ErrorKind::NotFound);
    store.delete_schema("t").await.unwrap();
    let state = store.state().await.unwrap();
    assert!(state.tables.is_empty() && state.schemas.is_empty());
}

#[tokio::test]
async fn commits_tile_the_offsets_and_repeating_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    assert_eq!(
        store.start_partition("t", &partition(0), 5).await.unwrap(),
        5
    );
    assert_eq!(
        store.start_partition("t", &partition(0), 99).await.unwrap(),
        5
    );
    assert_eq!(
        kind(store.commit_realtime(realtime("s0", 1, 0, 10)).await),
        ErrorKind::FailedPrecondition
    );
    let mut first = realtime("s0", 1, 5, 10);
    first.dead_letters = vec![letter(7, b"x")];
    let Outcome::Done(done) = store.commit_realtime(first.clone()).await.unwrap() else {
        panic!()
    };
    assert_eq!(
        store.commit_realtime(first).await.unwrap(),
        Outcome::AlreadyDone(done)
    );
    assert_eq!(
        kind(store.commit_realtime(realtime("s0", 2, 5, 10)).await),
        ErrorKind::FailedPrecondition
    );
    for (start, end) in [(5, 10), (9, 12), (11, 12)] {
        assert_eq!(
            kind(store.commit_realtime(realtime("s1", 1, start, end)).await),
            ErrorKind::FailedPrecondition,
            "{start}"
        );
    }
    store
        .commit_realtime(realtime("s1", 1, 10, 12))
        .await
        .unwrap();
    let skip = SkipOffsets {
        table: "t".into(),
        partition: partition(0),
        from_offset: 12,
        to_offset: 20,
        counts: IngestCounts {
            lost: 8,
            ..IngestCounts::default()
        }
        .into(),
        dead_letters: vec![letter(13, b"y")],
    };
    assert!(
        !store
            .skip_offsets(skip.clone())
            .await
            .unwrap()
            .is_already_done()
    );
    assert!(
        store
            .skip_offsets(skip.clone())
            .await
            .unwrap()
            .is_already_done()
    );
    assert_eq!(
        kind(
            store
                .skip_offsets(SkipOffsets {
                    from_offset: 19,
                    to_offset: 30,
                    ..skip
                })
                .await
        ),
        ErrorKind::FailedPrecondition
    );

    drop(store);
    let store = open(dir.path()).await;
    let record = only_table(&store).await;
    assert_eq!(names(&record), ["s0", "s1"]);
    let counts = IngestCounts {
        read: 7,
        indexed: 7,
        lost: 8,
        ..IngestCounts::default()
    };
    assert_eq!(
        record.partitions,
        [PartitionRecord {
            partition: partition(0),
            first_offset: 5,
            next_offset: 20,
            counts,
            ledger_offset: 5,
        }]
    );
    assert_eq!(
        store.dead_letters("t", 10).await.unwrap(),
        [letter(13, b"y"), letter(7, b"x")]
    );
    let refused = store
        .commit_realtime(CommitRealtime {
            segment: segment("s9", 1, Half::Realtime, None),
            ..realtime("s9", 1, 0, 1)
        })
        .await;
    assert_eq!(kind(refused), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_push_is_done_once_and_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    let first = push(
        "p1",
        &[("a", 1), ("b", 1)],
        PushType::Append,
        Some((0, 100)),
    );
    let Outcome::Done(done) = store.push_offline(first.clone()).await.unwrap() else {
        panic!()
    };
    let Outcome::AlreadyDone(again) = store.push_offline(first).await.unwrap() else {
        panic!()
    };
    assert_eq!(again, done);
    assert_eq!(
        store.push_result("t", "p1").await.unwrap().as_deref(),
        Some("result of p1")
    );
    assert_eq!(store.push_result("t", "p2").await.unwrap(), None);

    let version = store.state().await.unwrap().version;
    for (names, mode) in [
        (vec![("c", 1), ("a", 2)], PushType::Append),
        (vec![("c", 1), ("a", 1)], PushType::Append),
    ] {
        assert_eq!(
            kind(
                store
                    .push_offline(push("p2", &names, mode, Some((0, 900))))
                    .await
            ),
            ErrorKind::AlreadyExists
        );
    }
    assert_eq!(
        kind(
            store
                .push_offline(push("p2", &[("c", 1), ("c", 1)], PushType::Append, None))
                .await
        ),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(
            store
                .push_offline(push("p2", &[("c", 1)], PushType::Append, Some((5, 5))))
                .await
        ),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        kind(
            store
                .push_offline(push("", &[("c", 1)], PushType::Append, None))
                .await
        ),
        ErrorKind::InvalidArgument
    );
    assert_eq!(store.state().await.unwrap().version, version);
    let record = only_table(&store).await;
    assert_eq!(names(&record), ["a", "b"]);
    assert_eq!(
        (record.set_version, record.coverage.changed_ms),
        (done.version, Some(NOW))
    );
    assert_eq!(record.coverage.declared.unwrap().boundary_ms(), Some(100));

    let Outcome::Done(refreshed) = store
        .push_offline(push("p3", &[("a", 1), ("d", 1)], PushType::Refresh, None))
        .await
        .unwrap()
    else {
        panic!()
    };
    assert_eq!(refreshed.removed, [segment("b", 1, Half::Offline, None)]);
    let record = only_table(&store).await;
    assert_eq!(names(&record), ["a", "d"]);
    assert!(record.coverage.declared.is_none());
    let gone = RemovedSegment {
        table: "t".into(),
        segment: segment("b", 1, Half::Offline, None),
        removed_in: refreshed.version,
    };
    assert_eq!(store.removed_segments().await.unwrap(), [gone]);
    assert_eq!(
        kind(
            store
                .push_offline(push("p4", &[("b", 1)], PushType::Append, None))
                .await
        ),
        ErrorKind::AlreadyExists
    );
    store
        .forget_segments("t", &[content("a", 1), content("b", 1)])
        .await
        .unwrap();
    assert_eq!(names(&only_table(&store).await), ["a", "d"]);
    store
        .push_offline(push("p4", &[("b", 1)], PushType::Append, None))
        .await
        .unwrap();
}

#[tokio::test]
async fn deleting_a_day_leaves_the_others_covered_and_the_pin_holds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    store
        .push_offline(push(
            "p",
            &[("d1", 1), ("d2", 1), ("d3", 1)],
            PushType::Append,
            Some((0, 30)),
        ))
        .await
        .unwrap();
    let deleted = ChangeReason::Uncovered(Interval {
        start_ms: 10,
        end_ms: 20,
    });
    let request = change(&[content("d2", 1)], Vec::new(), deleted);
    let changed = store.change_segments(request.clone()).await.unwrap();
    assert!(!changed.is_already_done());
    // Nothing was added by which a repetition could be told from a change of what is not there.
    assert_eq!(
        kind(store.change_segments(request).await),
        ErrorKind::FailedPrecondition
    );
    assert!(!store.pin_boundary("t", 25).await.unwrap().is_already_done());
    assert!(store.pin_boundary("t", 25).await.unwrap().is_already_done());
    let record = only_table(&store).await;
    assert_eq!(names(&record), ["d1", "d3"]);
    let covered =
        |facts: &CoverageFacts| super::coverage::coverage(facts, None, Default::default());
    let of = |pairs: &[(i64, i64)]| {
        Coverage::new(
            pairs
                .iter()
                .map(|&(start_ms, end_ms)| Interval { start_ms, end_ms }),
        )
    };
    assert_eq!(covered(&record.coverage), of(&[(0, 10), (20, 25)]));
    store.release_boundary("t").await.unwrap();
    assert!(store.release_boundary("t").await.unwrap().is_already_done());
    assert_eq!(
        covered(&only_table(&store).await.coverage),
        of(&[(0, 10), (20, 30)])
    );
    assert_eq!(kind(store.pin_boundary("u", 1).await), ErrorKind::NotFound);
}

#[tokio::test]
async fn dead_letters_are_kept_once_and_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    let large = vec![0xab; DEAD_LETTER_BYTES_MAX + 10];
    let letters = [letter(1, b""), letter(2, &large), letter(1, b"other")];
    assert_eq!(store.record_dead_letters("t", &letters).await.unwrap(), 2);
    assert_eq!(store.record_dead_letters("t", &letters).await.unwrap(), 0);
    let stored = store.dead_letters("t", 10).await.unwrap();
    assert_eq!(
        (stored[0].payload.len(), stored[0].payload_bytes),
        (DEAD_LETTER_BYTES_MAX, large.len() as u64)
    );
    assert_eq!(stored[1], letters[0]);
    assert_eq!(store.dead_letters("t", 1).await.unwrap().len(), 1);
    assert_eq!(
        kind(store.record_dead_letters("u", &letters).await),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn dropping_a_half_keeps_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    store
        .push_offline(push("p", &[("a", 1)], PushType::Append, Some((0, 30))))
        .await
        .unwrap();
    store
        .commit_realtime(realtime("s0", 1, 0, 10))
        .await
        .unwrap();
    assert_eq!(
        store
            .drop_table("t", Some(Half::Realtime))
            .await
            .unwrap()
            .len(),
        1
    );
    let record = only_table(&store).await;
    assert!(
        names(&record) == ["a"]
            && record.partitions.is_empty()
            && record.coverage.declared.is_some()
    );
    assert_eq!(
        kind(store.commit_realtime(realtime("s1", 1, 0, 10)).await),
        ErrorKind::FailedPrecondition
    );
    store.create_table(table(Half::Realtime)).await.unwrap();
    store
        .commit_realtime(realtime("s1", 1, 3, 10))
        .await
        .unwrap();
    assert_eq!(
        store
            .drop_table("t", Some(Half::Offline))
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(only_table(&store).await.coverage, CoverageFacts::default());
    assert_eq!(store.removed_segments().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_operations_wait_for_each_other_and_readers_see_whole_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).await);
    hybrid(&*store).await;
    let pushes = (0..20).map(|i| {
        let store = store.clone();
        tokio::spawn(async move {
            let names = [format!("{i}a"), format!("{i}b")];
            store
                .push_offline(push(
                    &format!("p{i}"),
                    &[(&names[0], 1), (&names[1], 1)],
                    PushType::Append,
                    None,
                ))
                .await
                .unwrap();
        })
    });
    let pushes: Vec<_> = pushes.collect();
    let mut last = CatalogVersion(0);
    while pushes.iter().any(|push| !push.is_finished()) {
        let state = store.state().await.unwrap();
        assert!(state.version >= last && state.tables[0].segments.len() % 2 == 0);
        last = state.version;
    }
    futures::future::join_all(pushes)
        .await
        .into_iter()
        .for_each(|push| push.unwrap());
    assert_eq!(only_table(&*store).await.segments.len(), 40);
}

#[tokio::test]
async fn a_commit_shares_all_that_it_did_not_change_with_the_state_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    store.put_schema(schema("u", 1, "{}")).await.unwrap();
    let other = NewTable {
        name: "u".into(),
        schema: "u".into(),
        ..table(Half::Offline)
    };
    store.create_table(other).await.unwrap();
    store
        .push_offline(push("p", &[("a", 1), ("c", 1)], PushType::Append, None))
        .await
        .unwrap();
    let before = store.state().await.unwrap();
    store
        .commit_realtime(realtime("b", 1, 0, 10))
        .await
        .unwrap();
    let after = store.state().await.unwrap();
    let shared = |name: &str| Arc::ptr_eq(before.table(name).unwrap(), after.table(name).unwrap());
    assert!(shared("u") && !shared("t"));
    let (old, new) = (before.table("t").unwrap(), after.table("t").unwrap());
    assert_eq!(
        (names(old), names(new)),
        (vec!["a", "c"], vec!["a", "b", "c"])
    );
    assert!(Arc::ptr_eq(&old.segments[0], &new.segments[0]));
    assert!(Arc::ptr_eq(&old.segments[1], &new.segments[2]));

    store
        .record_dead_letters("t", &[letter(3, b"x")])
        .await
        .unwrap();
    assert!(store.pin_boundary("t", 5).await.is_ok() && store.pin_boundary("t", 5).await.is_ok());
    assert!(!Arc::ptr_eq(&after, &store.state().await.unwrap()));
    let pinned = store.state().await.unwrap();
    assert!(store.pin_boundary("t", 5).await.unwrap().is_already_done());
    assert!(Arc::ptr_eq(&pinned, &store.state().await.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_in_a_commit_leaves_what_is_stored_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    // Goes away after each number of polls: before the first statement, between any two, in the commit, after it.
    for patience in 0.. {
        let (id, name) = (format!("p{patience}"), format!("s{patience}"));
        let names = [(name.as_str(), 1)];
        let mut pushed = Box::pin(store.push_offline(push(&id, &names, PushType::Append, None)));
        let mut polls = 0;
        let answered = poll_fn(|context| {
            if polls == patience {
                return Poll::Ready(None);
            }
            polls += 1;
            pushed.as_mut().poll(context).map(Some)
        })
        .await;
        let answered = answered.map(Result::unwrap).is_some();
        drop(pushed);
        let state = store.state().await.unwrap();
        assert_eq!(*state, *open(dir.path()).await.state().await.unwrap());
        let segments = &state.table("t").unwrap().segments;
        let done = segments.iter().any(|s| s.name.as_str() == name);
        assert!(done || !answered, "after {patience} polls");
        assert!(!done || patience > 0);
        if answered {
            break;
        }
    }
}

#[tokio::test]
async fn a_store_of_a_newer_version_or_of_other_bytes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.raise_version_for_test(7).await;
    store.close().await;
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW));
    let error = SqlMetastore::open(&dir.path().join("meta.sqlite"), clock.clone())
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(
        error.message().contains("metastore version 7") && error.message().contains("upgrade"),
        "{error}"
    );

    let garbage = dir.path().join("garbage.sqlite");
    std::fs::write(&garbage, vec![b'x'; 5000]).unwrap();
    assert_eq!(
        SqlMetastore::open(&garbage, clock.clone())
            .await
            .err()
            .unwrap()
            .kind(),
        ErrorKind::DataLoss
    );
    let missing = dir.path().join("no/such/folder/meta.sqlite");
    assert_eq!(
        SqlMetastore::open(&missing, clock)
            .await
            .err()
            .unwrap()
            .kind(),
        ErrorKind::FailedPrecondition
    );
}

#[tokio::test]
async fn a_config_changes_and_segments_are_put_in_others_places() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store.put_schema(schema("t", 1, "{}")).await.unwrap();
    store.create_table(table(Half::Offline)).await.unwrap();
    let known = PushOffline {
        segments: vec![
            SegmentInfo {
                stored_as: Some("f1".to_owned()),
                ..segment("a", 1, Half::Offline, None)
            },
            segment("b", 2, Half::Offline, None),
        ],
        ..push("p", &[], PushType::Append, None)
    };
    store.push_offline(known).await.unwrap();
    let changed = NewTable {
        config_json: "{}".to_owned(),
        ..table(Half::Offline)
    };
    assert_eq!(
        store
            .update_table(table(Half::Realtime))
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    assert!(
        !store
            .update_table(changed.clone())
            .await
            .unwrap()
            .is_already_done()
    );
    assert!(store.update_table(changed).await.unwrap().is_already_done());
    let stored_as = async || {
        let state = store.state().await.unwrap();
        let table = state.table("t").unwrap();
        assert_eq!(table.offline_json.as_deref(), Some("{}"));
        let each = table
            .segments
            .iter()
            .map(|s| (s.checksum, s.stored_as.clone()));
        each.collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        stored_as().await,
        [(1, some("f1")), (2, some(STORED_OTHERWISE))]
    );
    assert_eq!(store.doubt_segments("t", None).await.unwrap(), 0);

    let new = SegmentInfo {
        checksum: 9,
        bytes: 500,
        stored_as: some("f2"),
        ..segment("b", 2, Half::Offline, None)
    };
    let replace = ReplaceSegment {
        table: "t".into(),
        checksum: 2,
        segment: new.clone(),
    };
    let wrong = [
        ReplaceSegment {
            checksum: 3,
            ..replace.clone()
        },
        ReplaceSegment {
            segment: SegmentInfo {
                rows: 11,
                ..new.clone()
            },
            ..replace.clone()
        },
        ReplaceSegment {
            segment: SegmentInfo {
                name: SegmentName::new("c"),
                ..new.clone()
            },
            ..replace.clone()
        },
        ReplaceSegment {
            segment: SegmentInfo {
                half: Half::Realtime,
                ..new
            },
            ..replace.clone()
        },
    ];
    for wrong in wrong {
        let error = store.replace_segment(wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    }
    let before = store.state().await.unwrap().version;
    let version = store
        .replace_segment(replace.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(version > before);
    assert!(
        store
            .replace_segment(replace.clone())
            .await
            .unwrap()
            .is_already_done()
    );
    assert_eq!(stored_as().await, [(1, some("f1")), (9, some("f2"))]);
    assert_eq!(store.removed_segments().await.unwrap(), []);

    let gone = change(&[content("b", 9)], Vec::new(), ChangeReason::Deleted);
    store.change_segments(gone).await.unwrap();
    assert!(store.replace_segment(replace).await.is_err());
}

fn pushed(outcome: Outcome<Pushed>) -> Pushed {
    match outcome {
        Outcome::Done(pushed) => pushed,
        Outcome::AlreadyDone(_) => panic!("it had been done before"),
    }
}

fn replacing(
    id: &str,
    name: &str,
    interval: (i64, i64),
    removed: &[SegmentContent],
) -> PushOffline {
    PushOffline {
        replaces: Some(Replaces {
            interval: Interval {
                start_ms: interval.0,
                end_ms: interval.1,
            },
            only_moved: false,
            removed: removed.to_vec(),
            rest: Vec::new(),
        }),
        keeps_replaced: true,
        ..push(id, &[(name, 1)], PushType::Append, None)
    }
}

#[tokio::test]
async fn a_push_takes_the_place_of_an_interval_and_is_reverted_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    let first = push("p1", &[("a", 1)], PushType::Append, None);
    store.push_offline(first).await.unwrap();
    // All segments of the interval must be named, with their checksums.
    for removed in [vec![], vec![content("a", 2)], vec![content("b", 1)]] {
        let wrong = replacing("p2", "b", (0, 10), &removed);
        assert_eq!(
            kind(store.push_offline(wrong).await),
            ErrorKind::FailedPrecondition
        );
    }
    let before = only_table(&store).await;
    let second = replacing("p2", "b", (0, 10), &[content("a", 1)]);
    let replaced = pushed(store.push_offline(second.clone()).await.unwrap());
    assert_eq!((replaced.removed.len(), replaced.kept.len()), (0, 1));
    assert!(store.push_offline(second).await.unwrap().is_already_done());
    let after = only_table(&store).await;
    assert_eq!(names(&after), ["b"]);
    let covered = super::coverage::coverage(&after.coverage, Some(2), Default::default());
    assert!(covered.contains(0) && covered.contains(9) && !covered.contains(10));
    assert_eq!(store.removed_segments().await.unwrap(), []);
    let kept = store.kept_pushes().await.unwrap();
    assert_eq!(
        (kept.len(), kept[0].push_id.as_str(), kept[0].pushed_ms),
        (1, "p2", NOW)
    );
    assert_eq!((kept[0].added.len(), kept[0].segments[0].checksum), (1, 1));
    // A kept segment is not forgotten by mistake.
    store
        .forget_segments("t", &[content("a", 1)])
        .await
        .unwrap();

    let reverted = pushed(store.revert_push("t", "p2").await.unwrap());
    assert_eq!(reverted.removed[0].name.as_str(), "b");
    let record = only_table(&store).await;
    assert_eq!(
        (names(&record), &record.coverage),
        (vec!["a"], &before.coverage)
    );
    assert!(
        store
            .revert_push("t", "p2")
            .await
            .unwrap()
            .is_already_done()
    );
    assert_eq!(store.kept_pushes().await.unwrap(), []);
    let again = replacing("p2", "b", (0, 10), &[content("a", 1)]);
    assert_eq!(
        kind(store.push_offline(again).await),
        ErrorKind::FailedPrecondition
    );
    assert_eq!(
        kind(store.revert_push("t", "none").await),
        ErrorKind::NotFound
    );
    // The content that was reverted is on its way out, the name may stand for another one.
    let back = replacing("p3", "b", (0, 10), &[content("a", 1)]);
    assert_eq!(
        kind(store.push_offline(back).await),
        ErrorKind::AlreadyExists
    );
    store
        .forget_segments("t", &[content("b", 1)])
        .await
        .unwrap();
    let back = replacing("p3", "b", (0, 10), &[content("a", 1)]);
    store.push_offline(back).await.unwrap();

    // One version back is kept: replacing it once more lets the one before go.
    let next = replacing("p4", "c", (0, 10), &[content("b", 1)]);
    let next = pushed(store.push_offline(next).await.unwrap());
    assert_eq!(
        (next.removed[0].name.as_str(), next.kept[0].name.as_str()),
        ("a", "b")
    );
    assert_eq!(
        kind(store.revert_push("t", "p3").await),
        ErrorKind::FailedPrecondition
    );
    let (_, released) = store.release_push("t", "p4").await.unwrap();
    assert_eq!(released[0].name.as_str(), "b");
    assert_eq!(
        kind(store.revert_push("t", "p4").await),
        ErrorKind::FailedPrecondition
    );
    assert_eq!(store.removed_segments().await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_rebuilt_moves_no_boundary_that_is_inferred() {
    const DAY_MS: i64 = 86_400_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    let of_days = |push: PushOffline, days: (i64, i64)| PushOffline {
        segments: push
            .segments
            .into_iter()
            .map(|segment| SegmentInfo {
                time_ms: Some((days.0 * DAY_MS, days.1 * DAY_MS)),
                rebuilt: push.rebuilt,
                ..segment
            })
            .collect(),
        ..push
    };
    let covered = |record: &TableRecord| {
        let pushed = record.segments.iter().filter(|s| s.moves_boundary());
        let largest = pushed.filter_map(|s| Some(s.time_ms?.1)).max();
        super::coverage::coverage(&record.coverage, largest, Default::default())
    };
    let rebuild = |id: &str, name: &str, days: (i64, i64), removed: &[SegmentContent]| {
        let interval = (days.0 * DAY_MS, (days.1 + 1) * DAY_MS);
        let push = replacing(id, name, interval, removed);
        let push = PushOffline {
            rebuilt: true,
            ..push
        };
        of_days(push, days)
    };
    let days = |start: i64, end: i64| Interval {
        start_ms: start * DAY_MS,
        end_ms: end * DAY_MS,
    };
    // Of a table to which nothing was pushed, and which infers nothing.
    let first = rebuild("r1", "r1", (7, 8), &[]);
    store.push_offline(first).await.unwrap();
    let record = only_table(&store).await;
    assert_eq!(covered(&record).intervals(), [days(7, 9)]);
    let push = of_days(push("p", &[("p", 1)], PushType::Append, None), (0, 5));
    store.push_offline(push).await.unwrap();
    let before = only_table(&store).await;
    let inferred = Interval {
        start_ms: i64::MIN,
        end_ms: 5 * DAY_MS,
    };
    assert_eq!(covered(&before).intervals(), [inferred, days(7, 9)]);
    // In the place of all that inference goes by.
    let second = rebuild("r2", "r2", (0, 5), &[content("p", 1)]);
    store.push_offline(second).await.unwrap();
    let record = only_table(&store).await;
    let until = Interval {
        start_ms: i64::MIN,
        end_ms: 6 * DAY_MS,
    };
    assert_eq!(covered(&record).intervals(), [until, days(7, 9)]);
    store.revert_push("t", "r2").await.unwrap();
    let record = only_table(&store).await;
    assert_eq!(covered(&record), covered(&before));
}

#[tokio::test]
async fn a_refresh_is_reverted_while_nothing_came_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    let first = push(
        "p1",
        &[("a", 1), ("same", 1)],
        PushType::Append,
        Some((0, 50)),
    );
    store.push_offline(first).await.unwrap();
    let before = only_table(&store).await.coverage;
    let refresh = |id: &str, checksum| PushOffline {
        keeps_replaced: true,
        ..push(id, &[("a", checksum), ("same", 1)], PushType::Refresh, None)
    };
    // The same name stands for another content from then on.
    store.push_offline(refresh("p2", 2)).await.unwrap();
    let checksums = |record: &TableRecord| {
        record
            .segments
            .iter()
            .map(|s| s.checksum)
            .collect::<Vec<_>>()
    };
    assert_eq!(checksums(&only_table(&store).await), [2, 1]);
    store.pin_boundary("t", 7).await.unwrap();
    store
        .push_offline(push("p3", &[("z", 1)], PushType::Append, None))
        .await
        .unwrap();
    let refused = store.revert_push("t", "p2").await.unwrap_err();
    assert!(refused.message().contains("p3"), "{refused}");
    store.revert_push("t", "p3").await.unwrap();
    store.revert_push("t", "p2").await.unwrap();
    let record = only_table(&store).await;
    assert_eq!(
        (checksums(&record), record.coverage.pinned_at_ms),
        (vec![1, 1], Some(7))
    );
    assert_eq!(record.coverage.declared, before.declared);
    // What is kept goes with the table.
    store.push_offline(refresh("p4", 4)).await.unwrap();
    let dropped = store.drop_table("t", Some(Half::Offline)).await.unwrap();
    assert_eq!(dropped.len(), 3);
    assert_eq!(store.kept_pushes().await.unwrap(), []);
}

#[tokio::test]
async fn segments_are_merged_and_moved_only_as_whole_sets_of_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    store.start_partition("t", &partition(0), 0).await.unwrap();
    for (name, start) in [("r1", 0), ("r2", 10), ("r3", 20)] {
        store
            .commit_realtime(realtime(name, 1, start, start + 10))
            .await
            .unwrap();
    }
    let merged = |name: &str, rows, offsets| SegmentInfo {
        rows,
        ..segment(name, 1, Half::Realtime, Some(offsets))
    };
    let two = [content("r1", 1), content("r2", 1)];
    for (removed, wrong) in [
        (&two[..], merged("m", 19, (0, 20))),
        (&two[..], merged("m", 20, (0, 19))),
        (&two[..1], merged("m", 20, (0, 20))),
        (
            &two[..],
            SegmentInfo {
                half: Half::Offline,
                ..merged("m", 20, (0, 20))
            },
        ),
    ] {
        let wrong = change(removed, vec![wrong], ChangeReason::Merged);
        assert!(store.change_segments(wrong).await.is_err());
    }
    let right = change(&two, vec![merged("m", 20, (0, 20))], ChangeReason::Merged);
    store.change_segments(right.clone()).await.unwrap();
    assert!(
        store
            .change_segments(right)
            .await
            .unwrap()
            .is_already_done()
    );
    assert_eq!(names(&only_table(&store).await), ["m", "r3"]);
    let stale = change(
        &two[..1],
        vec![merged("n", 10, (0, 10))],
        ChangeReason::Merged,
    );
    assert_eq!(
        kind(store.change_segments(stale).await),
        ErrorKind::FailedPrecondition
    );

    // Fifteen of the rows move, five stay.
    let times = Coverage::new([Interval {
        start_ms: 0,
        end_ms: 2,
    }]);
    let moved = SegmentInfo {
        rows: 15,
        moved: true,
        pushed_in: 0,
        ..segment("o", 1, Half::Offline, None)
    };
    let counts = IngestCounts {
        moved: 15,
        ..IngestCounts::default()
    };
    let take = |rows| ChangeSegments {
        left: vec![LeftRows {
            partition: partition(0),
            range: OffsetRange { start: 0, end: 20 },
            counts: counts.into(),
        }],
        ..change(
            &[content("m", 1)],
            vec![
                SegmentInfo {
                    rows,
                    ..moved.clone()
                },
                merged("m2", 5, (0, 20)),
            ],
            ChangeReason::Moved {
                times: times.clone(),
                beside: Vec::new(),
            },
        )
    };
    assert!(store.change_segments(take(16)).await.is_err());
    // A pushed segment that reaches over the times must be known to have no rows of them.
    let pushed = push("beside", &[("x", 1)], PushType::Append, None);
    store.push_offline(pushed).await.unwrap();
    assert_eq!(
        kind(store.change_segments(take(15)).await),
        ErrorKind::FailedPrecondition
    );
    store.revert_push("t", "beside").await.unwrap();
    let gone = [content("x", 1)];
    store.forget_segments("t", &gone).await.unwrap();
    store.change_segments(take(15)).await.unwrap();
    let record = only_table(&store).await;
    assert_eq!(names(&record), ["m2", "o", "r3"]);
    assert_eq!(
        (
            record.coverage.moved.clone(),
            record.partitions[0].counts.moved
        ),
        (times, 15)
    );
    let covered = super::coverage::covered(&record.coverage, None, Default::default());
    assert_eq!(
        (covered.offline, covered.shared),
        (record.coverage.moved.clone(), record.coverage.moved)
    );
    // Rows that would count twice are refused; a declared push takes the place of what was taken over.
    let beside = push("p", &[("x", 1)], PushType::Append, None);
    assert_eq!(
        kind(store.push_offline(beside).await),
        ErrorKind::FailedPrecondition
    );
    let declared = push("p", &[("x", 1)], PushType::Append, Some((0, 10)));
    // The push must say what of it was taken over by then.
    assert_eq!(
        kind(store.push_offline(declared.clone()).await),
        ErrorKind::FailedPrecondition
    );
    let declared = PushOffline {
        replaces: Some(Replaces {
            interval: Interval {
                start_ms: 0,
                end_ms: 10,
            },
            only_moved: true,
            removed: vec![content("o", 1)],
            rest: Vec::new(),
        }),
        ..declared
    };
    store.push_offline(declared).await.unwrap();
    let record = only_table(&store).await;
    assert_eq!(names(&record), ["m2", "r3", "x"]);
    assert!(record.coverage.moved.is_empty() && record.coverage.declared.is_some());
}

#[tokio::test]
async fn what_is_deleted_moves_no_inferred_boundary_and_a_pause_holds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    let day = 86_400_000;
    let at = |name: &str, ms| SegmentInfo {
        time_ms: Some((ms, ms)),
        ..segment(name, 1, Half::Offline, None)
    };
    let both = PushOffline {
        segments: vec![at("a", 3 * day), at("b", 9 * day)],
        ..push("p", &[], PushType::Append, None)
    };
    store.push_offline(both).await.unwrap();
    let boundary = |record: &TableRecord| {
        let largest = record
            .segments
            .iter()
            .filter_map(|s| Some(s.time_ms?.1))
            .max();
        super::coverage::coverage(&record.coverage, largest, Default::default()).boundary_ms()
    };
    assert_eq!(boundary(&only_table(&store).await), Some(9 * day));
    let gone = change(&[content("b", 1)], Vec::new(), ChangeReason::Deleted);
    store.change_segments(gone).await.unwrap();
    assert_eq!(boundary(&only_table(&store).await), Some(9 * day));

    assert!(!store.set_paused("t", true).await.unwrap().is_already_done());
    assert!(store.set_paused("t", true).await.unwrap().is_already_done());
    assert_eq!(only_table(&store).await.paused_ms, Some(NOW));
    store.close().await;
    let store = open(dir.path()).await;
    assert_eq!(only_table(&store).await.paused_ms, Some(NOW));
    store.set_paused("t", false).await.unwrap();
    assert_eq!(only_table(&store).await.paused_ms, None);
    assert_eq!(kind(store.set_paused("u", true).await), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_commit_is_one_though_the_database_ended_transactions_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.put_schema(schema("before", 1, "{}")).await.unwrap();
    // As on a full disk: one is rolled back behind the driver's back, and the next one can't be committed.
    store.end_transaction_for_test("ROLLBACK").await;
    store.end_transaction_for_test("SELECT 1").await;
    store.put_schema(schema("after", 1, "{}")).await.unwrap();
    let stored = open(dir.path()).await.state().await.unwrap();
    assert!(stored.schema("after").is_some());
}

/// Flips a bit of the first place where a text is in a file.
fn flip_bit_of(path: &Path, text: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes
        .windows(text.len())
        .position(|found| found == text.as_bytes());
    bytes[at.unwrap()] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn keys_are_hashed_with_one_secret_for_all_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    assert_eq!(store.keys_secret([1; 16]).await.unwrap(), [1; 16]);
    assert_eq!(store.keys_secret([2; 16]).await.unwrap(), [1; 16]);
    store.close().await;
    let store = open(dir.path()).await;
    assert_eq!(store.keys_secret([3; 16]).await.unwrap(), [1; 16]);
    store.close().await;
    flip_bit_of(&dir.path().join("meta.sqlite"), &"01".repeat(16));
    let error = open(dir.path()).await.keys_secret([4; 16]).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::DataLoss);
}

#[tokio::test]
async fn a_document_in_which_a_bit_has_flipped_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store
        .put_schema(schema("t", 1, r#"{"upsertConfig": 1}"#))
        .await
        .unwrap();
    store.close().await;
    let path = dir.path().join("meta.sqlite");
    flip_bit_of(&path, "upsertConfig");
    let error = SqlMetastore::open(&path, Arc::new(ManualClock::new(NOW))).await;
    let error = error.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(error.message().contains("strandline rebuild"), "{error}");
}
