//! The present streams in: messages appended at a pace, and a line that shows them being counted.

use super::data::{PARTITIONS, STREAM_ROWS, TABLE, TOPIC, stream_messages};
use super::show::thousands;
use crate::cli::shell::{Session, millis, number};
use crate::cli::table::time_text;
use crate::cli::{Failure, Outcome};
use crate::engine::Engine;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};
use strandline_proto::Error;
use strandline_proto::v1::AppendRequest;

/// Messages are appended this often.
const TICK: Duration = Duration::from_millis(50);
/// Messages that are offered together while the log has them already.
const SKIP: usize = 500;
/// How long appended rows may take to be counted before the quickstart gives up.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a line is printed where it can't be rewritten.
const PLAIN_LINE_INTERVAL: Duration = Duration::from_secs(1);
/// The producer's name: under it, a second run stores nothing twice.
const PRODUCER: &str = "quickstart";

/// Streams all messages and waits until each is counted.
pub(super) async fn run(engine: &Engine, session: &Session, rate: u64) -> Outcome {
    let messages = stream_messages()?;
    let mut out = std::io::stdout();
    let mut line = Line {
        terminal: out.is_terminal(),
        printed: None,
    };
    let started = Instant::now();
    let (mut sent, mut paced, mut duplicates) = (0_usize, 0_u64, 0);
    let mut skipping = false;
    let mut freshness: Vec<Duration> = Vec::new();
    while sent < messages.len() {
        // What should have been sent by now, so that a slow tick is made up for.
        let due = u64::try_from((started.elapsed() + TICK).as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(rate)
            / 1000;
        let wanted = if skipping {
            SKIP
        } else {
            usize::try_from(due.saturating_sub(paced)).unwrap_or(usize::MAX)
        };
        let count = wanted.clamp(1, messages.len() - sent);
        let appended_at = Instant::now();
        let stored_before = append(engine, &messages, sent, count).await?;
        sent += count;
        duplicates += stored_before;
        skipping = stored_before == count as u64;
        if !skipping {
            paced += count as u64;
            wait_until_visible(session, sent as u64).await?;
            freshness.push(appended_at.elapsed());
            line.print(engine, session, &freshness).await?;
            tokio::time::sleep(TICK.saturating_sub(appended_at.elapsed())).await;
        }
    }
    wait_until_visible(session, STREAM_ROWS).await?;
    line.end()?;
    if duplicates == messages.len() as u64 {
        writeln!(
            out,
            "stream  {} rows of 2014-01-20 to 2014-01-31, there already",
            thousands(STREAM_ROWS)
        )?;
    } else {
        freshness.sort_unstable();
        let at = |share: usize| {
            freshness
                .get((freshness.len().saturating_sub(1)) * share / 100)
                .copied()
                .unwrap_or_default()
        };
        writeln!(
            out,
            "stream  {} rows of 2014-01-20 to 2014-01-31 in {:.1} s; from append to answer {} (p50), {} (p99)",
            thousands(messages.len() as u64 - duplicates),
            started.elapsed().as_secs_f64(),
            millis(at(50)),
            millis(at(99))
        )?;
    }
    Ok(())
}

/// Appends messages `from..from + count`: the even ones to partition 0, the odd ones to 1, each numbered in
/// its partition. Gives how many were there already.
async fn append(
    engine: &Engine,
    messages: &[strandline_proto::v1::Message],
    from: usize,
    count: usize,
) -> Result<u64, Failure> {
    let partitions = PARTITIONS as usize;
    let mut duplicates = 0;
    for partition in 0..partitions {
        // The first message at or after `from` that is this partition's.
        let first = from + (partition + partitions - from % partitions) % partitions;
        let mine: Vec<_> = messages
            .iter()
            .enumerate()
            .skip(first)
            .step_by(partitions)
            .take_while(|(at, _)| *at < from + count)
            .collect();
        if mine.is_empty() {
            continue;
        }
        let request = AppendRequest {
            topic: TOPIC.to_owned(),
            partition: u32::try_from(partition).ok(),
            messages: mine
                .into_iter()
                .map(|(_, message)| message.clone())
                .collect(),
            producer_id: PRODUCER.to_owned(),
            first_sequence: (first / partitions) as u64,
        };
        duplicates += engine.append(request).await?.duplicates;
    }
    Ok(duplicates)
}

/// Asks until the realtime half counts `rows`.
async fn wait_until_visible(session: &Session, rows: u64) -> Outcome {
    let started = Instant::now();
    let sql = format!("SELECT count(*) FROM {TABLE}_REALTIME");
    loop {
        let counted = number(session, &sql).await?;
        if counted >= rows {
            return Ok(());
        }
        if started.elapsed() > VISIBLE_TIMEOUT {
            return Err(Failure::Refused(Error::deadline(format!(
                "{rows} rows were appended and {counted} are counted after {} s; `strandline table show {TABLE}` tells the consumers' errors",
                VISIBLE_TIMEOUT.as_secs()
            ))));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The live line: rewritten on a terminal, once a second elsewhere.
struct Line {
    terminal: bool,
    printed: Option<Instant>,
}

impl Line {
    async fn print(
        &mut self,
        engine: &Engine,
        session: &Session,
        freshness: &[Duration],
    ) -> Outcome {
        if !self.terminal
            && self
                .printed
                .is_some_and(|at| at.elapsed() < PLAIN_LINE_INTERVAL)
        {
            return Ok(());
        }
        let rows = number(session, &format!("SELECT count(*) FROM {TABLE}")).await?;
        let segments = engine.segments(TABLE)?;
        let consuming = segments.iter().filter(|segment| segment.consuming).count();
        let boundary = engine.boundary(TABLE).await?;
        let text = format!(
            "stream  {} rows, {} segments + {consuming} consuming, boundary {}, freshness {}",
            thousands(rows),
            segments.len() - consuming,
            time_text(boundary.boundary_ms),
            millis(freshness.last().copied().unwrap_or_default())
        );
        let mut out = std::io::stdout();
        if self.terminal {
            write!(out, "\r\x1b[2K{text}")?;
        } else {
            writeln!(out, "{text}")?;
        }
        out.flush()?;
        self.printed = Some(Instant::now());
        Ok(())
    }

    fn end(&self) -> Outcome {
        if self.terminal && self.printed.is_some() {
            write!(std::io::stdout(), "\r\x1b[2K")?;
        }
        Ok(())
    }
}
