//! A connection that is older than the daemon and belongs to another user: whose it is takes the unit's drop-in.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};

use super::{READY, URL, guest::Guest};
use crate::{daemon::metrics::Samples, interrupt};

/// What holds the connection in the end, by its name.
pub(super) const HOLDER: &str = "sleep";

/// A connection that root's `sleep` holds in the guest, for as long as this lives.
pub(super) struct Older {
    upstream: String,
    _listener: TcpListener,
    _accepted: TcpStream,
}

impl Older {
    pub(super) fn open(guest: &Guest) -> Result<Self> {
        let listener = guest.namespace.within(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
        let address = listener.local_addr()?;
        let hold = format!("exec 3<>/dev/tcp/{}/{}; exec {HOLDER} infinity", address.ip(), address.port());
        guest.run("systemd-run", &["--unit", "older", "bash", "-c", &hold])?;
        listener.set_nonblocking(true)?;
        let accepted = interrupt::poll(READY, || Ok(listener.accept().ok()))?;
        let (accepted, _) = accepted.context("nobody connects")?;
        let holds = interrupt::poll(READY, || {
            let found = guest.command("pidof").arg(HOLDER).output().context("pidof")?;
            Ok(found.status.success().then_some(()))
        })?;
        ensure!(holds.is_some(), "no {HOLDER} took the connection over");
        Ok(Self { upstream: address.to_string(), _listener: listener, _accepted: accepted })
    }

    /// Waits for the daemon, which was started anew, and expects the connection under this process and no other.
    pub(super) fn assert_holder(&self, guest: &Guest, proxy: &str) -> Result<()> {
        let established = |samples: &Samples, labels: &[(&str, &str)]| {
            let pair = [("side", "proxy"), ("upstream", self.upstream.as_str()), ("state", "established")];
            samples.sum("finwatch_sockets", &[&pair, labels].concat())
        };
        let samples = guest.namespace.within(|| {
            interrupt::poll(READY, || {
                let samples = Samples::scrape(&format!("{URL}/metrics")).ok();
                Ok(samples.filter(|samples| established(samples, &[]).is_ok_and(|all| all > 0)))
            })
        })?;
        let samples = samples.context("the older connection does not show")?;
        let (all, held) = (established(&samples, &[])?, established(&samples, &[("proxy", proxy)])?);
        ensure!((all, held) == (1, 1), "of {all} connections {held} are {proxy}'s, not 1 of 1");
        Ok(())
    }
}
