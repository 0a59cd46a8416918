//! A client's own pool of connections is too small for what it asks.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::Times;
use crate::{
    account::{Account, expect},
    daemon::{metrics, watch::Watch},
    interrupt,
    test::software::queue::established,
    traffic::{
        clients::until,
        node::{Node, Server},
        python::Python,
    },
};

/// Connections that the client may have at a time, each busy for 2 s with a request.
const LIMIT: u32 = 20;
/// Far more at a time than that, and no connection is closed for being idle.
const GUNICORN: [&str; 6] = ["--worker-class", "gthread", "--threads", "64", "--keep-alive", "75"];
/// How long requests come a second apart; and how long more of them come than have room.
const CALM: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(1));
const RUSH: (Duration, Duration) = (Duration::from_secs(12), Duration::from_millis(40));
/// What is under way is answered by then, or given up.
const AFTER: Duration = Duration::from_secs(6);

/// Node.js's own agent in front of an upstream that has threads to spare.
pub(super) fn agent(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let mut gunicorn = Python::gunicorn(&GUNICORN)?;
    let port = gunicorn.port();
    let client = Node::serve(&Server::agent(LIMIT))?;
    let ask = |path: &str| metrics::get(&format!("http://{}/{path}", client.address()));
    let watch = Watch::begin_at(binary, port)?;
    for (time, pace) in [CALM, RUSH] {
        until(Instant::now() + time, pace, || ask(&format!("ask/{port}")).map(drop))?;
    }
    let open = established(port)?;
    let verdict = watch.verdict_on(account, port)?;
    verdict.no_trouble()?;
    let seen = verdict.pair("node")?["sockets"]["established"].as_u64().context("a count")?;
    account.same("connections of the client, as ss has it", seen, open)?;
    account.same("as the client's limit has it", seen, LIMIT.into())?;
    let opened = verdict.count("node", "connections_opened_total", None)?;
    account.same("connections opened: none but those", opened, LIMIT.into())?;
    interrupt::pause(AFTER)?;
    gunicorn.check()?;
    let counts = ask("told")?;
    let counts = counts.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
    let &[answered, given_up, failed] = counts.context("the client's counts")?.as_slice() else {
        anyhow::bail!("not three counts of the client's");
    };
    ensure!(given_up > 0, "no request found the pool exhausted");
    expect("requests sent that failed, by the client", failed, 0)?;
    account.same("requests without an answer; the client's", verdict.failed("node")?, failed)?;
    account.table(
        &["measured", ""],
        [
            vec!["requests answered".into(), answered.to_string()],
            vec!["given up in the client, for want of a connection".into(), given_up.to_string()],
        ],
    );
    Ok(())
}
