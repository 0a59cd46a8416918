//! What to write into whose configuration.

mod capacity;
mod keep_alive;
mod kernel;
mod product;
mod proxies;
mod queues;
mod upstreams;

pub use capacity::more_at_a_time;
pub use keep_alive::{larger_pool, turn_on};
pub use kernel::{ports, tcp_keep_alive};
pub use proxies::{close_sooner, send_again};
pub use queues::longer_queue;
pub use upstreams::{close_later, may_be};

/// The margin between the timeouts of both ends: less than a second is eaten by event loops, coarse timers and the
/// way between them.
const MARGIN: f64 = 1.0;
/// The margin as a part of the time, where that is more.
const MARGIN_PART: f64 = 0.1;
/// What a measured time may lie below the timeout it stems from: jiffies.
const JIFFIES: f64 = 0.05;

/// A timeout in milliseconds that ends before one of `seconds`: whole seconds where there are any.
fn before(seconds: f64) -> u64 {
    let margin = MARGIN.max(seconds * MARGIN_PART);
    let whole = (seconds + JIFFIES - margin).floor();
    let (count, unit) = if whole >= 1.0 { (whole, 1_000) } else { ((seconds * 5.0).floor().max(1.0), 100) };
    // Both are small and positive: a float cast saturates anyway.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and whole")]
    let count = count as u64;
    count * unit
}

/// Milliseconds as nginx, HAProxy, Envoy and Caddy write them.
fn time(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_before_leaves_a_margin() {
        for (seconds, text) in [
            (5.0, "4s"),
            (4.997, "4s"),
            (5.4, "4s"),
            (6.01, "5s"),
            (2.01, "1s"),
            (1.996, "1s"),
            (1.0, "500ms"),
            (1.5, "700ms"),
            (60.02, "54s"),
            (350.0, "315s"),
        ] {
            assert_eq!(time(before(seconds)), text, "{seconds}");
            assert!((before(seconds) as f64) < seconds * 1e3);
        }
    }
}
