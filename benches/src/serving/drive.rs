//! Statements one after the other on each of some connections, every answer checked.

use super::workload::{KINDS, Workload};
use crate::times::Times;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strandline_tests::client::Client;
use tokio::task::JoinSet;

/// How long statements run before their times count.
pub(super) const WARM_UP: Duration = Duration::from_secs(2);

/// Errors one after the other on a connection after which there is nothing to measure any more.
const ERRORS_IN_A_ROW_MAX: u32 = 100;

/// What was measured.
pub(super) struct Driven {
    pub(super) times: Times,
    pub(super) elapsed: Duration,
    /// Answers that were not what they must be; errors as well.
    pub(super) wrong: u64,
}

impl Driven {
    /// Right answers a second.
    pub(super) fn answers_per_s(&self) -> f64 {
        self.times.answers() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs for `lasting`, after a warm-up. Failures and wrong answers have no time; where there is nothing but failures it
/// ends with an error.
pub(super) async fn drive(
    clients: Vec<Client>,
    workload: &Arc<Workload>,
    lasting: Duration,
    seed: u64,
) -> Result<Driven, Box<dyn Error>> {
    let started = Instant::now() + WARM_UP;
    let mut workers = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let workload = Arc::clone(workload);
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000) + number as u64);
        workers.spawn(async move {
            let (mut times, mut wrong) = (Times::new(&KINDS, started), 0);
            let until = started + lasting;
            let mut in_a_row = 0;
            loop {
                let sent = Instant::now();
                if sent >= until {
                    return Ok((times, wrong));
                }
                let question = workload.draw(&mut random);
                let asked = Instant::now();
                let answer = client.ask(&question.sql).await;
                let took = asked.elapsed();
                let outcome = match answer {
                    Ok((answer, _)) if question.is_answer(&answer.rows) => Ok(()),
                    Ok(_) => {
                        // Also while it warms up: a wrong answer is never right.
                        wrong += 1;
                        Err(format!("wrong answer: {}", question.sql))
                    }
                    Err(error) => Err(error),
                };
                in_a_row = if outcome.is_ok() { 0 } else { in_a_row + 1 };
                match outcome {
                    Err(error) if in_a_row >= ERRORS_IN_A_ROW_MAX => {
                        return Err(format!("{in_a_row} errors one after the other: {error}"));
                    }
                    Err(error) => times.failed(error),
                    Ok(()) if sent >= started => times.answered(question.kind, took),
                    Ok(()) => {}
                }
            }
        });
    }
    let (mut times, mut wrong) = (Times::new(&KINDS, started), 0);
    while let Some(of_worker) = workers.join_next().await {
        let (own, own_wrong) = of_worker??;
        times.add(&own);
        wrong += own_wrong;
    }
    Ok(Driven {
        times,
        elapsed: started.elapsed(),
        wrong,
    })
}
