//! Queries all along: each is answered, counts never fall, and no row is seen twice.

use super::producing::Rows;
use crate::answer::Cell;
use crate::client::Client;
use crate::kills::{TABLE, now_ms};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(150);
/// Of so many questions one counts distinct rows.
const DISTINCT_EVERY: u64 = 20;
/// Until which a question that is not answered is one that never will be.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What was seen of a partition last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) rows: u64,
    /// One more than the greatest number.
    pub(super) next: u64,
    /// From when the newest row was sent until the answer, in milliseconds.
    pub(super) lag_ms: u64,
    /// The largest such time since it was last asked for.
    lag_ms_max: u64,
}

/// What queries have seen.
#[derive(Debug)]
pub(super) struct Watch {
    seen: Mutex<Vec<Seen>>,
    /// Whether nothing is wrong with the brokers; the lag that is bearable then.
    calm_lag: Mutex<Option<Duration>>,
    totals: Mutex<(u64, Duration)>,
    stop: AtomicBool,
}

pub(super) fn whole(cell: &Cell) -> u64 {
    match cell {
        Cell::Number(digits, 0) => u64::try_from(*digits).expect("a count"),
        other => panic!("a whole number was expected, not {other}"),
    }
}

impl Watch {
    pub(super) fn new(partitions: u32) -> Arc<Self> {
        Arc::new(Self {
            seen: Mutex::new(vec![Seen::default(); partitions as usize]),
            calm_lag: Mutex::default(),
            totals: Mutex::default(),
            stop: AtomicBool::new(false),
        })
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// What was seen last.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// The largest lag of each partition since this was last asked, in seconds.
    pub(super) fn take_lags(&self) -> Vec<f64> {
        let mut seen = self.seen.lock();
        let lags = seen.iter_mut();
        lags.map(|seen| std::mem::take(&mut seen.lag_ms_max) as f64 / 1e3)
            .collect()
    }

    /// From now on no lag may be larger; or none is held against any.
    pub(super) fn expect_lag(&self, lag_max: Option<Duration>) {
        *self.calm_lag.lock() = lag_max;
    }

    /// Answers, and the slowest of them.
    pub(super) fn totals(&self) -> (u64, Duration) {
        *self.totals.lock()
    }

    /// Asks until it is to stop.
    pub(super) async fn run(self: Arc<Self>, mut client: Client, rows: Arc<Rows>) {
        let ask = |rows: &str| {
            format!(
                "SELECT part, count(*), {rows}, max(seq), max(sent_ms) FROM {TABLE} GROUP BY part"
            )
        };
        let (cheap, distinct) = (ask("count(*)"), ask("count(DISTINCT seq)"));
        let mut answers = 0;
        while !self.stop.load(Ordering::SeqCst) {
            tokio::time::sleep(PAUSE).await;
            let sql = match answers % DISTINCT_EVERY {
                0 => &distinct,
                _ => &cheap,
            };
            let asked = Instant::now();
            let answer = tokio::time::timeout(ANSWERED_WITHIN, client.ask(sql)).await;
            let (answer, _) = answer
                .unwrap_or_else(|_| panic!("a query was not answered within {ANSWERED_WITHIN:?}"))
                .unwrap_or_else(|e| panic!("a query failed: {e}"));
            answers += 1;
            for row in &answer.rows {
                let row: Vec<u64> = row.iter().map(whole).collect();
                self.see(&row, &rows);
            }
            let mut totals = self.totals.lock();
            *totals = (answers, totals.1.max(asked.elapsed()));
        }
    }

    fn see(&self, row: &[u64], rows: &Rows) {
        let [partition, count, distinct, last, sent_ms] = *row else {
            panic!("{row:?}");
        };
        let (next, sent) = (last + 1, rows.sent(partition as usize));
        let lag_ms = now_ms().saturating_sub(sent_ms);
        let mut seen = self.seen.lock();
        let seen = &mut seen[partition as usize];
        assert_eq!(
            count, distinct,
            "a row of partition {partition} is seen twice"
        );
        assert!(
            count <= next && next <= sent,
            "partition {partition} shows {count} rows below {next}, of {sent} sent"
        );
        assert!(
            count >= seen.rows && next >= seen.next,
            "partition {partition} went back from {seen:?} to {count} rows below {next}"
        );
        if let Some(lag_max) = *self.calm_lag.lock() {
            assert!(
                u128::from(lag_ms) < lag_max.as_millis(),
                "partition {partition} lags by {lag_ms} ms while nothing is wrong with the brokers"
            );
        }
        *seen = Seen {
            rows: count,
            next,
            lag_ms,
            lag_ms_max: seen.lag_ms_max.max(lag_ms),
        };
    }
}
