//! Makes an observation: what happened since a while ago, and how things stand.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use finwatch_ebpf::wire::{Histogram, KEY_FOLDED};

use crate::{
    kernel::{
        hooks,
        listeners::{Listener, Listeners, accepting},
    },
    model::{
        behind,
        counts::{Counts, PerConnection, Samples},
        families::{COUNTER_FAMILIES, HISTOGRAM_FAMILIES, HistogramFamily},
        history::{History, Mark},
        incident::{IncidentFilter, IncidentRecord},
        labels::{Group, ProcessFilter, Side, endpoint, groups, upstream},
        levels::{NamespaceLevel, PairLevel, STATES, Snapshot, address, largest, listener_key},
        names::Names,
        observation::{
            AcceptQueue, EarlierUse, KernelSettings, Namespace, Observation, Pair, PortUse, Requests, Watch,
            Window,
        },
        source::{AgentSource, HistogramId, HookMode, LevelSource, NameSource, PairSource},
        sums::{PairSum, Sums},
    },
    recorder::Recorder,
};

/// Destinations whose ports an observation shows.
const MAX_PORTS: usize = 256;
/// The present rate at which ports are taken is that since a mark at least so old.
const RATE_OVER: Duration = Duration::from_secs(20);

/// Where observations come from.
pub struct Sources {
    /// The pairs' records.
    pub pairs: Arc<dyn PairSource>,
    /// What they print.
    pub names: Arc<dyn NameSource>,
    /// The agent itself.
    pub agent: Arc<dyn AgentSource>,
    /// How things stand; `None` where the kernel's tables cannot be read.
    pub levels: Option<Arc<dyn LevelSource>>,
    /// Which pairs are shown.
    pub filter: ProcessFilter,
    /// Who listens on this host.
    pub listeners: Arc<Listeners>,
    /// The incidents.
    pub recorder: Arc<Recorder>,
}

/// Remembers how things stood, and tells what happened since.
pub struct Observer {
    sources: Sources,
    begun: Instant,
    history: Mutex<History>,
}

impl Observer {
    /// An observer for which everything begins now.
    pub fn new(sources: Sources) -> Self {
        let observer = Self { sources, begun: Instant::now(), history: Mutex::default() };
        observer.mark();
        observer
    }

    /// Remembers how things stand now. To be called every ten seconds or so; may block.
    pub fn mark(&self) {
        let levels = self.sources.levels.as_ref().and_then(|levels| levels.latest());
        let _steady = self.sources.pairs.steady();
        let mut history = self.history();
        let mark = Mark::new(Instant::now(), &*self.sources.pairs, levels.as_deref(), history.last());
        history.add(mark);
    }

    /// One slot's counts went to another that prints the same labels; each slot with its generation.
    pub fn handed_over(&self, from: (u32, u32), to: (u32, u32)) {
        self.history().hand_over(from, to);
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened in the last `asked`, as far as it is remembered, and how things stand. May block for seconds.
    pub fn observe(&self, asked: Duration) -> Observation {
        let Sources { pairs, names, filter, .. } = &self.sources;
        let snapshot = self.sources.levels.as_ref().and_then(|levels| levels.snapshot());
        let listeners = self.sources.listeners.all();
        let _steady = pairs.steady();
        let now = Instant::now();
        let (since, middle, rate_since) = {
            let history = self.history();
            let since = history.nearest(now, asked);
            let age = since.as_ref().map(|since| now.duration_since(since.at)).unwrap_or_default();
            (since, history.middle(now, age), history.at_least(now, RATE_OVER))
        };
        let (since, middle) = (since.as_deref(), middle.as_deref());
        let groups = groups(&**pairs, &**names, filter);
        let here = accepted_here(&groups, &**pairs);
        let addresses = names.addresses();
        let seconds = since.map_or(0.0, |since| now.duration_since(since.at).as_secs_f64());
        let incidents = self.incidents(seconds);
        let mut behind = behind::tally(&incidents);
        let seen: Vec<Pair> = groups
            .iter()
            .map(|group| {
                let pair = self.pair(group, [since, middle], snapshot.as_deref(), &listeners, &here);
                Pair { behind: behind.remove(&group.labels).unwrap_or_default(), ..pair }
            })
            .filter(|pair| !pair.counts.is_empty() || !pair.sockets.is_empty())
            .collect();
        let namespaces = snapshot.as_deref().map(|snapshot| &*snapshot.namespaces).unwrap_or_default();
        Observation {
            window: Window {
                seconds,
                asked_seconds: asked.as_secs_f64(),
                watched_seconds: now.duration_since(self.begun).as_secs_f64(),
            },
            pairs: seen,
            ports: ports(snapshot.as_deref(), rate_since.as_deref(), &addresses),
            queues: self.queues(namespaces, &listeners, &addresses),
            namespaces: namespaces.iter().map(|level| namespace(level, since)).collect(),
            settings: settings(),
            watch: self.watch(),
        }
    }

    /// What every pair has counted in all.
    pub fn sums(&self) -> Sums {
        let Sources { pairs, names, filter, .. } = &self.sources;
        let _steady = pairs.steady();
        let watched_seconds = self.begun.elapsed().as_secs_f64();
        let mut sums = Vec::new();
        for group in groups(&**pairs, &**names, filter) {
            sums.extend(group.slots.iter().map(|&slot| PairSum {
                slot,
                generation: pairs.generation(slot),
                labels: group.labels.clone(),
                counts: slot_counts(&**pairs, slot),
            }));
        }
        Sums { watched_seconds, sums }
    }

    fn pair(
        &self,
        group: &Group,
        [since, middle]: [Option<&Mark>; 2],
        snapshot: Option<&Snapshot>,
        listeners: &[Listener],
        here: &HashSet<SocketAddr>,
    ) -> Pair {
        let source = &*self.sources.pairs;
        let counts = growth(source, group, since);
        let first_half = middle.map(|middle| counts.minus(&growth(source, group, Some(middle))));
        let samples = |id| {
            let family = family(id);
            Samples::in_unit(&sampled(source, group, since, id), family.bounds, family.per_unit)
        };
        let requests = source.follows_requests().then(|| {
            let id = HistogramId::RequestsPerConnection;
            Requests {
                time_to_first_byte: samples(HistogramId::TimeToFirstByte),
                per_connection: PerConnection::new(&sampled(source, group, since, id), family(id).bounds),
            }
        });
        let mut level = PairLevel::default();
        for one in group.slots.iter().filter_map(|slot| snapshot?.pairs.get(slot)) {
            level.merge(one);
        }
        let mut pids: Vec<u32> =
            group.slots.iter().map(|slot| source.pid(*slot)).filter(|pid| *pid > 0).collect();
        pids.sort_unstable();
        pids.dedup();
        let ends = ends(group, source);
        let is_here = |end: &&SocketAddr| {
            group.labels.side == Side::Upstream || end.ip().is_loopback() || here.contains(end)
        };
        let listener = ends.iter().filter(is_here).find_map(|end| accepting(listeners, None, *end).cloned());
        let named = ends.iter().any(|end| end.to_string() != group.labels.upstream);
        Pair {
            labels: group.labels.clone(),
            addresses: if named { ends.into_iter().collect() } else { Vec::new() },
            pids,
            listener,
            counts,
            first_half,
            peer_close_idle: samples(HistogramId::PeerCloseIdle),
            local_close_idle: samples(HistogramId::LocalCloseIdle),
            lost_request_idle: samples(HistogramId::LostRequestIdle),
            connection_duration: samples(HistogramId::ConnectionDuration),
            requests,
            sockets: sockets(&level),
            idle: level.idle,
            unanswered: level.unanswered,
            oldest_close_wait_seconds: (level.oldest_close_wait > 0)
                .then(|| f64::from(level.oldest_close_wait)),
            behind: Vec::new(),
        }
    }

    /// Those recorded in the last so many seconds.
    fn incidents(&self, seconds: f64) -> Vec<Arc<IncidentRecord>> {
        let since = SystemTime::now().checked_sub(Duration::from_secs_f64(seconds));
        self.sources.recorder.latest(&IncidentFilter { since, ..IncidentFilter::default() })
    }

    fn queues(
        &self,
        namespaces: &[NamespaceLevel],
        listeners: &[Listener],
        names: &Names,
    ) -> Vec<AcceptQueue> {
        let queue = |level: &NamespaceLevel, entry: &finwatch_ebpf::levels::ListenerEntry| {
            let end = (address(entry.address), port(entry.port));
            AcceptQueue {
                netns: level.name.clone(),
                workload: self.sources.names.workload(&listener_key(entry), 0).to_string(),
                listener: accepting(listeners, None, (end.0.to_canonical(), end.1).into()).cloned(),
                upstream: upstream(names, end.0, end.1),
                length: entry.length.into(),
                limit: entry.limit.into(),
            }
        };
        namespaces
            .iter()
            .flat_map(|level| level.queues.iter().map(move |entry| queue(level, entry)))
            .collect()
    }

    fn watch(&self) -> Watch {
        let totals = self.sources.pairs.totals();
        let agent = self.sources.agent.state();
        let degraded = agent.hooks.iter().filter(|hook| hook.mode != HookMode::Full);
        let alone = agent.programs.iter().filter(|program| !hooks::is_doubled(&program.program));
        Watch {
            degraded_hooks: degraded.map(|hook| format!("{} ({})", hook.hook, hook.mode.name())).collect(),
            pairs_folded: totals.folded,
            untracked_connections: totals.untracked,
            missed_runs: alone.map(|program| program.missed).sum(),
            missed_ends: totals.missed_end,
            incidents_not_recorded: totals.incidents_lost + totals.incidents_limited,
        }
    }
}

/// The accepting ends that this host has accepted connections at.
fn accepted_here(groups: &[Group], source: &dyn PairSource) -> HashSet<SocketAddr> {
    let accepted = groups.iter().filter(|group| group.labels.side == Side::Upstream);
    accepted.flat_map(|group| ends(group, source)).collect()
}

/// A group's accepting ends: one, or those that share a name.
fn ends(group: &Group, source: &dyn PairSource) -> BTreeSet<SocketAddr> {
    let keys = group.slots.iter().filter_map(|slot| source.key(*slot));
    keys.filter(|key| key.flags & KEY_FOLDED == 0)
        .map(|key| (Ipv6Addr::from(key.upstream).to_canonical(), key.port).into())
        .collect()
}

/// What a slot has counted in all.
fn slot_counts(source: &dyn PairSource, slot: u32) -> Counts {
    let mut counts = Counts::default();
    for counter in COUNTER_FAMILIES.iter().flat_map(|family| family.counters).map(|series| series.counter) {
        counts.add(counter, source.counter(slot, counter));
    }
    counts
}

fn family(id: HistogramId) -> &'static HistogramFamily {
    let family = HISTOGRAM_FAMILIES.iter().find(|family| family.histogram == id);
    family.expect("every histogram has a family")
}

/// What a group's slots have counted since a mark.
fn growth(source: &dyn PairSource, group: &Group, since: Option<&Mark>) -> Counts {
    let mut counts = Counts::default();
    for counter in COUNTER_FAMILIES.iter().flat_map(|family| family.counters).map(|series| series.counter) {
        for &slot in &group.slots {
            let before = since.map_or(0, |since| since.counter(slot, source.generation(slot), counter));
            counts.add(counter, source.counter(slot, counter).saturating_sub(before));
        }
    }
    counts
}

/// A histogram's growth over a group's slots.
fn sampled(source: &dyn PairSource, group: &Group, since: Option<&Mark>, id: HistogramId) -> Histogram {
    let mut sum = Histogram::EMPTY;
    for &slot in &group.slots {
        let now = source.histogram(slot, id);
        let before = since.map(|since| since.histogram(slot, source.generation(slot), id));
        let before = before.unwrap_or(Histogram::EMPTY);
        sum.sum = sum.sum.saturating_add(now.sum.saturating_sub(before.sum));
        for (total, (now, before)) in sum.slots.iter_mut().zip(now.slots.into_iter().zip(before.slots)) {
            *total = total.saturating_add(now.saturating_sub(before));
        }
    }
    sum
}

fn sockets(level: &PairLevel) -> BTreeMap<String, u32> {
    let states = STATES.iter().map(|(state, name)| ((*name).to_owned(), level.in_state(*state).unwrap_or(0)));
    states.filter(|(_, count)| *count > 0).collect()
}

fn ports(snapshot: Option<&Snapshot>, before: Option<&Mark>, names: &Names) -> Vec<PortUse> {
    let Some(snapshot) = snapshot else { return Vec::new() };
    let held = largest(&snapshot.namespaces, MAX_PORTS).into_iter();
    held.map(|(level, entry)| {
        let key = (level.name.clone(), entry.source, entry.destination, entry.port);
        let earlier = before.and_then(|before| {
            let elapsed = snapshot.taken.checked_duration_since(before.levels_at)?;
            // A destination that was not among the largest held about none.
            let used = before.ports(&key).unwrap_or(0);
            (!elapsed.is_zero()).then_some(EarlierUse { seconds: elapsed.as_secs_f64(), used })
        });
        PortUse {
            netns: level.name.clone(),
            src: address(entry.source).to_canonical().to_string(),
            upstream: endpoint(address(entry.destination), port(entry.port)),
            name: names.upstream(address(entry.destination), port(entry.port)).map(ToOwned::to_owned),
            used: entry.used,
            limit: level.port_limit,
            earlier,
        }
    })
    .collect()
}

fn namespace(level: &NamespaceLevel, since: Option<&Mark>) -> Namespace {
    let before = since.and_then(|since| since.time_wait_overflow(&level.name));
    Namespace {
        netns: level.name.clone(),
        port_limit: level.port_limit,
        time_wait_limit: level.time_wait_limit,
        time_wait_overflow: before.map_or(0, |before| level.time_wait_overflow.saturating_sub(before)),
    }
}

fn settings() -> KernelSettings {
    let text = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/{name}")).ok()?;
        Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let number = |name: &str| text(name)?.parse().ok();
    KernelSettings {
        ip_local_port_range: text("ipv4/ip_local_port_range"),
        tcp_tw_reuse: number("ipv4/tcp_tw_reuse"),
        tcp_fin_timeout: number("ipv4/tcp_fin_timeout"),
        somaxconn: number("core/somaxconn"),
    }
}

/// The kernel's half hands over ports as words.
fn port(word: u32) -> u16 {
    u16::try_from(word).unwrap_or_default()
}
