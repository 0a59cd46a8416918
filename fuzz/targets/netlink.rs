//! `cargo fuzz run netlink`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| finwatch_fuzz::netlink(data));
