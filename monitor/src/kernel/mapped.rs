//! The kernel's records in our own memory: reading one costs a load, no system call and no copy.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::addr_of_mut,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aya::maps::MapData;
use finwatch_ebpf::{
    histogram::SLOTS,
    wire::{
        COUNTER_SLOTS, Counter, Histogram, OWNER_BUCKETS, PairKey, PairRecord, SLOT_FREE, SLOT_IN_USE, Totals,
    },
};
use memmap2::{MmapOptions, MmapRaw};

use crate::model::source::{HistogramId, PairSource};

/// The values of an array map that was made to be mapped.
struct Array<T> {
    memory: MmapRaw,
    length: u32,
    values: PhantomData<fn() -> T>,
}

impl<T> Array<T> {
    fn map(map: &MapData, length: u32) -> io::Result<Self> {
        let bytes = length as usize * size_of::<T>();
        let memory = MmapOptions::new().len(bytes).map_raw(map.fd().as_fd().as_raw_fd())?;
        Ok(Self { memory, length, values: PhantomData })
    }

    /// One value.
    ///
    /// # Panics
    /// When `index` is not below the array's length.
    fn at(&self, index: u32) -> *mut T {
        assert!(index < self.length, "slot {index} of {}", self.length);
        // SAFETY: inside the mapping, which holds `length` values.
        unsafe { self.memory.as_mut_ptr().cast::<T>().add(index as usize) }
    }

    /// A number of a value as an atomic: the kernel's side adds atomically too.
    fn number(&self, index: u32, field: impl FnOnce(*mut T) -> *mut u64) -> &AtomicU64 {
        let number = field(self.at(index));
        // SAFETY: an aligned field of a mapped value; the mapping lives as long as `self`, and every access to it is
        // atomic or the kernel's.
        unsafe { AtomicU64::from_ptr(number) }
    }
}

/// The pairs' records, the owners' shares and the host-wide counts.
pub struct Tables {
    pairs: Array<PairRecord>,
    owners: Array<u64>,
    totals: Array<Totals>,
}

impl Tables {
    /// Maps the three arrays; `slots` is the length of the first.
    ///
    /// # Errors
    /// When the kernel refuses to map them.
    pub fn map(pairs: &MapData, slots: u32, owners: &MapData, totals: &MapData) -> io::Result<Self> {
        Ok(Self {
            pairs: Array::map(pairs, slots)?,
            owners: Array::map(owners, OWNER_BUCKETS)?,
            totals: Array::map(totals, 1)?,
        })
    }

    /// How many connections of the slot's pair are tracked.
    pub fn tracked(&self, slot: u32) -> u64 {
        // SAFETY: `at` gives a valid pointer; only an address is taken.
        self.pairs.number(slot, |record| unsafe { addr_of_mut!((*record).tracked) }).load(Ordering::Relaxed)
    }

    /// When the slot's pair was last touched, in jiffies.
    pub fn touched(&self, slot: u32) -> u64 {
        // SAFETY: as in `tracked`.
        self.pairs.number(slot, |record| unsafe { addr_of_mut!((*record).touched) }).load(Ordering::Relaxed)
    }

    /// Empties a slot whose pair nothing refers to any more, and gives its share back to its owner.
    pub fn clear(&self, slot: u32) {
        let record = self.pairs.at(slot);
        // SAFETY: no program writes the record: its key is gone from the index and no connection refers to it.
        let generation = unsafe { (*record).generation };
        // SAFETY: as above.
        let owner = unsafe { (*record).owner };
        // SAFETY: as above; integers only.
        unsafe { record.write_bytes(0, 1) };
        // SAFETY: as above.
        unsafe { (*record).generation = generation.wrapping_add(1) };
        self.owners.number(owner % OWNER_BUCKETS, |taken| taken).fetch_sub(1, Ordering::Relaxed);
        // SAFETY: as in `tracked`.
        self.totals
            .number(0, |totals| unsafe { addr_of_mut!((*totals).pairs) })
            .fetch_sub(1, Ordering::Relaxed);
    }

    fn in_use(&self, slot: u32) -> &AtomicU32 {
        let record = self.pairs.at(slot);
        // SAFETY: `at` gives a valid pointer; only an address is taken.
        let in_use = unsafe { addr_of_mut!((*record).in_use) };
        // SAFETY: as in `Array::number`.
        unsafe { AtomicU32::from_ptr(in_use) }
    }

    fn histogram_number(
        &self,
        slot: u32,
        id: HistogramId,
        field: impl FnOnce(*mut Histogram) -> *mut u64,
    ) -> u64 {
        let number = self.pairs.number(slot, |record| {
            let histogram = match id {
                // SAFETY: as in `tracked`.
                HistogramId::PeerCloseIdle => unsafe { addr_of_mut!((*record).peer_close_idle) },
                // SAFETY: as in `tracked`.
                HistogramId::LostRequestIdle => unsafe { addr_of_mut!((*record).lost_request_idle) },
                // SAFETY: as in `tracked`.
                HistogramId::ConnectionDuration => unsafe { addr_of_mut!((*record).connection_duration) },
            };
            field(histogram)
        });
        number.load(Ordering::Relaxed)
    }
}

impl PairSource for Tables {
    fn slots(&self) -> u32 {
        self.pairs.length
    }

    fn key(&self, slot: u32) -> Option<PairKey> {
        match self.in_use(slot).load(Ordering::Acquire) {
            // SAFETY: a valid pointer to integers; the key does not change while the slot is in use.
            SLOT_IN_USE => Some(unsafe { (*self.pairs.at(slot)).key }),
            SLOT_FREE.. => None,
        }
    }

    fn pid(&self, slot: u32) -> u32 {
        // SAFETY: a valid pointer to an integer; it does not change while the slot is in use.
        unsafe { (*self.pairs.at(slot)).pid }
    }

    fn counter(&self, slot: u32, counter: Counter) -> u64 {
        const { assert!(COUNTER_SLOTS > Counter::TimeWaitEntered as usize) };
        let number = self.pairs.number(slot, |record| {
            // SAFETY: `at` gives a valid pointer; only an address is taken.
            let counters = unsafe { addr_of_mut!((*record).counters) }.cast::<u64>();
            // SAFETY: every counter's index is below the array's length, as asserted above.
            unsafe { counters.add(counter as usize) }
        });
        number.load(Ordering::Relaxed)
    }

    fn histogram(&self, slot: u32, id: HistogramId) -> Histogram {
        let mut slots = [0; SLOTS];
        for (index, count) in slots.iter_mut().enumerate() {
            *count = self.histogram_number(slot, id, |histogram| {
                // SAFETY: a valid pointer; only an address is taken.
                let slots = unsafe { addr_of_mut!((*histogram).slots) }.cast::<u64>();
                // SAFETY: `index` is below the array's length.
                unsafe { slots.add(index) }
            });
        }
        // SAFETY: a valid pointer; only an address is taken.
        let sum_ms =
            self.histogram_number(slot, id, |histogram| unsafe { addr_of_mut!((*histogram).sum_ms) });
        Histogram { sum_ms, slots }
    }

    fn totals(&self) -> Totals {
        // SAFETY: a valid pointer to integers; each is written whole, and no two of them must agree.
        unsafe { self.totals.at(0).read_volatile() }
    }
}
