//! What a scrape costs when every family of every pair has samples. Processor time is asserted in release builds only:
//! `cargo test --release --test scrape_cost -- --nocapture` prints the figures.

#[expect(dead_code, reason = "each test binary uses its part of it")]
mod support;

use std::{
    io::{self, Write},
    time::Duration,
};

use cpu_time::ThreadTime;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;

struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Cost {
    time: Duration,
    memory: usize,
}

/// The best processor time of a few scrapes (others use this machine too) and the most memory one needed on top.
fn cost(pairs: u16) -> Cost {
    let exporter = support::exporter(support::busy_pairs(pairs));
    let mut best = Cost { time: Duration::MAX, memory: 0 };
    let mut size = 0;
    for _ in 0..7 {
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        let begun = ThreadTime::now();
        let mut out = Count(0);
        exporter.write(&mut out).expect("a scrape");
        best.time = best.time.min(begun.elapsed());
        best.memory = best.memory.max(ALLOCATOR.peak_usage() - before);
        size = out.0;
    }
    println!(
        "{pairs} pairs: {:?}, {} KiB of memory, {} KiB of text",
        best.time,
        best.memory >> 10,
        size >> 10
    );
    best
}

#[test]
fn a_scrape_stays_within_its_bounds() {
    let small = cost(1_000);
    let large = cost(4_096);
    assert!(large.memory < 8 * MIB, "{} bytes", large.memory);
    if cfg!(not(debug_assertions)) {
        assert!(small.time < Duration::from_millis(40), "{:?}", small.time);
        assert!(large.time < Duration::from_millis(160), "{:?}", large.time);
    }
}
