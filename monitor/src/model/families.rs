//! The families that events feed: one table from what a record counts to what is exposed.

use finwatch_ebpf::{
    histogram::{DURATION_BOUNDS_MS, IDLE_BOUNDS_MS, SLOTS},
    requests::{FIRST_BYTE_BOUNDS_US, PER_CONNECTION_BOUNDS},
    wire::{Counter, Totals},
};

use super::source::HistogramId;

/// Begins every name but those of the standard `process_*` families.
pub const PREFIX: &str = "finwatch_";

/// A family of counters with one sample per pair and value of the extra label.
#[derive(Debug)]
pub struct CounterFamily {
    /// Name without [`PREFIX`].
    pub name: &'static str,
    /// The HELP text.
    pub help: &'static str,
    /// The label that tells the family's counters apart; `None` where there is only one.
    pub label: Option<&'static str>,
    /// What is counted.
    pub counters: &'static [LabelledCounter],
    /// A series of the family that belongs to no pair.
    pub without_pair: Option<WithoutPair>,
}

/// One counter of a family.
#[derive(Clone, Copy, Debug)]
pub struct LabelledCounter {
    /// Where the record has it.
    pub counter: Counter,
    /// The extra label's value, empty in a family without one.
    pub value: &'static str,
    /// Exposed from 0 once a pair with side=proxy exists; all others only when above 0.
    pub from_zero: bool,
}

/// A series with side=`none` and every other label of a pair empty, exposed from 0.
#[derive(Clone, Copy, Debug)]
pub struct WithoutPair {
    /// The extra label's value.
    pub value: &'static str,
    /// Where the host-wide counts have it.
    pub count: fn(&Totals) -> u64,
}

/// A family of histograms with one sample per pair.
#[derive(Debug)]
pub struct HistogramFamily {
    /// Name without [`PREFIX`].
    pub name: &'static str,
    /// The HELP text.
    pub help: &'static str,
    /// Where the record has it.
    pub histogram: HistogramId,
    /// Upper bounds in the record's unit.
    pub bounds: &'static [u32; SLOTS - 1],
    /// How many of the record's unit make one of the exposed (seconds, or things).
    pub per_unit: f64,
}

/// Times are recorded in milliseconds.
const MILLISECONDS: f64 = 1e3;
/// Short times are recorded in microseconds.
const MICROSECONDS: f64 = 1e6;
/// Things are counted.
const THINGS: f64 = 1.0;

const fn touched(counter: Counter, value: &'static str) -> LabelledCounter {
    LabelledCounter { counter, value, from_zero: false }
}

const fn from_zero(counter: Counter, value: &'static str) -> LabelledCounter {
    LabelledCounter { counter, value, from_zero: true }
}

/// Every counter family, in the order of exposition.
pub static COUNTER_FAMILIES: [CounterFamily; 11] = [
    CounterFamily {
        name: "connections_opened_total",
        help: "Connections that reached ESTABLISHED while they were watched.",
        label: None,
        counters: &[touched(Counter::Opened, "")],
        without_pair: None,
    },
    CounterFamily {
        name: "connections_closed_total",
        help: "Connections that ended, by who was first: local (our FIN), peer (its FIN), reset (before any FIN), \
               timeout (given up before any FIN).",
        label: Some("by"),
        counters: &[
            touched(Counter::ClosedLocal, "local"),
            touched(Counter::ClosedPeer, "peer"),
            touched(Counter::ClosedReset, "reset"),
            touched(Counter::ClosedTimeout, "timeout"),
        ],
        without_pair: None,
    },
    CounterFamily {
        name: "connect_failures_total",
        help: "Attempts of this host to connect that failed, by reason.",
        label: Some("reason"),
        counters: &[
            touched(Counter::ConnectRefused, "refused"),
            touched(Counter::ConnectUnreachable, "unreachable"),
            touched(Counter::ConnectTimeout, "timeout"),
            touched(Counter::ConnectAbandoned, "abandoned"),
            from_zero(Counter::ConnectNoLocalPort, "no_local_port"),
            touched(Counter::ConnectOther, "other"),
        ],
        without_pair: None,
    },
    CounterFamily {
        name: "resets_received_total",
        help: "Resets that reached a socket of this host, by what the connection was doing.",
        label: Some("phase"),
        counters: &[
            touched(Counter::ResetHandshake, "handshake"),
            touched(Counter::ResetAfterLocalClose, "after_local_close"),
            touched(Counter::ResetAfterPeerFin, "after_peer_fin"),
            touched(Counter::ResetFirstRequest, "first_request"),
            touched(Counter::ResetWaiting, "waiting"),
            touched(Counter::ResetReusedRequest, "reused_request"),
            touched(Counter::ResetResponse, "response"),
            touched(Counter::ResetIdle, "idle"),
            touched(Counter::ResetAnswering, "answering"),
        ],
        without_pair: None,
    },
    CounterFamily {
        name: "requests_on_peer_closed_socket_total",
        help: "Requests lost because the upstream was closing the idle connection, by how they met the close.",
        label: Some("timing"),
        counters: &[
            from_zero(Counter::LostCrossedFin, "crossed_fin"),
            from_zero(Counter::LostAfterFin, "after_fin"),
            from_zero(Counter::LostNoFin, "no_fin"),
        ],
        without_pair: None,
    },
    CounterFamily {
        name: "peer_closed_before_response_total",
        help: "Connections that the upstream closed with a request unanswered.",
        label: None,
        counters: &[from_zero(Counter::PeerClosedBeforeResponse, "")],
        without_pair: None,
    },
    CounterFamily {
        name: "local_closed_before_response_total",
        help: "Connections that this host gave up with a request unanswered for at least a second, by whether the \
               upstream had acknowledged it.",
        label: Some("acked"),
        counters: &[
            touched(Counter::LocalClosedBeforeResponseAcked, "true"),
            touched(Counter::LocalClosedBeforeResponseUnacked, "false"),
        ],
        without_pair: None,
    },
    CounterFamily {
        name: "resets_sent_total",
        help: "Resets that this host sent, by cause; no_socket: those that concern no connection.",
        label: Some("cause"),
        counters: &[
            touched(Counter::SentDataAfterClose, "data_after_close"),
            touched(Counter::SentUnreadDataAtClose, "unread_data_at_close"),
            touched(Counter::SentAbort, "abort"),
            touched(Counter::SentTimeout, "timeout"),
            touched(Counter::SentOther, "other"),
        ],
        without_pair: Some(WithoutPair { value: "no_socket", count: |totals| totals.resets_no_socket }),
    },
    CounterFamily {
        name: "fin_then_rst_total",
        help: "Connections on which a FIN was followed by a reset from the same end.",
        label: Some("direction"),
        counters: &[
            touched(Counter::FinThenRstReceived, "received"),
            touched(Counter::FinThenRstSent, "sent"),
        ],
        without_pair: None,
    },
    CounterFamily {
        name: "time_wait_entered_total",
        help: "Connections whose local port stays taken after their end (TIME_WAIT, or FIN_WAIT2 without a socket).",
        label: None,
        counters: &[touched(Counter::TimeWaitEntered, "")],
        without_pair: None,
    },
    CounterFamily {
        name: "requests_total",
        help: "Requests that were answered, where they are followed.",
        label: None,
        counters: &[touched(Counter::Requests, "")],
        without_pair: None,
    },
];

/// Every histogram family, in the order of exposition.
pub static HISTOGRAM_FAMILIES: [HistogramFamily; 6] = [
    HistogramFamily {
        name: "peer_close_idle_seconds",
        help: "How long a connection was quiet when the peer closed it with nothing unanswered: its idle timeout.",
        histogram: HistogramId::PeerCloseIdle,
        bounds: &IDLE_BOUNDS_MS,
        per_unit: MILLISECONDS,
    },
    HistogramFamily {
        name: "local_close_idle_seconds",
        help: "How long a connection was quiet when we closed it first with nothing unanswered: our own idle timeout.",
        histogram: HistogramId::LocalCloseIdle,
        bounds: &IDLE_BOUNDS_MS,
        per_unit: MILLISECONDS,
    },
    HistogramFamily {
        name: "lost_request_idle_seconds",
        help: "How long a connection was quiet before a request was lost on it, where that is known.",
        histogram: HistogramId::LostRequestIdle,
        bounds: &IDLE_BOUNDS_MS,
        per_unit: MILLISECONDS,
    },
    HistogramFamily {
        name: "connection_duration_seconds",
        help: "Life of a connection, from ESTABLISHED to its end.",
        histogram: HistogramId::ConnectionDuration,
        bounds: &DURATION_BOUNDS_MS,
        per_unit: MILLISECONDS,
    },
    HistogramFamily {
        name: "time_to_first_byte_seconds",
        help: "From a request's first byte to its answer's, as the application sends and receives them.",
        histogram: HistogramId::TimeToFirstByte,
        bounds: &FIRST_BYTE_BOUNDS_US,
        per_unit: MICROSECONDS,
    },
    HistogramFamily {
        name: "requests_per_connection",
        help: "Requests answered on each connection that was opened and has ended.",
        histogram: HistogramId::RequestsPerConnection,
        bounds: &PER_CONNECTION_BOUNDS,
        per_unit: THINGS,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use finwatch_ebpf::wire::COUNTERS;

    use super::*;

    #[test]
    fn every_counter_is_exposed_once() {
        let exposed: Vec<_> =
            COUNTER_FAMILIES.iter().flat_map(|family| family.counters).map(|series| series.counter).collect();
        assert_eq!(exposed.len(), COUNTERS);
        assert_eq!(exposed.iter().collect::<HashSet<_>>().len(), COUNTERS);
    }

    #[test]
    fn counters_of_a_family_are_told_apart() {
        for family in &COUNTER_FAMILIES {
            let values: HashSet<_> = family.counters.iter().map(|series| series.value).collect();
            assert_eq!(values.len(), family.counters.len(), "{}", family.name);
            assert_eq!(family.label.is_none(), values.contains(""), "{}", family.name);
        }
    }
}
