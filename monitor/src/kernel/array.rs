//! The values of an array map that was made to be mapped, in our own memory. The kernel hands a mapping's pages over all at
//! once, and all of them count as resident: a large array is mapped piece by piece, as its values are looked at.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{OnceLock, atomic::AtomicU64},
};

use aya::{Pod, maps::MapData};
use memmap2::{MmapOptions, MmapRaw};

/// `array_map_alloc()` rounds values up to this.
const ALIGNMENT: usize = 8;

/// The array.
pub(super) struct Array<T> {
    descriptor: OwnedFd,
    pieces: Box<[OnceLock<MmapRaw>]>,
    /// Values of a piece.
    each: u32,
    length: u32,
    values: PhantomData<fn() -> T>,
}

impl<T> Array<T> {
    /// Maps all of it.
    pub(super) fn map(map: &MapData, length: u32) -> io::Result<Self> {
        Self::in_pieces(map, length, length)
    }

    /// Maps what is looked at, beginning with the first values.
    pub(super) fn map_by_piece(map: &MapData, length: u32) -> io::Result<Self> {
        // Whatever a value's size, so many fill whole pages.
        let values = procfs::page_size() / ALIGNMENT as u64;
        Self::in_pieces(map, length, u32::try_from(values).unwrap_or(length))
    }

    fn in_pieces(map: &MapData, length: u32, each: u32) -> io::Result<Self> {
        const {
            assert!(
                size_of::<T>().is_multiple_of(ALIGNMENT),
                "the kernel's values would be longer than ours"
            );
        };
        let pieces = (0..length.div_ceil(each)).map(|_| OnceLock::new()).collect();
        let descriptor = map.fd().as_fd().try_clone_to_owned()?;
        let array = Self { descriptor, pieces, each, length, values: PhantomData };
        // Whether the kernel maps it at all shows here.
        let first = array.piece(0)?;
        array.pieces[0].get_or_init(|| first);
        Ok(array)
    }

    fn piece(&self, piece: u32) -> io::Result<MmapRaw> {
        let first = piece * self.each;
        let values = self.each.min(self.length - first) as usize;
        let size = size_of::<T>();
        MmapOptions::new()
            .offset(u64::from(first) * size as u64)
            .len(values * size)
            .map_raw(self.descriptor.as_raw_fd())
    }

    /// One value.
    ///
    /// # Panics
    /// When `index` is not below the array's length, or no memory is left for a few page tables.
    pub(super) fn at(&self, index: u32) -> *mut T {
        assert!(index < self.length, "slot {index} of {}", self.length);
        let (piece, within) = (index / self.each, index % self.each);
        let mapped = self.pieces[piece as usize]
            .get_or_init(|| self.piece(piece).expect("the kernel maps what it has mapped the beginning of"));
        // SAFETY: inside the mapping, which holds that many values of the piece.
        unsafe { mapped.as_mut_ptr().cast::<T>().add(within as usize) }
    }

    /// Shows each value, piece by piece, and keeps none mapped.
    pub(super) fn look_through(map: &MapData, length: u32, mut look: impl FnMut(*mut T)) -> io::Result<()> {
        let pieces = Self::map_by_piece(map, length)?;
        for piece in 0..length.div_ceil(pieces.each) {
            let mapped = pieces.piece(piece)?;
            let values = pieces.each.min(length - piece * pieces.each) as usize;
            for index in 0..values {
                // SAFETY: inside the mapping, which holds that many values of the piece.
                look(unsafe { mapped.as_mut_ptr().cast::<T>().add(index) });
            }
        }
        Ok(())
    }

    /// A copy of one value; what the kernel's side writes meanwhile may be in it or not.
    pub(super) fn read(&self, index: u32) -> T
    where
        T: Pod,
    {
        // SAFETY: a valid, aligned pointer to plain old data.
        unsafe { self.at(index).read_volatile() }
    }

    /// Replaces one value, which the kernel's side does not write meanwhile.
    pub(super) fn write(&self, index: u32, value: T)
    where
        T: Pod,
    {
        // SAFETY: a valid, aligned pointer to plain old data.
        unsafe { self.at(index).write_volatile(value) };
    }

    /// How many values there are.
    pub(super) const fn length(&self) -> u32 {
        self.length
    }

    /// A number of a value as an atomic: the kernel's side adds atomically too.
    pub(super) fn number(&self, index: u32, field: impl FnOnce(*mut T) -> *mut u64) -> &AtomicU64 {
        let number = field(self.at(index));
        // SAFETY: an aligned field of a mapped value; the mapping lives as long as `self`, and every access to it is
        // atomic or the kernel's.
        unsafe { AtomicU64::from_ptr(number) }
    }
}
