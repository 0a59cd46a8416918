//! All hosts at once: which pairs lose requests, race, or run out of ports.

use crate::{
    frame::Dashboard,
    panel::Panel,
    query::{grown, grown_above},
};

/// The labels of a pair, as rows of tables show them.
const PAIR_COLUMNS: [(&str, &str, Option<&str>); 5] = [
    ("instance", "host", None),
    ("side", "side", None),
    ("proxy", "proxy", None),
    ("upstream", "upstream", None),
    ("workload", "workload", None),
];

pub(crate) fn overview() -> Dashboard {
    Dashboard {
        name: "overview",
        about: "Which pairs of proxy and upstream lose requests, run out of ports or are about to, on all hosts. Each \
                panel's description tells what to do; a row of a table leads to the pair in detail.",
        rows: vec![
            ("At a glance (over the time shown)", glance()),
            ("Which pairs", which()),
            ("Requests", requests()),
            ("Connections and ports", connections()),
        ],
    }
}

fn total(series: &str) -> String {
    format!("sum({}) or vector(0)", grown(series))
}

fn glance() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Requests lost",
            "short",
            "Requests written to a connection that the upstream was closing; the client saw a 502 or a retry. Anything \
             but 0: begin with the first row of Pairs that lose requests.",
        )
        .query(&total("finwatch_requests_on_peer_closed_socket_total{PAIR}"), "")
        .from(&[(0.5, "red")]),
        Panel::stat(
            "No local port left",
            "short",
            "Connects that failed because every local port toward the upstream was taken. Anything but 0: let the \
             proxy keep more connections open, then widen net.ipv4.ip_local_port_range.",
        )
        .query(&total("finwatch_connect_failures_total{PAIR,reason=\"no_local_port\"}"), "")
        .from(&[(0.5, "red")]),
        Panel::stat(
            "Other connect failures",
            "short",
            "Connects that failed for any other reason. Look at Connect failures by reason.",
        )
        .query(&total("finwatch_connect_failures_total{PAIR,reason!=\"no_local_port\"}"), "")
        .from(&[(0.5, "orange")]),
        Panel::stat(
            "Closed without an answer",
            "short",
            "Connections that the upstream ended with a request unanswered, apart from the lost requests. Look into \
             the upstream's log for crashes, worker recycling and restarts at that time.",
        )
        .query(&total("finwatch_peer_closed_before_response_total{PAIR}"), "")
        .from(&[(0.5, "orange")]),
        Panel::stat(
            "Gave up unanswered",
            "short",
            "Connections that this host ended while a request had been unanswered for a second or more: usually the \
             proxy's read timeout, or its client went away.",
        )
        .query(&total("finwatch_local_closed_before_response_total{PAIR}"), "")
        .from(&[(0.5, "orange")]),
        Panel::stat(
            "Agents reporting",
            "short",
            "Hosts whose agent Prometheus has read. Fewer than you run: look at the Targets page of Prometheus, then \
             at the agent's log.",
        )
        .query("count(finwatch_build_info{HOST})", ""),
    ]
}

fn which() -> Vec<Panel> {
    let lost = grown("finwatch_requests_on_peer_closed_socket_total{PAIR}");
    let closes = grown_above("finwatch_peer_close_idle_seconds", "PAIR,side=\"proxy\"", 1_000);
    vec![
        Panel::table(
            "Alerts that fire",
            "short",
            "From the rules of deploy/prometheus, where Prometheus has them. The runbook that an alert links tells what \
             to do.",
        )
        .size(24, 6)
        .query("ALERTS{alertname=~\"Finwatch.+\",alertstate=\"firing\",HOST}", "")
        .columns(&[
            ("alertname", "alert", None),
            ("severity", "severity", None),
            ("instance", "host", None),
            ("side", "side", None),
            ("proxy", "proxy", None),
            ("upstream", "upstream", None),
        ])
        .leading_to_pair()
        .or_else("None fires."),
        Panel::table(
            "Pairs that lose requests",
            "short",
            "The 20 worst over the time shown. Begin with the first row: its upstream's idle timeout against the \
             proxy's.",
        )
        .query(&format!("topk(20, sum by (instance, side, proxy, upstream, workload) ({lost}) > 0)"), "")
        .columns(&[&PAIR_COLUMNS[..], &[("Value", "lost", None)]].concat())
        .leading_to_pair()
        .or_else("None lost a request."),
        Panel::table(
            "Pairs that race",
            "short",
            "The upstream is the one that closes idle connections, and a request that meets such a close is lost. How \
             often it did over the time shown, the 20 most frequent. Keep the proxy's idle timeout below the \
             upstream's.",
        )
        .query(&format!("topk(20, sum by (instance, side, proxy, upstream, workload) ({closes}) > 0)"), "")
        .columns(&[&PAIR_COLUMNS[..], &[("Value", "closes", None)]].concat())
        .leading_to_pair()
        .or_else("No upstream closes idle connections."),
        Panel::table(
            "Upstreams that run out of ports",
            "short",
            "The 20 toward which most of a namespace's local ports are held, and when the last is gone at the rate of \
             the last five minutes. Keep connections open, widen net.ipv4.ip_local_port_range, or use more source \
             addresses.",
        )
        .size(24, 7)
        .query("topk(20, max by (instance, netns, src, upstream) (finwatch_ephemeral_ports_used_ratio{HOST,upstream=~\"$upstream\"}))", "")
        .query(
            "max by (instance, netns, src, upstream) (-(finwatch_ephemeral_ports_used{HOST,upstream=~\"$upstream\"} \
             - on (instance, netns) group_left () finwatch_ephemeral_ports_limit{HOST}) \
             / (deriv(finwatch_ephemeral_ports_used{HOST,upstream=~\"$upstream\"}[5m]) > 0))",
            "",
        )
        .columns(&[
            ("instance", "host", None),
            ("netns", "netns", None),
            ("src", "from", None),
            ("upstream", "upstream", None),
            ("Value #A", "held", Some("percentunit")),
            ("Value #B", "used up in", Some("s")),
        ]),
    ]
}

fn requests() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Requests lost, per pair",
            "reqps",
            "Each is a request that the upstream never served. Set the proxy's idle timeout toward the upstream below \
             what Idle time at the peer's close (in the pair's dashboard) shows, or raise the upstream's.",
        )
        .query(
            "sum by (proxy, upstream) (rate(finwatch_requests_on_peer_closed_socket_total{PAIR}[RATE])) > 0",
            "{{proxy}} → {{upstream}}",
        ),
        Panel::lines(
            "Ended with a request unanswered, per pair",
            "cps",
            "Other ways to lose an answer. Upstream closed: look for crashes and recycled workers there. Gave up, \
             acknowledged: the upstream is slow. Gave up, not acknowledged: packets vanish or the host is gone. These appear \
             with the first such end, which a rate does not show yet.",
        )
        .query(
            "sum by (proxy, upstream) (rate(finwatch_peer_closed_before_response_total{PAIR}[RATE])) > 0",
            "{{proxy}} → {{upstream}} upstream closed",
        )
        .query(
            "sum by (proxy, upstream) (rate(finwatch_local_closed_before_response_total{PAIR,acked=\"true\"}[RATE]))",
            "{{proxy}} → {{upstream}} gave up, acknowledged",
        )
        .query(
            "sum by (proxy, upstream) (rate(finwatch_local_closed_before_response_total{PAIR,acked=\"false\"}[RATE]))",
            "{{proxy}} → {{upstream}} gave up, not acknowledged",
        ),
    ]
}

fn connections() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Connect failures, by reason",
            "cps",
            "refused: nobody listens there; is the upstream down? unreachable: routing or a firewall. timeout: no \
             answer to a SYN; a full accept queue or a silent drop. abandoned: the proxy gave up before the first \
             retransmission; is its connect timeout below 1 s? no_local_port: every local port toward the upstream \
             is taken; keep more connections open.",
        )
        .query(
            "sum by (upstream, reason) (rate(finwatch_connect_failures_total{PAIR}[RATE])) > 0",
            "{{upstream}} {{reason}}",
        ),
        Panel::lines(
            "Opened, 20 busiest pairs",
            "cps",
            "New connections per second. Near the pair's request rate: keep-alive is off or the pool too small; raise \
             the proxy's number of idle connections (nginx keepalive, HAProxy pool-max-conn).",
        )
        .query(
            "topk(20, sum by (proxy, upstream) (rate(finwatch_connections_opened_total{PAIR}[RATE])))",
            "{{proxy}} → {{upstream}}",
        ),
        Panel::lines(
            "Local ports in use toward an upstream",
            "percentunit",
            "Share of the namespace's ephemeral ports that connections toward it hold, TIME_WAIT included. At 100 % \
             connect() fails: keep connections open, widen net.ipv4.ip_local_port_range, or use more source addresses.",
        )
        .query(
            "topk(20, max by (instance, netns, src, upstream) (finwatch_ephemeral_ports_used_ratio{HOST,upstream=~\"$upstream\"}))",
            "{{instance}} {{netns}}: {{src}} → {{upstream}}",
        )
        .max(1.0)
        .from(&[(0.8, "red")]),
        Panel::lines(
            "TIME_WAIT entered, 20 busiest pairs",
            "cps",
            "Connections whose local port stays taken after their end, 60 s each: 470 per second toward one upstream \
             use up the default range of 28,232 ports. On side = proxy, rising toward that: keep connections open, or \
             let the upstream close first.",
        )
        .query(
            "topk(20, sum by (side, proxy, upstream) (rate(finwatch_time_wait_entered_total{PAIR}[RATE])))",
            "{{side}}: {{proxy}} → {{upstream}}",
        ),
        Panel::lines(
            "Accept queues against their limit",
            "percentunit",
            "Connections that wait for accept(). Near 100 %: the process does not accept fast enough, or its backlog \
             (and net.core.somaxconn) is small; new connections are dropped.",
        )
        .query(
            "topk(20, finwatch_accept_queue_length{HOST,upstream=~\"$upstream\"} \
             / (finwatch_accept_queue_limit{HOST,upstream=~\"$upstream\"} > 0))",
            "{{instance}} {{netns}}: {{upstream}} {{workload}}",
        )
        .from(&[(0.8, "red")]),
        Panel::lines(
            "Free connections",
            "short",
            "Established, quiet for at least a second, and no request waits: the reserve of the 20 largest pools. None left while \
             connections are opened fast: the pool is too small, or the upstream answers too slowly.",
        )
        .query(
            "topk(20, sum by (side, proxy, upstream) (finwatch_idle_sockets{PAIR} - finwatch_unanswered_sockets{PAIR}))",
            "{{side}}: {{proxy}} → {{upstream}}",
        ),
    ]
}
