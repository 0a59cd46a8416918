//! Something on the way forgets connections that are quiet for long.

use finwatch_ebpf::{histogram::IDLE_BOUNDS_MS, wire::Counter};

use crate::{
    model::{
        counts::Mode,
        observation::{Observation, Pair},
    },
    triage::{
        explanation::Explanation,
        facts,
        finding::{Candidate, Confidence, Finding, Harm, HarmClass, Subject},
        fingerprints,
        idle::IdleTime,
        kinds::Kind,
        remedies,
    },
};

/// Below this many, packet loss explains requests that were never acknowledged.
const DROPPED: u64 = 3;
/// No device known forgets a connection sooner: the shortest documented timeout is 240 s, and half of it leaves room.
const LONG_QUIET_SECONDS: f64 = 120.0;
/// A time below every known one, in seconds, where the quiet time is not known.
const SHORTEST_KNOWN: u32 = 240;

/// What is forgotten is never told: no answer at all, or a reset after a long quiet time by who has no such connection.
pub(super) fn rule(observation: &Observation, pair: &Pair) -> Option<Finding> {
    if !facts::is_proxy(pair) {
        return None;
    }
    let unacked = pair.counts.get(Counter::LocalClosedBeforeResponseUnacked);
    let gone = pair.counts.get(Counter::ClosedTimeout);
    let quiet = quiet_losses(pair);
    let reset = if quiet.is_some() { pair.counts.get(Counter::LostNoFin) } else { 0 };
    let probed = gone.min(pair.counts.get(Counter::SentTimeout));
    let dropped = unacked + gone + reset;
    if dropped < DROPPED {
        return None;
    }
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let connects = pair.counts.get(Counter::ConnectTimeout);
    let latest = quiet.as_ref().map(|mode| mode.high.unwrap_or(f64::INFINITY));
    let forgetters = fingerprints::forgetters(latest);
    let seconds = forgetters.iter().find_map(seconds).unwrap_or(SHORTEST_KNOWN);
    let mut evidence = vec![format!(
        "in {}: {}",
        facts::span(observation.window.seconds),
        facts::listed(&[
            (unacked, "requests given up that were never acknowledged"),
            (gone - probed, "connections that the kernel gave up with data unacknowledged"),
            (probed, "idle connections upon which keep-alive probes were not answered"),
            (reset, "requests answered by RST after a long quiet time, without any FIN"),
        ])
    )];
    if let Some(mode) = quiet {
        let high = mode.high.map_or_else(|| "and more".into(), |high| format!("to {high}"));
        evidence.push(format!("quiet before those resets: {} {high} s", mode.low));
    }
    if connects > 0 {
        evidence.push(format!("{} timed out as well", facts::many(connects, "new connection")));
    }
    let mut changes = remedies::tcp_keep_alive(proxy, &pair.configured_upstream(), seconds);
    changes.extend(remedies::close_sooner(proxy, &pair.configured_upstream(), f64::from(seconds)));
    Some(Finding {
        kind: Kind::SilentDrop,
        subject: Subject::Pair(pair.labels.clone()),
        verdict: format!(
            "{} from {proxy} to {upstream} died in silence: a firewall, NAT or load balancer on the way forgets \
             connections that are quiet for long, or the upstream's host was gone.",
            facts::many(dropped, "connection")
        ),
        evidence,
        confidence: confidence(pair.counts.get(Counter::Opened), connects, reset > 0),
        candidates: pair.listener.clone().map(Candidate::Listening).into_iter().chain(forgetters).collect(),
        changes,
        harm: if dropped > probed { Harm::lost(dropped - probed) } else { Harm::none(HarmClass::Latent) },
    })
}

fn confidence(opened: u64, connects: u64, quiet_known: bool) -> Confidence {
    if connects > 0 {
        Confidence::low(
            "new connections time out as well, so the upstream's host or the way to it may be down",
        )
    } else if quiet_known {
        Confidence::high(
            "the resets came after long quiet times, without any FIN: who sent them knew no such connection",
        )
    } else if opened > 0 {
        Confidence::medium("new connections work; how long the lost ones had been quiet is not known")
    } else {
        Confidence::low(
            "no new connection was opened meanwhile, so the upstream's host may be gone altogether",
        )
    }
}

fn seconds(candidate: &Candidate) -> Option<u32> {
    match candidate {
        Candidate::IdleTime { seconds, .. } => Some(*seconds),
        Candidate::Listening(_) => None,
    }
}

/// Where requests are answered by RST after long quiet times although the upstream closes no idle connections: the
/// quiet time of most of them. Otherwise it is a keep-alive race.
pub(super) fn quiet_losses(pair: &Pair) -> Option<Mode> {
    let mode = pair.lost_request_idle.mode(&IDLE_BOUNDS_MS)?;
    let no_fin_only = pair.counts.get(Counter::LostNoFin) == pair.counts.sum(&facts::LOST);
    let closes = IdleTime::of(&pair.peer_close_idle);
    (no_fin_only && mode.low >= LONG_QUIET_SECONDS && closes.is_none()).then_some(mode)
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "A firewall, NAT or load balancer on the way forgets a connection that is quiet for long, \
                and tells neither end. The next request is never acknowledged, or is answered by a reset \
                from who knows no such connection.",
        evidence: "`local_closed_before_response_total{acked=\"false\"}`, \
                `connections_closed_total{by=\"timeout\"}`, resets without any FIN after a long quiet \
                time (`lost_request_idle_seconds`).",
        fires: format!(
            "{DROPPED} of these or more. Resets count where most came after at least \
                {LONG_QUIET_SECONDS} s of quiet and the upstream was not seen to close idle connections."
        ),
        silent: "a lost packet or two; requests that were acknowledged (those are answered too late); an \
                upstream that closes idle connections (a keep-alive race). Where new connections time out \
                as well, confidence is low: the host may be down.",
        remedy: "let the proxy close idle connections sooner, or send TCP keep-alive probes more often than \
                the device forgets.",
    }
}
