//! Time: the wall clock for what users see, the monotonic clock for ages and deadlines.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// A source of time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the epoch, UTC. May jump; use it for what is stored and shown.
    fn now_ms(&self) -> i64;
    /// Time since some fixed moment. Never goes back; use it for ages, waits and deadlines.
    fn monotonic(&self) -> Duration;
    /// Ends after `duration` of monotonic time.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct RealClock {
    started: Instant,
}

impl Default for RealClock {
    fn default() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Clock for RealClock {
    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<ManualState>,
}

#[derive(Debug)]
struct ManualState {
    wall_ms: i64,
    elapsed: Duration,
    sleepers: Vec<(Duration, oneshot::Sender<()>)>,
}

impl ManualClock {
    /// A clock whose wall time is `wall_ms`.
    pub fn new(wall_ms: i64) -> Self {
        Self {
            state: Mutex::new(ManualState {
                wall_ms,
                elapsed: Duration::ZERO,
                sleepers: Vec::new(),
            }),
        }
    }

    /// Moves both clocks on and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock();
        state.elapsed += by;
        state.wall_ms = state
            .wall_ms
            .saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
        let now = state.elapsed;
        let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut state.sleepers)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        state.sleepers = waiting;
        drop(state);
        for (_, wake) in due {
            // A sleeper that was dropped needs no waking.
            let _ = wake.send(());
        }
    }

    /// How many tasks sleep now.
    pub fn sleepers(&self) -> usize {
        self.state
            .lock()
            .sleepers
            .iter()
            .filter(|(_, wake)| !wake.is_closed())
            .count()
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.state.lock().wall_ms
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().elapsed
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if duration.is_zero() {
            return Box::pin(std::future::ready(()));
        }
        let (wake, woken) = oneshot::channel();
        {
            let mut state = self.state.lock();
            let at = state.elapsed.saturating_add(duration);
            state.sleepers.push((at, wake));
        }
        Box::pin(async move {
            // The clock itself went away: nobody can move time any more, so the sleep never ends.
            if woken.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_only_when_its_time_has_come() {
        let clock = ManualClock::new(1_000);
        let mut sleep = clock.sleep(Duration::from_secs(5));
        clock.advance(Duration::from_secs(4));
        assert!(futures::poll!(&mut sleep).is_pending());
        assert_eq!(
            (clock.now_ms(), clock.monotonic(), clock.sleepers()),
            (5_000, Duration::from_secs(4), 1)
        );
        clock.advance(Duration::from_secs(1));
        sleep.await;
    }
}
