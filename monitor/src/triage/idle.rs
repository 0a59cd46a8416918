//! The time after which connections are closed, where a histogram shows one.

use std::fmt;

use finwatch_ebpf::histogram::IDLE_BOUNDS_MS;

use crate::model::counts::Samples;

/// Below this a close follows an answer, and no timeout. The kernel half judges by the same second.
pub const QUIET_SECONDS: f64 = 1.0;
/// So many closes are needed: two can fall together by chance.
pub const MIN_SAMPLES: u64 = 3;
/// The fullest bucket holds at least so much of all closes after a quiet time. A restart closes connections that have
/// been idle for anything up to the timeout, which spreads over several buckets.
pub const DOMINANT: f64 = 0.6;
/// Means nearer than this part of them are equal: the finest settings in the field, 65 and 66 s, are 1.5 % apart.
const EQUAL: f64 = 0.01;

/// A time after which connections are closed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IdleTime {
    /// Lower bound of the bucket that holds most closes.
    pub low: f64,
    /// Its upper bound; `None` for the last.
    pub high: Option<f64>,
    /// The mean, where every close lies in that bucket.
    pub mean: Option<f64>,
    /// Closes in it.
    pub count: u64,
    /// Closes after any quiet time.
    pub of: u64,
}

impl IdleTime {
    /// The time that most of the closes share; `None` where there are too few, or none stands out.
    pub fn of(samples: &Samples) -> Option<Self> {
        let quiet = |bound: &Option<f64>| bound.is_none_or(|bound| bound > QUIET_SECONDS);
        let buckets: Vec<_> = samples.buckets.iter().filter(|(bound, _)| quiet(bound)).copied().collect();
        let of = buckets.iter().map(|(_, count)| count).sum();
        let mode = Samples { count: of, sum_seconds: 0.0, buckets }.mode(&IDLE_BOUNDS_MS)?;
        let dominant = mode.count >= MIN_SAMPLES && mode.count as f64 >= of as f64 * DOMINANT;
        let mean = samples.mean().filter(|_| mode.count == samples.count);
        dominant.then_some(Self { low: mode.low, high: mode.high, mean, count: mode.count, of })
    }

    /// The earliest time it may be.
    pub fn earliest(&self) -> f64 {
        self.mean.unwrap_or(self.low)
    }

    /// The latest time it may be.
    pub fn latest(&self) -> f64 {
        self.mean.or(self.high).unwrap_or(f64::INFINITY)
    }

    /// Whether both may be one and the same.
    pub fn equals(&self, other: &Self) -> bool {
        match (self.mean, other.mean) {
            (Some(a), Some(b)) => (a - b).abs() <= EQUAL * a.max(b),
            _ => self.low.to_bits() == other.low.to_bits(),
        }
    }
}

impl fmt::Display for IdleTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.mean, self.high) {
            (Some(mean), _) if mean < 100.0 => write!(formatter, "{mean:.1} s"),
            (Some(mean), _) => write!(formatter, "{mean:.0} s"),
            (None, Some(high)) => write!(formatter, "{} to {high} s", self.low),
            (None, None) => write!(formatter, "more than {} s", self.low),
        }
    }
}
