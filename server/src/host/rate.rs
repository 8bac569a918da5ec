//! How many messages a topic's consumers may read (`topic.consumption.rate.limit`), all of its partitions together.

use parking_lot::Mutex;
use std::time::Duration;

/// A bucket that fills by time, with at most what one second brings, and always room for one message.
#[derive(Debug)]
pub struct RateLimit {
    per_second: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    messages: f64,
    filled: Duration,
}

impl RateLimit {
    /// At most `per_1000_s` messages in 1,000 seconds, from the monotonic time `now` on.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub fn new(per_1000_s: u64, now: Duration) -> Self {
        Self {
            per_second: per_1000_s as f64 / 1_000.0,
            bucket: Mutex::new(Bucket {
                messages: 0.0,
                filled: now,
            }),
        }
    }

    /// Takes up to `wanted` messages out; gives how many may be read.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole messages of a bucket that is never below zero"
    )]
    pub fn take(&self, now: Duration, wanted: usize) -> usize {
        let mut bucket = self.bucket.lock();
        let passed = now.saturating_sub(bucket.filled).as_secs_f64();
        bucket.filled = now.max(bucket.filled);
        bucket.messages =
            (bucket.messages + passed * self.per_second).min(self.per_second.max(1.0));
        let taken = wanted.min(bucket.messages as usize);
        bucket.messages -= taken as f64;
        taken
    }

    /// Puts back what was taken and not read.
    #[expect(clippy::cast_precision_loss, reason = "whole messages")]
    pub fn give_back(&self, unread: usize) {
        self.bucket.lock().messages += unread as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_brings_its_messages_and_no_rest_is_saved_up() {
        let at = Duration::from_millis;
        let limit = RateLimit::new(100_000, at(0));
        assert_eq!(limit.take(at(0), 10), 0);
        assert_eq!(limit.take(at(500), 1_000), 50);
        assert_eq!(limit.take(at(500), 1_000), 0);
        assert_eq!(limit.take(at(60_000), 1_000), 100);
        limit.give_back(40);
        assert_eq!(limit.take(at(60_000), 30), 30);
        assert_eq!(limit.take(at(60_100), 1_000), 20);
        // Time that seems to go back brings nothing.
        assert_eq!(limit.take(at(1_000), 1_000), 0);
    }

    #[test]
    fn over_any_time_no_more_than_the_rate_is_read() {
        let limit = RateLimit::new(7_300, Duration::ZERO);
        let read: usize = (0..10_000)
            .map(|tick| limit.take(Duration::from_millis(tick * 10), 3))
            .sum();
        assert!((728..=730).contains(&read), "{read}");
    }

    #[test]
    fn less_than_a_message_a_second_is_read_in_the_end() {
        let limit = RateLimit::new(500, Duration::ZERO);
        assert_eq!(limit.take(Duration::from_secs(1), 5), 0);
        assert_eq!(limit.take(Duration::from_secs(2), 5), 1);
        assert_eq!(limit.take(Duration::from_secs(100), 5), 1);
    }
}
