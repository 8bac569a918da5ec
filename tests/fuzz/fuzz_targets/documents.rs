#![no_main]

libfuzzer_sys::fuzz_target!(
    // A panic that is caught is none; one that is not ends the process all the same.
    init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))),
    |data: &[u8]| {
        strandline_tests::fuzz::documents(data);
    }
);
