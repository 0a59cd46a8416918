//! The agents themselves: what they could not see, and what they cost.

use crate::{frame::Dashboard, panel::Panel};

pub(crate) fn agent() -> Dashboard {
    Dashboard {
        name: "agent",
        about: "The agents themselves: whether they see everything, how full their tables are, what they cost.",
        rows: vec![
            ("Do they see everything?", sight()),
            ("Room", room()),
            ("Reading how things stand", levels()),
            ("What they cost", cost()),
        ],
    }
}

fn sight() -> Vec<Panel> {
    vec![
        Panel::table(
            "Hooks",
            "short",
            "How much of each hook works on each host. partial and off: run finwatch check on the host; it tells what \
             is not counted and why.",
        )
        .query("finwatch_hook_attached{HOST} == 1", "")
        .columns(&[("instance", "host", None), ("hook", "hook", None), ("mode", "mode", None)]),
        Panel::table(
            "Builds and configuration",
            "short",
            "Which build runs where, and whether its configuration was accepted when last read (1) or not (0: the \
             agent's log says why; the previous one is in force).",
        )
        .query("finwatch_build_info{HOST}", "")
        .query("finwatch_config_last_reload_successful{HOST}", "")
        .columns(&[
            ("instance", "host", None),
            ("version", "version", None),
            ("revision", "revision", None),
            ("Value #B", "configuration accepted", None),
        ]),
        Panel::lines(
            "Out of sight",
            "cps",
            "All of it should be 0. folded: counted under other, raise --max-pairs. untracked: not watched, raise \
             --max-connections. evicted: a late reset may go uncounted, raise --max-connections. untracked resets: \
             sent of connections not watched; harmless where a filter leaves them out, or soon after the agent's \
             start. missed ends: found gone by a walk, and counted nowhere else. no names: Kubernetes or Docker did not tell \
             a pod's or container's name, its id is shown; look at the agent's log.",
        )
        .query("rate(finwatch_pairs_folded_total{HOST}[RATE])", "{{instance}} folded")
        .query("rate(finwatch_untracked_connections_total{HOST}[RATE])", "{{instance}} untracked")
        .query("rate(finwatch_closed_connections_evicted_total{HOST}[RATE])", "{{instance}} evicted")
        .query("rate(finwatch_untracked_resets_total{HOST}[RATE])", "{{instance}} untracked resets")
        .query("rate(finwatch_connections_missed_end_total{HOST}[RATE])", "{{instance}} missed ends")
        .query("rate(finwatch_workload_name_errors_total{HOST}[RATE])", "{{instance}} no names, {{source}}"),
        Panel::lines(
            "BPF runs that the kernel skipped",
            "cps",
            "What set_state or a missed program is skipped for, another of them does. Other programs should be at 0: \
             what happened then was not counted; please report it with the kernel's version and the program's name.",
        )
        .query("rate(finwatch_bpf_missed_runs_total{HOST}[RATE])", "{{instance}} {{program}}"),
        Panel::lines(
            "Incidents",
            "cps",
            "handed over: told to the agent one by one. lost: the ring buffer was full. held back: more per pair and \
             second than the limit lets through. Counters stay exact in each case; lost for long means the agent gets \
             too little CPU: look at CPUQuota= and CPUWeight=. not written: the file of --incident-file; look at the \
             disk. no backend: with --conntrack the kernel does not say who answered behind a service's address; \
             finwatch check tells why.",
        )
        .query("rate(finwatch_incidents_total{HOST}[RATE])", "{{instance}} handed over")
        .query("rate(finwatch_incidents_lost_total{HOST}[RATE])", "{{instance}} lost")
        .query("rate(finwatch_incidents_limited_total{HOST}[RATE])", "{{instance}} held back")
        .query("rate(finwatch_incident_file_errors_total{HOST}[RATE])", "{{instance}} not written")
        .query(
            "rate(finwatch_conntrack_lookups_total{HOST,result=\"failed\"}[RATE])",
            "{{instance}} no backend",
        ),
        Panel::lines(
            "Resets without a connection",
            "cps",
            "Sent for a closed port or stray segments, of no pair. Many: something scans ports, or clients go to a \
             service that is gone.",
        )
        .query("rate(finwatch_resets_sent_total{HOST,side=\"none\"}[RATE])", "{{instance}}"),
    ]
}

fn room() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Room in use",
            "percentunit",
            "At 100 % the table is full. Pairs: raise --max-pairs or leave some out (--include-port, --exclude-net). \
             Connections: raise --max-connections. Closed connections may stand at 100 %, where the oldest make room; \
             look at Out of sight. Raise MemoryMax= of the systemd unit too.",
        )
        .size(8, 8)
        .query("finwatch_pairs{HOST} / finwatch_pairs_limit{HOST}", "{{instance}} pairs")
        .query("finwatch_tracked_connections{HOST} / finwatch_tracked_connections_limit{HOST}", "{{instance}} connections")
        .query("finwatch_closed_connections{HOST} / finwatch_closed_connections_limit{HOST}", "{{instance}} closed connections")
        .from(&[(0.8, "red")]),
        Panel::lines(
            "Pairs against the limit",
            "short",
            "Pairs with a record of their own, and how many there is room for. Above the limit new ones fold into \
             proxy and upstream = other: raise --max-pairs, or lower --pair-ttl where pairs come and go.",
        )
        .size(8, 8)
        .query("finwatch_pairs{HOST}", "{{instance}} pairs")
        .query("finwatch_pairs_limit{HOST}", "{{instance}} limit"),
        Panel::lines(
            "Pairs dropped, connections taken in",
            "cps",
            "dropped: pairs without sockets and events for --pair-ttl. taken in: connections that a walk found without \
             their beginning; at the agent's start those that were there before. Many later: events are missed, look \
             at BPF runs that the kernel skipped.",
        )
        .size(8, 8)
        .query("rate(finwatch_pairs_expired_total{HOST}[RATE])", "{{instance}} dropped")
        .query("rate(finwatch_connections_adopted_total{HOST}[RATE])", "{{instance}} taken in"),
    ]
}

fn levels() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Age and length of the last reading",
            "s",
            "How old the levels of a scrape were, and how long reading them took. Older than --snapshot-age for long: \
             the walk over the sockets takes too long, or the agent gets too little CPU.",
        )
        .size(8, 8)
        .query("finwatch_snapshot_age_seconds{HOST}", "{{instance}} age")
        .query("finwatch_snapshot_duration_seconds{HOST}", "{{instance}} length"),
        Panel::lines(
            "Readings, by namespace",
            "cps",
            "How often the sockets of each network namespace were walked. A namespace that is missing cannot be \
             entered: finwatch check tells which right is missing.",
        )
        .size(8, 8)
        .query("rate(finwatch_namespace_walks_total{HOST}[RATE])", "{{instance}} {{netns}}"),
        Panel::lines(
            "Left out, and TIME_WAIT without room",
            "short",
            "ports, queues: sockets left out because a table was full; raise --max-port-series. overflow: connections \
             over the time shown that found no room in TIME_WAIT; raise net.ipv4.tcp_max_tw_buckets (limit).",
        )
        .size(8, 8)
        .query("finwatch_ephemeral_ports_uncounted{HOST}", "{{instance}} {{netns}} ports")
        .query("finwatch_accept_queues_uncounted{HOST}", "{{instance}} {{netns}} queues")
        .query("increase(finwatch_time_wait_overflow_total{HOST}[RANGE])", "{{instance}} {{netns}} overflow")
        .query("finwatch_time_wait_limit{HOST}", "{{instance}} {{netns}} limit"),
    ]
}

fn cost() -> Vec<Panel> {
    vec![
        Panel::lines(
            "CPU of the agent",
            "percentunit",
            "The agent's own time; what the programs cost in the kernel is in Time per BPF run. Much: raise \
             --snapshot-age, or scrape less often.",
        )
        .query("rate(process_cpu_seconds_total{HOST}[RATE]) and on (job, instance) finwatch_build_info", "{{instance}}"),
        Panel::lines(
            "Memory of the agent",
            "bytes",
            "Resident memory, without the kernel's tables, which --max-pairs (1.2 kB each) and --max-connections \
             decide. Near MemoryMax= of the systemd unit: raise it, or lower these.",
        )
        .query("process_resident_memory_bytes{HOST} and on (job, instance) finwatch_build_info", "{{instance}}"),
        Panel::lines(
            "Slowest scrapes",
            "s",
            "99 % of scrapes took less than this to write. Near Prometheus's scrape_timeout: lower --max-pairs, or \
             leave some pairs out.",
        )
        .query(
            "histogram_quantile(0.99, sum by (le, instance) (rate(finwatch_scrape_duration_seconds_bucket{HOST}[RATE])))",
            "{{instance}}",
        ),
        Panel::lines(
            "Time per BPF run",
            "s",
            "Empty unless kernel.bpf_stats_enabled is 1 (sysctl; it costs a little itself). Above some microseconds: \
             please report it.",
        )
        .query(
            "rate(finwatch_bpf_run_seconds_total{HOST}[RATE]) / (rate(finwatch_bpf_runs_total{HOST}[RATE]) > 0)",
            "{{instance}} {{program}}",
        ),
    ]
}
