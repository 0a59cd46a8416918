//! Observations made up of what the kernel half counts.

use finwatch_ebpf::{
    histogram::{DURATION_BOUNDS_MS, IDLE_BOUNDS_MS, SLOTS, slot},
    wire::{Counter, Histogram},
};

use crate::{
    model::{
        counts::{Counts, Samples},
        labels::{Labels, Side},
        observation::{AcceptQueue, Observation, Pair, PortUse, Process, Window},
    },
    triage::{
        facts,
        finding::{Change, Finding},
        findings,
        kinds::Kind,
    },
};

/// How things were over fifteen minutes.
pub(super) fn observation(pairs: Vec<Pair>) -> Observation {
    Observation {
        window: Window { seconds: 900.0, asked_seconds: 900.0, watched_seconds: 86_400.0 },
        pairs,
        ..Observation::default()
    }
}

fn pair(side: Side, proxy: &str, upstream: &str) -> Pair {
    Pair {
        addresses: Vec::new(),
        labels: Labels { side, proxy: proxy.into(), upstream: upstream.into(), workload: String::new() },
        pids: vec![812],
        listener: None,
        counts: Counts::default(),
        first_half: Some(Counts::default()),
        peer_close_idle: Samples::default(),
        local_close_idle: Samples::default(),
        lost_request_idle: Samples::default(),
        connection_duration: Samples::default(),
        requests: None,
        sockets: [].into(),
        idle: 0,
        unanswered: 0,
        oldest_close_wait_seconds: None,
        behind: Vec::new(),
    }
}

/// This host opens the connections.
pub(super) fn proxy(name: &str, upstream: &str) -> Pair {
    pair(Side::Proxy, name, upstream)
}

/// This host accepts them.
pub(super) fn upstream(remote: &str, upstream: &str) -> Pair {
    pair(Side::Upstream, remote, upstream)
}

/// What happened to a pair.
pub(super) trait Happened: Sized {
    /// All along: in both halves of the window.
    fn always(self, counter: Counter, count: u64) -> Self;
    /// At one time: in the second half.
    fn once(self, counter: Counter, count: u64) -> Self;
    /// The upstream, or whoever is at the other end, closed so many after so many seconds.
    fn peer_closes(self, seconds: &[(f64, u32)]) -> Self;
    /// The same at one time.
    fn peer_closes_once(self, seconds: &[(f64, u32)]) -> Self;
    /// This end closed so many after so many seconds.
    fn local_closes(self, seconds: &[(f64, u32)]) -> Self;
    /// Quiet before lost requests.
    fn lost_after(self, seconds: &[(f64, u32)]) -> Self;
    /// So many lived for so many seconds.
    fn lived(self, seconds: &[(f64, u32)]) -> Self;
    /// Sockets in a state.
    fn sockets(self, state: &str, count: u32) -> Self;
    /// Idle ones.
    fn idle(self, count: u32) -> Self;
    /// Quiet ones, upon each of which a request waits.
    fn waiting(self, count: u32) -> Self;
    /// Who listens.
    fn listener(self, name: &str) -> Self;
}

impl Happened for Pair {
    fn always(mut self, counter: Counter, count: u64) -> Self {
        self.counts.add(counter, count);
        self.first_half.as_mut().expect("made above").add(counter, count / 2);
        self
    }

    fn once(mut self, counter: Counter, count: u64) -> Self {
        self.counts.add(counter, count);
        self
    }

    fn peer_closes(mut self, seconds: &[(f64, u32)]) -> Self {
        self.peer_close_idle = samples(&IDLE_BOUNDS_MS, seconds);
        let count = self.peer_close_idle.count;
        self.always(Counter::ClosedPeer, count)
    }

    fn peer_closes_once(mut self, seconds: &[(f64, u32)]) -> Self {
        self.peer_close_idle = samples(&IDLE_BOUNDS_MS, seconds);
        let count = self.peer_close_idle.count;
        self.once(Counter::ClosedPeer, count)
    }

    fn local_closes(mut self, seconds: &[(f64, u32)]) -> Self {
        self.local_close_idle = samples(&IDLE_BOUNDS_MS, seconds);
        let count = self.local_close_idle.count;
        self.always(Counter::ClosedLocal, count)
    }

    fn lost_after(mut self, seconds: &[(f64, u32)]) -> Self {
        self.lost_request_idle = samples(&IDLE_BOUNDS_MS, seconds);
        self
    }

    fn lived(mut self, seconds: &[(f64, u32)]) -> Self {
        self.connection_duration = samples(&DURATION_BOUNDS_MS, seconds);
        self
    }

    fn sockets(mut self, state: &str, count: u32) -> Self {
        self.sockets.insert(state.into(), count);
        self
    }

    fn idle(mut self, count: u32) -> Self {
        self.idle = count;
        self
    }

    fn waiting(mut self, count: u32) -> Self {
        (self.idle, self.unanswered) = (count, count);
        self
    }

    fn listener(mut self, name: &str) -> Self {
        self.listener = Some(Process { name: name.into(), pid: 1234 });
        self
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times of the tests")]
pub(super) fn samples(bounds: &[u32; SLOTS - 1], seconds: &[(f64, u32)]) -> Samples {
    let mut histogram = Histogram { sum: 0, slots: [0; SLOTS] };
    for &(seconds, count) in seconds {
        let ms = (seconds * 1e3) as u32;
        histogram.slots[slot(bounds, ms)] += u64::from(count);
        histogram.sum += u64::from(ms) * u64::from(count);
    }
    Samples::new(&histogram, bounds)
}

pub(super) fn ports(upstream: &str, used: u32) -> PortUse {
    PortUse {
        name: None,
        netns: "host".into(),
        src: "10.0.0.2".into(),
        upstream: upstream.into(),
        used,
        limit: 28_232,
        earlier: None,
    }
}

pub(super) fn queue(length: u64, limit: u64) -> AcceptQueue {
    AcceptQueue {
        netns: "host".into(),
        upstream: "0.0.0.0:8080".into(),
        workload: "app.service".into(),
        listener: Some(Process { name: "node".into(), pid: 1234 }),
        length,
        limit,
    }
}

/// The kinds found, in order.
pub(super) fn kinds(observation: &Observation) -> Vec<Kind> {
    findings(observation).into_iter().map(|finding| finding.kind).collect()
}

/// The only finding that means trouble.
pub(super) fn only(observation: &Observation) -> Finding {
    let mut trouble: Vec<Finding> = findings(observation).into_iter().filter(Finding::is_trouble).collect();
    assert_eq!(trouble.len(), 1, "{trouble:#?}");
    trouble.remove(0)
}

/// Asserts that nothing is wrong with one pair.
pub(super) fn innocent(pair: Pair) {
    assert_eq!(kinds(&observation(vec![pair])), [Kind::NothingWrong]);
}

/// The directives for one product.
pub(super) fn directives<'a>(finding: &'a Finding, software: &str) -> Vec<&'a Change> {
    finding.changes.iter().filter(|change| change.software == software).collect()
}

/// nginx keeps connections for 60 s, Node.js closes them after 5 s: eight requests met a close.
pub(super) fn nginx_and_node() -> Pair {
    let pair = proxy("nginx", "127.0.0.1:3000")
        .always(Counter::Opened, 90)
        .peer_closes(&[(5.002, 75)])
        .always(Counter::ClosedReset, 6)
        .always(Counter::ClosedPeer, 2)
        .always(Counter::LostNoFin, 6)
        .always(Counter::LostAfterFin, 2)
        .always(Counter::ResetReusedRequest, 6)
        .always(Counter::ResetAfterPeerFin, 2)
        .lost_after(&[(5.001, 8)])
        .lived(&[(5.1, 40), (30.0, 43)])
        .sockets("established", 7)
        .idle(6)
        .listener("node");
    assert_eq!(pair.counts.sum(&facts::LOST), 8);
    pair
}
