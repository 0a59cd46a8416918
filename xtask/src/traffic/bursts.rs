//! Requests as clients send them: all at once, then a pause about as long as the upstream keeps an idle connection.

use std::{
    io::ErrorKind,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{clients::post_at, node::IdleTimeout};
use crate::interrupt;

/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// The pauses walk over the time around the upstream's timeout, in so many steps.
const STEPS: u32 = 5;
/// How long before its moment a burst's threads are started.
const READY: Duration = Duration::from_millis(50);
/// How far to either side of the timeout a walk goes: about half as long as the upstream's event loop blocks; then twice and four
/// times as far, since on a busy machine the timeout may have been measured too short or too long.
const AROUND: Duration = Duration::from_millis(15);
/// How many widths there are, each twice the one before.
const WIDTHS: u32 = 3;

/// Where a proxy listens.
#[derive(Debug)]
enum Front {
    Port(u16),
    Socket(PathBuf),
}

/// Bursts of requests through a proxy, and how far they have come.
#[derive(Debug)]
pub(crate) struct Bursts {
    front: Front,
    size: usize,
    idle: IdleTimeout,
    done: u32,
    /// When half of the last burst was answered.
    answered: Option<Instant>,
}

impl Bursts {
    /// Bursts of `size` requests to `port`, paced by an upstream that keeps idle connections so long.
    pub(crate) fn new(port: u16, size: usize, idle: IdleTimeout) -> Self {
        Self::to(Front::Port(port), size, idle)
    }

    /// The same to a Unix socket, for a proxy in another network namespace.
    pub(crate) fn at(socket: PathBuf, size: usize, idle: IdleTimeout) -> Self {
        Self::to(Front::Socket(socket), size, idle)
    }

    fn to(front: Front, size: usize, idle: IdleTimeout) -> Self {
        Self { front, size, idle, done: 0, answered: None }
    }

    /// From here on they are paced by another time.
    pub(crate) fn pace(&mut self, idle: IdleTimeout) {
        self.idle = idle;
    }

    /// How many there were.
    pub(crate) fn done(&self) -> u32 {
        self.done
    }

    /// Waits for its moment, then sends one burst and reads every answer.
    pub(crate) fn next(&mut self) -> Result<()> {
        let soonest = Instant::now() + READY;
        let at = self.answered.map_or(soonest, |answered| soonest.max(answered + self.gap()));
        interrupt::pause(at.saturating_duration_since(soonest))?;
        let front = &self.front;
        let mut answered = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.size).map(|number| scope.spawn(move || request(front, number, at))).collect();
            let answers = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("a client thread panicked")));
            answers.collect::<Result<Vec<Instant>>>()
        })?;
        self.done += 1;
        answered.sort();
        self.answered = answered.get(answered.len() / 2).copied();
        Ok(())
    }

    /// Walks from a little before the upstream's timeout to a little after it.
    fn gap(&self) -> Duration {
        let around = AROUND * (1 << (self.done / STEPS % WIDTHS));
        (self.idle.median + 2 * around * (self.done % STEPS) / (STEPS - 1)).saturating_sub(around)
    }
}

/// One request, sent at that moment on a connection of its own, its answer read and dropped: the proxy's logs are what
/// counts. The moment of the answer.
fn request(front: &Front, number: usize, at: Instant) -> Result<Instant> {
    match front {
        Front::Port(port) => order(*port, number, at)?,
        Front::Socket(socket) => {
            sleep_until(at);
            post_at(socket, "/")?;
        }
    }
    Ok(Instant::now())
}

fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// nginx sends a failed GET again on another connection and hides the loss from its client; what a POST was meant to do
/// may have been done already, so its failure is answered 502. Real traffic has both.
fn order(port: u16, number: usize, at: Instant) -> Result<()> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(REQUEST_LIMIT))
        .http_status_as_error(false)
        .user_agent("finwatch-traffic/1.0 (bursts around the upstream's keep-alive timeout)")
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let url = format!("http://127.0.0.1:{port}/orders/{number}");
    sleep_until(at);
    let answer = if number.is_multiple_of(4) {
        agent.get(&url).call()
    } else {
        agent.post(&url).content_type("application/json").send("{\"quantity\":1}")
    };
    match answer.and_then(|mut answer| answer.body_mut().read_to_vec()) {
        // HAProxy may close without an answer where the upstream did; its log tells.
        Err(ureq::Error::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => {}
        answer => drop(answer.context("a request through the proxy")?),
    }
    Ok(())
}
