//! From the kernel's evidence to a record: what each number means, in order and in milliseconds.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use finwatch_ebpf::{
    cause::{Cause, UNKNOWN},
    state,
    wire::{
        CONN_ADOPTED, CONN_LOCAL_FIN, CONN_PEER_FIN, CONN_PROXY, ClosedKey, Counter, Incident, NO_COUNTER,
    },
};

use super::{EventKind, IncidentCause, IncidentRecord, TimelineEvent, Traffic};
use crate::model::{
    families::COUNTER_FAMILIES,
    labels::{Labels, endpoint},
    levels::STATES,
    observation::Process,
};

const MS_PER_SECOND: u64 = 1_000;
const NS_PER_MS: u64 = 1_000_000;

/// What the kernel's evidence does not tell.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The record's number.
    pub id: u64,
    /// Wall time and CLOCK_MONOTONIC in nanoseconds, read together. Read for every incident, so that a step of the wall
    /// clock does not shift later ones.
    pub clocks: (SystemTime, u64),
    /// Jiffies in a second.
    pub hz: u32,
    /// The pair's labels.
    pub pair: Labels,
    /// The namespace's name.
    pub netns: String,
    /// The local process.
    pub process: Option<Process>,
    /// What the remote address was translated to.
    pub backend: Option<SocketAddr>,
}

impl IncidentRecord {
    /// Reads the kernel's evidence; `None` where it is not an anomaly of this version.
    pub fn read(incident: &Incident, around: Surroundings) -> Option<Self> {
        let cause = IncidentCause::of(incident.cause)?;
        let Surroundings { id, clocks, hz, pair, netns, process, backend } = around;
        let ClosedKey { local, local_port, remote, remote_port, .. } = incident.endpoints;
        Some(Self {
            id,
            time: wall_time(incident.time_ns, clocks),
            monotonic_ns: incident.time_ns,
            pair,
            local: endpoint(local.into(), local_port),
            remote: endpoint(remote.into(), remote_port),
            backend: backend.map(|backend| backend.to_string()),
            netns,
            process,
            cause,
            counted_in: counted_in(incident, cause),
            state: state_name(incident.state).to_owned(),
            errno: (incident.err != 0).then_some(incident.err),
            timeline: timeline(incident, cause, hz),
            traffic: (incident.late == 0).then_some(Traffic {
                bytes_sent: incident.bytes_sent,
                bytes_received: incident.bytes_received,
                bytes_unacked: incident.bytes_unacked,
                bytes_after_peer_fin: incident.bytes_after_fin,
                retransmits: incident.retransmits,
                srtt_us: incident.srtt_us,
            }),
            quiet_ms: (incident.quiet != UNKNOWN).then(|| to_ms(incident.quiet, hz)),
            resolution_ms: u32::try_from(MS_PER_SECOND.div_ceil(u64::from(hz.max(1)))).unwrap_or(u32::MAX),
            adopted: incident.flags & CONN_ADOPTED != 0,
        })
    }
}

impl IncidentCause {
    /// The anomaly that the kernel's half has this number for.
    fn of(cause: u8) -> Option<Self> {
        const TABLE: [(Cause, IncidentCause); 21] = [
            (Cause::Refused, IncidentCause::ConnectRefused),
            (Cause::Unreachable, IncidentCause::ConnectUnreachable),
            (Cause::ConnectTimeout, IncidentCause::ConnectTimeout),
            (Cause::NoLocalPort, IncidentCause::ConnectNoLocalPort),
            (Cause::ConnectFailed, IncidentCause::ConnectOther),
            (Cause::RequestCrossedFin, IncidentCause::RequestCrossedFin),
            (Cause::RequestAfterFin, IncidentCause::RequestAfterFin),
            (Cause::RequestWithoutFin, IncidentCause::RequestNoFin),
            (Cause::PeerClosedBeforeResponse, IncidentCause::PeerClosedBeforeResponse),
            (Cause::GaveUpAcked, IncidentCause::LocalClosedBeforeResponseAcked),
            (Cause::GaveUpUnacked, IncidentCause::LocalClosedBeforeResponseUnacked),
            (Cause::ResetAfterLocalClose, IncidentCause::ResetAfterLocalClose),
            (Cause::ResetAfterPeerFin, IncidentCause::ResetAfterPeerFin),
            (Cause::ResetFirstRequest, IncidentCause::ResetFirstRequest),
            (Cause::ResetWaiting, IncidentCause::ResetWaiting),
            (Cause::ResetReusedRequest, IncidentCause::ResetReusedRequest),
            (Cause::ResetResponse, IncidentCause::ResetResponse),
            (Cause::ResetIdle, IncidentCause::ResetIdle),
            (Cause::ResetAnswering, IncidentCause::ResetAnswering),
            (Cause::DataAfterClose, IncidentCause::ResetSentDataAfterClose),
            (Cause::TimedOut, IncidentCause::TimedOut),
        ];
        TABLE.iter().find(|(number, _)| *number as u8 == cause).map(|(_, name)| *name)
    }

    /// The counter that is about it alone; `None` for [`Self::TimedOut`], which only shows in who ended the connection.
    fn counter(self) -> Option<Counter> {
        Some(match self {
            Self::ConnectRefused => Counter::ConnectRefused,
            Self::ConnectUnreachable => Counter::ConnectUnreachable,
            Self::ConnectTimeout => Counter::ConnectTimeout,
            Self::ConnectNoLocalPort => Counter::ConnectNoLocalPort,
            Self::ConnectOther => Counter::ConnectOther,
            Self::RequestCrossedFin => Counter::LostCrossedFin,
            Self::RequestAfterFin => Counter::LostAfterFin,
            Self::RequestNoFin => Counter::LostNoFin,
            Self::PeerClosedBeforeResponse => Counter::PeerClosedBeforeResponse,
            Self::LocalClosedBeforeResponseAcked => Counter::LocalClosedBeforeResponseAcked,
            Self::LocalClosedBeforeResponseUnacked => Counter::LocalClosedBeforeResponseUnacked,
            Self::ResetAfterLocalClose => Counter::ResetAfterLocalClose,
            Self::ResetAfterPeerFin => Counter::ResetAfterPeerFin,
            Self::ResetFirstRequest => Counter::ResetFirstRequest,
            Self::ResetWaiting => Counter::ResetWaiting,
            Self::ResetReusedRequest => Counter::ResetReusedRequest,
            Self::ResetResponse => Counter::ResetResponse,
            Self::ResetIdle => Counter::ResetIdle,
            Self::ResetAnswering => Counter::ResetAnswering,
            Self::ResetSentDataAfterClose => Counter::SentDataAfterClose,
            Self::TimedOut => return None,
        })
    }
}

/// What the wall clock showed at a moment of CLOCK_MONOTONIC; never before its epoch, where a clock that is not set yet
/// stands.
fn wall_time(event_ns: u64, (now, now_ns): (SystemTime, u64)) -> SystemTime {
    let time = now.checked_sub(Duration::from_nanos(now_ns.saturating_sub(event_ns)));
    time.map_or(UNIX_EPOCH, |time| time.max(UNIX_EPOCH))
}

fn to_ms(jiffies: u32, hz: u32) -> u64 {
    u64::from(jiffies) * MS_PER_SECOND / u64::from(hz.max(1))
}

/// The cause's own series first, then what else the death counted in.
fn counted_in(incident: &Incident, cause: IncidentCause) -> Vec<String> {
    let own = cause.counter().map(|counter| counter as u8);
    let all = own.into_iter().chain(incident.counters).filter(|&number| number != NO_COUNTER);
    let mut names: Vec<String> = Vec::new();
    for name in all.filter_map(series) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn series(counter: u8) -> Option<String> {
    COUNTER_FAMILIES.iter().find_map(|family| {
        let found = family.counters.iter().find(|labelled| labelled.counter as u8 == counter)?;
        Some(match family.label {
            Some(label) => format!("{}{{{label}=\"{}\"}}", family.name, found.value),
            None => family.name.to_owned(),
        })
    })
}

fn state_name(state: u8) -> &'static str {
    STATES.iter().find(|(number, _)| *number == state).map_or("close", |(_, name)| name)
}

/// The story, oldest first. Ages are ticks of one clock, so what happened within a tick is put into the order in which
/// it must have been.
fn timeline(incident: &Incident, cause: IncidentCause, hz: u32) -> Vec<TimelineEvent> {
    let opened =
        (incident.opened_ns != 0).then(|| incident.time_ns.saturating_sub(incident.opened_ns) / NS_PER_MS);
    // Ticks may make an event seem older than its connection.
    let age = |jiffies: u32| (jiffies != UNKNOWN).then(|| to_ms(jiffies, hz).min(opened.unwrap_or(u64::MAX)));
    let fin = if incident.flags & CONN_PEER_FIN != 0 {
        Some(EventKind::PeerFin)
    } else if incident.flags & CONN_LOCAL_FIN != 0 {
        Some(EventKind::LocalFin)
    } else {
        None
    };
    let sent_bytes = [incident.bytes_after_fin, incident.bytes_unacked].into_iter().find(|&bytes| bytes > 0);
    let received = (age(incident.since_received), EventKind::DataReceived, None);
    let sent = (age(incident.since_sent), EventKind::DataSent, sent_bytes.map(u64::from));
    let fin_age = if fin.is_some() { age(incident.since_fin) } else { None };
    let closing = (fin_age, fin.unwrap_or(EventKind::LocalFin), None);
    // In the order of what must have come first where two share a tick.
    let within_a_tick = if fin == Some(EventKind::PeerFin) && incident.bytes_after_fin > 0 {
        [received, closing, sent]
    } else if answers_last(incident) {
        [sent, received, closing]
    } else {
        [received, sent, closing]
    };
    let mut steps = vec![(opened, EventKind::Opened, None)];
    steps.extend(within_a_tick);
    if incident.late != 0 {
        steps.push((Some(0), EventKind::DataReceived, Some(u64::from(incident.bytes_late))));
    }
    let mut steps: Vec<_> =
        steps.into_iter().filter_map(|(age, kind, bytes)| Some((age?, kind, bytes))).collect();
    steps.sort_by_key(|(age, ..)| std::cmp::Reverse(*age));
    steps.push((0, end(incident, cause), None));
    let event =
        |(age, event, bytes)| TimelineEvent { offset_ms: 0_i64.saturating_sub_unsigned(age), event, bytes };
    steps.into_iter().map(event).collect()
}

/// Whether data went both ways within one tick and the last was the answer: the proxy's requests are answered, nothing
/// is unacknowledged.
fn answers_last(incident: &Incident) -> bool {
    incident.flags & CONN_PROXY != 0 && incident.bytes_unacked == 0
}

/// The last step.
fn end(incident: &Incident, cause: IncidentCause) -> EventKind {
    let [_, reset_received, reset_sent, _] = incident.counters;
    let death = incident.death;
    if cause == IncidentCause::ConnectRefused || reset_received != NO_COUNTER {
        EventKind::RstReceived
    } else if incident.state == state::SYN_SENT {
        EventKind::ConnectFailed
    } else if death == Cause::TimedOut as u8 {
        EventKind::TimedOut
    } else if [Cause::DataAfterClose, Cause::UnreadDataAtClose, Cause::Aborted]
        .iter()
        .any(|cause| *cause as u8 == death)
        || reset_sent != NO_COUNTER
    {
        EventKind::RstSent
    } else {
        EventKind::Closed
    }
}
