//! Real nginx in front of real Node.js: what nginx's error log counts, finwatch counts.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};

use super::Tally;
use crate::{
    daemon::Daemon,
    traffic::{self, POOL, Seen, Stage, nginx::Pool, node::Node},
};

/// The longest one scenario's traffic goes on.
const LIMIT: Duration = Duration::from_secs(90);
/// The lossy run goes on for so many 502s, and for so many bursts.
const ENOUGH_502: u64 = 5;
const ENOUGH_BURSTS: u32 = 8;
/// Timeouts the right way round: nginx lets go of a connection long before the upstream does.
const LONG_UPSTREAM: Duration = Duration::from_secs(10);

/// What is played, in this order.
pub(crate) const SCENARIOS: [&str; 3] =
    ["upstream closes first", "timeouts the right way round", "upstream keep-alive off"];

/// One scenario's outcome, as both sides count it.
struct Compared {
    name: &'static str,
    seen: Seen,
    lost: u64,
}

/// The three scenarios against one daemon.
pub(crate) fn run(binary: &Path) -> Result<Tally> {
    let daemon = Daemon::private(binary)?;
    let [lossy, right, off] = SCENARIOS;
    let (node, idle) = traffic::short_upstream()?;
    let mut bursts = 0;
    let lossy = {
        let mut stage = Stage::set(node, idle, traffic::mismatched_pool())?;
        let enough = |burst, seen: &Seen| {
            bursts = burst;
            seen.answers.bad_gateway >= ENOUGH_502 && burst >= ENOUGH_BURSTS
        };
        let seen = stage.play_until_lost(LIMIT, enough, |_, _| ())?;
        compare(&daemon, lossy, &stage, seen)?
    };
    // As many bursts at the same pace, whatever the upstream does now.
    let none_lost = |name, node, pool| {
        let mut stage = Stage::set(node, idle, pool)?;
        let seen = stage.play(LIMIT, |burst, _| burst >= bursts, |_, _| ())?;
        compare(&daemon, name, &stage, seen)
    };
    let pool = Pool::Kept { connections: POOL, timeout: idle.shortest };
    let right = none_lost(right, Node::start(LONG_UPSTREAM)?, pool)?;
    let off = none_lost(off, traffic::short_upstream()?.0, Pool::Off)?;
    let outcomes = [lossy.expect_losses(), right.expect_none(), off.expect_none()];
    let failed = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    let failed = failed.inspect(|error| super::tell_failure(format!("{error:#}"))).count();
    Ok(Tally { passed: outcomes.len() - failed, failed, skipped: 0 })
}

fn compare(daemon: &Daemon, name: &'static str, stage: &Stage, seen: Seen) -> Result<Compared> {
    let samples = daemon.scrape()?;
    let lost = traffic::lost(&samples, &stage.upstream())?;
    println!("{name}:");
    println!("  nginx: {} requests, {} answered 502", seen.answers.all, seen.answers.bad_gateway);
    println!("  nginx's error log: {} upstream failures {:?}", seen.failures.all(), seen.failures.by_message);
    println!("  finwatch: {lost} lost requests");
    for family in traffic::LOST {
        for sample in samples.matching(family, &traffic::pair(&stage.upstream())) {
            println!("    {family} {}: {}", sample.label("timing"), sample.count()?);
        }
    }
    Ok(Compared { name, seen, lost })
}

impl Compared {
    fn expect_losses(&self) -> Result<()> {
        let answered_502 = self.seen.answers.bad_gateway;
        ensure!(answered_502 >= ENOUGH_502, "{}: only {answered_502} 502s, too few to compare", self.name);
        self.expect_same()
    }

    fn expect_none(&self) -> Result<()> {
        let failures = self.seen.failures.all();
        ensure!(failures == 0, "{}: nginx logged {failures} upstream failures, expected none", self.name);
        self.expect_same()
    }

    fn expect_same(&self) -> Result<()> {
        let (name, failures, lost) = (self.name, self.seen.failures.all(), self.lost);
        let unknown = &self.seen.failures.unknown;
        ensure!(unknown.is_empty(), "{name}: nginx logged errors of another kind: {unknown:#?}");
        ensure!(
            lost == failures,
            "{name}: nginx's error log has {failures} upstream failures, finwatch counts {lost}"
        );
        Ok(())
    }
}
