//! `cargo fuzz run labels`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| finwatch_fuzz::labels(data));
