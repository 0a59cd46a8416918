//! Network namespaces with connections that are in use.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    AGE, Amount, Curve, PER_STATE_CHANGE, RESIDENT, SNAPSHOT, per_state_change, snapshot_milliseconds,
};
use crate::{
    bench::{
        network::{self, DESTINATIONS, Gate},
        usage::resident_bytes,
    },
    daemon::Daemon,
    interrupt,
};

/// How often something happens in each: a namespace in which nothing does is not read again.
const BEAT: Duration = Duration::from_millis(200);

/// A namespace with one connection in use, held by a thread.
struct Busy {
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Busy {
    fn begin() -> Result<Self> {
        let (end, goes_on) = mpsc::channel::<()>();
        let (report, begun) = mpsc::channel();
        let thread = thread::spawn(move || {
            network::enter()?;
            let gate = Gate::open()?;
            let (mut proxy, mut upstream) = gate.connect(0)?;
            // Somebody waits for it.
            _ = report.send(());
            while goes_on.recv_timeout(BEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
                proxy.write_all(b"?")?;
                upstream.read_exact(&mut [0])?;
            }
            Ok(())
        });
        let mut busy = Self { end: Some(end), thread: Some(thread) };
        if begun.recv().is_err() {
            let thread = busy.thread.take().context("it was just started")?;
            thread.join().map_err(|_panic| anyhow!("a thread in a namespace has ended"))??;
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        drop(self.end.take());
        // What went wrong in it went wrong at the end.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

pub(super) fn curve(binary: &Path, amount: Amount) -> Result<Curve> {
    network::alone(|| {
        let daemon = Daemon::private_with(binary, &["--snapshot-age", "1s"])?;
        let gate = Gate::open()?;
        let (mut busy, mut points) = (Vec::new(), Vec::new());
        for &namespaces in amount.namespaces {
            while busy.len() < namespaces as usize {
                busy.push(Busy::begin()?);
            }
            // Finds them.
            interrupt::pause(AGE)?;
            daemon.scrape()?;
            let per_state_change = per_state_change(&daemon, &gate, amount, DESTINATIONS)?;
            let snapshot = snapshot_milliseconds(&daemon, amount.readings)?;
            let resident = resident_bytes(daemon.pid())? as f64 / f64::from(1 << 20);
            points.push((f64::from(namespaces), vec![per_state_change, snapshot, resident]));
        }
        Ok(Curve::of("namespaces", &[PER_STATE_CHANGE, SNAPSHOT, RESIDENT], points))
    })
}
