//! From the kernel's ring buffer to records: named, numbered, kept and written to the file.

use std::{
    io,
    net::Ipv6Addr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aya::maps::{MapData, RingBuf};
use finwatch_ebpf::wire::{Incident, KEY_FOLDED, SIDE_PROXY};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};

use super::{Recorder, backends::Backends, file::IncidentFile};
use crate::{
    kernel::{
        listeners::Listeners,
        loader::{host_netns, jiffies_per_second},
        mapped::record,
        processes::name_of,
    },
    model::{
        incident::{IncidentRecord, Surroundings},
        labels::labels,
        observation::Process,
        source::NameSource,
    },
};

/// Incidents taken at once; more wait in the kernel, where there is room for so many and the rest is counted.
const BATCH: usize = 256;

/// Takes incidents in.
pub struct Intake {
    recorder: Arc<Recorder>,
    names: Arc<dyn NameSource>,
    listeners: Arc<Listeners>,
    backends: Option<Backends>,
    file: Option<IncidentFile>,
    file_works: bool,
    hz: u32,
    host_netns: u32,
    last_id: u64,
}

impl Intake {
    /// Hands over to `recorder` and, where there is one, to `file`; `backends` are told where they are asked for.
    pub fn new(
        recorder: Arc<Recorder>,
        names: Arc<dyn NameSource>,
        listeners: Arc<Listeners>,
        backends: Option<Backends>,
        file: Option<IncidentFile>,
    ) -> Self {
        Self {
            recorder,
            names,
            listeners,
            backends,
            file,
            file_works: true,
            hz: jiffies_per_second(),
            host_netns: host_netns(),
            last_id: 0,
        }
    }

    /// Takes in one incident. Reads files and may write one: not for a thread of the runtime.
    fn take(&mut self, incident: &Incident) {
        let key = &incident.key;
        let pair =
            labels(key, &self.names.addresses(), || self.names.workload(key, incident.pid).to_string());
        let process = if key.side == SIDE_PROXY {
            let name = if key.flags & KEY_FOLDED == 0 { pair.proxy.clone() } else { name_of(incident.pid) };
            (incident.pid != 0).then_some(Process { name, pid: incident.pid })
        } else {
            let local = &incident.endpoints;
            let address = Ipv6Addr::from(local.local).to_canonical();
            self.listeners.accepting(Some(local.netns), (address, local.local_port).into())
        };
        let netns = match incident.endpoints.netns {
            netns if netns == self.host_netns => "host".to_owned(),
            netns => netns.to_string(),
        };
        let around = Surroundings {
            id: self.last_id + 1,
            clocks: (SystemTime::now(), monotonic_ns()),
            hz: self.hz,
            pair,
            netns,
            process,
            backend: self.backends.as_mut().and_then(|backends| backends.of(incident)),
        };
        let Some(record) = IncidentRecord::read(incident, around) else { return };
        self.last_id = record.id;
        tracing::debug!(cause = ?record.cause, pair = record.pair_text(), "incident");
        let record = Arc::new(record);
        self.recorder.record(record.clone());
        self.write(&record);
    }

    fn write(&mut self, record: &IncidentRecord) {
        let Some(file) = &mut self.file else { return };
        let written =
            serde_json::to_string(record).map_err(io::Error::other).and_then(|line| file.append(&line));
        match written {
            Ok(()) if !self.file_works => {
                tracing::info!(path = %file.path().display(), "incidents are written to the file again");
                self.file_works = true;
            }
            Ok(()) => {}
            Err(error) => {
                self.recorder.count_file_error();
                if self.file_works {
                    let path = file.path().display();
                    tracing::warn!(
                        "cannot write to the incident file {path}: {error}; incidents are kept in memory only until \
                         there is room and the directory can be written"
                    );
                    self.file_works = false;
                }
            }
        }
    }
}

/// The kernel's ring buffer and who takes in what comes out of it.
pub struct Inflow {
    ring: AsyncFd<RingBuf<MapData>>,
    intake: Arc<Mutex<Intake>>,
    under_way: Option<JoinHandle<()>>,
}

impl Inflow {
    /// Of `ring`, within a runtime.
    ///
    /// # Errors
    /// When the ring buffer cannot be waited for.
    pub fn new(ring: RingBuf<MapData>, intake: Intake) -> io::Result<Self> {
        // SAFETY: the ring buffer owns its descriptor and keeps it open.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
        Ok(Self { ring, intake: Arc::new(Mutex::new(intake)), under_way: None })
    }

    /// Takes incidents in as they come, until the future is dropped.
    ///
    /// # Errors
    /// When the ring buffer cannot be waited for.
    pub async fn watch(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.ring.readable_mut().await?;
            let batch = batch(guard.get_inner_mut());
            if batch.is_empty() {
                guard.clear_ready();
                continue;
            }
            let intake = self.intake.clone();
            // One batch at a time: while a disk is slow the kernel keeps what it can and counts the rest.
            self.under_way = Some(tokio::task::spawn_blocking(move || take_all(&intake, &batch)));
            self.settle().await?;
        }
    }

    /// Waits for the batch that is being taken in; it stays known when this is given up.
    async fn settle(&mut self) -> io::Result<()> {
        if let Some(batch) = &mut self.under_way {
            batch.await.map_err(io::Error::other)?;
        }
        self.under_way = None;
        Ok(())
    }

    /// Takes in what is left in the ring buffer at the end.
    ///
    /// # Errors
    /// When the last batch could not be taken in.
    pub async fn finish(mut self) -> io::Result<()> {
        self.settle().await?;
        loop {
            let batch = batch(self.ring.get_mut());
            if batch.is_empty() {
                return Ok(());
            }
            take_all(&self.intake, &batch);
        }
    }
}

fn take_all(intake: &Mutex<Intake>, batch: &[Incident]) {
    let mut intake = intake.lock().unwrap_or_else(PoisonError::into_inner);
    for incident in batch {
        intake.take(incident);
    }
}

fn batch(ring: &mut RingBuf<MapData>) -> Vec<Incident> {
    let mut batch = Vec::new();
    while batch.len() < BATCH
        && let Some(item) = ring.next()
    {
        batch.extend(record::<Incident>(&item));
    }
    batch
}

/// CLOCK_MONOTONIC, the clock of `bpf_ktime_get_ns()`.
fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    assert!(result == 0, "every kernel has this clock");
    let whole = Duration::from_secs(now.tv_sec.cast_unsigned());
    let exact = whole + Duration::from_nanos(now.tv_nsec.cast_unsigned());
    u64::try_from(exact.as_nanos()).unwrap_or(u64::MAX)
}
