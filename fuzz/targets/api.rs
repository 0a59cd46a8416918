//! `cargo fuzz run api`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| finwatch_fuzz::api(data));
