//! Whatever is observed, and whatever it is called, the report can be read.

use std::collections::BTreeMap;

use clap::ValueEnum as _;
use finwatch_ebpf::histogram::{DURATION_BOUNDS_MS, IDLE_BOUNDS_MS, SLOTS};
use proptest::{collection::vec, option, prelude::*, sample::select};
use unicode_width::UnicodeWidthStr as _;

use crate::{
    model::{
        behind::Behind,
        counts::{Counts, Samples},
        families::COUNTER_FAMILIES,
        incident::IncidentCause,
        labels::{Labels, Side},
        levels::STATES,
        observation::{
            AcceptQueue, EarlierUse, KernelSettings, Namespace, Observation, Pair, PortUse, Process, Watch,
            Window,
        },
    },
    triage::{
        finding::Finding,
        findings,
        report::{Style, report},
    },
};

/// JSON numbers are exact up to here.
const MOST: u64 = 1 << 53;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..100_u64, 0..MOST]
}

fn seconds() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), 0.0..1e3, 0.0..1e300]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec!["nginx", "10.0.0.7:8080", "[2001:db8::1]:443", "other", "external", "node", ""])
            .prop_map(str::to_owned),
        "\\PC{0,120}",
        "[a-z\u{1b}\u{9b}\n\r\t\u{202e}\u{200d}é漢 :.0-9-]{0,200}",
    ]
}

fn samples(bounds: &'static [u32; SLOTS - 1]) -> impl Strategy<Value = Samples> {
    (vec(number(), SLOTS), seconds()).prop_map(move |(slots, sum_seconds)| {
        let bounds = bounds.iter().map(|bound| Some(f64::from(*bound) / 1e3)).chain([None]);
        let buckets: Vec<_> = bounds.zip(slots).filter(|(_, count)| *count > 0).collect();
        Samples { count: buckets.iter().map(|(_, count)| count).sum(), sum_seconds, buckets }
    })
}

fn counts() -> impl Strategy<Value = Counts> {
    let counters: Vec<_> = COUNTER_FAMILIES.iter().flat_map(|family| family.counters).collect();
    vec(number(), counters.len()).prop_map(move |numbers| {
        let mut counts = Counts::default();
        for (labelled, number) in counters.iter().zip(numbers) {
            counts.add(labelled.counter, number);
        }
        counts
    })
}

fn process() -> impl Strategy<Value = Option<Process>> {
    option::of((name(), any::<u32>()).prop_map(|(name, pid)| Process { name, pid }))
}

fn behind() -> impl Strategy<Value = Behind> {
    (option::of(name()), select(IncidentCause::value_variants()), any::<u64>())
        .prop_map(|(backend, cause, incidents)| Behind { backend, cause, incidents })
}

prop_compose! {
    fn pair()(
        (side, proxy, upstream, workload) in (select(vec![Side::Proxy, Side::Upstream]), name(), name(), name()),
        (pids, listener) in (vec(any::<u32>(), 0..30), process()),
        (counts, first_half) in (counts(), option::of(counts())),
        idles in vec(samples(&IDLE_BOUNDS_MS), 3),
        connection_duration in samples(&DURATION_BOUNDS_MS),
        numbers in vec(prop_oneof![Just(0), any::<u32>()], STATES.len()),
        [idle, unanswered] in [prop_oneof![Just(0), any::<u32>()], prop_oneof![Just(0), any::<u32>()]],
        oldest_close_wait_seconds in option::of(seconds()),
        behind in vec(behind(), 0..20),
    ) -> Pair {
        let [peer_close_idle, local_close_idle, lost_request_idle] =
            <[Samples; 3]>::try_from(idles).expect("three");
        let sockets: BTreeMap<String, u32> =
            STATES.iter().zip(numbers).map(|((_, state), number)| ((*state).to_owned(), number)).collect();
        Pair {
            addresses: Vec::new(),
            labels: Labels { side, proxy, upstream, workload },
            pids,
            listener,
            counts,
            first_half,
            peer_close_idle,
            local_close_idle,
            lost_request_idle,
            connection_duration,
            requests: None,
            sockets,
            idle,
            unanswered,
            oldest_close_wait_seconds,
            behind,
        }
    }
}

fn port_use() -> impl Strategy<Value = PortUse> {
    let earlier =
        option::of((seconds(), any::<u32>()).prop_map(|(seconds, used)| EarlierUse { seconds, used }));
    (name(), name(), name(), any::<u32>(), any::<u32>(), earlier).prop_map(
        |(netns, src, upstream, used, limit, earlier)| PortUse {
            netns,
            src,
            upstream,
            name: None,
            used,
            limit,
            earlier,
        },
    )
}

fn queue() -> impl Strategy<Value = AcceptQueue> {
    (name(), name(), name(), process(), number(), number()).prop_map(
        |(netns, upstream, workload, listener, length, limit)| AcceptQueue {
            netns,
            upstream,
            workload,
            listener,
            length,
            limit,
        },
    )
}

prop_compose! {
    fn observation()(
        (seconds, asked_seconds, watched_seconds) in (seconds(), seconds(), seconds()),
        pairs in vec(pair(), 0..4),
        ports in vec(port_use(), 0..3),
        queues in vec(queue(), 0..3),
        (netns, overflow) in (name(), number()),
        (range, small) in (option::of(name()), option::of(any::<u32>())),
        (degraded_hooks, folded) in (vec(name(), 0..3), number()),
    ) -> Observation {
        Observation {
            window: Window { seconds, asked_seconds, watched_seconds },
            pairs,
            ports,
            queues,
            namespaces: vec![
                Namespace { netns, port_limit: 1, time_wait_limit: overflow, time_wait_overflow: overflow },
            ],
            settings: KernelSettings {
                ip_local_port_range: range,
                tcp_tw_reuse: small,
                tcp_fin_timeout: small,
                somaxconn: small,
            },
            watch: Watch { degraded_hooks, pairs_folded: folded, ..Watch::default() },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_observation_can_be_read(observation in observation(), width in 60..200_usize) {
        let findings = findings(&observation);
        prop_assert!(!findings.is_empty());
        let text = report(&observation, &findings, Style { width, color: false });
        for line in text.lines() {
            prop_assert!(line.width() <= width, "{} columns: {line:?}", line.width());
            prop_assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        }
        let json = serde_json::to_string(&findings).expect("plain data");
        let read: Vec<Finding> = serde_json::from_str(&json).expect("what was written");
        prop_assert_eq!(read.len(), findings.len());
    }
}
