//! Local ports toward a destination are used up, or soon will be.

use std::time::Duration;

use finwatch_ebpf::wire::Counter;

use crate::{
    model::{
        forecast::{PortSample, used_up_in},
        observation::{KernelSettings, Observation, Pair, PortUse},
    },
    triage::{
        explanation::Explanation,
        facts,
        finding::{Change, Confidence, Finding, Harm, HarmClass, Subject},
        kinds::Kind,
        remedies,
    },
};

/// From here on a burst of ordinary size uses up the rest; connect() also searches for longer.
const FULL: f64 = 0.8;
/// The namespace whose settings an observation has.
const HOST: &str = "host";
/// Below this a forecast is noise.
const WORTH_A_FORECAST: f64 = 0.25;
/// TIME_WAIT gives a port back after 60 s: what is not used up by then at the present rate never is.
const TIME_WAIT_HORIZON_SECONDS: f64 = 60.0;
/// Established connections give none back; but nothing grows evenly for longer than this.
const HORIZON_SECONDS: f64 = 600.0;

pub(super) fn rule(observation: &Observation) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        observation.ports.iter().filter_map(|ports| of_ports(observation, ports)).collect();
    let failing = observation.pairs.iter().filter(|pair| {
        let told = findings.iter().any(|finding| {
            let of = |ports: &&PortUse| {
                matches!(&finding.subject, Subject::Ports { upstream, .. } if *upstream == ports.upstream)
            };
            observation.ports.iter().filter(of).any(|ports| ports.label() == pair.labels.upstream)
        });
        facts::is_proxy(pair) && pair.counts.get(Counter::ConnectNoLocalPort) > 0 && !told
    });
    let rest: Vec<Finding> = failing.map(|pair| of_pair(observation, pair)).collect();
    findings.extend(rest);
    findings
}

/// Pairs that hold ports toward the destination.
fn holders<'a>(observation: &'a Observation, upstream: &'a str) -> impl Iterator<Item = &'a Pair> {
    observation.pairs.iter().filter(move |pair| facts::is_proxy(pair) && pair.labels.upstream == upstream)
}

fn of_ports(observation: &Observation, ports: &PortUse) -> Option<Finding> {
    let sum = |state: &str| -> u64 {
        holders(observation, ports.label()).map(|pair| u64::from(pair.in_state(state))).sum()
    };
    let (established, time_wait) = (sum("established"), sum("time_wait") + sum("fin_wait2"));
    let failed: u64 =
        holders(observation, ports.label()).map(|pair| pair.counts.get(Counter::ConnectNoLocalPort)).sum();
    let ratio = facts::share(ports.used.into(), ports.limit.into());
    let left = seconds_left(ports).filter(|left| {
        let horizon = if established > time_wait { HORIZON_SECONDS } else { TIME_WAIT_HORIZON_SECONDS };
        *left <= horizon && ratio >= WORTH_A_FORECAST
    });
    if ports.limit == 0 || (failed == 0 && ratio < FULL && left.is_none()) {
        return None;
    }
    let held = format!("{} of {}", facts::number(ports.used), facts::many(ports.limit, "local port"));
    let upstream = ports
        .name
        .as_ref()
        .map_or_else(|| ports.upstream.clone(), |name| format!("{name} ({})", ports.upstream));
    let verdict = match (failed, left) {
        (0, Some(left)) if left > 0.0 => format!(
            "{held} toward {upstream} are held; at the present rate the last one is gone in {}.",
            facts::span(left)
        ),
        (0, _) => format!("{held} toward {upstream} are held ({}).", facts::percent(ratio)),
        _ => format!(
            "{} to {upstream} failed for want of a local port; {held} are held now.",
            facts::many(failed, "connect")
        ),
    };
    let mut evidence =
        vec![format!("from {} (netns {}): {held} ({})", ports.src, ports.netns, facts::percent(ratio))];
    // Sockets are counted by pair, and pairs of one name are one.
    let holding =
        ports.name.as_ref().map_or_else(|| "holding them".into(), |name| format!("toward {name} in all"));
    evidence.push(format!(
        "{holding}: {} in TIME_WAIT or FIN_WAIT2, {} established",
        facts::number(time_wait),
        facts::number(established)
    ));
    if let Some(earlier) = ports.earlier {
        evidence.push(format!("{} earlier: {}", facts::span(earlier.seconds), facts::number(earlier.used)));
    }
    evidence.push(settings(&settings_of(observation, &ports.netns)));
    Some(Finding {
        kind: Kind::PortsRunningOut,
        subject: Subject::Ports {
            netns: ports.netns.clone(),
            src: ports.src.clone(),
            upstream: ports.upstream.clone(),
        },
        verdict,
        evidence,
        confidence: Confidence::high("counted in the kernel's tables"),
        candidates: Vec::new(),
        changes: changes(
            observation,
            ports.label(),
            time_wait >= established,
            &settings_of(observation, &ports.netns),
        ),
        harm: Harm { seconds_left: left, ..harm(failed) },
    })
}

/// Connects failed, but what holds the ports is gone or was not among the destinations that are listed.
fn of_pair(observation: &Observation, pair: &Pair) -> Finding {
    let failed = pair.counts.get(Counter::ConnectNoLocalPort);
    let upstream = &pair.labels.upstream;
    Finding {
        kind: Kind::PortsRunningOut,
        subject: Subject::Pair(pair.labels.clone()),
        verdict: format!("{} to {upstream} failed for want of a local port.", facts::many(failed, "connect")),
        evidence: vec![
            format!(
                "now {} established, {} in TIME_WAIT",
                facts::established(pair),
                pair.in_state("time_wait")
            ),
            settings(&observation.settings),
        ],
        confidence: Confidence::high("connect() found no port: the kernel saw each attempt"),
        candidates: Vec::new(),
        changes: changes(observation, upstream, true, &observation.settings),
        harm: harm(failed),
    }
}

fn harm(failed: u64) -> Harm {
    let class = if failed > 0 { HarmClass::FailedConnects } else { HarmClass::Imminent };
    Harm { connects_failed: failed, ..Harm::none(class) }
}

/// Keep-alive first: it removes the cause where connections are short.
fn changes(observation: &Observation, upstream: &str, short: bool, settings: &KernelSettings) -> Vec<Change> {
    let busiest = holders(observation, upstream).max_by_key(|pair| pair.counts.get(Counter::Opened));
    let keep_alive = busiest.filter(|_| short).map(|pair| {
        remedies::turn_on(&pair.labels.proxy, &pair.configured_upstream(), facts::established(pair))
    });
    let mut changes = keep_alive.unwrap_or_default();
    changes.extend(remedies::ports(settings));
    changes
}

fn seconds_left(ports: &PortUse) -> Option<f64> {
    let earlier = ports.earlier?;
    let at = Duration::try_from_secs_f64(earlier.seconds).ok()?;
    let left = used_up_in(
        PortSample { at: Duration::ZERO, used: earlier.used },
        PortSample { at, used: ports.used },
        ports.limit,
    )?;
    Some(left.as_secs_f64())
}

/// The settings that hold in a namespace; only those of the host's own are known.
fn settings_of(observation: &Observation, netns: &str) -> KernelSettings {
    if netns == HOST { observation.settings.clone() } else { KernelSettings::default() }
}

fn settings(settings: &KernelSettings) -> String {
    if *settings == KernelSettings::default() {
        return "the settings of that network namespace are its own, and were not read".into();
    }
    let value = |value: Option<u32>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
    let range = settings.ip_local_port_range.as_deref().unwrap_or("unknown");
    format!(
        "ip_local_port_range = {}, tcp_tw_reuse = {}, tcp_fin_timeout = {}",
        range.split_whitespace().collect::<Vec<_>>().join(" "),
        value(settings.tcp_tw_reuse),
        value(settings.tcp_fin_timeout)
    )
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "Each connection to one destination holds a local port, in TIME_WAIT for 60 s after its end \
                too. When the range is used up, connect() fails with \"Cannot assign requested address\".",
        evidence: "`ephemeral_ports_used`, `ephemeral_ports_limit`, \
                `connect_failures_total{reason=\"no_local_port\"}`, sockets by state, the use a while \
                ago.",
        fires: format!(
            "connects have failed for want of a port; or {full} of the ports are held; or from \
                {worth_a_forecast} on the last one is gone at the present rate within \
                {TIME_WAIT_HORIZON_SECONDS} s ({HORIZON_SECONDS} s where established connections hold \
                most).",
            full = facts::percent(FULL),
            worth_a_forecast = facts::percent(WORTH_A_FORECAST)
        ),
        silent: "TIME_WAIT left over from normal work, which stays below the limit; the first minute of \
                steady traffic, whose growth ends as TIME_WAIT runs out.",
        remedy: "keep-alive toward the upstream removes the cause; a wider range, `tcp_tw_reuse` or more \
                addresses move the limit.",
    }
}
