//! `cargo fuzz run incidents`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| finwatch_fuzz::incidents(data));
