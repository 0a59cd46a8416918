//! Sockets by the thousand, half of them established and half in TIME_WAIT, in a namespace of their own.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::Stdio,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::{
    process::{Resource, getrlimit},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::host;

/// Addresses that connections come from and go to: a local destination is reached from itself.
const ADDRESSES: u8 = 16;
const PORT: u16 = 80;
/// Descriptors that are not the crowd's.
const OTHERS: u64 = 128;
/// Connections that one thread holds.
const MOST: usize = 8_192;

/// The crowd; dropping it closes its sockets.
pub(crate) struct Crowd {
    holders: Vec<Holder>,
}

/// A thread that holds connections until it is told to end.
struct Holder {
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Moves the calling thread into a new network namespace.
pub(crate) fn enter_namespace() -> Result<()> {
    // SAFETY: descriptors stay shared; only what this thread opens from now on belongs to another namespace.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("a network namespace")?;
    let addresses = (1..=ADDRESSES).map(|host| format!("addr add {}/32 dev lo\n", address(host)));
    let mut command = host::command("ip");
    let mut ip = command.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().context("starting ip")?;
    let batch = "link set lo up\n".to_owned() + &addresses.collect::<String>();
    ip.stdin.take().context("the pipe was asked for")?.write_all(batch.as_bytes())?;
    ensure!(ip.wait()?.success(), "ip failed");
    // Nothing leaves TIME_WAIT before its time, and nobody is refused.
    fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "0").context("tcp_tw_reuse")?;
    // In the initial namespace alone on old kernels, whose default is large enough.
    drop(fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "1000000"));
    Ok(())
}

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}

impl Crowd {
    /// Makes so many sockets in the calling thread's namespace.
    pub(crate) fn gather(sockets: usize) -> Result<Self> {
        let mut crowd = Self { holders: Vec::new() };
        let at_once = connections_per_holder();
        let (mut open, mut port) = (sockets / 4, PORT);
        while open > 0 {
            let share = open.min(at_once);
            crowd.hold(port, share)?;
            (open, port) = (open - share, port + 1);
        }
        let listeners = listen(port)?;
        for listener in listeners.iter().cycle().take(sockets / 2) {
            let (proxy, upstream) = connect(listener)?;
            drop(proxy);
            drop(upstream);
        }
        Ok(crowd)
    }

    /// Connections that a thread of their own holds, with descriptors of its own: a process may have too few.
    fn hold(&mut self, port: u16, connections: usize) -> Result<()> {
        let (end, goes_on) = mpsc::channel::<()>();
        let (report, outcome) = mpsc::channel();
        let holder = thread::spawn(move || {
            let held = connections_to(port, connections);
            let is_there = held.is_ok();
            let made = held.as_ref().map(|_| ()).map_err(|error| format!("{error:#}"));
            // Until the crowd is dropped.
            if report.send(made).is_ok() && is_there {
                _ = goes_on.recv();
            }
        });
        self.holders.push(Holder { end: Some(end), thread: Some(holder) });
        outcome.recv().context("a thread that holds connections has ended")?.map_err(|error| anyhow!(error))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            drop(holder.end.take());
            if let Some(thread) = holder.thread.take() {
                // A panic of its own has been printed.
                drop(thread.join());
            }
        }
    }
}

fn connections_to(port: u16, connections: usize) -> Result<Vec<(TcpStream, TcpStream)>> {
    // SAFETY: this thread uses no descriptor but those it opens from now on, and hands none out.
    unsafe { unshare_unsafe(UnshareFlags::FILES) }.context("descriptors of a thread's own")?;
    let listeners = listen(port)?;
    listeners.iter().cycle().take(connections).map(connect).collect()
}

fn listen(port: u16) -> Result<Vec<TcpListener>> {
    let bind = |host| TcpListener::bind((address(host), port)).context("listening");
    (1..=ADDRESSES).map(bind).collect()
}

fn connect(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let proxy = TcpStream::connect(listener.local_addr()?).context("connecting")?;
    let (upstream, _) = listener.accept().context("accepting")?;
    Ok((proxy, upstream))
}

/// Each takes two descriptors.
fn connections_per_holder() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(OTHERS) / 2).unwrap_or(usize::MAX).clamp(1, MOST)
}
