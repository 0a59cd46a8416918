//! nginx without upstream keep-alive at a steady rate, and with it: what each costs in ports, connections and time.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::Times;
use crate::{
    account::Account,
    daemon::watch::Watch,
    interrupt,
    traffic::{
        SETTLE,
        clients::{post_at, until},
        namespace::{Namespace, WITHIN},
        nginx::Nginx,
        node::{Node, Server},
        proxy::Proxy,
    },
};

/// Requests a second, by so many clients.
const RATE: u32 = 200;
const CLIENTS: u32 = 10;
/// Where Node.js listens in either run: outside the range of local ports, and two pairs in spite of one address.
const PORTS: [u16; 2] = [18_090, 18_091];
/// Longer than any of this: the upstream closes nothing.
const LONG: Duration = Duration::from_mins(5);
/// How long the traffic goes on: with real times, until what TIME_WAIT holds no longer grows.
const REAL: Duration = Duration::from_secs(75);
const SCALED: Duration = Duration::from_secs(12);
/// How often the sockets in TIME_WAIT are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What one run came to.
struct Run {
    opened: u64,
    time_wait_peak: u64,
    requests: u64,
    bad_gateway: u64,
    mean: Duration,
    p99: Duration,
}

/// Without and with keep-alive, one run each.
pub(super) fn before_and_after(binary: &Path, times: Times, account: &mut Account) -> Result<()> {
    let time = if times == Times::Real { REAL } else { SCALED };
    let mut accounts = [Account::default(), Account::default()];
    let [before, after] = &mut accounts;
    // With real times one after the other: neither takes time from the other.
    let runs = if times == Times::Real {
        [play(binary, time, before, false)?, play(binary, time, after, true)?]
    } else {
        thread::scope(|scope| {
            let other = scope.spawn(|| play(binary, time, after, true));
            let run = play(binary, time, before, false)?;
            anyhow::Ok([run, other.join().unwrap_or_else(|_| bail!("it panicked"))?])
        })?
    };
    for one in accounts {
        account.append(one);
    }
    let row =
        |what: &str, value: &dyn Fn(&Run) -> String| vec![what.to_owned(), value(&runs[0]), value(&runs[1])];
    let rate = |part: u64, of: u64| format!("{:.2} %", 100.0 * part as f64 / of as f64);
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    account.table(
        &["measured", "without keep-alive", "with keep-alive"],
        [
            row("requests", &|run| run.requests.to_string()),
            row("sockets in TIME_WAIT, peak", &|run| run.time_wait_peak.to_string()),
            row("new connections a second", &|run| format!("{:.1}", run.opened as f64 / time.as_secs_f64())),
            row("answered 502", &|run| rate(run.bad_gateway, run.requests)),
            row("response time, mean", &|run| milliseconds(run.mean)),
            row("response time, 99th percentile", &|run| milliseconds(run.p99)),
        ],
    );
    Ok(())
}

fn play(binary: &Path, time: Duration, account: &mut Account, kept: bool) -> Result<Run> {
    let namespace = Namespace::alone("lab")?;
    let port = PORTS[usize::from(kept)];
    let server = Server { address: WITHIN, port, namespace: Some(&namespace), ..Server::obeying(LONG) };
    let node = Node::serve(&server)?;
    let mut proxy = Proxy::to(node.address());
    proxy.location("proxy_http_version 1.1; proxy_set_header Connection \"\";");
    if kept {
        proxy.upstream("keepalive 64;");
    }
    let nginx = Nginx::in_namespace(&namespace, std::slice::from_ref(&proxy))?;
    let watch = Watch::begin_at(binary, port)?;
    let before = Kernel::of(&namespace)?;
    let peak = Mutex::new(0);
    let times = load(&nginx, time, || {
        let now = Kernel::of(&namespace)?.time_wait;
        if let Ok(mut peak) = peak.lock() {
            *peak = now.max(*peak);
        }
        Ok(())
    })?;
    interrupt::pause(SETTLE)?;
    let verdict = watch.verdict(account, &node.address())?;
    let after = Kernel::of(&namespace)?;
    let seen = nginx.seen()?;
    let with = if kept { "with" } else { "without" };
    let what = |what: &str| format!("{with} keep-alive: {what}");
    let opened = verdict.count("nginx", "connections_opened_total", None)?;
    let active = after.active_opens - before.active_opens;
    account.same(&what("connections opened; ActiveOpens of the namespace"), opened, active)?;
    let entered = verdict.count("nginx", "time_wait_entered_total", None)?;
    let counted = after.time_waited - before.time_waited;
    account.same(&what("entered TIME_WAIT; TCPTimeWaited of the namespace"), entered, counted)?;
    account.same(
        &what("requests without an answer; failures in nginx's error log"),
        verdict.failed("nginx")?,
        seen.failures.all(),
    )?;
    ensure!(seen.failures.all() == 0, "nginx logged {:?}", seen.failures);
    ensure!(seen.answers.all == times.len() as u64, "{} of {} answered", seen.answers.all, times.len());
    let mut times = times;
    times.sort();
    let total: Duration = times.iter().sum();
    Ok(Run {
        opened,
        time_wait_peak: peak.into_inner().unwrap_or_default().max(after.time_wait),
        requests: seen.answers.all,
        bad_gateway: seen.answers.bad_gateway,
        mean: total / u32::try_from(times.len()).context("so many requests")?,
        p99: times[times.len() * 99 / 100],
    })
}

/// The steady rate for that long, with a look now and then; how long each answer took.
fn load(nginx: &Nginx, time: Duration, look: impl Fn() -> Result<()> + Sync) -> Result<Vec<Duration>> {
    let socket = nginx.socket();
    let end = Instant::now() + time;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                look()?;
                interrupt::pause(LOOK)?;
            }
            anyhow::Ok(())
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let socket = &socket;
                scope.spawn(move || {
                    let mut times = Vec::new();
                    interrupt::pause(Duration::from_secs(1) * number / RATE)?;
                    until(end, Duration::from_secs(1) * CLIENTS / RATE, || {
                        let begun = Instant::now();
                        post_at(socket, "/ok")?;
                        times.push(begun.elapsed());
                        Ok(())
                    })?;
                    anyhow::Ok(times)
                })
            })
            .collect();
        let times = clients.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a client panicked")));
        let times = times.collect::<Result<Vec<_>>>();
        over.store(true, Ordering::Relaxed);
        looking.join().unwrap_or_else(|_| bail!("it panicked"))?;
        Ok(times?.concat())
    })
}

/// The namespace's own counters.
struct Kernel {
    active_opens: u64,
    time_wait: u64,
    time_waited: u64,
}

impl Kernel {
    fn of(namespace: &Namespace) -> Result<Self> {
        let [snmp, netstat, sockstat] = ["snmp", "netstat", "sockstat"].map(|name| namespace.read(name));
        Ok(Self {
            active_opens: column(&snmp?, "Tcp:", "ActiveOpens").context("ActiveOpens")?,
            time_waited: column(&netstat?, "TcpExt:", "TW").context("TW")?,
            time_wait: after(&sockstat?, "TCP:", "tw").context("tw")?,
        })
    }
}

/// A column of a table whose head and values are lines of the same beginning.
fn column(text: &str, begin: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(begin));
    let at = lines.next()?.split_whitespace().position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

/// The word that follows a name in a line.
fn after(text: &str, begin: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(begin))?;
    line.split_whitespace().skip_while(|word| *word != name).nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm ActiveOpens\nTcp: 1 42\n";
        assert_eq!(column(snmp, "Tcp:", "ActiveOpens"), Some(42));
        assert_eq!(column(snmp, "Tcp:", "Absent"), None);
        assert_eq!(after("TCP: inuse 5 orphan 0 tw 7 alloc 9\n", "TCP:", "tw"), Some(7));
    }
}
