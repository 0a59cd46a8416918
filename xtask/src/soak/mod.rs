//! `cargo xtask soak`: connections as fast as the machine makes them, while namespaces, processes and pairs come and go;
//! every count must be that of the load itself, and nothing of the daemon may grow.

mod expected;
pub(crate) mod load;
mod sight;
mod usage;

use std::{
    net::Ipv4Addr,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use self::{
    expected::{PAIRS, anomalies, differences},
    load::{ByUpstream, CLOSED_PORT, Load, PORT, Totals},
    sight::Unseen,
    usage::{Course, Usage},
};
use crate::{
    daemon::{Daemon, metrics::Samples},
    host::{self, Profile},
    interrupt,
    setup::{self, Purpose},
    unseen,
};

/// Guests at once, each a process in a namespace of its own.
const LANES: u32 = 2;
/// The accepting ends' network; each has an address that no other had before it.
const NET: u32 = u32::from_be_bytes([127, 83, 0, 0]);
/// Those from here on are guests'.
const FIRST_GUEST: u32 = 256;
/// How long counts may take to arrive, and the daemon to come to rest.
const SETTLE: Duration = Duration::from_secs(15);
/// How long a connection whose end nobody could see may stay in the books.
const REPAIR: Duration = Duration::from_mins(3);
const LOOK: Duration = Duration::from_secs(1);
/// How long the load before the load lasts.
const FIRST: Duration = Duration::from_millis(200);
/// Looks between two questions of the kind that users ask.
const LOOKS_PER_TRIAGE: usize = 10;
const MIB: u64 = 1 << 20;

/// Flags of `cargo xtask soak`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the load lasts
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
}

/// How the load goes.
struct Plan {
    time: Duration,
    /// How long a guest lives.
    guest: Duration,
    /// After so long without events a guest's pairs are dropped.
    pair_ttl: Duration,
    /// What the daemon's memory may grow by after the warm-up.
    growth: u64,
}

/// `cargo xtask soak`.
pub(crate) fn command(args: &Args) -> Result<()> {
    host::require_rights("soak")?;
    setup::ensure(Purpose::Demo)?;
    let binary = host::build_finwatch(Profile::Release)?;
    soak(
        &binary,
        &Plan {
            time: Duration::from_mins(args.minutes),
            guest: Duration::from_secs(2),
            pair_ttl: Duration::from_mins(1),
            growth: MIB,
        },
    )
}

/// Some seconds of it: counts and descriptors as exact as ever; memory has not come to rest yet, but no leak per
/// connection would fit.
pub(crate) fn short(binary: &Path) -> Result<()> {
    soak(
        binary,
        &Plan {
            time: Duration::from_secs(7),
            guest: Duration::from_secs(1),
            pair_ttl: Duration::from_secs(8),
            growth: 4 * MIB,
        },
    )
}

/// What the load has come to so far.
#[derive(Default)]
struct Ledger {
    totals: Totals,
    upstreams: u64,
    processes: u64,
    wrong: Vec<String>,
}

impl Ledger {
    fn enter(&mut self, by_upstream: &ByUpstream, wrong: Vec<String>) {
        self.processes += 1;
        self.upstreams += by_upstream.len() as u64;
        for totals in by_upstream.values() {
            self.totals += totals;
        }
        for what in &wrong {
            eprintln!("WRONG: {what}");
        }
        self.wrong.extend(wrong);
    }
}

fn soak(binary: &Path, plan: &Plan) -> Result<()> {
    unseen::watch();
    let dir = tempfile::tempdir().context("a directory for incidents")?;
    let incidents = dir.path().join("incidents.jsonl").to_string_lossy().into_owned();
    let (port, closed) = (PORT.to_string(), CLOSED_PORT.to_string());
    let ttl = format!("{}s", plan.pair_ttl.as_secs());
    let daemon = Daemon::private_with(
        binary,
        &[
            "--include-port",
            &port,
            "--include-port",
            &closed,
            "--pair-ttl",
            &ttl,
            "--incident-file",
            &incidents,
            "--incident-file-size",
            "1MiB",
        ],
    )?;
    let ledger = Mutex::new(Ledger::default());
    // What is opened with the first incident stays open.
    played(&daemon, &ledger, Load::start("first", &[upstream(0)], FIRST)?)?;
    let at_rest = Usage::of(daemon.pid())?;
    let course = under_load(&daemon, plan, &ledger)?;
    let mut ledger = ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (landed, by_others) = (unseen_now().all(), ledger.totals.closed_by_others());
    let unseen = landed + by_others;
    let limit = if unseen == 0 { SETTLE } else { REPAIR };
    let host_wide = settled(limit, &daemon, |samples| host_wide(samples, &ledger, unseen))?;
    ledger.wrong.extend(host_wide);
    let expired = settled(plan.pair_ttl + SETTLE, &daemon, |samples| expired(samples, ledger.upstreams))?;
    ledger.wrong.extend(expired);
    ledger.wrong.extend(course.growth(plan.growth));
    ledger.wrong.extend(left_open(&daemon, at_rest)?);
    println!("\n{}", summary(plan, &ledger, &course));
    let skipped = daemon.scrape()?.sum("finwatch_bpf_missed_runs_total", &[])?;
    println!("runs of programs that the kernel skipped: {skipped}");
    println!("ends of connections that nobody could see all of, by which counts may differ: {landed}");
    println!("closes that another task may have carried out where nobody sees them, likewise: {by_others}");
    ensure!(ledger.wrong.is_empty(), "{}", ledger.wrong.join("\n"));
    Ok(())
}

/// The load, and a look at the daemon every second, until all processes have ended.
fn under_load(daemon: &Daemon, plan: &Plan, ledger: &Mutex<Ledger>) -> Result<Course> {
    let end = Instant::now() + plan.time;
    thread::scope(|scope| {
        let mut lanes = vec![scope.spawn(|| {
            let threads = thread::available_parallelism().map_or(1, usize::from);
            let upstreams: Vec<_> = (1..FIRST_GUEST).take(threads).map(upstream).collect();
            played(daemon, ledger, Load::start("resident", &upstreams, plan.time)?)
        })];
        lanes.extend((0..LANES).map(|lane| scope.spawn(move || guests(lane, end, daemon, plan, ledger))));
        let mut course = Course::default();
        for look in 1.. {
            course.add(Usage::of(daemon.pid())?);
            daemon.scrape()?;
            if look % LOOKS_PER_TRIAGE == 0 {
                daemon.triage(plan.time)?;
            }
            if lanes.iter().all(thread::ScopedJoinHandle::is_finished) {
                break;
            }
            interrupt::pause(LOOK)?;
        }
        for lane in lanes {
            lane.join().map_err(|_| anyhow!("a part of the load panicked"))??;
        }
        Ok(course)
    })
}

/// One guest after the other.
fn guests(lane: u32, end: Instant, daemon: &Daemon, plan: &Plan, ledger: &Mutex<Ledger>) -> Result<()> {
    for number in (FIRST_GUEST + lane..).step_by(LANES as usize) {
        if Instant::now() + plan.guest > end {
            break;
        }
        let name = format!("guest-{}", number % 10);
        played(daemon, ledger, Load::start(&name, &[upstream(number)], plan.guest)?)?;
    }
    Ok(())
}

fn upstream(number: u32) -> Ipv4Addr {
    (NET + number).into()
}

/// Waits for a process's end and compares.
fn played(daemon: &Daemon, ledger: &Mutex<Ledger>, load: Load) -> Result<()> {
    let by_upstream = load.finish()?;
    let wrong = settled(SETTLE, daemon, |samples| {
        let unseen = unseen_now();
        let each =
            by_upstream.iter().map(|(upstream, totals)| differences(samples, *upstream, totals, &unseen));
        Ok(each.collect::<Result<Vec<_>>>()?.concat())
    })?;
    locked(ledger).enter(&by_upstream, wrong);
    Ok(())
}

fn unseen_now() -> Unseen {
    Unseen::now(&[PORT, CLOSED_PORT])
}

fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is still wrong after so long; nothing as soon as nothing is.
fn settled(
    limit: Duration,
    daemon: &Daemon,
    wrong: impl Fn(&Samples) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    let mut last = Vec::new();
    interrupt::poll(limit, || {
        last = wrong(&daemon.scrape()?)?;
        Ok(last.is_empty().then_some(()))
    })?;
    Ok(last)
}

/// Sums over the host that are not as the load's totals say, by more than nobody could see.
fn host_wide(samples: &Samples, ledger: &Ledger, unseen: u64) -> Result<Vec<String>> {
    let sum = |families: &[&str]| -> Result<u64> {
        families.iter().map(|family| samples.sum(&format!("finwatch_{family}_total"), &[])).sum()
    };
    let mut wrong = Vec::new();
    let mut compare = |what: &str, have: u64, wanted: u64, unseen: u64| {
        if have.abs_diff(wanted) > unseen {
            wrong.push(format!("{what}: {have}, should be {wanted}"));
        }
    };
    let incidents = sum(&["incidents", "incidents_limited", "incidents_lost"])?;
    compare("incidents, those held back and lost included", incidents, anomalies(&ledger.totals), unseen);
    compare("tracked connections", samples.sum("finwatch_tracked_connections", &[])?, 0, 0);
    for (family, unseen) in [
        ("untracked_connections", 0),
        ("pairs_folded", 0),
        ("connections_missed_end", unseen),
        ("connections_adopted", unseen),
        ("incident_file_errors", 0),
    ] {
        compare(family, sum(&[family])?, 0, unseen);
    }
    Ok(wrong)
}

/// Every pair there was has been dropped. There may have been more than the load made: a walk makes one of the process
/// "unknown" for ports in TIME_WAIT whose connections were so many that the daemon has forgotten them.
fn expired(samples: &Samples, upstreams: u64) -> Result<Vec<String>> {
    let left = samples.sum("finwatch_pairs", &[])?;
    let expired = samples.sum("finwatch_pairs_expired_total", &[])?;
    let made = upstreams * PAIRS;
    let all_gone = left == 0 && expired >= made;
    Ok(if all_gone {
        Vec::new()
    } else {
        vec![format!("pairs: {made} made, {expired} dropped, {left} left")]
    })
}

/// What the daemon has open more than before the load, once it is at rest again.
fn left_open(daemon: &Daemon, before: Usage) -> Result<Option<String>> {
    let mut last = None;
    interrupt::poll(SETTLE, || {
        last = Usage::of(daemon.pid())?.more_open_than(&before);
        Ok(last.is_none().then_some(()))
    })?;
    Ok(last)
}

fn summary(plan: &Plan, ledger: &Ledger, course: &Course) -> String {
    let all = ledger.totals.all();
    let rate = all as f64 / plan.time.as_secs_f64();
    let kinds: Vec<_> = ledger.totals.each().map(|(kind, count)| format!("| {kind:?} | {count} |")).collect();
    format!(
        "{all} connections in {} s ({rate:.0}/s), {} processes, each in a namespace of its own; {} pairs\n\n\
         | connections | number |\n|---|--:|\n{}\n\n{}",
        plan.time.as_secs(),
        ledger.processes,
        ledger.upstreams * PAIRS,
        kinds.join("\n"),
        course.table(),
    )
}
