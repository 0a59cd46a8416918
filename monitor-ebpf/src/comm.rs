//! The kernel's name of a task, in words: as bytes, an eBPF program would copy it one by one.

/// Every byte's lowest and highest bit.
const LOWEST: u64 = 0x0101_0101_0101_0101;
const HIGHEST: u64 = 0x8080_8080_8080_8080;

/// What comes before the first NUL, and nothing after it: kernels such as 5.10 leave there what a longer name had been.
/// `__set_task_comm` in <https://github.com/torvalds/linux/blob/v5.10/fs/exec.c>
#[inline]
#[must_use]
pub fn trimmed([first, second]: [u64; 2]) -> [u64; 2] {
    let end = ends(first);
    if end == 0 { [first, before(ends(second), second)] } else { [before(end, first), 0] }
}

/// The highest bit of the word's first byte that is NUL, 0 where none is. (Of the bytes above it, those that are 1 are taken for
/// NUL, too: only the lowest bit tells.)
#[inline]
fn ends(word: u64) -> u64 {
    let ends = word.wrapping_sub(LOWEST) & !word & HIGHEST;
    ends & ends.wrapping_neg()
}

/// The word's bytes before that end.
#[inline]
fn before(end: u64, word: u64) -> u64 {
    // Without an end, all of them: 0 less 1.
    word & (end >> 7).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: [u8; 16]) -> [u64; 2] {
        let (first, second) = name.split_at(8);
        [first, second].map(|half| u64::from_le_bytes(half.try_into().expect("eight bytes")))
    }

    #[test]
    fn nothing_is_left_after_the_first_nul() {
        for length in 0..=16 {
            for rest in [0, 1, b'x', 0x80, 0xff] {
                let mut name = [rest; 16];
                let mut wanted = [0; 16];
                name[..length].fill(b'n');
                wanted[..length].fill(b'n');
                name[length..].iter_mut().take(1).for_each(|end| *end = 0);
                assert_eq!(trimmed(of(name)), of(wanted), "{length} bytes, then {rest}");
            }
        }
    }

    #[test]
    fn bytes_of_any_kind_stay() {
        for byte in 1..=u8::MAX {
            let mut name = [byte; 16];
            name[15] = 0;
            assert_eq!(trimmed(of(name)), of(name), "{byte}");
        }
    }
}
