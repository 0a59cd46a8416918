//! When the ephemeral ports toward a destination are used up, if things go on as they do.

use std::time::Duration;

/// Ports held toward a destination at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSample {
    /// Time since any fixed moment.
    pub at: Duration,
    /// Ports held.
    pub used: u32,
}

/// How long until `limit` ports are held, at the mean rate between two samples: `None` while their number does not
/// grow, zero when they are used up already.
pub fn used_up_in(earlier: PortSample, later: PortSample, limit: u32) -> Option<Duration> {
    let Some(left) = limit.checked_sub(later.used).filter(|left| *left > 0) else {
        return Some(Duration::ZERO);
    };
    let grown = later.used.checked_sub(earlier.used).filter(|grown| *grown > 0)?;
    let elapsed = later.at.checked_sub(earlier.at).filter(|elapsed| !elapsed.is_zero())?;
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * f64::from(left) / f64::from(grown)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(earlier: (u64, u32), later: (u64, u32), limit: u32) -> Option<u64> {
        let sample = |(seconds, used)| PortSample { at: Duration::from_secs(seconds), used };
        used_up_in(sample(earlier), sample(later), limit).map(|time| time.as_secs())
    }

    #[test]
    fn growth_goes_on_at_its_mean_rate() {
        assert_eq!(forecast((0, 0), (10, 100), 200), Some(10));
        assert_eq!(forecast((5, 1_000), (10, 1_500), 28_232), Some(267));
    }

    #[test]
    fn without_growth_there_is_no_end() {
        assert_eq!(forecast((0, 100), (10, 100), 200), None);
        assert_eq!(forecast((0, 100), (10, 50), 200), None);
        assert_eq!(forecast((10, 50), (10, 100), 200), None, "no time has passed");
        assert_eq!(forecast((10, 50), (5, 100), 200), None, "time went backwards");
    }

    #[test]
    fn what_is_used_up_is_used_up_now() {
        assert_eq!(forecast((0, 10), (10, 10), 10), Some(0));
        assert_eq!(forecast((0, 20), (10, 12), 10), Some(0), "the range was made smaller");
        assert_eq!(forecast((0, 0), (0, 0), 0), Some(0));
    }
}
