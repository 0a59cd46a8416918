//! Connections by the thousand, held open by threads with descriptors of their own: a process may have too few.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow};
use rustix::{
    process::{Resource, getrlimit},
    thread::{UnshareFlags, unshare_unsafe},
};

use super::network::Gate;

/// Descriptors that are not the crowd's.
const OTHERS: u64 = 128;
/// Connections that one thread holds.
const MOST: u32 = 8_192;
/// Descriptors that a destination of [`Crowd::mixed`] takes.
const MIXED: u32 = 4;

/// The crowd; dropping it closes its sockets.
#[derive(Default)]
pub(crate) struct Crowd {
    holders: Vec<Holder>,
}

/// A thread that holds connections until it is told to end.
struct Holder {
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Opens so many connections in the calling thread's namespace, to so many destinations: each has two sockets.
    pub(crate) fn established(&mut self, connections: u32, destinations: u32) -> Result<()> {
        let holders = connections.div_ceil(descriptors() / 2).max(1);
        let share = |of: u32, holder: u32| {
            let part = u64::from(of) * u64::from(holder) / u64::from(holders);
            u32::try_from(part).unwrap_or(of)
        };
        for holder in 0..holders {
            let [connections, destinations] =
                [connections, destinations].map(|of| share(of, holder)..share(of, holder + 1));
            self.hold(move |gate| {
                let destinations = destinations.clone().cycle().take(connections.len());
                let pair = |destination| gate.connect(destination).map(<[TcpStream; 2]>::from);
                Ok(destinations.map(pair).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
            })?;
        }
        Ok(())
    }

    /// Opens four connections to each of so many destinations: one that is idle when the upstream closes it, one whose proxy
    /// gives up waiting for an answer, one that stays as it is and one that the upstream closes on its side. So each of the
    /// two pairs has two ways of closing, three states and two histograms.
    pub(crate) fn mixed(&mut self, destinations: u32) -> Result<()> {
        let each = descriptors() / MIXED;
        for first in (0..destinations).step_by(each as usize) {
            let share = first..destinations.min(first + each);
            self.hold(move |gate| {
                let mut held = Vec::new();
                for destination in share.clone() {
                    let (proxy, upstream) = gate.connect(destination)?;
                    drop(upstream);
                    drop(proxy);
                    let (mut proxy, mut upstream) = gate.connect(destination)?;
                    proxy.write_all(b"?").context("a request")?;
                    upstream.read_exact(&mut [0]).context("a request")?;
                    drop(proxy);
                    drop(upstream);
                    held.extend(<[TcpStream; 2]>::from(gate.connect(destination)?));
                    let (proxy, upstream) = gate.connect(destination)?;
                    upstream.shutdown(Shutdown::Write).context("closing one side")?;
                    held.extend([proxy, upstream]);
                }
                Ok(held)
            })?;
        }
        Ok(())
    }

    fn hold(&mut self, open: impl Fn(&Gate) -> Result<Vec<TcpStream>> + Send + 'static) -> Result<()> {
        let (end, goes_on) = mpsc::channel::<()>();
        let (report, outcome) = mpsc::channel();
        let holder = thread::spawn(move || {
            let held = with_own_descriptors().and_then(|()| {
                let gate = Gate::open()?;
                let held = open(&gate)?;
                Ok((gate, held))
            });
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

fn with_own_descriptors() -> Result<()> {
    // SAFETY: the calling thread uses no descriptor but those it opens from now on, and hands none out.
    unsafe { unshare_unsafe(UnshareFlags::FILES) }.context("descriptors of a thread's own")
}

/// How many descriptors one thread takes.
fn descriptors() -> u32 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u32::try_from(limit.saturating_sub(OTHERS)).unwrap_or(u32::MAX).clamp(MIXED, 2 * MOST)
}
