//! Sums and words that several rules share.

use finwatch_ebpf::wire::Counter;

use crate::model::{
    counts::Counts,
    labels::{FOLDED, Side},
    observation::Pair,
};

/// Requests that met a connection the upstream was closing.
pub const LOST: [Counter; 3] = [Counter::LostCrossedFin, Counter::LostAfterFin, Counter::LostNoFin];
/// Ends of connections.
pub const CLOSED: [Counter; 4] =
    [Counter::ClosedLocal, Counter::ClosedPeer, Counter::ClosedReset, Counter::ClosedTimeout];
/// Resets received, by what the connection was doing.
pub const RESETS_RECEIVED: [(Counter, &str); 9] = [
    (Counter::ResetHandshake, "handshake"),
    (Counter::ResetAfterLocalClose, "after_local_close"),
    (Counter::ResetAfterPeerFin, "after_peer_fin"),
    (Counter::ResetFirstRequest, "first_request"),
    (Counter::ResetWaiting, "waiting"),
    (Counter::ResetReusedRequest, "reused_request"),
    (Counter::ResetResponse, "response"),
    (Counter::ResetIdle, "idle"),
    (Counter::ResetAnswering, "answering"),
];
/// Resets sent.
pub const RESETS_SENT: [Counter; 5] = [
    Counter::SentDataAfterClose,
    Counter::SentUnreadDataAtClose,
    Counter::SentAbort,
    Counter::SentTimeout,
    Counter::SentOther,
];

/// One restart or crash hits no more than the connections that are open; where it is not known when things happened,
/// so many at least are needed to speak of more than one event.
const ONE_EVENT: u64 = 5;

/// Whether these happened more than once in the window, rather than all at one time.
pub fn recurs(pair: &Pair, counters: &[Counter]) -> bool {
    recurs_by(pair, |counts| counts.sum(counters))
}

/// The same of what is reckoned from several counters.
pub fn recurs_by(pair: &Pair, count: impl Fn(&Counts) -> u64) -> bool {
    let all = count(&pair.counts);
    match &pair.first_half {
        Some(first) => {
            let first = count(first);
            first > 0 && all > first
        }
        None => all > u64::from(established(pair)).max(ONE_EVENT),
    }
}

/// Connections that are open now.
pub fn established(pair: &Pair) -> u32 {
    pair.in_state("established")
}

/// Whether this host opened the connections.
pub fn is_proxy(pair: &Pair) -> bool {
    pair.labels.side == Side::Proxy
}

/// Whether the record sums up pairs that found no room: what it shows is a mixture.
pub fn is_folded(pair: &Pair) -> bool {
    pair.labels.proxy == FOLDED && pair.labels.upstream == FOLDED
}

/// The share of `part` in `whole`; 0 of nothing.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// How often a second.
pub fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// A number with commas between thousands.
pub fn number(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number in at most seven columns.
pub fn short(count: u64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")];
    let unit = UNITS.iter().find(|(size, _)| count as f64 >= *size);
    unit.map_or_else(|| number(count), |(size, unit)| format!("{:.1}{unit}", count as f64 / size))
}

/// `1 request`, `1,200 requests`.
pub fn many(count: impl Into<u64>, noun: &str) -> String {
    let count = count.into();
    let s = if count == 1 { "" } else { "s" };
    format!("{} {noun}{s}", number(count))
}

/// A rate as printed: three digits at most where it is small.
pub fn per_second(rate: f64) -> String {
    match rate {
        0.0 => "0".into(),
        rate if rate < 0.1 => "<0.1".into(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate if rate < 1e6 => format!("{rate:.0}"),
        _ => ">1M".into(),
    }
}

/// A share as printed.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent > 0.0 && percent < 1.0 => "<1%".into(),
        percent if percent > 99.0 && percent < 100.0 => ">99%".into(),
        percent => format!("{percent:.0}%"),
    }
}

/// A stretch of time: `30 s`, `15 min`, `2 h 5 min`.
pub fn span(seconds: f64) -> String {
    const HOUR: f64 = 3600.0;
    let minutes = (seconds / 60.0).round();
    if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if minutes < 120.0 {
        format!("{minutes:.0} min")
    } else {
        let hours = (minutes * 60.0 / HOUR).floor();
        match minutes - hours * 60.0 {
            rest if rest > 0.0 && hours < 48.0 => format!("{hours:.0} h {rest:.0} min"),
            _ => format!("{hours:.0} h"),
        }
    }
}

/// Those counters that are above 0, with words: `6 by reset, 2 after its FIN`.
pub fn listed(parts: &[(u64, &str)]) -> String {
    let some = parts.iter().filter(|(count, _)| *count > 0);
    some.map(|(count, words)| format!("{} {words}", number(*count))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_read_well() {
        assert_eq!(
            [0, 999, 1_000, 28_232, 1_234_567].map(|n: u64| number(n)),
            ["0", "999", "1,000", "28,232", "1,234,567"]
        );
        assert_eq!([999_999, 1_000_000, 2_500_000_000].map(short), ["999,999", "1.0M", "2.5G"]);
        assert_eq!([many(1_u64, "pair"), many(0_u64, "pair")], ["1 pair", "0 pairs"]);
        assert_eq!(
            [0.0, 30.0, 119.4, 900.0, 7_500.0, 7_200.0, 400_000.0].map(span),
            ["0 s", "30 s", "119 s", "15 min", "2 h 5 min", "2 h", "111 h"]
        );
        assert_eq!([0.0, 0.04, 2.54, 470.4].map(per_second), ["0", "<0.1", "2.5", "470"]);
        assert_eq!([0.0, 0.001, 0.5, 0.999, 1.0].map(percent), ["0%", "<1%", "50%", ">99%", "100%"]);
    }
}
