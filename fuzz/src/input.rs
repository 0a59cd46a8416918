//! An input cut into pieces. Where it ends early, the rest is zeroes.

use aya::Pod;
use finwatch::kernel::mapped::record;

/// What is left of an input.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next so many bytes, or what is left.
    pub(crate) fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// The next bytes as a record of the kernel's half.
    pub(crate) fn record<T: Pod>(&mut self) -> T {
        let mut bytes = self.bytes(size_of::<T>()).to_vec();
        bytes.resize(size_of::<T>(), 0);
        record(&bytes).expect("as many bytes as it has")
    }

    /// As many records as the next byte tells, `most` at most.
    pub(crate) fn records<T: Pod>(&mut self, most: u8) -> Vec<T> {
        let count = self.record::<u8>() % (most + 1);
        (0..count).map(|_| self.record()).collect()
    }

    /// The rest as text.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes(usize::MAX)).into_owned()
    }
}
