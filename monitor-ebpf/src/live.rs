//! The table of live connections: a place for each socket's address, one cache line.
//!
//! The kernel's hash map took more than a third of the time of a state change: a bucket, an entry and its value are three
//! lines that the other processor has written last, and each call is one more. Here an address has a home, and whoever finds
//! that taken stands in one of a few other places, which a hash map then names. A place is claimed by adding to its number of
//! claims, which every kernel can do, and looking whether one's own is the only one.

/// How many places beside its home a connection may stand in. With two thirds of all places taken one in a thousand finds
/// none.
pub const PROBES: u32 = 16;

/// A TCP socket takes more than two kilobytes: no two have the same number of these.
const SOCKET_SHIFT: u32 = 11;

/// How many places there are for so many connections: a power of two, so that a third of them at least stay free.
pub fn places(connections: u32) -> u32 {
    connections.saturating_add(connections / 2).next_power_of_two()
}

/// The home of a socket, by its address or how far that is from somewhere, for a table of `mask + 1` places. Neighbours in
/// memory have homes side by side: a page of its own for each costs more than all the rest.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lower part, masked")]
pub fn home(socket: u64, mask: u32) -> u32 {
    (socket >> SOCKET_SHIFT) as u32 & mask
}

/// Another place for it.
#[inline]
pub fn probe(socket: u64, number: u32, mask: u32) -> u32 {
    // An odd step of its own leads through all places.
    let step = hash(socket) | 1;
    home(socket, mask).wrapping_add(number.wrapping_mul(step)) & mask
}

/// Fibonacci hashing.
#[inline]
fn hash(socket: u64) -> u32 {
    (socket.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_never_more_than_two_thirds_full() {
        for connections in [1_024, 87_381, 87_382, 131_072, 4_194_304] {
            let places = places(connections);
            assert!(places.is_power_of_two() && connections <= places / 3 * 2 + 1, "{connections}");
        }
    }

    /// How many of so many stand elsewhere than at home, and how many nowhere: in a table for 87,381, the fullest there is, of
    /// sockets as slabs have them, eleven of 2,880 bytes in eight pages anywhere in memory.
    fn placed(connections: u32) -> [u32; 2] {
        let places = places(87_381);
        assert_eq!(places, 131_072);
        let mask = places - 1;
        let mut taken = std::vec![false; places as usize];
        let mut displaced = 0;
        let mut lost = 0;
        for number in 0..u64::from(connections) {
            let slab = (number / 11).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44 << 15;
            let socket = 0xffff_8880_0000_0000 + slab + number % 11 * 2_880;
            let home = home(socket, mask);
            let others = (1..=PROBES).map(|number| probe(socket, number, mask));
            match [home].into_iter().chain(others).find(|place| !taken[*place as usize]) {
                Some(place) => {
                    displaced += u32::from(place != home);
                    taken[place as usize] = true;
                }
                None => lost += 1,
            }
        }
        [displaced, lost]
    }

    #[test]
    fn most_are_at_home_and_nearly_all_find_a_place() {
        let [displaced, lost] = placed(8_738);
        assert!(displaced < 8_738 / 10 && lost == 0, "{displaced} displaced, {lost} lost");
        let [_, lost] = placed(87_381);
        assert!(lost < 87_381 / 1_000, "{lost} lost");
    }
}
