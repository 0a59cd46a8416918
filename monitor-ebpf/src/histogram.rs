//! Histogram bounds and the bucket a duration falls into.

/// Slots in one histogram: the finite bounds and `+Inf`.
pub const SLOTS: usize = 22;

/// Upper bounds in milliseconds for times a connection was quiet. They keep apart the idle timeouts found in the
/// field: 2, 4, 5, 6, 20, 30, 60, 65, 66, 75, 90, 120, 130, 180, 240, 300, 350, 600 and 3600 seconds.
pub const IDLE_BOUNDS_MS: [u32; SLOTS - 1] = [
    100, 1_000, 2_500, 4_500, 5_500, 6_500, 15_000, 25_000, 45_000, 62_000, 65_500, 70_000, 80_000, 100_000,
    125_000, 155_000, 200_000, 270_000, 320_000, 400_000, 900_000,
];

/// Upper bounds in milliseconds for the life of a connection.
pub const DURATION_BOUNDS_MS: [u32; SLOTS - 1] = [
    1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    1_800_000, 3_600_000, 14_400_000, 86_400_000,
];

/// The slot `ms` belongs to: the first whose bound is not below it (bounds are inclusive, as Prometheus' `le` is),
/// else the last.
#[inline]
pub fn slot(bounds: &[u32; SLOTS - 1], ms: u32) -> usize {
    let mut slot = 0;
    while slot < bounds.len() && ms > bounds[slot] {
        slot += 1;
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise() {
        for bounds in [IDLE_BOUNDS_MS, DURATION_BOUNDS_MS] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn bounds_are_inclusive_and_the_last_slot_takes_the_rest() {
        assert_eq!(slot(&IDLE_BOUNDS_MS, 0), 0);
        assert_eq!(slot(&IDLE_BOUNDS_MS, 100), 0);
        assert_eq!(slot(&IDLE_BOUNDS_MS, 101), 1);
        assert_eq!(slot(&IDLE_BOUNDS_MS, 900_000), SLOTS - 2);
        assert_eq!(slot(&IDLE_BOUNDS_MS, u32::MAX), SLOTS - 1);
    }

    #[test]
    fn well_known_idle_timeouts_are_kept_apart() {
        let of = |s: u32| slot(&IDLE_BOUNDS_MS, s * 1_000 + 30);
        assert_ne!(of(5), of(6));
        let around_a_minute = [60, 65, 66, 75, 90, 120, 130].map(of);
        for (i, a) in around_a_minute.iter().enumerate() {
            for b in &around_a_minute[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }
}
