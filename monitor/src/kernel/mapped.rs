//! The kernel's records in our own memory: reading one costs a load, no system call and no copy.

use std::{
    io,
    ptr::addr_of_mut,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::{Pod, maps::MapData};
use finwatch_ebpf::{
    histogram::SLOTS,
    requests::RequestRecord,
    wire::{
        COUNTER_SLOTS, Counter, Histogram, KEY_FOLDED, OWNER_BUCKETS, PairKey, PairRecord, SLOT_FREE,
        SLOT_IN_USE, Totals,
    },
};

use super::array::Array;
use crate::model::source::{HistogramId, PairSource};

/// A record of the kernel's half as its bytes come out of a ring buffer; `None` where there are fewer or more.
pub fn record<T: Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: as many bytes as the type has, any pattern of which is valid; its alignment is not relied upon.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The pairs' records and requests, the owners' shares and the host-wide counts.
pub struct Tables {
    pairs: Array<PairRecord>,
    in_use: Array<u64>,
    owners: Array<u64>,
    totals: Array<Totals>,
    /// `None` where requests are not followed.
    requests: Option<Array<RequestRecord>>,
    /// Held for reading by scrapes, for writing while slots are emptied.
    steady: RwLock<()>,
}

impl Tables {
    /// Maps the arrays; the pairs' records come with their marks and their number, which is also that of `requests`.
    ///
    /// # Errors
    /// When the kernel refuses to map them.
    pub fn map(
        (pairs, in_use, slots): (&MapData, &MapData, u32),
        owners: &MapData,
        totals: &MapData,
        requests: Option<&MapData>,
    ) -> io::Result<Self> {
        Ok(Self {
            pairs: Array::map_by_piece(pairs, slots)?,
            in_use: Array::map(in_use, slots)?,
            owners: Array::map(owners, OWNER_BUCKETS)?,
            totals: Array::map(totals, 1)?,
            requests: requests.map(|requests| Array::map_by_piece(requests, slots)).transpose()?,
            steady: RwLock::default(),
        })
    }

    /// How many connections of the slot's pair are tracked.
    pub fn tracked(&self, slot: u32) -> u64 {
        // SAFETY: `at` gives a valid pointer; only an address is taken.
        self.pairs.number(slot, |record| unsafe { addr_of_mut!((*record).tracked) }).load(Ordering::Relaxed)
    }

    /// Takes a connection whose end was missed out of the books, and whether it was `displaced`.
    pub fn close_missed(&self, slot: u32, displaced: bool) {
        if slot < self.slots() {
            // SAFETY: as in `tracked`.
            self.pairs
                .number(slot, |record| unsafe { addr_of_mut!((*record).tracked) })
                .fetch_sub(1, Ordering::Relaxed);
        }
        // SAFETY: as in `tracked`.
        self.totals
            .number(0, |totals| unsafe { addr_of_mut!((*totals).tracked) })
            .fetch_sub(1, Ordering::Relaxed);
        // SAFETY: as in `tracked`.
        self.totals
            .number(0, |totals| unsafe { addr_of_mut!((*totals).displaced) })
            .fetch_sub(displaced.into(), Ordering::Relaxed);
        // SAFETY: as in `tracked`.
        self.totals
            .number(0, |totals| unsafe { addr_of_mut!((*totals).missed_end) })
            .fetch_add(1, Ordering::Relaxed);
    }

    /// When the slot's pair was last touched, in jiffies.
    pub fn touched(&self, slot: u32) -> u64 {
        // SAFETY: as in `tracked`.
        self.pairs.number(slot, |record| unsafe { addr_of_mut!((*record).touched) }).load(Ordering::Relaxed)
    }

    /// Keeps the slot's pair from expiring, whose sockets are there without an event. Expiry waits for the number to
    /// stand still.
    pub fn keep(&self, slot: u32) {
        // SAFETY: as in `tracked`.
        self.pairs
            .number(slot, |record| unsafe { addr_of_mut!((*record).touched) })
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Shows the record of folded pairs of one side, as the programs do when they first need it.
    pub fn show_folded(&self, slot: u32, side: u8) {
        let record = self.pairs.at(slot);
        // SAFETY: a valid pointer to an integer; every writer writes the same.
        unsafe { (*record).key.side = side };
        // SAFETY: as above.
        unsafe { (*record).key.flags = KEY_FOLDED };
        self.in_use(slot).store(SLOT_IN_USE, Ordering::Release);
    }

    /// For as long as it is held, no scrape reads; `None` while one does.
    pub fn alone(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        self.steady.try_write().ok()
    }

    /// Adds what one slot has counted to another that prints the same labels, so that their sum does not fall when the
    /// first is emptied.
    pub fn hand_over(&self, from: u32, to: u32) {
        for index in 0..COUNTER_SLOTS {
            let count = self.counter_number(from, index).load(Ordering::Relaxed);
            self.counter_number(to, index).fetch_add(count, Ordering::Relaxed);
        }
        for id in HistogramId::ALL {
            let counted = self.histogram(from, id);
            let Some(heir) = self.histogram_numbers(to, id) else { continue };
            for (number, count) in heir.slots.into_iter().zip(counted.slots) {
                number.fetch_add(count, Ordering::Relaxed);
            }
            heir.sum.fetch_add(counted.sum, Ordering::Relaxed);
        }
    }

    /// Empties a slot whose pair nothing refers to any more, and gives its share back to its owner.
    pub fn clear(&self, slot: u32) {
        let record = self.pairs.at(slot);
        // SAFETY: no program writes the record: its key is gone from the index and no connection refers to it.
        let generation = unsafe { (*record).generation };
        // SAFETY: as above.
        let owner = unsafe { (*record).owner };
        self.in_use(slot).store(SLOT_FREE, Ordering::Release);
        // SAFETY: as above; integers only.
        unsafe { record.write_bytes(0, 1) };
        if let Some(requests) = &self.requests {
            // SAFETY: as above.
            unsafe { requests.at(slot).write_bytes(0, 1) };
        }
        // SAFETY: as above.
        unsafe { (*record).generation = generation.wrapping_add(1) };
        self.owners.number(owner % OWNER_BUCKETS, |taken| taken).fetch_sub(1, Ordering::Relaxed);
        // SAFETY: as in `tracked`.
        self.totals
            .number(0, |totals| unsafe { addr_of_mut!((*totals).pairs) })
            .fetch_sub(1, Ordering::Relaxed);
    }

    fn in_use(&self, slot: u32) -> &AtomicU64 {
        self.in_use.number(slot, |mark| mark)
    }

    /// A counter by its index.
    ///
    /// # Panics
    /// When there is no such counter.
    fn counter_number(&self, slot: u32, index: usize) -> &AtomicU64 {
        assert!(index < COUNTER_SLOTS, "counter {index} of {COUNTER_SLOTS}");
        self.pairs.number(slot, |record| {
            // SAFETY: `at` gives a valid pointer; only an address is taken.
            let counters = unsafe { addr_of_mut!((*record).counters) }.cast::<u64>();
            // SAFETY: the index is below the array's length.
            unsafe { counters.add(index) }
        })
    }

    /// A histogram's numbers; `None` where it is not kept.
    fn histogram_numbers(&self, slot: u32, id: HistogramId) -> Option<HistogramNumbers<'_>> {
        let histogram = match id {
            HistogramId::TimeToFirstByte | HistogramId::RequestsPerConnection => {
                let record = self.requests.as_ref()?.at(slot);
                if id == HistogramId::TimeToFirstByte {
                    // SAFETY: `at` gives a valid pointer; only an address is taken.
                    unsafe { addr_of_mut!((*record).time_to_first_byte) }
                } else {
                    // SAFETY: as above.
                    unsafe { addr_of_mut!((*record).per_connection) }
                }
            }
            HistogramId::PeerCloseIdle => {
                // SAFETY: as above.
                unsafe { addr_of_mut!((*self.pairs.at(slot)).peer_close_idle) }
            }
            HistogramId::LocalCloseIdle => {
                // SAFETY: as above.
                unsafe { addr_of_mut!((*self.pairs.at(slot)).local_close_idle) }
            }
            HistogramId::LostRequestIdle => {
                // SAFETY: as above.
                unsafe { addr_of_mut!((*self.pairs.at(slot)).lost_request_idle) }
            }
            HistogramId::ConnectionDuration => {
                // SAFETY: as above.
                unsafe { addr_of_mut!((*self.pairs.at(slot)).connection_duration) }
            }
        };
        Some(HistogramNumbers::new(histogram))
    }
}

/// A mapped histogram as atomics.
struct HistogramNumbers<'a> {
    sum: &'a AtomicU64,
    slots: [&'a AtomicU64; SLOTS],
}

impl HistogramNumbers<'_> {
    /// Those of a histogram in a mapping that outlives them.
    fn new(histogram: *mut Histogram) -> Self {
        // SAFETY: all callers pass a valid pointer; only an address is taken.
        let sum = unsafe { addr_of_mut!((*histogram).sum) };
        // SAFETY: as above.
        let slots = unsafe { addr_of_mut!((*histogram).slots) }.cast::<u64>();
        Self {
            // SAFETY: an aligned number of a mapped value; every access to it is atomic or the kernel's.
            sum: unsafe { AtomicU64::from_ptr(sum) },
            slots: std::array::from_fn(|index| {
                // SAFETY: the index is below the array's length.
                let number = unsafe { slots.add(index) };
                // SAFETY: as for `sum`.
                unsafe { AtomicU64::from_ptr(number) }
            }),
        }
    }
}

impl PairSource for Tables {
    fn slots(&self) -> u32 {
        self.pairs.length()
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

    fn generation(&self, slot: u32) -> u32 {
        // SAFETY: a valid pointer to an integer, which only `clear` changes.
        unsafe { (*self.pairs.at(slot)).generation }
    }

    fn counter(&self, slot: u32, counter: Counter) -> u64 {
        self.counter_number(slot, counter as usize).load(Ordering::Relaxed)
    }

    fn histogram(&self, slot: u32, id: HistogramId) -> Histogram {
        self.histogram_numbers(slot, id).map_or(Histogram::EMPTY, |numbers| Histogram {
            sum: numbers.sum.load(Ordering::Relaxed),
            slots: numbers.slots.map(|number| number.load(Ordering::Relaxed)),
        })
    }

    fn follows_requests(&self) -> bool {
        self.requests.is_some()
    }

    fn steady(&self) -> Option<RwLockReadGuard<'_, ()>> {
        Some(self.steady.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn totals(&self) -> Totals {
        // SAFETY: a valid pointer to integers; each is written whole, and no two of them must agree.
        unsafe { self.totals.at(0).read_volatile() }
    }
}
