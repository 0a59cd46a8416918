//! The load: a process in a network namespace of its own that opens and ends connections in every way whose counts do not
//! hang on time, and tells how many of each.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    ops::AddAssign,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv, sockopt::set_socket_linger},
    thread::{UnshareFlags, unshare_unsafe},
};
use serde::{Deserialize, Serialize};

use crate::{
    host, interrupt,
    process::{self, Running},
};

/// Where the accepting ends listen.
pub(crate) const PORT: u16 = 7_200;
/// Where nobody does.
pub(crate) const CLOSED_PORT: u16 = 7_201;
/// How long one step of a connection may take on a machine that has other things to do.
const STEP_LIMIT: Duration = Duration::from_secs(20);
/// What a process may take beyond the time it is told.
const MARGIN: Duration = Duration::from_mins(1);
const REQUEST: [u8; 200] = [b'q'; 200];
const ANSWER: [u8; 100] = [b'a'; 100];

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// After an exchange, by the end that opened it.
    OpenerCloses,
    /// After an exchange, by the end that accepted it.
    AcceptorCloses,
    /// Unused, with a reset (`SO_LINGER` 0) of the end that opened it.
    OpenerAborts,
    /// Unused, with a reset of the end that accepted it.
    AcceptorAborts,
    /// The end that accepted it closes with the first request unread.
    RequestUnread,
    /// It is never opened: nobody listens.
    Refused,
}

/// What is played over and over.
const CYCLE: [Kind; 16] = {
    use Kind::{AcceptorAborts, AcceptorCloses, OpenerAborts, OpenerCloses, Refused, RequestUnread};
    [
        OpenerCloses,
        AcceptorCloses,
        OpenerCloses,
        OpenerAborts,
        AcceptorCloses,
        OpenerCloses,
        AcceptorAborts,
        AcceptorCloses,
        OpenerCloses,
        RequestUnread,
        AcceptorCloses,
        OpenerCloses,
        AcceptorCloses,
        Refused,
        OpenerCloses,
        AcceptorCloses,
    ]
};

/// How many connections ended in which way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    #[serde(flatten)]
    by_kind: BTreeMap<Kind, u64>,
    /// Closes that had not happened when close() returned: another task held the file at that moment, and whoever lets go of it
    /// last closes the socket. Where that is a task in whose context nobody can see transitions, nobody has seen this one.
    #[serde(default)]
    closed_by_others: u64,
}

impl Totals {
    /// Those of that kind.
    pub(crate) fn of(&self, kind: Kind) -> u64 {
        self.by_kind.get(&kind).copied().unwrap_or(0)
    }

    /// All of them, those that were refused included.
    pub(crate) fn all(&self) -> u64 {
        self.by_kind.values().sum()
    }

    /// Each kind.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Kind, u64)> {
        self.by_kind.iter().map(|(kind, count)| (*kind, *count))
    }

    /// Closes that another task may have carried out.
    pub(crate) fn closed_by_others(&self) -> u64 {
        self.closed_by_others
    }

    fn count(&mut self, kind: Kind, close: Close) {
        *self.by_kind.entry(kind).or_default() += 1;
        self.closed_by_others += u64::from(close == Close::ByAnother);
    }
}

impl AddAssign<&Self> for Totals {
    fn add_assign(&mut self, other: &Self) {
        for (kind, count) in &other.by_kind {
            *self.by_kind.entry(*kind).or_default() += count;
        }
        self.closed_by_others += other.closed_by_others;
    }
}

/// Who carried out a close().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    /// The task that called it: on loopback the other end knows when it returns.
    ByCaller,
    /// Perhaps another one: the other end knew only later.
    ByAnother,
}

/// What each accepting end has seen.
pub(crate) type ByUpstream = BTreeMap<Ipv4Addr, Totals>;

/// What the process is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Its name
    #[arg(long)]
    name: String,
    /// Addresses of accepting ends, each with a thread of its own
    #[arg(long = "upstream", required = true)]
    upstreams: Vec<Ipv4Addr>,
    /// How long it opens connections
    #[arg(long)]
    milliseconds: u64,
}

/// A process under way.
pub(crate) struct Load {
    running: Running,
    time: Duration,
}

impl Load {
    /// Starts one: this very program, even where it has been built anew since.
    pub(crate) fn start(name: &str, upstreams: &[Ipv4Addr], time: Duration) -> Result<Self> {
        let mut command = host::command("/proc/self/exe");
        command.args(["soak-load", "--name", name, "--milliseconds", &time.as_millis().to_string()]);
        for upstream in upstreams {
            command.args(["--upstream", &upstream.to_string()]);
        }
        let running = Running::spawn("the load", command.stdout(Stdio::piped()))?;
        Ok(Self { running, time })
    }

    /// What it has done, once it has ended.
    pub(crate) fn finish(mut self) -> Result<ByUpstream> {
        let mut out = self.running.child().stdout.take().context("the pipe was asked for")?;
        let status = self.running.wait(self.time + MARGIN)?;
        ensure!(status.success(), "the load failed ({status})");
        let mut told = String::new();
        out.read_to_string(&mut told).context("the load's totals")?;
        serde_json::from_str(&told).context("the load's totals")
    }
}

/// What the process does.
pub(crate) fn command(args: &Args) -> Result<()> {
    fs::write("/proc/self/comm", &args.name).context("naming the process")?;
    // SAFETY: descriptors are not touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("making a network namespace")?;
    process::run("ip", host::command("ip").args(["link", "set", "lo", "up"]), STEP_LIMIT)?;
    let end = Instant::now() + Duration::from_millis(args.milliseconds);
    let totals = thread::scope(|scope| {
        let threads: Vec<_> = args
            .upstreams
            .iter()
            .map(|&upstream| (upstream, scope.spawn(move || play_until(end, upstream))))
            .collect();
        let joined = threads.into_iter().map(|(upstream, thread)| {
            let totals = thread.join().map_err(|_| anyhow!("the thread of {upstream} panicked"))??;
            Ok((upstream, totals))
        });
        joined.collect::<Result<ByUpstream>>()
    })?;
    println!("{}", serde_json::to_string(&totals)?);
    Ok(())
}

fn play_until(end: Instant, upstream: Ipv4Addr) -> Result<Totals> {
    let listener = TcpListener::bind((upstream, PORT)).with_context(|| format!("listening on {upstream}"))?;
    let mut totals = Totals::default();
    for kind in CYCLE.into_iter().cycle() {
        if Instant::now() >= end || interrupt::seen() {
            break;
        }
        let close = play(kind, &listener)
            .with_context(|| format!("{kind:?} with {upstream}, after {} connections", totals.all()))?;
        totals.count(kind, close);
    }
    Ok(totals)
}

/// One connection from its beginning to its end.
fn play(kind: Kind, listener: &TcpListener) -> Result<Close> {
    let address = listener.local_addr().context("the listener's address")?;
    if kind == Kind::Refused {
        return refused(address.ip());
    }
    let mut opener = TcpStream::connect(address).context("opening")?;
    let (mut acceptor, _) = listener.accept().context("accepting")?;
    for end in [&opener, &acceptor] {
        end.set_read_timeout(Some(STEP_LIMIT)).context("a limit")?;
    }
    match kind {
        Kind::OpenerCloses => {
            exchange(&mut opener, &mut acceptor)?;
            drop(opener);
            end_of_stream(&acceptor)
        }
        Kind::AcceptorCloses => {
            exchange(&mut opener, &mut acceptor)?;
            drop(acceptor);
            end_of_stream(&opener)
        }
        Kind::OpenerAborts => {
            abort(opener)?;
            reset(&acceptor)
        }
        Kind::AcceptorAborts => {
            abort(acceptor)?;
            reset(&opener)
        }
        Kind::RequestUnread => {
            opener.write_all(&REQUEST).context("a request")?;
            acceptor.peek(&mut [0]).context("the request")?;
            drop(acceptor);
            reset(&opener)
        }
        Kind::Refused => Ok(Close::ByCaller),
    }
}

fn refused(host: IpAddr) -> Result<Close> {
    match TcpStream::connect(SocketAddr::new(host, CLOSED_PORT)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Close::ByCaller),
        other => Err(anyhow!("nobody listens on port {CLOSED_PORT}, but: {other:?}")),
    }
}

fn exchange(opener: &mut TcpStream, acceptor: &mut TcpStream) -> Result<()> {
    opener.write_all(&REQUEST).context("a request")?;
    acceptor.read_exact(&mut [0; REQUEST.len()]).context("the request")?;
    acceptor.write_all(&ANSWER).context("an answer")?;
    opener.read_exact(&mut [0; ANSWER.len()]).context("the answer")
}

fn abort(end: TcpStream) -> Result<()> {
    set_socket_linger(&end, Some(Duration::ZERO)).context("SO_LINGER")?;
    drop(end);
    Ok(())
}

/// The far end was closed; then this one, in its own task whoever holds the file: nobody is left to notice a late close.
fn end_of_stream(end: &TcpStream) -> Result<Close> {
    let (close, bytes) = far_end_closed(end);
    ensure!(bytes.context("the end of the stream")? == 0, "data where the stream should end");
    end.shutdown(Shutdown::Write).context("closing the other end")?;
    Ok(close)
}

/// What can be read after the far end was closed: at once, where its own task has done that.
fn far_end_closed(mut end: &TcpStream) -> (Close, io::Result<usize>) {
    match recv(end, &mut [0; 1], RecvFlags::DONTWAIT) {
        Err(Errno::AGAIN) => (Close::ByAnother, end.read(&mut [0])),
        read => (Close::ByCaller, read.map(|(_, bytes)| bytes).map_err(Into::into)),
    }
}

fn reset(end: &TcpStream) -> Result<Close> {
    match far_end_closed(end) {
        (close, Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ok(close),
        (_, other) => Err(anyhow!("a reset should have come, but: {other:?}")),
    }
}
