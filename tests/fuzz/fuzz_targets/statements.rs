#![no_main]

use strandline_tests::fuzz;

libfuzzer_sys::fuzz_target!(
    init: fuzz::begin(&fuzz::seeds_of_statements()),
    |data: &[u8]| {
        fuzz::statements(data);
    }
);
