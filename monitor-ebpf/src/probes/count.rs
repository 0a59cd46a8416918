//! Counting in records that several CPUs write at once.

use core::{arch::asm, hint::black_box, ptr::addr_of_mut};

use finwatch_ebpf::{
    histogram::{SLOTS, slot},
    wire::{COUNTER_SLOTS, Counter, Histogram, PairRecord},
};

use crate::maps::setting;

const MS_PER_SECOND: u64 = 1_000;

/// Adds to a shared number without losing counts. The target has no atomic read-modify-write in Rust; the
/// instruction exists since BPF version 1.
///
/// # Safety
/// `number` points into a map value.
#[inline(always)]
pub unsafe fn add(number: *mut u64, value: u64) {
    // SAFETY: one atomic addition to the eight bytes that the caller vouches for.
    unsafe { asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) number, v = in(reg) value) };
}

/// Counts one of `counter` in a pair's record.
#[inline(always)]
pub fn count(record: *mut PairRecord, counter: Counter) {
    count_number(record, counter as u8);
}

/// Counts one of the counter with this number.
#[inline(always)]
pub fn count_number(record: *mut PairRecord, counter: u8) {
    let index = usize::from(counter) & (COUNTER_SLOTS - 1);
    // SAFETY: `record` is a live map value; the field lies inside it.
    let counters = unsafe { addr_of_mut!((*record).counters) }.cast::<u64>();
    // SAFETY: the index is masked to the array's length.
    let number = unsafe { counters.add(index) };
    // SAFETY: inside the map value.
    unsafe { add(number, 1) };
}

/// Adds a sample in jiffies to a histogram with bounds in milliseconds.
#[inline(always)]
pub fn observe_jiffies(histogram: *mut Histogram, bounds: &[u32; SLOTS - 1], jiffies: u32) {
    observe(histogram, bounds, jiffies_to_ms(jiffies));
}

/// Jiffies in milliseconds.
#[inline(always)]
pub fn jiffies_to_ms(jiffies: u32) -> u64 {
    u64::from(jiffies) * MS_PER_SECOND / u64::from(setting!(hz).max(1))
}

/// Adds a sample, in the unit of the bounds, to a histogram.
#[inline(always)]
pub fn observe(histogram: *mut Histogram, bounds: &[u32; SLOTS - 1], sample: u64) {
    let index = slot(bounds, u32::try_from(sample).unwrap_or(u32::MAX));
    // Through memory, as a byte: otherwise the verifier follows each of the slots' paths to the program's end.
    let index = usize::from(black_box(u8::try_from(index).unwrap_or(0))).min(SLOTS - 1);
    // SAFETY: `histogram` is part of a live map value.
    let slots = unsafe { addr_of_mut!((*histogram).slots) }.cast::<u64>();
    // SAFETY: the index is below the array's length.
    let number = unsafe { slots.add(index) };
    // SAFETY: inside the map value.
    unsafe { add(number, 1) };
    if sample == 0 {
        return;
    }
    // SAFETY: inside the map value.
    let sum = unsafe { addr_of_mut!((*histogram).sum) };
    // SAFETY: inside the map value.
    unsafe { add(sum, sample) };
}
