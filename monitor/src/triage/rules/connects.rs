//! Attempts to connect that fail: refused, unanswered, turned away.

use finwatch_ebpf::wire::Counter;

use crate::{
    model::observation::{Observation, Pair},
    triage::{
        explanation::Explanation,
        facts,
        finding::{Candidate, Confidence, Finding, Harm, HarmClass, Subject},
        kinds::Kind,
    },
};

/// Fewer are a probe, or one retry.
const FAILURES: u64 = 3;
/// A smaller part of all attempts is a restart of an upstream that is in steady use.
const RESTART: f64 = 0.01;

pub(super) fn refuses(observation: &Observation, pair: &Pair) -> Option<Finding> {
    let upstream = &pair.labels.upstream;
    failing(
        observation,
        pair,
        Counter::ConnectRefused,
        Kind::Refuses,
        &Words {
            now: format!("{upstream} refuses connections: nothing listens there."),
            again: format!("{upstream} refuses connections at times: what listens there comes and goes."),
            once: format!(
                "{upstream} refused connections for a time and accepts them now, as after a restart."
            ),
            how: "answered by RST",
            sure: "the kernel saw each SYN answered by RST",
        },
    )
}

pub(super) fn timeouts(observation: &Observation, pair: &Pair) -> Option<Finding> {
    let upstream = &pair.labels.upstream;
    failing(
        observation,
        pair,
        Counter::ConnectTimeout,
        Kind::ConnectTimeouts,
        &Words {
            now: format!("{upstream} does not answer: connects time out."),
            again: format!("Connects to {upstream} time out at times."),
            once: format!("Connects to {upstream} timed out for a time; it answers now."),
            how: "given up after the SYN was sent at least twice",
            sure: "the SYNs went out and nothing came back: a firewall that drops them, a host that is down, or an accept \
               queue that is full",
        },
    )
}

pub(super) fn unreachable(observation: &Observation, pair: &Pair) -> Option<Finding> {
    let upstream = &pair.labels.upstream;
    failing(
        observation,
        pair,
        Counter::ConnectUnreachable,
        Kind::Unreachable,
        &Words {
            now: format!("{upstream} cannot be reached: ICMP turns connects away."),
            again: format!("Connects to {upstream} are turned away by ICMP at times."),
            once: format!("Connects to {upstream} were turned away by ICMP for a time; it answers now."),
            how: "answered by ICMP",
            sure: "a router found no way or no host, or a firewall rejects (REJECT)",
        },
    )
}

/// What is said of one way to fail.
struct Words {
    now: String,
    again: String,
    once: String,
    how: &'static str,
    sure: &'static str,
}

fn failing(
    observation: &Observation,
    pair: &Pair,
    counter: Counter,
    kind: Kind,
    words: &Words,
) -> Option<Finding> {
    let failed = pair.counts.get(counter);
    let opened = pair.counts.get(Counter::Opened);
    let open = facts::established(pair);
    if !facts::is_proxy(pair) || failed < FAILURES {
        return None;
    }
    let once = !facts::recurs(pair, &[counter]);
    if once && facts::share(failed, failed + opened) < RESTART {
        return None;
    }
    let answers_now = open > 0 || has_recovered(pair, counter);
    let (verdict, class) = match (answers_now, once) {
        (false, _) => (&words.now, HarmClass::FailedConnects),
        (true, false) => (&words.again, HarmClass::FailedConnects),
        (true, true) => (&words.once, HarmClass::Informative),
    };
    let local = pair.listener.clone().map(Candidate::Listening);
    Some(Finding {
        kind,
        subject: Subject::Pair(pair.labels.clone()),
        verdict: verdict.clone(),
        evidence: vec![
            format!(
                "{} of {} failed in {}, {}",
                facts::many(failed, "connect"),
                pair.labels.proxy,
                facts::span(observation.window.seconds),
                words.how
            ),
            format!("{} succeeded; {} open now", facts::many(opened, "connect"), facts::number(open)),
        ],
        confidence: if answers_now && once {
            Confidence::medium(
                "all of them in one half of the window, or so few that one restart explains them",
            )
        } else {
            Confidence::high(words.sure)
        },
        candidates: local.into_iter().collect(),
        changes: Vec::new(),
        harm: Harm { connects_failed: failed, ..Harm::none(class) },
    })
}

/// Whether no attempt failed in the second half of the window, and some succeeded: short connections are not open now.
fn has_recovered(pair: &Pair, counter: Counter) -> bool {
    pair.first_half.is_some_and(|first| {
        let since = |counter| pair.counts.get(counter).saturating_sub(first.get(counter));
        since(counter) == 0 && since(Counter::Opened) > 0
    })
}

pub(super) fn explained_refuses() -> Explanation {
    Explanation {
        means: "Nobody listens at the upstream's port.",
        evidence: "`connect_failures_total{reason=\"refused\"}`.",
        fires: format!(
            "{FAILURES} or more, unless they came at one time and are less than {restart} of all attempts. Where \
             they came at one time and connects work again, that is told, and is no trouble.",
            restart = facts::percent(RESTART)
        ),
        silent: "a deploy that restarts the upstream once; a single health check.",
        remedy: "start what should listen, or correct the address. A listener on 127.0.0.1 or in another \
                namespace refuses as well.",
    }
}

pub(super) fn explained_timeouts() -> Explanation {
    Explanation {
        means: "SYNs go out and nothing comes back.",
        evidence: "`connect_failures_total{reason=\"timeout\"}`: given up after the SYN was sent again.",
        fires: format!("{FAILURES} or more, with the exceptions of refused connects."),
        silent: "attempts that the application gave up sooner (`abandoned`); a host that was down for a \
                moment and answers again.",
        remedy: "look at firewalls (DROP), security groups, whether the host is up, and its accept queue.",
    }
}

pub(super) fn explained_unreachable() -> Explanation {
    Explanation {
        means: "A router or firewall turns connects away by ICMP.",
        evidence: "`connect_failures_total{reason=\"unreachable\"}`.",
        fires: format!("{FAILURES} or more, with the exceptions of refused connects."),
        silent: "one flap of a route while connections are open again.",
        remedy: "look at routes, neighbours (ARP) and firewalls that reject.",
    }
}
