//! A network namespace of a measurement's own, and connections in it: every address of 127.0.0.0/8 is there.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::{host, interrupt};

/// The first of the destinations' addresses.
const FIRST: u32 = Ipv4Addr::new(127, 1, 0, 0).to_bits();
/// As many as TIME_WAIT leaves ports for, whatever is measured.
pub(crate) const DESTINATIONS: u32 = 16;
/// How often paced connections are caught up with.
const TICK: Duration = Duration::from_millis(10);

/// Does something on a thread in a network namespace of its own, which ends with it.
pub(crate) fn alone<T: Send>(measure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                enter()?;
                measure()
            })
            .join()
    });
    outcome.map_err(|_panic| anyhow!("the thread that measures has ended"))?
}

/// Moves the calling thread into a new network namespace.
pub(crate) fn enter() -> Result<()> {
    // SAFETY: descriptors stay shared; only what this thread opens from now on belongs to another namespace.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("a network namespace")?;
    let mut up = host::command("ip");
    let status = up.args(["link", "set", "lo", "up"]).stdin(Stdio::null()).status().context("starting ip")?;
    ensure!(status.success(), "ip link set lo up failed ({status})");
    // Nothing leaves TIME_WAIT before its time, and nobody is refused.
    set("tcp_tw_reuse", "0")?;
    set("ip_local_port_range", "1024 65535")?;
    // In the initial namespace alone on old kernels, whose default is large enough.
    drop(set("tcp_max_tw_buckets", "1000000"));
    Ok(())
}

fn set(name: &str, value: &str) -> Result<()> {
    fs::write(format!("/proc/sys/net/ipv4/{name}"), value).with_context(|| name.to_owned())
}

/// Where connections are accepted, at every address of the namespace.
pub(crate) struct Gate {
    listener: TcpListener,
    port: u16,
}

impl Gate {
    /// In the calling thread's namespace, at a port of its own.
    pub(crate) fn open() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("listening")?;
        let port = listener.local_addr().context("the gate's port")?.port();
        Ok(Self { listener, port })
    }

    /// Both ends of a connection to the destination of this number: each is a pair on either side. Where several threads
    /// connect at once, the accepted end may be another's.
    pub(crate) fn connect(&self, destination: u32) -> Result<(TcpStream, TcpStream)> {
        let address = Ipv4Addr::from_bits(FIRST + destination);
        let proxy = TcpStream::connect((address, self.port)).context("connecting")?;
        let (upstream, _) = self.listener.accept().context("accepting")?;
        Ok((proxy, upstream))
    }

    /// Opens and closes so many connections, one after the other, to so many destinations in turns.
    pub(crate) fn churn(&self, connections: u32, destinations: u32) -> Result<()> {
        for number in 0..connections {
            let (proxy, upstream) = self.connect(number % destinations)?;
            // In this order: the end that opened it has the TIME_WAIT.
            drop(proxy);
            drop(upstream);
        }
        interrupt::check()
    }
}

/// Does something so often per second for so long, or as often as it can; says how often that was.
pub(crate) fn paced(
    per_second: Option<u32>,
    time: Duration,
    mut act: impl FnMut(u32) -> Result<()>,
) -> Result<u32> {
    let (begun, mut done) = (Instant::now(), 0);
    loop {
        interrupt::check()?;
        let elapsed = begun.elapsed();
        if elapsed >= time {
            return Ok(done);
        }
        let due = per_second.map_or(f64::INFINITY, |rate| f64::from(rate) * elapsed.as_secs_f64());
        if f64::from(done) < due {
            act(done)?;
            done += 1;
        } else {
            thread::sleep(TICK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept() {
        let mut acted = 0;
        let done = paced(Some(1_000), Duration::from_millis(50), |number| {
            assert_eq!(number, acted);
            acted += 1;
            Ok(())
        });
        let done = done.expect("nothing fails");
        assert_eq!(done, acted);
        assert!((1..=50).contains(&done), "{done}");
    }
}
