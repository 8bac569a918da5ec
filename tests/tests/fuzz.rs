//! What reads bytes of strangers, given some thousand mutations of right ones: neither panics nor endless work. `tests/fuzz`
//! goes further, with libFuzzer over the same functions.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};
use strandline_tests::fuzz::{self, Mutator};

/// Inputs that were found, by target. Tests run in their crate's folder.
const FOUND: &str = "fuzz/found";
/// What one input may take; a hundred times what they do.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Gives the target its seeds and mutations of them; a part of all, in percent, is to be taken: what stops at the first byte
/// tries nothing.
fn mutations(
    name: &str,
    target: fn(&[u8]) -> bool,
    seeds: &[Vec<u8>],
    rounds: u64,
    taken_percent: u64,
) {
    let run = |data: &[u8], what: &str| {
        let begun = Instant::now();
        let ran = catch_unwind(AssertUnwindSafe(|| target(data)));
        let is_taken = ran.unwrap_or_else(|panic| {
            println!("{name}, {what}: {:?}", String::from_utf8_lossy(data));
            resume_unwind(panic)
        });
        let took = begun.elapsed();
        assert!(took < TIME_MAX, "{name}, {what}: {took:?} for {data:?}");
        is_taken
    };
    // What libFuzzer found once.
    let found = std::fs::read_dir(FOUND).expect("the folder is there");
    for entry in found.map(|entry| entry.expect("an entry")) {
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with(&format!("{name}-")) {
            run(&std::fs::read(entry.path()).expect("it is read"), &file);
        }
    }
    for (number, seed) in seeds.iter().enumerate() {
        let is_taken = run(seed, &format!("seed {number}"));
        assert!(
            is_taken || name == "segments",
            "{name}: seed {number} is refused"
        );
    }
    let taken = (0..rounds).filter(|round| {
        let data = Mutator::new(*round).draw(seeds, 1 << 16);
        run(&data, &format!("round {round}"))
    });
    let taken = taken.count() as u64;
    println!("{name}: {taken} of {rounds} taken");
    assert!(
        taken * 100 >= rounds * taken_percent,
        "{name}: {taken} of {rounds} are taken"
    );
    assert!(taken < rounds, "{name}: nothing is refused");
}

#[test]
fn messages_of_strangers_are_decoded_or_rejected() {
    mutations(
        "messages",
        fuzz::messages,
        &fuzz::seeds_of_messages(),
        20_000,
        10,
    );
}

#[test]
fn files_of_strangers_are_read_or_refused() {
    mutations("files", fuzz::files, &fuzz::seeds_of_files(), 4_000, 10);
}

#[test]
fn segments_with_wrong_bytes_and_right_checksums_are_read_or_refused() {
    mutations(
        "segments",
        fuzz::segments,
        &fuzz::seeds_of_segments(),
        1_500,
        10,
    );
}

#[test]
fn documents_of_strangers_are_taken_or_refused() {
    mutations(
        "documents",
        fuzz::documents,
        &fuzz::seeds_of_documents(),
        4_000,
        3,
    );
}

#[test]
fn statements_of_strangers_are_planned_or_refused() {
    mutations(
        "statements",
        fuzz::statements,
        &fuzz::seeds_of_statements(),
        1_500,
        3,
    );
}
