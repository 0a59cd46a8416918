//! Real nginx in front of real Node.js, and traffic that meets the moment the upstream closes idle connections.

pub(crate) mod apache;
pub(crate) mod bursts;
pub(crate) mod cable;
pub(crate) mod clients;
pub(crate) mod grpc;
pub(crate) mod haproxy;
pub(crate) mod logs;
pub(crate) mod namespace;
pub(crate) mod nginx;
pub(crate) mod node;
pub(crate) mod php;
pub(crate) mod proxy;
pub(crate) mod python;
pub(crate) mod requests;
pub(crate) mod tomcat;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use self::{
    bursts::Bursts,
    logs::{Answers, Failures},
    nginx::{Nginx, Pool},
    node::{IdleTimeout, Node},
};
use crate::{
    daemon::metrics::{Sample, Samples},
    interrupt,
};

/// Idle connections nginx keeps, and requests in a burst.
pub(crate) const POOL: usize = 32;
/// What the upstream is told; short, so that a run is.
const UPSTREAM_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Half a second over finwatch's QUIET, so that a lost request's pause is one beyond doubt.
const SHORTEST_USEFUL: Duration = Duration::from_millis(1500);
/// Longer than any upstream here keeps a connection: the misconfiguration.
const TOO_LONG: Duration = Duration::from_mins(1);
/// After so many bursts without a loss the upstream's idle time is measured anew.
const PATIENCE: u32 = 5;
/// Kernel and logs settle this long after the last answer.
pub(crate) const SETTLE: Duration = Duration::from_millis(500);

/// The families a lost upstream request is counted in, exactly once.
pub(crate) const LOST: [&str; 2] =
    ["finwatch_requests_on_peer_closed_socket_total", "finwatch_peer_closed_before_response_total"];

/// nginx in front of Node.js.
pub(crate) struct Stage {
    // nginx first: it ends before what it proxies to.
    nginx: Nginx,
    node: Node,
    bursts: Bursts,
}

/// What both of nginx's logs say.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) answers: Answers,
    pub(crate) failures: Failures,
}

/// An upstream that keeps idle connections for a measured time, longer than QUIET.
pub(crate) fn short_upstream() -> Result<(Node, IdleTimeout)> {
    let node = Node::start(UPSTREAM_KEEP_ALIVE)?;
    let idle = node.measure_idle_timeout()?;
    if idle.shortest >= SHORTEST_USEFUL {
        return Ok((node, idle));
    }
    // Older Node.js adds no second of its own.
    let node = Node::start(2 * UPSTREAM_KEEP_ALIVE)?;
    let idle = node.measure_idle_timeout()?;
    Ok((node, idle))
}

/// A pool that keeps connections longer than the upstream does.
pub(crate) fn mismatched_pool() -> Pool {
    Pool::Kept { connections: POOL, timeout: TOO_LONG }
}

impl Stage {
    /// Puts nginx in front of the upstream; traffic is paced by `idle`.
    pub(crate) fn set(node: Node, idle: IdleTimeout, pool: Pool) -> Result<Self> {
        let nginx = Nginx::proxy(node.port(), pool)?;
        Ok(Self::of(node, idle, nginx))
    }

    /// The same with an nginx that was told more.
    pub(crate) fn of(node: Node, idle: IdleTimeout, nginx: Nginx) -> Self {
        let bursts = Bursts::new(nginx.port(), POOL, idle);
        Self { nginx, node, bursts }
    }

    /// From here on traffic is paced by another time.
    pub(crate) fn pace(&mut self, idle: IdleTimeout) {
        self.bursts.pace(idle);
    }

    /// Ends nginx; the upstream goes on.
    pub(crate) fn into_node(self) -> Node {
        self.node
    }

    /// Sends bursts until `enough` or the time is up, telling each one's outcome to `tell`.
    pub(crate) fn play(
        &mut self,
        limit: Duration,
        mut enough: impl FnMut(u32, &Seen) -> bool,
        mut tell: impl FnMut(u32, &Seen),
    ) -> Result<Seen> {
        let end = Instant::now() + limit;
        loop {
            self.bursts.next()?;
            self.nginx.check()?;
            self.node.check()?;
            let seen = self.seen()?;
            tell(self.bursts.done(), &seen);
            if enough(self.bursts.done(), &seen) || Instant::now() >= end {
                interrupt::pause(SETTLE)?;
                return self.seen();
            }
        }
    }

    /// The same where requests are to be lost. As long as none is, the idle time is measured anew from time to time: it may have
    /// been measured at a moment at which the machine had more to do.
    pub(crate) fn play_until_lost(
        &mut self,
        limit: Duration,
        mut enough: impl FnMut(u32, &Seen) -> bool,
        mut tell: impl FnMut(u32, &Seen),
    ) -> Result<Seen> {
        let end = Instant::now() + limit;
        loop {
            let patient_until = self.bursts.done() + PATIENCE;
            let seen = self.play(
                end.saturating_duration_since(Instant::now()),
                |burst, seen| enough(burst, seen) || seen.failures.all() == 0 && burst >= patient_until,
                &mut tell,
            )?;
            if enough(self.bursts.done(), &seen) || Instant::now() >= end {
                return Ok(seen);
            }
            if seen.failures.all() == 0 {
                self.pace(self.node.measure_idle_timeout()?);
            }
        }
    }

    /// What nginx has logged so far.
    pub(crate) fn seen(&self) -> Result<Seen> {
        self.nginx.seen()
    }

    /// The upstream as finwatch names it.
    pub(crate) fn upstream(&self) -> String {
        self.node.address()
    }

    /// The upstream.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Where clients connect, as finwatch names it.
    pub(crate) fn front(&self) -> String {
        self.nginx.address()
    }
}

/// The labels of nginx's side of the pair with that upstream.
pub(crate) fn pair(upstream: &str) -> [(&str, &str); 3] {
    [("side", "proxy"), ("proxy", "nginx"), ("upstream", upstream)]
}

/// How many requests finwatch counts as lost on nginx's side of that pair.
pub(crate) fn lost(samples: &Samples, upstream: &str) -> Result<u64> {
    LOST.iter().map(|family| samples.sum(family, &pair(upstream))).sum()
}

/// The idle time at which the upstream closed, as bucket bounds and how many closes fell between them.
pub(crate) fn close_idle_times(samples: &Samples, upstream: &str) -> Result<Vec<(String, String, u64)>> {
    let labels = pair(upstream);
    let buckets = samples.matching("finwatch_peer_close_idle_seconds_bucket", &labels);
    let mut bounds: Vec<(f64, &Sample)> = buckets
        .map(|sample| Ok((sample.label("le").parse().context("a bucket's bound")?, sample)))
        .collect::<Result<_>>()?;
    bounds.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let (mut from, mut below, mut times) = ("0".to_owned(), 0, Vec::new());
    for (_, sample) in bounds {
        let (to, upto) = (sample.label("le").to_owned(), sample.count()?);
        if upto > below {
            times.push((from, to.clone(), upto - below));
        }
        (from, below) = (to, upto);
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_become_ranges() {
        let text = r#"
finwatch_peer_close_idle_seconds_bucket{side="proxy",proxy="nginx",upstream="u",le="10"} 7
finwatch_peer_close_idle_seconds_bucket{side="proxy",proxy="nginx",upstream="u",le="+Inf"} 7
finwatch_peer_close_idle_seconds_bucket{side="proxy",proxy="nginx",upstream="u",le="2"} 1
finwatch_peer_close_idle_seconds_bucket{side="proxy",proxy="nginx",upstream="u",le="5"} 7
finwatch_peer_close_idle_seconds_bucket{side="proxy",proxy="other",upstream="u",le="5"} 9
"#;
        let samples = Samples::parse(text).expect("well-formed");
        let times = close_idle_times(&samples, "u").expect("whole numbers");
        assert_eq!(times, [("0".into(), "2".into(), 1), ("2".into(), "5".into(), 6)]);
    }
}
