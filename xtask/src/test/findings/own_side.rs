//! The race seen from the upstream's side: nginx is elsewhere, in a network namespace that the daemon does not watch.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    looked::{Looked, directives, listens, sure},
    unanswered::keeping,
};
use crate::{
    account::Account,
    daemon::Daemon,
    interrupt,
    traffic::{
        POOL,
        clients::post_at,
        namespace::{HERE, Namespace, WITHIN},
        nginx::Nginx,
        node::{Node, Server},
    },
};

/// What the upstream is told; about twice as long is what it comes to.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How many bursts there are at least, and at most until so many requests are lost.
const BURSTS: std::ops::RangeInclusive<u32> = 8..=32;
const LOST: u64 = 3;
/// The pauses walk around the timeout, in so many steps of so much.
const STEPS: u32 = 5;
const STEP: Duration = Duration::from_millis(7);
/// After every other burst all connections are left to Node.js. Where it closed none but with a request unread, no idle
/// time would show, and triage rightly be silent.
const LONGER: Duration = Duration::from_millis(200);
const SETTLE: Duration = Duration::from_millis(500);

/// Node.js here closes connections that nginx elsewhere still uses.
pub(super) fn closes(binary: &Path, _: &Daemon, account: &mut Account) -> Result<()> {
    let daemon = Daemon::private_with(binary, &["--netns", "host", "--proxy-ranges", "198.18.0.0/24"])?;
    let namespace = Namespace::beside_us()?;
    let node = Node::serve(&Server { address: HERE, ..Server::busy(TIMEOUT) })?;
    let upstream = node.address();
    let idle = node.measure_idle_timeout()?;
    let mut proxy = keeping(&upstream);
    proxy.upstream("keepalive_timeout 60s;");
    let nginx = Nginx::in_namespace(&namespace, &[proxy])?;
    for burst in 0..*BURSTS.end() {
        if burst >= *BURSTS.start() && nginx.seen()?.failures.all() >= LOST {
            break;
        }
        let socket = nginx.socket();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..POOL).map(|_| scope.spawn(|| post_at(&socket, "/"))).collect();
            let all =
                threads.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a client panicked")));
            all.collect::<Result<()>>()
        })?;
        interrupt::pause(if burst % 2 == 0 {
            (idle.median + STEP * (burst / 2 % STEPS)).saturating_sub(STEP * (STEPS / 2))
        } else {
            idle.longest + LONGER
        })?;
    }
    interrupt::pause(SETTLE)?;
    let logged = nginx.seen()?.failures.all();
    ensure!(logged >= LOST, "nginx lost only {logged} requests in {} bursts", BURSTS.end());
    let looked = Looked::at(&daemon)?;
    ensure!(looked.pair(&upstream).is_none(), "the daemon sees nginx's side as well");
    let addresses = [upstream.as_str()];
    let findings: Vec<&Value> = looked.troubles(&addresses).collect();
    let [finding] = findings[..] else {
        let pair = looked.upstreams_side(WITHIN, &upstream);
        bail!("not one finding, but {findings:#?} from {pair:#?}")
    };
    ensure!(finding["kind"] == "own_side_closes", "{finding:#?}");
    ensure!(
        finding["subject"]["side"] == "upstream" && finding["subject"]["proxy"] == WITHIN,
        "{finding:#?}"
    );
    println!("  own_side_closes: {} {}", finding["verdict"], finding["evidence"]);
    sure(finding, "medium")?;
    listens(finding, "node", node.pid())?;
    ensure!(directives(finding, "upstream", "Node.js")?.len() == 1);
    account.look(findings.iter().copied());
    let told = finding["harm"]["requests_lost"].as_u64().context("requests lost")?;
    account.same("requests lost, and failures in nginx's error log", told, logged)?;
    Ok(())
}
