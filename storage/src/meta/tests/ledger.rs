//! The ledger: each entry is written once, and whatever is folded, the sums stay.

use super::*;
use crate::meta::ledger::{EntryKind, LedgerEntry, blocks};

const MINUTE_MS: i64 = 60_000;

fn indexed(rows: u64) -> IngestCounts {
    IngestCounts {
        read: rows,
        indexed: rows,
        ..IngestCounts::default()
    }
}

fn deleted(rows: u64) -> IngestCounts {
    IngestCounts {
        deleted: rows,
        ..IngestCounts::default()
    }
}

/// The commit of ten rows, of the minutes from `minute` on.
fn commit(number: u64, minute: i64) -> CommitRealtime {
    let (start, end) = (number * 10, number * 10 + 10);
    let mut counts = MinuteCounts::default();
    for row in 0..10 {
        counts.add(Some((minute + row / 4) * MINUTE_MS), indexed(1));
    }
    CommitRealtime {
        counts,
        ..realtime(&format!("s{number}"), number, start, end)
    }
}

fn left(start: u64, end: u64, rows: u64, minute: i64) -> LeftRows {
    let mut counts = MinuteCounts::default();
    counts.add(Some(minute * MINUTE_MS), deleted(rows));
    LeftRows {
        partition: partition(0),
        range: OffsetRange { start, end },
        counts,
    }
}

async fn entries(store: &SqlMetastore) -> Vec<LedgerEntry> {
    let mut all = store.ledger("t").await.unwrap();
    assert_eq!(all.len(), 1);
    let ledger = all.swap_remove(0);
    assert_eq!(ledger.record, only_table(store).await.partitions[0]);
    ledger.entries
}

async fn minutes(store: &SqlMetastore, from: u64, buckets_max: usize) -> MinuteCounts {
    let of = partition(0);
    let read = store.ledger_minutes("t", &of, from, buckets_max).await;
    read.unwrap().1
}

/// The entries that were read lie beside each other.
fn check_tiled(entries: &[LedgerEntry], (start, end): (u64, u64)) {
    let read = entries.iter().filter(|e| e.kind == EntryKind::Read);
    let last = read.fold(start, |last, entry| {
        assert_eq!(entry.range.start, last);
        entry.range.end
    });
    assert_eq!(last, end);
}

#[tokio::test]
async fn an_entry_is_written_once_though_its_commit_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    for number in 0..3 {
        for _ in 0..2 {
            let committed = store.commit_realtime(commit(number, number as i64)).await;
            committed.unwrap();
        }
    }
    let skip = SkipOffsets {
        table: "t".into(),
        partition: partition(0),
        from_offset: 30,
        to_offset: 34,
        counts: IngestCounts {
            read: 4,
            dead_lettered: 4,
            ..IngestCounts::default()
        }
        .into(),
        dead_letters: Vec::new(),
    };
    store.skip_offsets(skip.clone()).await.unwrap();
    store.skip_offsets(skip).await.unwrap();
    let change = ChangeSegments {
        left: vec![left(0, 10, 4, 0)],
        ..change(
            &[content("s0", 0)],
            vec![SegmentInfo {
                rows: 6,
                ..segment("d", 9, Half::Realtime, Some((0, 10)))
            }],
            ChangeReason::Deleted,
        )
    };
    store.change_segments(change.clone()).await.unwrap();
    assert!(
        store
            .change_segments(change)
            .await
            .unwrap()
            .is_already_done()
    );
    let all = entries(&store).await;
    let shown = all.iter().map(|e| (e.range.start, e.range.end, e.kind));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            (0, 10, EntryKind::Left),
            (0, 10, EntryKind::Read),
            (10, 20, EntryKind::Read),
            (20, 30, EntryKind::Read),
            (30, 34, EntryKind::Read)
        ]
    );
    check_tiled(&all, (0, 34));
    let sum = all.iter().fold(IngestCounts::default(), |sum, entry| {
        sum.plus(*entry.counts.as_ref().unwrap())
    });
    assert_eq!(sum, only_table(&store).await.partitions[0].counts);
    assert_eq!(minutes(&store, 0, 100).await.total(), sum);
    // Minutes 0 to 4, of which the first has four rows, that left.
    let all = minutes(&store, 0, 100).await;
    let shown = all
        .buckets()
        .map(|(b, c)| (b.start_ms / MINUTE_MS, c.indexed, c.deleted));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [(0, 4, 4), (1, 8, 0), (2, 10, 0), (3, 6, 0), (4, 2, 0)]
    );
    assert_eq!(all.timeless().dead_lettered, 4);
    // Of entries before an offset no times are told.
    let later = minutes(&store, 10, 100).await;
    assert_eq!(later.total(), sum);
    assert_eq!(
        (later.timeless().indexed, later.timeless().deleted),
        (10, 4)
    );

    // It goes with its half.
    store.drop_table("t", Some(Half::Offline)).await.unwrap();
    assert_eq!(entries(&store).await.len(), 5);
    store.drop_table("t", Some(Half::Realtime)).await.unwrap();
    assert!(store.ledger("t").await.unwrap().is_empty());
    hybrid(&store).await;
    let begun = store.start_partition("t", &partition(0), 40).await.unwrap();
    assert_eq!(begun, 40);
    assert!(entries(&store).await.is_empty());
    assert_eq!(only_table(&store).await.partitions[0].ledger_offset, 40);
}

#[tokio::test]
async fn folded_entries_keep_their_sums_and_what_belongs_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    for number in 0..16 {
        let committed = store.commit_realtime(commit(number, number as i64)).await;
        committed.unwrap();
    }
    // One segment holds what came in three commits, and rows left it twice.
    let merged = |name: &str, checksum, rows| SegmentInfo {
        rows,
        ..segment(name, checksum, Half::Realtime, Some((10, 40)))
    };
    let removed = [content("s1", 1), content("s2", 2), content("s3", 3)];
    let merge = change(&removed, vec![merged("m", 100, 30)], ChangeReason::Merged);
    store.change_segments(merge).await.unwrap();
    for (checksum, rows) in [(101, 28), (102, 26)] {
        let delete = ChangeSegments {
            left: vec![left(10, 40, 2, 2)],
            ..change(
                &[content("m", checksum - 1)],
                vec![merged("m", checksum, rows)],
                ChangeReason::Deleted,
            )
        };
        store.change_segments(delete).await.unwrap();
        let gone = [content("m", checksum - 1)];
        store.forget_segments("t", &gone).await.unwrap();
    }
    let all = entries(&store).await;
    assert_eq!(all.len(), 17);
    let before = minutes(&store, 0, 100).await;
    store.fold_for_test("t", &partition(0), 17).await;
    assert_eq!(entries(&store).await, all);
    store.fold_for_test("t", &partition(0), 16).await;
    let folded = entries(&store).await;
    check_tiled(&folded, (0, 160));
    assert_eq!(minutes(&store, 0, 100).await, before);
    let ranges: Vec<_> = folded
        .iter()
        .map(|e| (e.range.start, e.range.end))
        .collect();
    assert_eq!(ranges[..4], [(0, 40), (40, 60), (60, 80), (80, 90)]);
    // What left it is in the folded entry.
    assert_eq!(folded[0].counts.as_ref().unwrap().deleted, 4);
    for _ in 0..16 {
        store.fold_for_test("t", &partition(0), 1).await;
    }
    assert_eq!(entries(&store).await.len(), 1);
    check_tiled(&entries(&store).await, (0, 160));
    assert_eq!(minutes(&store, 0, 100).await, before);
    // Few buckets are wide ones.
    let narrow = minutes(&store, 0, 4).await;
    assert_eq!(narrow.total(), before.total());
    assert_eq!(narrow.len(), 1);

    // What can't be read any more is named, and nothing else waits for it.
    store
        .execute_for_test(
            "UPDATE ledger SET counts_json = replace(counts_json, '\"read\":160', '\"read\":161')",
        )
        .await;
    assert!(entries(&store).await[0].counts.is_err());
    let read = store.ledger_minutes("t", &partition(0), 0, 100).await;
    let message = read.unwrap_err().message().to_owned();
    assert!(message.contains("offsets 0 to 160"), "{message}");
    store.commit_realtime(commit(16, 0)).await.unwrap();
    store.fold_for_test("t", &partition(0), 1).await;
    assert_eq!(entries(&store).await.len(), 2);
}

#[tokio::test]
async fn a_store_from_before_the_ledger_begins_one_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    for number in 0..2 {
        store.commit_realtime(commit(number, 0)).await.unwrap();
    }
    for statement in [
        "DROP TABLE ledger",
        "ALTER TABLE partitions DROP COLUMN ledger_offset",
        "ALTER TABLE catalog DROP COLUMN keys_secret",
        "DELETE FROM migrations WHERE version >= 3",
    ] {
        store.execute_for_test(statement).await;
    }
    store.close().await;
    let store = open(dir.path()).await;
    let record = only_table(&store).await.partitions[0].clone();
    assert_eq!(
        (
            record.first_offset,
            record.ledger_offset,
            record.counts.indexed
        ),
        (0, 20, 20)
    );
    assert!(entries(&store).await.is_empty());
    store.commit_realtime(commit(2, 5)).await.unwrap();
    let delete = ChangeSegments {
        left: vec![left(10, 20, 10, 0)],
        ..change(&[content("s1", 1)], Vec::new(), ChangeReason::Deleted)
    };
    store.change_segments(delete).await.unwrap();
    store.fold_for_test("t", &partition(0), 1).await;
    let all = entries(&store).await;
    let kinds: Vec<_> = all.iter().map(|e| (e.range.start, e.kind)).collect();
    assert_eq!(kinds, [(10, EntryKind::Left), (20, EntryKind::Read)]);
    drop(store);
    assert_eq!(entries(&open(dir.path()).await).await, all);
}

#[test]
fn blocks_end_where_no_range_goes_on() {
    let of = |ranges: &[(u64, u64)]| {
        let ranges = ranges.iter().map(|(start, end)| OffsetRange {
            start: *start,
            end: *end,
        });
        let blocks = blocks(ranges).into_iter().map(|b| (b.start, b.end));
        blocks.collect::<Vec<_>>()
    };
    assert_eq!(
        of(&[(20, 30), (0, 10), (10, 20)]),
        [(0, 10), (10, 20), (20, 30)]
    );
    assert_eq!(of(&[(0, 10), (10, 20), (5, 15), (20, 20)]), [(0, 20)]);
    assert_eq!(of(&[(0, 30), (10, 20), (40, 50)]), [(0, 30), (40, 50)]);
}

#[tokio::test]
async fn minutes_of_some_offsets_are_those_of_their_entries() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    hybrid(&store).await;
    for number in 0..4 {
        let commit = commit(number, number as i64 * 100);
        store.commit_realtime(commit).await.unwrap();
    }
    let of = async |start, end| {
        let range = OffsetRange { start, end };
        let of = partition(0);
        let minutes = store.ledger_minutes_of("t", &of, range).await.unwrap();
        let starts = minutes.buckets().map(|(b, _)| b.start_ms / MINUTE_MS);
        (starts.collect::<Vec<_>>(), minutes)
    };
    assert_eq!(of(10, 20).await.0, [100, 101, 102]);
    assert_eq!(of(19, 21).await.0, [100, 101, 102, 200, 201, 202]);
    assert_eq!(of(40, 50).await.0, [0_i64; 0]);
    let (_, minutes) = of(10, 20).await;
    for (start, end, reaches) in [
        (0, 100, false),
        (0, 101, true),
        (102, 103, true),
        (103, 200, false),
    ] {
        let interval = Interval {
            start_ms: start * MINUTE_MS,
            end_ms: end * MINUTE_MS,
        };
        assert_eq!(minutes.reaches(interval), reaches, "{interval:?}");
    }
}
