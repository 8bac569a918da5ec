#![no_main]

use strandline_tests::fuzz;

libfuzzer_sys::fuzz_target!(
    init: fuzz::begin(&fuzz::seeds_of_segments()),
    |data: &[u8]| {
        fuzz::segments(data);
    }
);
