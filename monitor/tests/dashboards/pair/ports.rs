//! What holds local ports, and when they are used up.

use crate::panel::Panel;

pub(super) fn forecast(before: &str, after: &str) -> String {
    let used = "finwatch_ephemeral_ports_used{HOST,upstream=~\"$upstream\"}";
    format!(
        "{before}-({used} - on (instance, netns) group_left () finwatch_ephemeral_ports_limit{{HOST}}) \
         / (deriv({used}[5m]) > 0){after}"
    )
}

pub(super) fn ports() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Sockets now, by state",
            "short",
            "What is there now, as ss prints it. CLOSE_WAIT that only rises: the local process does not close what its \
             peers closed. TIME_WAIT that only rises: connections are not kept open.",
        )
        .query("sum by (state) (finwatch_sockets{PAIR})", "{{state}}")
        .query("sum(finwatch_idle_sockets{PAIR})", "idle, of the established")
        .query("sum(finwatch_unanswered_sockets{PAIR})", "a request waits, of the idle"),
        Panel::lines(
            "TIME_WAIT entered",
            "cps",
            "Connections whose local port stays taken after their end, 60 s each: 470 per second toward one upstream \
             use up the default range of 28,232 ports. On side = proxy: keep connections open, or let the upstream \
             close first.",
        )
        .query("sum by (side) (rate(finwatch_time_wait_entered_total{PAIR}[RATE]))", "{{side}}"),
        Panel::lines(
            "Local ports held, of the range",
            "percentunit",
            "TIME_WAIT included, and where it goes in ten minutes if the last five go on. Where the forecast passes \
             100 %, connect() will fail: keep connections open, widen net.ipv4.ip_local_port_range, or use more \
             source addresses.",
        )
        .query(
            "max by (instance, netns, src, upstream) (finwatch_ephemeral_ports_used_ratio{HOST,upstream=~\"$upstream\"})",
            "{{instance}} {{netns}}: {{src}} → {{upstream}}",
        )
        .query(
            "max by (instance, netns, src, upstream) (predict_linear(finwatch_ephemeral_ports_used_ratio{HOST,upstream=~\"$upstream\"}[5m], 600))",
            "{{instance}} {{netns}}: {{src}} → {{upstream}} in ten minutes",
        )
        .from(&[(0.8, "red")]),
        Panel::lines(
            "Time until local ports are used up",
            "s",
            "At the rate of the last five minutes; nothing while their number does not grow. Below 600 s for long: act \
             now, keep-alive toward the upstream removes the cause.",
        )
        .query(&forecast("", ""), "{{instance}} {{netns}}: {{src}} → {{upstream}}"),
    ]
}
