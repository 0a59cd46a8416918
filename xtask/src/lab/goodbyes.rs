//! Upstreams that say goodbye before they close: TLS's close_notify, and GOAWAY of HTTP/2.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Times, losses};
use crate::{
    account::{Account, expect},
    daemon::watch::Watch,
    interrupt,
    traffic::{
        POOL, SETTLE, Stage,
        grpc::{Calls, Grpc},
        haproxy::HaProxy,
        nginx::Nginx,
        node::{IdleTimeout, Node, Server},
        proxy::Proxy,
        requests::{PATIENT, at_once},
    },
};

/// What the upstreams are told; Node.js's own timeout adds a second.
const SHORT: Duration = Duration::from_secs(2);
/// Longer than any of this takes.
const LONG: Duration = Duration::from_mins(2);
/// Requests at a time, and how often.
const AT_ONCE: usize = 8;
const ROUNDS: usize = 4;
/// Enough losses, and the longest that bursts go on.
const ENOUGH: u64 = 4;
const ENOUGH_BURSTS: u32 = 6;
const LIMIT: Duration = Duration::from_secs(40);
/// How long gRPC's clients call: some lives of a connection.
const CALLS: Duration = Duration::from_secs(9);

/// Node.js with a key and a certificate of its own.
fn tls(keep_alive: Duration) -> Result<Node> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).context("a certificate")?;
    let more = format!("serve(`{}`, `{}`);", made.signing_key.serialize_pem(), made.cert.pem());
    Node::serve(&Server { more: &more, ..Server::tls(keep_alive) })
}

/// The same race behind TLS: requests are lost as they are without.
pub(super) fn tls_race(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let node = tls(Duration::from_secs(1))?;
    let port = node.port();
    let mut proxy = Proxy::tls(node.address());
    proxy.upstream(&format!("keepalive {POOL}; keepalive_timeout 24s;"));
    proxy.location("proxy_http_version 1.1; proxy_set_header Connection \"\";");
    let nginx = Nginx::in_front(&[proxy])?;
    let watch = Watch::begin_at(binary, port)?;
    let mut stage = Stage::of(node, IdleTimeout::of(SHORT), nginx);
    let enough = |burst, failed| burst >= ENOUGH_BURSTS && failed >= ENOUGH;
    let seen = stage.play(LIMIT, |burst, seen| enough(burst, seen.failures.all()), |_, _| ())?;
    let verdict = watch.verdict_on(account, port)?;
    let failed = losses::compare(account, &verdict, &seen, [])?;
    ensure!(failed > 0, "no request met a close");
    Ok(())
}

/// nginx closes first: nothing is wrong with goodbyes.
pub(super) fn tls_in_order(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let node = tls(LONG)?;
    let mut proxy = Proxy::tls(node.address());
    proxy.upstream("keepalive 32; keepalive_timeout 2s;");
    proxy.location("proxy_http_version 1.1; proxy_set_header Connection \"\";");
    rounds(binary, account, &node, &Nginx::in_front(&[proxy])?)
}

/// grpcio's clients before its server, which says GOAWAY on connections of a certain age.
pub(super) fn grpc(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let server = Grpc::start(SHORT)?;
    let watch = Watch::begin_at(binary, server.port())?;
    let calls = Grpc::call(server.port(), CALLS)?;
    compare_calls(account, &watch, server, "python3", &calls)
}

/// nginx's gRPC between them.
pub(super) fn grpc_pass(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let server = Grpc::start(SHORT)?;
    let nginx = server.nginx(12 * SHORT)?;
    let watch = Watch::begin_at(binary, server.port())?;
    let calls = Grpc::call(nginx.port(), CALLS)?;
    compare_calls(account, &watch, server, "nginx", &calls)?;
    expect("failures in nginx's error log", nginx.seen()?.failures.all(), 0)
}

/// All calls were answered, on as many connections as the server says, which it closed all.
fn compare_calls(
    account: &mut Account,
    watch: &Watch,
    mut server: Grpc,
    proxy: &str,
    calls: &Calls,
) -> Result<()> {
    // The age that a connection may have, and as long again.
    interrupt::pause(2 * SHORT + SETTLE)?;
    let verdict = watch.verdict_on(account, server.port())?;
    let [had, connections] = server.told()?;
    expect("calls the server had; answered and failed by the clients", had, calls.answered + calls.failed)?;
    account.same(
        "calls without an answer; those that failed by the clients",
        verdict.failed(proxy)?,
        calls.failed,
    )?;
    let opened = verdict.count(proxy, "connections_opened_total", None)?;
    account
        .same("connections opened; those the server had calls on", opened, connections)
        .with_context(|| verdict.told_of(proxy))?;
    ensure!(connections > 2 * AT_ONCE as u64, "only {connections} connections: GOAWAY was not said");
    account.table(&["measured", ""], [vec!["calls".into(), had.to_string()]]);
    closes(account, &verdict.pair(proxy)?["counts"]);
    Ok(())
}

/// Requests, each group left idle until one end has closed: none is lost, as nginx says.
fn rounds(binary: &Path, account: &mut Account, node: &Node, nginx: &Nginx) -> Result<()> {
    let watch = Watch::begin_at(binary, node.port())?;
    for _ in 0..ROUNDS {
        ask(nginx.port())?;
    }
    let verdict = watch.verdict_on(account, node.port())?;
    losses::compare(account, &verdict, &nginx.seen()?, [])?;
    closes(account, &verdict.pair("nginx")?["counts"]);
    Ok(())
}

/// HAProxy with HTTP/2 toward the same upstream.
pub(super) fn haproxy_h2(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let node = Node::serve(&Server::h2(SHORT))?;
    let server = "proto h2 pool-purge-delay 24s pool-max-conn 64";
    let haproxy = HaProxy::proxy(node.port(), "timeout server 30s", "http-reuse always", server)?;
    let watch = Watch::begin_at(binary, node.port())?;
    for _ in 0..ROUNDS {
        ask(haproxy.port())?;
    }
    let verdict = watch.verdict_on(account, node.port())?;
    let failed = haproxy.failed_exchanges()?;
    account.same(
        "requests without an answer; HAProxy's retries and aborts by the server",
        verdict.failed("haproxy")?,
        failed,
    )?;
    closes(account, &verdict.pair("haproxy")?["counts"]);
    Ok(())
}

fn ask(port: u16) -> Result<()> {
    let answers = at_once(port, &["/ok"; AT_ONCE], PATIENT);
    expect("requests answered", answers.with(200), AT_ONCE as u64)?;
    interrupt::pause(SHORT + Duration::from_secs(1) + SETTLE)
}

/// How connections ended, as finwatch tells it.
fn closes(account: &mut Account, counts: &serde_json::Value) {
    let families = [
        "connections_opened_total",
        "connections_closed_total",
        "resets_received_total",
        "resets_sent_total",
    ];
    account.table(
        &["finwatch's counters", ""],
        families.map(|family| vec![format!("`{family}`"), counts[family].to_string()]),
    );
}
