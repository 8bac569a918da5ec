//! Keys that a statement has deleted: rows that rank below what was deleted do not count, whenever they come and whatever
//! becomes of the segments and of the store of keys.

use super::*;

/// Messages that were read.
const READ: &str = "SELECT CAST(sum(messages_read) AS BIGINT) FROM system.ingestion";

/// A table, and what was sent to it.
struct Server {
    folder: tempfile::TempDir,
    engine: Option<Arc<Engine>>,
    time: Arc<AtomicBool>,
    sent: i64,
    /// What is to be seen.
    all: [i64; 3],
}

impl Server {
    async fn new(keys: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (options, time) = fast(folder.path());
        Self {
            engine: Some(create_with(options, keys).await),
            folder,
            time,
            sent: 0,
            all: [0; 3],
        }
    }

    fn engine(&self) -> &Arc<Engine> {
        self.engine.as_ref().unwrap()
    }

    /// Sends rows, waits until they are read, and looks at what counts.
    async fn send(&mut self, partition: u32, keys: std::ops::Range<i64>, v: i64) {
        self.send_at(partition, keys, v, 1).await;
    }

    async fn send_at(&mut self, partition: u32, keys: std::ops::Range<i64>, v: i64, ms: i64) {
        self.sent += keys.end - keys.start;
        let row = |k| format!(r#"{{"k": {k}, "v": {v}, "ms": {ms}}}"#);
        append(self.engine(), partition, keys.map(row)).await;
        self.look().await;
    }

    async fn look(&self) {
        until(self.engine(), READ, &[self.sent]).await;
        assert_eq!(numbers(self.engine(), ALL).await, self.all);
    }

    async fn commit(&self) {
        self.engine().force_commit("t").await.unwrap();
        self.look().await;
    }

    async fn delete(&mut self, predicate: Option<&str>, rows: i64) {
        let deleted = self.engine().delete_rows("t", predicate).await.unwrap();
        assert_eq!(deleted, rows as u64);
        self.look().await;
        let audit = self.engine().audit("t").await.unwrap();
        assert!(audit.exact, "{audit:?}");
    }

    /// Ends and begins again, with its keys and then without.
    async fn restart(&mut self) {
        for is_lost in [false, true] {
            if let Some(engine) = self.engine.take() {
                self.time.store(true, Ordering::SeqCst);
                engine.shutdown().await;
            }
            if is_lost {
                std::fs::remove_dir_all(self.folder.path().join("keys")).unwrap();
            }
            let (options, time) = fast(self.folder.path());
            self.time = time;
            self.engine = Some(Engine::open(options).await.unwrap());
            self.look().await;
        }
    }

    async fn end(mut self) {
        self.time.store(true, Ordering::SeqCst);
        self.engine.take().unwrap().shutdown().await;
    }

    /// Has hours go by until there are so few segments.
    async fn until_merged(&self, most: i64) {
        let segments = "SELECT count(*) FROM system.segments WHERE NOT consuming";
        for _ in 0..2_000 {
            if numbers(self.engine(), segments).await[0] <= most {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.engine().upkeep.notes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_of_deleted_keys_never_count() {
    let mut server = Server::new(UPSERT).await;
    let s = &mut server;
    s.all = [100, 100, 5_000];
    s.send(0, 0..100, 50).await;
    s.commit().await;
    s.all = [90, 90, 4_500];
    s.delete(Some("k < 10"), 10).await;
    // Of either partition, consuming and committed; a row of the same rank but for its offset is newer, and counts.
    s.send(1, 0..10, 49).await;
    s.send(0, 0..10, 1).await;
    s.commit().await;
    s.send(0, 0..5, 2).await;
    s.restart().await;
    s.all = [91, 91, 4_550];
    s.send(0, 0..1, 50).await;
    s.restart().await;
    // All rows of some segments are deleted, and segments without rows remember it.
    s.commit().await;
    s.all = [0; 3];
    s.delete(None, 91).await;
    s.send(1, 0..100, 10).await;
    s.commit().await;
    s.restart().await;
    // Keys come again. Segments are merged, and stored otherwise.
    s.all = [10, 10, 600];
    s.send(1, 90..100, 60).await;
    for v in 0..6 {
        s.send(v as u32 % 2, 20..30, v).await;
        s.commit().await;
    }
    s.until_merged(4).await;
    s.look().await;
    s.restart().await;
    let other = config("REALTIME", UPSERT).replace(
        r#""invertedIndexColumns": ["k"]"#,
        r#""rangeIndexColumns": ["k"]"#,
    );
    s.engine().update_table(&other).await.unwrap();
    while s.engine().reload_status("t").unwrap().waiting > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    s.send(0, 20..30, 9).await;
    s.commit().await;
    s.restart().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_not_laid_onto_deleted_ones() {
    let partial = r#""upsertConfig": {"mode": "PARTIAL", "comparisonColumns": ["ms"],
        "partialUpsertStrategies": {"v": "INCREMENT"}}"#;
    let mut server = Server::new(partial).await;
    let s = &mut server;
    s.all = [20, 20, 100];
    s.send_at(0, 0..20, 5, 10).await;
    s.commit().await;
    s.all = [20, 20, 160];
    s.send_at(0, 0..20, 3, 11).await;
    s.all = [10, 10, 80];
    s.delete(Some("k < 10"), 10).await;
    s.send_at(1, 0..10, 100, 9).await;
    s.all = [15, 15, 85];
    s.send_at(0, 0..5, 1, 12).await;
    s.restart().await;
    s.commit().await;
    s.restart().await;
    s.all = [15, 15, 90];
    s.send_at(1, 0..5, 1, 13).await;
    s.restart().await;
    server.end().await;
}
