//! The packages as users meet them: installed, started, scraped, upgraded and removed on a Debian that boots; the image in
//! a file system of its own; the binary where there is nothing else.

mod bare;
mod guest;
mod installed;
mod older;
mod reloaded;

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Tally, tell_failure};
use crate::{
    daemon::metrics::Samples,
    host, interrupt,
    package::{self, Packages},
    process,
    traffic::namespace::Namespace,
};

const MINUTE: Duration = Duration::from_mins(1);
/// How long attaching every hook may take where much else goes on.
const READY: Duration = Duration::from_mins(2);
/// Where each of them listens, in a network namespace of its own.
const URL: &str = "http://127.0.0.1:9778";
/// Hooks that are always attached.
const HOOKS: [&str; 4] = ["inet_sock_set_state", "tcp_receive_reset", "tcp_send_reset", "iter/tcp"];
/// Connections opened and closed in a test.
const CONNECTIONS: u64 = 5;

type Scenario = fn(&Packages) -> Result<()>;

const PLAYED: [(&str, Scenario); 5] = [
    ("compose file", |_| compose()),
    ("lintian", lintian),
    ("static binary in an empty root", bare::binary),
    ("container image", bare::image),
    ("Debian package on systemd", installed::run),
];

/// The scenarios' names.
pub(super) const SCENARIOS: [&str; 5] = [PLAYED[0].0, PLAYED[1].0, PLAYED[2].0, PLAYED[3].0, PLAYED[4].0];

/// Makes the packages and plays those that are wanted.
pub(super) fn run(wanted: &[&str]) -> Result<Tally> {
    let packages = package::make()?;
    let mut tally = Tally::default();
    for (name, play) in PLAYED.iter().filter(|(name, _)| wanted.contains(name)) {
        println!("--- {name}");
        tally = tally
            + match play(&packages) {
                Ok(()) => Tally::ONE_PASSED,
                Err(error) => {
                    interrupt::check()?;
                    tell_failure(format!("{name}: {error:#}"));
                    Tally::ONE_FAILED
                }
            };
    }
    Ok(tally)
}

/// Compose reads its file, and finds nothing that its schema does not know.
fn compose() -> Result<()> {
    let mut compose = host::command("docker-compose");
    compose.arg("--file").arg(host::root().join("deploy/compose/compose.yaml")).args(["config", "--quiet"]);
    process::run("docker-compose config", &mut compose, MINUTE)
}

fn lintian(packages: &Packages) -> Result<()> {
    let mut lintian = host::command("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning"]).arg(&packages.deb);
    process::run("lintian", &mut lintian, 5 * MINUTE)
}

/// Waits for the daemon in this namespace, and has it count connections that are opened and closed there.
fn assert_works(namespace: &Namespace) -> Result<()> {
    let samples = namespace.within(|| {
        let ready =
            interrupt::poll(READY, || Ok(crate::daemon::metrics::get(&format!("{URL}/readyz")).ok()))?;
        ensure!(ready.is_some(), "{URL}/readyz did not answer 200 within {} s", READY.as_secs());
        Samples::scrape(&format!("{URL}/metrics"))
    })?;
    for hook in HOOKS {
        let whole = samples.sum("finwatch_hook_attached", &[("hook", hook), ("mode", "full")])?;
        ensure!(whole == 1, "hook {hook} is not attached in full");
    }
    let upstream = namespace.within(open_and_close)?;
    let closed = |side: &str, by: &str| {
        let samples = namespace.within(|| Samples::scrape(&format!("{URL}/metrics")))?;
        samples
            .sum("finwatch_connections_closed_total", &[("side", side), ("upstream", &upstream), ("by", by)])
    };
    for (side, by) in [("proxy", "local"), ("upstream", "peer")] {
        let all = interrupt::poll(READY, || Ok((closed(side, by)? >= CONNECTIONS).then_some(())))?;
        ensure!(all.is_some(), "side={side}: not {CONNECTIONS} connections were counted");
        let counted = closed(side, by)?;
        ensure!(counted == CONNECTIONS, "side={side}: {counted} of {CONNECTIONS} connections");
    }
    Ok(())
}

/// Opens and closes connections one by one; returns the accepting end.
fn open_and_close() -> Result<String> {
    use std::{
        io::Read as _,
        net::{Ipv4Addr, TcpListener, TcpStream},
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    for _ in 0..CONNECTIONS {
        let proxy = TcpStream::connect(address)?;
        let (mut upstream, _) = listener.accept()?;
        drop(proxy);
        ensure!(upstream.read(&mut [0])? == 0, "the end of the stream");
    }
    Ok(address.to_string())
}
