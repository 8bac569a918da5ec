//! Objects whole, damaged and overlapping, and streams in front of them.

use super::*;
use crate::environment::{Environment, FaultyFiles, FileOperation, RealFiles};
use crate::stream::archived::ArchivedStream;
use crate::stream::log::{EmbeddedLog, LogMessage};
use crate::stream::{Message, MessageBatch, PartitionReader, Stream, contract};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strandline_proto::{Error, ErrorKind};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(20);

struct Place {
    folder: TempDir,
    environment: Environment,
    deep_store: Arc<DeepStore>,
    partition: StreamPartition,
}

impl Place {
    async fn with(environment: Environment) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("deep");
        let deep_store = DeepStore::local(&deep, environment.clone()).await;
        Self {
            folder,
            environment,
            deep_store: Arc::new(deep_store.unwrap()),
            partition: StreamPartition {
                stream: Arc::from("log"),
                topic: Arc::from("t"),
                partition: 0,
            },
        }
    }

    async fn new() -> Self {
        Self::with(Environment::real()).await
    }

    fn archive(&self) -> Archive {
        Archive::of_partition(&self.deep_store, "t", &self.partition)
    }

    fn spool(&self, from: u64) -> Arc<Spool> {
        let path = self.folder.path().join(format!("spool-{from}"));
        Arc::new(Spool::new(path, Arc::clone(&self.environment.files), from))
    }

    async fn store(&self, spool: &Arc<Spool>) -> Result<()> {
        let place = ("t", &self.partition);
        spool
            .store(&self.deep_store, place, &self.environment)
            .await
    }

    /// Stores messages as the object of a range.
    async fn keep(&self, messages: &[Message], start: u64, end: u64) {
        let spool = self.spool(start);
        let held = messages
            .iter()
            .filter(|m| start <= m.offset && m.offset < end);
        let held: Vec<_> = held.cloned().collect();
        assert!(spool.append(&held, OffsetRange { start, end }).unwrap());
        self.store(&spool).await.unwrap();
    }

    fn file(&self, object: &ArchiveObject) -> PathBuf {
        self.folder.path().join("deep").join(object.path.as_ref())
    }

    async fn read(&self, object: &ArchiveObject, from: u64) -> Result<Vec<Message>> {
        let mut reader = self.archive().open(object, from).await?;
        let mut all = Vec::new();
        while let Some(messages) = reader.next_block().await? {
            all.extend(messages);
        }
        Ok(all)
    }
}

fn message(offset: u64) -> Message {
    Message {
        offset,
        key: offset
            .is_multiple_of(3)
            .then(|| Bytes::from(format!("k{offset}"))),
        payload: Bytes::from(format!("payload {offset} ").repeat((offset % 50) as usize)),
        timestamp_ms: 1_000 + offset as i64,
        headers: match offset % 4 {
            0 => vec![
                ("h".into(), Bytes::from_static(b"v")),
                ("e".into(), Bytes::new()),
            ],
            _ => Vec::new(),
        },
    }
}

/// Every offset but the tenth ones.
fn messages(range: std::ops::Range<u64>) -> Vec<Message> {
    range.filter(|o| o % 10 != 9).map(message).collect()
}

#[tokio::test]
async fn messages_come_back_as_they_were_from_any_offset() {
    let place = Place::new().await;
    let mut all = messages(7..5_000);
    all[100].payload = Bytes::from(vec![3; 3_000_000]);
    let spool = place.spool(7);
    for part in all.chunks(97) {
        let range = OffsetRange {
            start: spool.offsets().end,
            end: part.last().unwrap().offset + 1,
        };
        assert!(spool.append(part, range).unwrap());
        // What it has it does not take again.
        assert!(spool.append(part, range).unwrap());
    }
    let gap = OffsetRange {
        start: 6_000,
        end: 6_001,
    };
    assert!(!spool.append(&[], gap).unwrap());
    let tail = OffsetRange {
        start: 4_999,
        end: 5_003,
    };
    assert!(spool.append(&[], tail).unwrap());
    place.store(&spool).await.unwrap();
    place.store(&spool).await.unwrap();
    assert!(!spool.append(&[], tail).unwrap());
    assert!(!place.folder.path().join("spool-7").exists());
    let objects = place.archive().objects(0).await.unwrap();
    let [object] = objects.as_slice() else {
        panic!("{objects:?}")
    };
    assert_eq!(object.range, (7, 5_003));
    for from in [0, 7, 8, 106, 107, 108, 2_500, 4_998, 4_999, 5_003] {
        let expected: Vec<_> = all.iter().filter(|m| m.offset >= from).cloned().collect();
        assert!(
            place.read(object, from).await.unwrap() == expected,
            "{from}"
        );
    }
    let reader = place.archive().open(object, 7).await.unwrap();
    assert_eq!(reader.messages(), all.len() as u64);
    assert_eq!(reader.timestamps_ms(), Some((1_007, 5_998)));
    // Nothing takes it for a segment.
    assert_eq!(place.deep_store.list_all().await.unwrap(), []);
}

#[tokio::test]
async fn damage_is_told_with_the_file_or_changes_nothing() {
    let place = Place::new().await;
    let all = messages(0..40);
    place.keep(&all, 0, 40).await;
    let object = place.archive().objects(0).await.unwrap().remove(0);
    let path = place.file(&object);
    let whole = std::fs::read(&path).unwrap();
    let check = async |what: String| {
        let bytes = std::fs::metadata(&path).unwrap().len();
        for bytes in [object.bytes, bytes] {
            let object = ArchiveObject {
                bytes,
                ..object.clone()
            };
            match place.read(&object, 0).await {
                Ok(read) => assert!(read == all, "{what}"),
                Err(e) => assert!(e.message().contains(".raw"), "{what}: {e}"),
            }
        }
    };
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        let read = place.read(&object, 0).await;
        let error = read.expect_err(&format!("byte {at} is wrong"));
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
        assert!(error.message().contains(".raw"), "{error}");
    }
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        check(format!("cut at {len}")).await;
    }
    let mut longer = whole.clone();
    longer.extend_from_slice(&whole);
    std::fs::write(&path, &longer).unwrap();
    check("twice".to_owned()).await;
}

#[test]
fn lengths_that_lie_take_no_memory() {
    let mut body = Vec::new();
    format::put_message(&mut body, &message(1)).unwrap();
    let range = OffsetRange { start: 1, end: 2 };
    let block = format::block(&body, 1, range).unwrap();
    let (head, stored) = block.split_at(format::BLOCK_HEADER_BYTES);
    let header = format::read_block_header(head).unwrap();
    assert_eq!(format::read_block(&header, stored).unwrap(), [message(1)]);
    for wrong in [
        format::BlockHeader {
            raw_bytes: u32::MAX,
            ..header
        },
        format::BlockHeader {
            messages: u32::MAX,
            ..header
        },
        format::BlockHeader {
            next_offset: u64::MAX,
            ..header
        },
        format::BlockHeader {
            first_offset: 2,
            ..header
        },
        format::BlockHeader {
            messages: 0,
            ..header
        },
    ] {
        assert!(format::read_block(&wrong, stored).is_err(), "{wrong:?}");
    }
    for (at, len) in [(16, 4), (20, 4), (24, 4)] {
        let mut lying = body.clone();
        lying[at..at + len].fill(0xF0);
        let block = format::block(&lying, 1, range).unwrap();
        let (head, stored) = block.split_at(format::BLOCK_HEADER_BYTES);
        let header = format::read_block_header(head).unwrap();
        assert!(format::read_block(&header, stored).is_err(), "{at}");
    }
    // A frame that becomes much larger than it says stops where it says.
    let zeros = zstd::bulk::compress(&vec![0; 100 << 20], 1).unwrap();
    let bomb = format::BlockHeader {
        crc: crc32c::crc32c(&zeros),
        ..header
    };
    assert!(format::read_block(&bomb, &zeros).is_err());
}

#[tokio::test]
async fn what_fails_while_it_is_kept_is_repeated_and_nothing_is_lost() {
    let all = messages(0..3_000);
    let operations = [
        FileOperation::Open,
        FileOperation::WriteAt,
        FileOperation::SetLen,
        FileOperation::SyncFile,
        FileOperation::Link,
        FileOperation::SyncDir,
        FileOperation::CreateDir,
        FileOperation::Sync,
        FileOperation::Publish,
        FileOperation::Remove,
    ];
    for operation in operations {
        let files = FaultyFiles::new(Arc::new(RealFiles));
        let environment = Environment::real().with_files(Arc::new(files.clone()));
        let place = Place::with(environment).await;
        let calls = AtomicU64::new(0);
        files.set(move |op, _| {
            // Ever more seldom, so that in the end all steps of an attempt go well.
            let fails = op == operation && {
                let call = calls.fetch_add(1, Ordering::Relaxed);
                call < 4 || call.is_power_of_two()
            };
            fails.then(|| io::Error::from(io::ErrorKind::StorageFull))
        });
        let spool = place.spool(0);
        let mut failed = 0;
        for part in all.chunks(500) {
            let range = OffsetRange {
                start: spool.offsets().end,
                end: part.last().unwrap().offset + 1,
            };
            while spool.append(part, range).is_err() {
                failed += 1;
                assert!(failed < 1_000, "{operation:?}");
            }
        }
        while place.store(&spool).await.is_err() {
            failed += 1;
            assert!(failed < 1_000, "{operation:?}");
        }
        files.clear();
        let objects = place.archive().objects(0).await.unwrap();
        assert_eq!(objects.len(), 1, "{operation:?}");
        assert!(
            place.read(&objects[0], 0).await.unwrap() == all,
            "{operation:?}"
        );
    }
}

#[test]
fn names_become_parts_of_paths_and_stay_apart() {
    assert_eq!(part("kafka:a.b:9092,c"), "kafka=3Aa.b=3A9092=2Cc");
    assert_eq!(part("../x"), "=2E.=2Fx");
    assert_eq!((part(""), part("=")), ("=".to_owned(), "=3D".to_owned()));
    let long = |end: char| part(&format!("{}{end}", "x:".repeat(300)));
    assert!(long('a').len() <= PART_BYTES_MAX && long('a') != long('b'));
}

#[test]
fn missing_offsets_are_named() {
    let object = |start, end| ArchiveObject {
        range: (start, end),
        path: ObjectPath::default(),
        bytes: 0,
    };
    let objects = [object(5, 10), object(5, 20), object(8, 12), object(30, 40)];
    let missing = |start, end| {
        let ranges = missing(&objects, OffsetRange { start, end }).into_iter();
        ranges.map(|r| (r.start, r.end)).collect::<Vec<_>>()
    };
    assert_eq!(missing(0, 50), [(0, 5), (20, 30), (40, 50)]);
    assert_eq!(missing(6, 20), []);
    assert_eq!(missing(25, 28), [(25, 28)]);
    assert_eq!(covering(&objects, 9).unwrap().range, (5, 20));
    assert!(covering(&objects, 25).is_none());
}

/// A stream whose beginnings are dropped.
struct Dropping {
    inner: Arc<dyn Stream>,
    starts: Arc<Mutex<[u64; 2]>>,
}

struct DroppingReader {
    inner: Box<dyn PartitionReader>,
    partition: u32,
    next: u64,
    starts: Arc<Mutex<[u64; 2]>>,
}

#[async_trait]
impl Stream for Dropping {
    fn id(&self) -> Arc<str> {
        self.inner.id()
    }
    fn topic(&self) -> Arc<str> {
        self.inner.topic()
    }
    async fn partitions(&self) -> Result<u32> {
        self.inner.partitions().await
    }
    async fn offsets(&self, partition: u32) -> Result<OffsetRange> {
        let OffsetRange { end, .. } = self.inner.offsets(partition).await?;
        let start = self.starts.lock()[partition as usize];
        Ok(OffsetRange { start, end })
    }
    async fn offset_at(&self, partition: u32, timestamp_ms: i64) -> Result<u64> {
        let start = self.starts.lock()[partition as usize];
        let found = self.inner.offset_at(partition, timestamp_ms).await?;
        Ok(found.max(start))
    }
    async fn open(&self, partition: u32, from: u64) -> Result<Box<dyn PartitionReader>> {
        Ok(Box::new(DroppingReader {
            inner: self.inner.open(partition, from).await?,
            partition,
            next: from,
            starts: Arc::clone(&self.starts),
        }))
    }
}

#[async_trait]
impl PartitionReader for DroppingReader {
    async fn next(
        &mut self,
        messages: usize,
        bytes: usize,
        wait: Duration,
    ) -> Result<MessageBatch> {
        loop {
            let start = self.starts.lock()[self.partition as usize];
            let mut batch = self.inner.next(messages, bytes, wait).await?;
            batch.messages.retain(|m| m.offset >= start);
            let from = self.next;
            self.next = from.max(batch.next_offset);
            if from < start && batch.next_offset < start {
                self.next = from;
                continue;
            }
            batch.lost = (from < start).then_some(OffsetRange {
                start: from,
                end: start,
            });
            return Ok(batch);
        }
    }
}

struct Streaming {
    place: Place,
    log: Arc<EmbeddedLog>,
    starts: Arc<Mutex<[u64; 2]>>,
    stream: ArchivedStream,
}

impl Streaming {
    /// A stream of two partitions with `count` messages in the first.
    async fn new(count: u64) -> Self {
        let place = Place::new().await;
        let path = place.folder.path().join("log");
        let log = EmbeddedLog::open(&path, Environment::real()).await.unwrap();
        log.create_topic("t", 2).await.unwrap();
        let pairs = (0..count).map(|n| (None, Bytes::from(format!("m{n}"))));
        produce(&log, 0, pairs.collect()).await.unwrap();
        let starts: Arc<Mutex<[u64; 2]>> = Arc::default();
        let dropping = Dropping {
            inner: log.stream("t").unwrap(),
            starts: Arc::clone(&starts),
        };
        let stream = ArchivedStream::new(Arc::new(dropping), place.archive());
        Self {
            place,
            log,
            starts,
            stream,
        }
    }

    /// Archives a range as it is in the stream now.
    async fn keep(&self, start: u64, end: u64) {
        let all = self.all().await;
        self.place.keep(&all, start, end).await;
    }

    async fn all(&self) -> Vec<Message> {
        let inner = self.log.stream("t").unwrap();
        let end = inner.offsets(0).await.unwrap().end;
        read(&*inner, 0, end).await.0
    }
}

async fn produce(
    log: &EmbeddedLog,
    partition: u32,
    pairs: Vec<(Option<Bytes>, Bytes)>,
) -> Result<()> {
    let messages = pairs.into_iter().map(|(key, payload)| LogMessage {
        key,
        payload,
        timestamp_ms: 0,
    });
    let messages = messages.collect();
    let appended = log.append("t", Some(partition), messages, "", 0);
    appended.await.map(drop)
}

/// All messages of partition 0 up to an offset, what was lost, and how many came from the archive. Some reads are dropped.
async fn read(stream: &dyn Stream, from: u64, to: u64) -> (Vec<Message>, Vec<(u64, u64)>, usize) {
    let mut reader = stream.open(0, from).await.unwrap();
    let (mut all, mut lost, mut archived, mut next) = (Vec::new(), Vec::new(), 0, from);
    let mut turn = 0_u64;
    while next < to {
        turn += 1;
        let asked = reader.next(7, 1 << 20, LONG);
        let batch = if turn.is_multiple_of(3) {
            let dropped = tokio::time::timeout(Duration::from_micros(turn % 50), asked);
            match dropped.await {
                Ok(batch) => batch,
                Err(_) => continue,
            }
        } else {
            asked.await
        };
        let batch = batch.unwrap();
        if let Some(range) = batch.lost {
            assert!(range.start >= next && range.end <= batch.next_offset);
            lost.push((range.start, range.end));
        }
        assert!(batch.next_offset >= next);
        assert!(batch.messages.iter().all(|m| m.offset >= next));
        archived += if batch.archived {
            batch.messages.len()
        } else {
            0
        };
        next = batch.next_offset;
        all.extend(batch.messages);
    }
    (all, lost, archived)
}

#[tokio::test]
async fn a_stream_before_its_archive_keeps_the_contract() {
    let streaming = Streaming::new(300).await;
    streaming.keep(0, 250).await;
    streaming.starts.lock()[0] = 200;
    let log = &streaming.log;
    let produce = |partition, pairs| -> BoxFuture<'_, Result<()>> {
        Box::pin(produce(log, partition, pairs))
    };
    contract::check(&streaming.stream, &produce).await.unwrap();
    contract::check_times(&streaming.stream, &produce)
        .await
        .unwrap();
    let times = streaming.stream.offset_at(0, 1).await.unwrap();
    assert_eq!(times, 0);
}

#[tokio::test]
async fn what_the_stream_dropped_comes_from_the_archive_once_and_in_order() {
    let streaming = Streaming::new(1_000).await;
    let all = streaming.all().await;
    // As after processes that ended between an object and its commit.
    for (start, end) in [(0, 100), (0, 130), (100, 180), (180, 400), (350, 520)] {
        streaming.keep(start, end).await;
    }
    for start in [0, 1, 129, 130, 300, 519, 520] {
        streaming.starts.lock()[0] = start;
        let range = streaming.stream.offsets(0).await.unwrap();
        assert_eq!((range.start, range.end), (0, 1_000));
        for from in [0, 1, 99, 100, 125, 360, 519, 520, 800] {
            let (read, lost, archived) = read(&streaming.stream, from, 1_000).await;
            assert!(read == all[from as usize..], "{start} {from}");
            assert!(lost.is_empty());
            assert_eq!(archived > 0, from < start, "{start} {from}");
        }
    }
}

#[tokio::test]
async fn what_neither_has_is_lost_and_only_that() {
    let streaming = Streaming::new(1_000).await;
    let all = streaming.all().await;
    for (start, end) in [(50, 100), (200, 300), (700, 800)] {
        streaming.keep(start, end).await;
    }
    streaming.starts.lock()[0] = 600;
    let (read, lost, archived) = read(&streaming.stream, 0, 1_000).await;
    assert_eq!(lost, [(0, 50), (100, 200), (300, 600)]);
    assert_eq!((read.len(), archived), (550, 150));
    let is_lost = |o: u64| lost.iter().any(|(start, end)| *start <= o && o < *end);
    let left: Vec<_> = all.into_iter().filter(|m| !is_lost(m.offset)).collect();
    assert!(read == left);
}

#[tokio::test]
async fn a_reader_that_is_overtaken_goes_on_in_the_archive() {
    let streaming = Streaming::new(1_000).await;
    let mut reader = streaming.stream.open(0, 0).await.unwrap();
    let first = reader.next(10, 1 << 20, LONG).await.unwrap();
    assert_eq!((first.next_offset, first.archived), (10, false));
    streaming.keep(0, 700).await;
    streaming.starts.lock()[0] = 650;
    let (mut next, mut count, mut archived) = (10, 0, 0);
    while next < 1_000 {
        let batch = reader.next(10, 1 << 20, LONG).await.unwrap();
        assert_eq!(batch.lost, None);
        assert!(batch.messages.iter().all(|m| m.offset == {
            next += 1;
            next - 1
        }));
        count += batch.messages.len();
        archived += if batch.archived {
            batch.messages.len()
        } else {
            0
        };
        assert_eq!(batch.next_offset, next);
    }
    assert_eq!((count, archived), (990, 690));
}

#[tokio::test]
async fn a_damaged_object_stops_reading_and_is_named() {
    let streaming = Streaming::new(100).await;
    streaming.keep(0, 50).await;
    streaming.starts.lock()[0] = 50;
    let object = streaming
        .place
        .archive()
        .objects(0)
        .await
        .unwrap()
        .remove(0);
    let path: &Path = &streaming.place.file(&object);
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let mut reader = streaming.stream.open(0, 0).await.unwrap();
    for _ in 0..3 {
        let error: Error = reader.next(10, 1 << 20, LONG).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss);
        assert!(
            error.message().contains(object.path.filename().unwrap()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_too_old_goes_from_the_beginning_and_leaves_no_hole() {
    let ranges = |objects: &[ArchiveObject]| objects.iter().map(|o| o.range).collect::<Vec<_>>();
    // The timestamp of a message is 1,000 and its offset; one object is within another one, one has no message.
    let kept = [
        (0, 100),
        (50, 60),
        (50, 150),
        (150, 150 + 50),
        (200, 210),
        (205, 300),
    ];
    let place = Place::new().await;
    let archive = place.archive();
    assert_eq!(archive.remove_older(0, 1_000, i64::MAX).await.unwrap(), []);
    for (start, end) in kept {
        let of_range = match start {
            150 => Vec::new(),
            _ => messages(start..end),
        };
        place.keep(&of_range, start, end).await;
    }
    let mut left: Vec<(u64, u64)> = kept.to_vec();
    // All before an offset is old; how far it is committed.
    for (old, committed, expected) in [
        (50, 1_000, &kept[..]),
        (100, 99, &kept[..]),
        (100, 1_000, &kept[2..]),
        (160, 1_000, &kept[3..]),
        (208, 1_000, &kept[3..]),
        (211, 1_000, &kept[5..]),
        (300, 299, &kept[5..]),
        (300, 300, &[]),
    ] {
        let before_ms = 1_000 + old;
        let gone = archive.remove_older(0, committed, before_ms).await.unwrap();
        assert!(gone.iter().all(|object| !place.file(object).exists()));
        assert_eq!(
            ranges(&archive.objects(0).await.unwrap()),
            expected,
            "{old}"
        );
        left.retain(|range| !gone.iter().any(|object| object.range == *range));
        assert_eq!(left, expected);
    }
    // Where timestamps are not known, nothing is old.
    let mut unknown = messages(0..10);
    unknown.iter_mut().for_each(|m| m.timestamp_ms = -1);
    place.keep(&unknown, 0, 10).await;
    place.keep(&messages(10..20), 10, 20).await;
    assert_eq!(archive.remove_older(0, 20, i64::MAX).await.unwrap(), []);
}

#[tokio::test]
async fn a_stream_begins_behind_what_was_removed_of_its_archive() {
    let place = Place::new().await;
    let folder = place.folder.path().join("log");
    let log = EmbeddedLog::open(&folder, Environment::real()).await;
    let log = log.unwrap();
    log.create_topic("t", 1).await.unwrap();
    let archive = place.archive();
    let stream = ArchivedStream::new(log.stream("t").unwrap(), archive.clone());
    let end = log.append(
        "t",
        Some(0),
        vec![LogMessage {
            key: None,
            payload: Bytes::from_static(b"a"),
            timestamp_ms: 5,
        }],
        "",
        0,
    );
    end.await.unwrap();
    place.keep(&messages(0..1), 0, 1).await;
    assert_eq!(stream.offsets(0).await.unwrap().start, 0);
    archive.remove_older(0, 1, i64::MAX).await.unwrap();
    assert_eq!(
        stream.offsets(0).await.unwrap(),
        OffsetRange { start: 0, end: 1 }
    );
    assert_eq!(stream.first(0).await.unwrap(), None);
    place.keep(&messages(0..9), 0, 5).await;
    place.keep(&messages(5..9), 5, 9).await;
    assert_eq!(stream.first(0).await.unwrap(), Some(0));
    archive.remove_older(0, 5, i64::MAX).await.unwrap();
    assert_eq!(stream.first(0).await.unwrap(), Some(5));
}
