//! Simulations of ingestion, each drawn from its seed; see `strandline_tests::simulation`.
//!
//! `STRANDLINE_SIMULATION_SEEDS=10000 cargo test --workspace --test simulation` runs more of them,
//! `STRANDLINE_SIMULATION_SEED` is the first one, and with `STRANDLINE_SIMULATION_TRACE` all of their traces are printed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::Instant;
use strandline_tests::process::number_from;
use strandline_tests::simulation::Simulator;

const SEEDS: u64 = 500;

#[test]
fn no_row_is_lost_doubled_or_hidden_whatever_a_seed_draws() {
    let first = number_from("STRANDLINE_SIMULATION_SEED", 1);
    let seeds = number_from("STRANDLINE_SIMULATION_SEEDS", SEEDS);
    let shows = std::env::var_os("STRANDLINE_SIMULATION_TRACE").is_some();
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let (lines, deaths) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<Vec<(u64, String)>> = Mutex::default();
    let threads = available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let simulator = Simulator::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let has_failed = !failed.lock().expect("no holder panics").is_empty();
                    if seed >= first + seeds || has_failed {
                        return;
                    }
                    let simulated = simulator.run(seed, shows);
                    for line in simulated.trace.lines.iter().filter(|_| shows) {
                        println!("{seed}: {line}");
                    }
                    lines.fetch_add(simulated.trace.count, Ordering::Relaxed);
                    deaths.fetch_add(simulated.deaths, Ordering::Relaxed);
                    if simulated.wrong.is_some() {
                        let mut failed = failed.lock().expect("no holder panics");
                        failed.push((seed, simulated.report(seed)));
                    }
                }
            });
        }
    });
    println!(
        "{seeds} seeds from {first}: {} events, {} lives, {:.1} s",
        lines.into_inner(),
        deaths.into_inner(),
        begun.elapsed().as_secs_f64()
    );
    let mut failed = failed.into_inner().expect("no holder panics");
    failed.sort();
    if let Some((_, report)) = failed.first() {
        panic!("{report}");
    }
}

#[test]
fn a_seed_replays_line_by_line() {
    let (here, there) = (Simulator::new(), Simulator::new());
    for seed in 1..=4 {
        let (first, second) = (here.run(seed, true), there.run(seed, true));
        let mut pairs = first.trace.lines.iter().zip(&second.trace.lines);
        if let Some(at) = pairs.position(|(a, b)| a != b) {
            panic!(
                "seed {seed}, line {at}: {:?}, and then {:?}, after {:#?}",
                first.trace.lines[at],
                second.trace.lines[at],
                &first.trace.lines[at.saturating_sub(10)..at]
            );
        }
        assert_eq!(first.trace.count, second.trace.count, "seed {seed}");
        assert_eq!(first.trace.hash, second.trace.hash, "seed {seed}");
        assert!(first.trace.count > 500, "seed {seed} does nearly nothing");
    }
}
