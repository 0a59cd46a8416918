//! Which idle timeouts the closes show, and whose they may be.

use finwatch::triage::fingerprints::{KNOWN, Role};
use finwatch_ebpf::histogram::IDLE_BOUNDS_MS;

use crate::{panel::Panel, query::at};

pub(super) fn timeouts() -> Vec<Panel> {
    vec![
        Panel::heatmap(
            "Idle time at the peer's close",
            "How long connections had been quiet when the other end closed them with nothing unanswered. A band is \
             that end's idle timeout; the bars below name it. Keep the proxy's own idle timeout at least a second \
             below the lowest band. What lies below 1 s is an end that closes after each answer: no timeout, \
             keep-alive is off.",
        )
        .query("sum by (le) (rate(finwatch_peer_close_idle_seconds_bucket{PAIR}[RATE]))", "{{le}}"),
        Panel::heatmap(
            "Idle time at our own close",
            "How long connections had been quiet when this end closed them with nothing unanswered: our own idle \
             timeout. With side = proxy it has to lie below the band of the peer's close; where both bands are the \
             same, the timeouts are equal and the race is on. Below 1 s: connections are not kept.",
        )
        .query("sum by (le) (rate(finwatch_local_close_idle_seconds_bucket{PAIR}[RATE]))", "{{le}}"),
        named(
            "Whose timeout the peer's close shows",
            "finwatch_peer_close_idle_seconds",
            "Closes by the other end over the time shown, by idle time, beside whose default that is. Several products \
             share a time: a list to look through, no proof.",
        ),
        named(
            "Whose timeout our own close shows",
            "finwatch_local_close_idle_seconds",
            "Closes by this end over the time shown, by idle time, beside whose default that is. Several products \
             share a time: a list to look through, no proof.",
        ),
    ]
}

/// A bar for each bucket, with the timeouts in it by name.
fn named(title: &'static str, histogram: &str, about: &str) -> Panel {
    let bounds: Vec<Option<u32>> = IDLE_BOUNDS_MS.iter().copied().map(Some).chain([None]).collect();
    let mut panel = Panel::bars(title, "short", about).size(12, 16);
    for (slot, upper) in bounds.iter().enumerate() {
        let lower = slot.checked_sub(1).map(|below| IDLE_BOUNDS_MS[below]);
        let grown = |ms: Option<u32>| match ms {
            Some(ms) => format!("sum(increase({histogram}_bucket{{PAIR,{}}}[RANGE]))", at(ms)),
            None => format!("sum(increase({histogram}_count{{PAIR}}[RANGE]))"),
        };
        let expr = match lower {
            Some(lower) => format!("{} - {}", grown(*upper), grown(Some(lower))),
            None => grown(*upper),
        };
        panel = panel.query(&expr, &band(lower.unwrap_or(0), *upper));
    }
    panel
}

/// "4.5 to 5.5 s: Apache httpd, Node.js of older lines".
fn band(lower: u32, upper: Option<u32>) -> String {
    let seconds = |ms: u32| f64::from(ms) / 1_000.0;
    let inside = |known: u32| {
        seconds(lower) < f64::from(known) && upper.is_none_or(|upper| f64::from(known) < seconds(upper))
    };
    let mut names: Vec<&str> = Vec::new();
    for known in KNOWN.iter().filter(|known| known.role != Role::Forgets && inside(known.seconds)) {
        let name = known.product.split(',').next().unwrap_or(known.product);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let range = match upper {
        Some(upper) => format!("{} to {} s", seconds(lower), seconds(upper)),
        None => format!("above {} s", seconds(lower)),
    };
    let closes_at_once = upper.is_some_and(|upper| upper <= 1_000);
    if closes_at_once {
        format!("{range}: no timeout, closes after answering")
    } else if names.is_empty() {
        range
    } else {
        format!("{range}: {}", names.join(", "))
    }
}
