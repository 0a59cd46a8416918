//! `cargo fuzz run web_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| finwatch_fuzz::web_config(data));
