//! One pair in detail: who opens and closes, what is lost, which timeouts show, what the ports do.

mod ports;
mod timeouts;

use crate::{frame::Dashboard, panel::Panel, query::grown};

pub(crate) fn pair() -> Dashboard {
    Dashboard {
        name: "pair",
        about: "One pair of proxy and upstream in detail. Choose side = proxy, one proxy and one upstream; with more, \
                panels show their sum.",
        rows: vec![
            ("At a glance", glance()),
            ("Lost requests, and other answers that did not come", lost()),
            ("Idle timeouts: who closes after how long", timeouts::timeouts()),
            ("How connections begin and end", ends()),
            ("Resets", resets()),
            ("TIME_WAIT and local ports", ports::ports()),
            ("Requests (where finwatch runs with --requests)", requests()),
        ],
    }
}

/// A quantile over the time shown.
fn median(histogram: &str) -> String {
    format!("histogram_quantile(0.5, sum by (le) (increase({histogram}_bucket{{PAIR}}[RANGE])))")
}

fn glance() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Requests lost",
            "short",
            "Over the time shown. Anything but 0: the row below says when and how, the one after it which timeout to \
             change.",
        )
        .query(
            &format!(
                "sum({}) or vector(0)",
                grown("finwatch_requests_on_peer_closed_socket_total{PAIR}")
            ),
            "",
        )
        .from(&[(0.5, "red")]),
        Panel::stat(
            "Upstream closes after",
            "s",
            "The median idle time at which the peer closed, over the time shown. On side = proxy it is the upstream's \
             idle timeout: the proxy's has to be shorter.",
        )
        .query(&median("finwatch_peer_close_idle_seconds"), "")
        .or_else("it does not"),
        Panel::stat(
            "Proxy closes after",
            "s",
            "The median idle time at which this end closed, over the time shown. On side = proxy it is the proxy's own \
             idle timeout: it has to be shorter than the upstream's.",
        )
        .query(&median("finwatch_local_close_idle_seconds"), "")
        .or_else("it does not"),
        Panel::stat("Established", "short", "Connections now. Many, of which none is idle: the upstream is slow.")
            .query("sum(finwatch_sockets{PAIR,state=\"established\"})", ""),
        Panel::stat(
            "Local ports held",
            "percentunit",
            "The fullest range toward the upstream. At 100 % connect() fails: keep connections open, then widen \
             net.ipv4.ip_local_port_range.",
        )
        .query("max(finwatch_ephemeral_ports_used_ratio{HOST,upstream=~\"$upstream\"})", "")
        .from(&[(0.5, "orange"), (0.8, "red")])
        .or_else("none"),
        Panel::stat(
            "Ports used up in",
            "s",
            "At the rate of the last five minutes. Growth of the first minute ends as TIME_WAIT runs out; what goes on \
             means that connections are not kept.",
        )
        .query(&ports::forecast("min(", ")"), "")
        .or_else("they do not grow"),
    ]
}

fn lost() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Requests lost, by timing",
            "reqps",
            "crossed_fin: sent while the upstream's close was on its way. after_fin: the proxy wrote to a connection \
             that it had already been told was closed. no_fin: reset with no close before it: the upstream closed \
             with the request unread, or a firewall, NAT or load balancer forgot the connection. To do: set the \
             proxy's idle timeout toward the upstream below the upstream's (nginx keepalive_timeout in upstream{}, \
             HAProxy pool-purge-delay, Envoy common_http_protocol_options.idle_timeout), or raise the upstream's.",
        )
        .query(
            "sum by (timing) (rate(finwatch_requests_on_peer_closed_socket_total{PAIR}[RATE]))",
            "{{timing}}",
        ),
        Panel::lines(
            "Ended with a request unanswered",
            "cps",
            "Other ways to lose an answer. Upstream closed: look for crashes and recycled workers there. Gave up, \
             acknowledged: the upstream is slow; compare the proxy's read timeout with its response times. Gave up, \
             not acknowledged: packets vanish or the host is gone; look at the network and at the upstream's host.",
        )
        .query(
            "sum(rate(finwatch_peer_closed_before_response_total{PAIR}[RATE]))",
            "upstream closed",
        )
        .query(
            "sum by (acked) (rate(finwatch_local_closed_before_response_total{PAIR}[RATE]))",
            "gave up, acknowledged: {{acked}}",
        ),
        Panel::heatmap(
            "Idle time before a lost request",
            "How long the connection had been quiet before the request that was lost on it, where that is known. In \
             the same band as Idle time at the peer's close: the idle timeout is the cause. Spread out: restarts of \
             the upstream. Above every band there: something between the two forgets connections.",
        )
        .size(24, 8)
        .query("sum by (le) (rate(finwatch_lost_request_idle_seconds_bucket{PAIR}[RATE]))", "{{le}}"),
    ]
}

fn ends() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Opened and closed",
            "cps",
            "Closed above opened for long: connections older than the agent are ending. Opened above closed for long: \
             connections pile up; does an end leak them?",
        )
        .query("sum by (side) (rate(finwatch_connections_opened_total{PAIR}[RATE]))", "{{side}}: opened")
        .query("sum by (side) (rate(finwatch_connections_closed_total{PAIR}[RATE]))", "{{side}}: closed"),
        Panel::lines(
            "Who closes",
            "cps",
            "Which end was first. On side = proxy the healthy picture is local: the proxy's idle timeout fires before \
             the upstream's. Much peer: the upstream closes idle connections, and each close may meet a request. Much \
             reset or timeout: see the panels below.",
        )
        .query("sum by (side, by) (rate(finwatch_connections_closed_total{PAIR}[RATE]))", "{{side}}: {{by}}"),
        Panel::heatmap(
            "Age of connections at their end",
            "From ESTABLISHED to the end. Nearly all in the lowest bands on side = proxy: connections are hardly used \
             again; turn keep-alive on, at both ends.",
        )
        .size(12, 8)
        .query("sum by (le) (rate(finwatch_connection_duration_seconds_bucket{PAIR}[RATE]))", "{{le}}"),
        Panel::lines(
            "Age of connections at their end, median and 95 %",
            "s",
            "The same as two lines. A median near 0 on side = proxy: connections are hardly used again.",
        )
        .query(
            "histogram_quantile(0.5, sum by (le, side) (rate(finwatch_connection_duration_seconds_bucket{PAIR}[RATE])))",
            "{{side}}: median",
        )
        .query(
            "histogram_quantile(0.95, sum by (le, side) (rate(finwatch_connection_duration_seconds_bucket{PAIR}[RATE])))",
            "{{side}}: 95 %",
        ),
        Panel::lines(
            "Connect failures, by reason",
            "cps",
            "refused: nobody listens there; is the upstream down? unreachable: routing or a firewall. timeout: no \
             answer to a SYN; a full accept queue or a silent drop. abandoned: the proxy gave up before the first \
             retransmission. no_local_port: every local port toward the upstream is taken; keep more connections open.",
        )
        .query("sum by (reason) (rate(finwatch_connect_failures_total{PAIR}[RATE]))", "{{reason}}"),
        Panel::lines(
            "Accept queue of the upstream",
            "short",
            "Connections that wait for accept(), and how many may, where the upstream is on a watched host. At the \
             limit new ones are dropped: the process does not accept fast enough.",
        )
        .query("finwatch_accept_queue_length{HOST,upstream=~\"$upstream\"}", "{{instance}} {{upstream}}: waiting")
        .query("finwatch_accept_queue_limit{HOST,upstream=~\"$upstream\"}", "{{instance}} {{upstream}}: limit"),
    ]
}

fn resets() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Resets received, by phase",
            "cps",
            "What the connection was doing. reused_request: a request lost on a kept connection, lower the proxy's idle \
             timeout. first_request, waiting, response: the upstream dropped a request at work, look for crashes and \
             limits there. handshake: nobody listens. idle: an end or something between cleans up. after_local_close, \
             after_peer_fin: mostly harmless remains. answering (side = upstream): the client left.",
        )
        .size(8, 8)
        .query("sum by (side, phase) (rate(finwatch_resets_received_total{PAIR}[RATE]))", "{{side}}: {{phase}}"),
        Panel::lines(
            "Resets sent, by cause",
            "cps",
            "Why this host reset. data_after_close: late data met a closed socket; on side = upstream its keep-alive \
             timeout is too short. unread_data_at_close: the program closed without reading all it was sent, and the \
             peer may lose the answer; read requests to their end. abort: on purpose (linger 0) or the listener \
             closed. timeout: keep-alive or orphan timer. no_socket: closed port or stray segments, shown only while \
             proxy, upstream and workload are All.",
        )
        .size(8, 8)
        .query("sum by (side, cause) (rate(finwatch_resets_sent_total{PAIR}[RATE]))", "{{side}}: {{cause}}"),
        Panel::lines(
            "FIN, then RST from the same end",
            "cps",
            "received: the peer closed, then refused what still came: lost requests or late data. sent: this host did \
             so. On side = upstream, sent means that this server closes while its clients still write; raise its \
             keep-alive timeout above theirs.",
        )
        .size(8, 8)
        .query("sum by (side, direction) (rate(finwatch_fin_then_rst_total{PAIR}[RATE]))", "{{side}}: {{direction}}"),
    ]
}

fn requests() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Requests answered",
            "reqps",
            "Requests whose answer has begun. Near Opened: each has a connection of its own, and keep-alive is off. \
             Without --requests there is nothing to see.",
        )
        .size(8, 8)
        .query("sum by (side) (rate(finwatch_requests_total{PAIR}[RATE]))", "{{side}}"),
        Panel::lines(
            "Time to the first byte of the answer",
            "s",
            "From a request to the first byte of its answer, as the application sends and receives them. Near the \
             proxy's read timeout: find out why the upstream is slow.",
        )
        .size(8, 8)
        .query(
            "histogram_quantile(0.5, sum by (le, side) (rate(finwatch_time_to_first_byte_seconds_bucket{PAIR}[RATE])))",
            "{{side}}: median",
        )
        .query(
            "histogram_quantile(0.95, sum by (le, side) (rate(finwatch_time_to_first_byte_seconds_bucket{PAIR}[RATE])))",
            "{{side}}: 95 %",
        ),
        Panel::lines(
            "Requests per connection",
            "short",
            "How many requests a connection has carried when it ends. Near 1: keep-alive is not in use. Always the \
             same number: a limit such as keepalive_requests.",
        )
        .size(8, 8)
        .query(
            "histogram_quantile(0.5, sum by (le, side) (rate(finwatch_requests_per_connection_bucket{PAIR}[RATE])))",
            "{{side}}: median",
        )
        .query(
            "histogram_quantile(0.95, sum by (le, side) (rate(finwatch_requests_per_connection_bucket{PAIR}[RATE])))",
            "{{side}}: 95 %",
        ),
    ]
}
