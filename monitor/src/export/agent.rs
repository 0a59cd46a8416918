//! The families about the agent itself.

use std::io::{self, Write};

use finwatch_ebpf::wire::Totals;
use prometheus::proto::{Metric, MetricType};

use super::family::{self, label, set_counter, set_gauge};
use crate::model::{
    families::PREFIX,
    source::{AgentState, HookMode, ProgramStats},
};

/// This build's version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// This build's commit, where the build was told.
const REVISION: &str = match option_env!("FINWATCH_REVISION") {
    Some(revision) => revision,
    None => "",
};

struct Plain {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: fn(&Totals, &AgentState) -> u64,
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Totals, &AgentState) -> u64) -> Plain {
    Plain { name, help, kind: MetricType::GAUGE, value }
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Totals, &AgentState) -> u64) -> Plain {
    Plain { name, help, kind: MetricType::COUNTER, value }
}

/// The families of one sample without labels.
static PLAIN: [Plain; 18] = [
    gauge("pairs", "Pairs that have a record of their own.", |totals, _| totals.pairs),
    gauge("pairs_limit", "Pairs there is room for.", |_, agent| agent.pairs_limit),
    counter(
        "pairs_folded_total",
        "Connections counted under proxy=\"other\" for want of room.",
        |totals, _| totals.folded,
    ),
    counter(
        "pairs_expired_total",
        "Pairs dropped after nothing happened to them for a while.",
        |_, agent| agent.pairs_expired,
    ),
    gauge("tracked_connections", "Live connections that are watched.", |totals, _| totals.tracked),
    gauge("tracked_connections_limit", "Live connections there is room for.", |_, agent| {
        agent.tracked_connections_limit
    }),
    counter("untracked_connections_total", "Connections not watched for want of room.", |totals, _| {
        totals.untracked
    }),
    counter(
        "connections_adopted_total",
        "Connections taken in without their beginning: older than the agent, or it was missed.",
        |totals, _| totals.adopted,
    ),
    counter(
        "connections_missed_end_total",
        "Watched connections whose socket was found gone: their end was missed and is counted nowhere else.",
        |totals, _| totals.missed_end,
    ),
    gauge("closed_connections", "Closed connections kept for what may still come.", |totals, _| {
        totals.closed
    }),
    gauge(
        "closed_connections_limit",
        "Closed connections there is room for; the newest are kept.",
        |_, agent| agent.closed_connections_limit,
    ),
    counter(
        "closed_connections_evicted_total",
        "Closed connections that made room for others while something might still have come.",
        |totals, _| totals.closed_evicted,
    ),
    counter(
        "untracked_resets_total",
        "Resets sent of connections that are not watched, for want of room or by choice.",
        |totals, _| totals.resets_untracked,
    ),
    counter("incidents_total", "Incidents handed to the agent.", |totals, _| totals.incidents),
    counter("incidents_lost_total", "Incidents lost because the ring buffer was full.", |totals, _| {
        totals.incidents_lost
    }),
    counter("incidents_limited_total", "Incidents held back by the limit per pair.", |totals, _| {
        totals.incidents_limited
    }),
    counter(
        "incident_file_errors_total",
        "Incidents that could not be written to the incident file; they are kept in memory.",
        |_, agent| agent.incident_file_errors,
    ),
    gauge(
        "config_last_reload_successful",
        "1 if the configuration was accepted when last read.",
        |_, agent| u64::from(agent.config_ok),
    ),
];

/// Writes all of them.
pub(super) fn write(out: &mut impl Write, totals: &Totals, agent: &AgentState) -> io::Result<()> {
    for family in &PLAIN {
        let value = (family.value)(totals, agent) as f64;
        write_family(out, family.name, family.help, family.kind, [(vec![], value)])?;
    }
    write_programs(out, &agent.programs)?;
    let modes = agent.hooks.iter().flat_map(|hook| {
        HookMode::ALL.map(|mode| {
            (
                vec![("hook", hook.hook.as_str()), ("mode", mode.name())],
                f64::from(u8::from(mode == hook.mode)),
            )
        })
    });
    write_family(out, "hook_attached", "1 for how much of the hook works here.", MetricType::GAUGE, modes)?;
    let errors = agent.name_errors.iter().map(|(source, errors)| (vec![("source", *source)], *errors as f64));
    write_family(
        out,
        "workload_name_errors_total",
        "Requests for the names of pods or containers that failed; their ids are shown meanwhile.",
        MetricType::COUNTER,
        errors,
    )?;
    let lookups = agent.lookups.iter().map(|(result, lookups)| (vec![("result", *result)], *lookups as f64));
    write_family(
        out,
        "conntrack_lookups_total",
        "Incidents about whose connection the kernel's connection tracking was asked.",
        MetricType::COUNTER,
        lookups,
    )?;
    let build = [(vec![("version", VERSION), ("revision", REVISION)], 1.0)];
    write_family(out, "build_info", "This build; the value is always 1.", MetricType::GAUGE, build)
}

fn write_programs(out: &mut impl Write, programs: &[ProgramStats]) -> io::Result<()> {
    let mut write = |name, help, value: fn(&ProgramStats) -> f64| {
        let samples =
            programs.iter().map(|program| (vec![("program", program.program.as_str())], value(program)));
        write_family(out, name, help, MetricType::COUNTER, samples)
    };
    write(
        "bpf_runs_total",
        "Runs of the program, counted while kernel.bpf_stats_enabled is 1.",
        |program| program.runs as f64,
    )?;
    write(
        "bpf_run_seconds_total",
        "Time the program ran for, while kernel.bpf_stats_enabled is 1.",
        |program| program.run_seconds,
    )?;
    write(
        "bpf_missed_runs_total",
        "Runs skipped because the program would have interrupted itself.",
        |program| program.missed as f64,
    )
}

pub(super) fn write_family<'a>(
    out: &mut impl Write,
    name: &str,
    help: &str,
    kind: MetricType,
    samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
) -> io::Result<()> {
    let samples = samples
        .into_iter()
        .map(|(labels, value)| {
            let mut sample =
                Metric::from_label(labels.into_iter().map(|(name, value)| label(name, value)).collect());
            if kind == MetricType::COUNTER {
                set_counter(&mut sample, value);
            } else {
                set_gauge(&mut sample, value);
            }
            sample
        })
        .collect();
    family::write(out, format!("{PREFIX}{name}"), help, kind, samples)
}
