//! The demo: an upstream that closes idle connections before nginx expects it, seen by nginx and by finwatch.

mod report;

use std::time::Duration;

use anyhow::{Result, bail};

use self::report::Findings;
use crate::{
    daemon::{Daemon, metrics::Samples},
    host::{self, Profile},
    setup::{self, Purpose},
    traffic::{self, Stage},
};

/// The demo ends once nginx has answered so many requests with 502, and after so many bursts.
const ENOUGH: u64 = 5;
const ENOUGH_BURSTS: u32 = 4;
/// The longest the traffic goes on.
const LIMIT: Duration = Duration::from_secs(50);

/// `cargo xtask demo`: with a daemon of its own, ended afterwards.
pub(crate) fn command() -> Result<()> {
    host::require_rights("demo")?;
    setup::ensure(Purpose::Demo)?;
    let daemon = Daemon::private(&host::build_finwatch(Profile::Release)?)?;
    play(&daemon.metrics_url())
}

/// Plays it in front of the daemon with those metrics and prints what both sides saw.
pub(crate) fn play(metrics_url: &str) -> Result<()> {
    println!("demo: starting Node.js and measuring how long it keeps an idle connection");
    let (node, idle) = traffic::short_upstream()?;
    println!(
        "demo: it closes after {:.2} s; nginx in front of it keeps connections 60 s",
        idle.shortest.as_secs_f64()
    );
    let mut stage = Stage::set(node, idle, traffic::mismatched_pool())?;
    println!("demo: bursts of {} requests with pauses about as long, until {ENOUGH} 502s", traffic::POOL);
    let seen = stage.play_until_lost(
        LIMIT,
        |burst, seen| seen.answers.bad_gateway >= ENOUGH && burst >= ENOUGH_BURSTS,
        |burst, seen| println!("demo: burst {burst:>2}: {:>3} 502s so far", seen.answers.bad_gateway),
    )?;
    let (samples, upstream) = (Samples::scrape(metrics_url)?, stage.upstream());
    let findings = Findings { upstream: &upstream, idle, seen: &seen, samples: &samples, metrics_url };
    print!("\n{}", findings.report()?);
    if seen.answers.bad_gateway == 0 {
        bail!("nginx lost no request within {} s: nothing to show this time", LIMIT.as_secs());
    }
    Ok(())
}
