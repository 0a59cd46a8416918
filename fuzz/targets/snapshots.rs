//! `cargo fuzz run snapshots`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| finwatch_fuzz::snapshots(data));
