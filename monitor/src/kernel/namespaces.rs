//! The host's network namespaces: where they are, and how a thread gets into them and back.
//!
//! Paths are kept, never descriptors: an open descriptor would keep a namespace alive that everybody else has left.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use finwatch_ebpf::levels::MAX_NAMESPACES;

use crate::model::{port_range::PortRange, protocol_counters::counter};

/// Processes, and threads, that one scan looks at.
const MAX_PATHS: usize = 262_144;

/// All network namespaces by inode number, each with a path to it: those of processes and of their other threads, and
/// those that are only mounted somewhere (`ip netns`, container runtimes). Threads are looked at where `thorough` says so,
/// or one of those that were `announced` is not found otherwise: where the first is, the others are too, most often.
pub fn scan(announced: &[u32], thorough: bool) -> HashMap<u32, PathBuf> {
    let mut found = HashMap::new();
    // Mounts first: they outlive processes.
    let lasting = mounted().into_iter().chain(processes().map(|process| process.join("ns/net")));
    add(&mut found, lasting);
    if thorough || announced.iter().any(|inode| !found.contains_key(inode)) {
        add(&mut found, processes().flat_map(|process| threads(&process)));
    }
    found
}

fn add(found: &mut HashMap<u32, PathBuf>, paths: impl Iterator<Item = PathBuf>) {
    for path in paths.take(MAX_PATHS) {
        if let Some(inode) = inode(&path).filter(|_| found.len() < MAX_NAMESPACES as usize) {
            found.entry(inode).or_insert(path);
        }
    }
}

/// The namespaces of a process's threads but the first.
fn threads(process: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let first = process.file_name().map(ToOwned::to_owned);
    let tasks = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    tasks.filter(move |task| Some(task.file_name()) != first).map(|task| task.path().join("ns/net"))
}

/// The directories of all processes in `/proc`.
pub(super) fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .map(|entry| entry.path())
}

/// Namespaces mounted where we see them, and where PID 1 does: a service may have mounts of its own.
fn mounted() -> Vec<PathBuf> {
    let seen_by = |mounts: &str, root: &str| {
        let text = fs::read_to_string(mounts).unwrap_or_default();
        let path = |line: &str| {
            let mut fields = line.split(' ').skip(3);
            let (what, place) = (fields.next()?, fields.next()?);
            what.starts_with("net:[").then(|| Path::new(root).join(place.trim_start_matches('/')))
        };
        text.lines().filter_map(path).collect::<Vec<_>>()
    };
    [seen_by("/proc/self/mountinfo", "/"), seen_by("/proc/1/mountinfo", "/proc/1/root")].concat()
}

/// The inode number of the namespace that a path leads to.
pub(super) fn inode(path: &Path) -> Option<u32> {
    u32::try_from(fs::metadata(path).ok()?.ino()).ok()
}

/// The namespace that a thread belongs to, for going home.
pub struct Home {
    namespace: File,
    inode: u32,
}

impl Home {
    /// The calling thread's.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn new() -> io::Result<Self> {
        let namespace = File::open("/proc/thread-self/ns/net")?;
        let inode = u32::try_from(namespace.metadata()?.ino()).map_err(io::Error::other)?;
        Ok(Self { namespace, inode })
    }

    /// Does something in another namespace and comes back. For threads of its own only: whatever else the thread does
    /// meanwhile happens there.
    ///
    /// # Errors
    /// `NotFound` when the namespace is gone; otherwise when it may not be entered.
    ///
    /// # Panics
    /// When the way back is barred, which the kernel never does to whoever was let in.
    pub fn visit<T>(&self, inode: u32, path: &Path, act: impl FnOnce() -> T) -> io::Result<T> {
        if inode == self.inode {
            return Ok(act());
        }
        let namespace = File::open(path)?;
        if namespace.metadata()?.ino() != u64::from(inode) {
            return Err(io::ErrorKind::NotFound.into());
        }
        enter(&namespace)?;
        drop(namespace);
        let result = act();
        enter(&self.namespace).expect("a thread may return to the namespace it came from");
        Ok(result)
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: moves the calling thread; the descriptor is open.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a namespace says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its ephemeral ports.
    pub range: PortRange,
    /// TCP segments in and out: while they stand still, nothing happens.
    pub segments: u64,
    /// How many timewait sockets it may hold (`tcp_max_tw_buckets`).
    pub time_wait_limit: u64,
    /// Connections that could not enter TIME_WAIT (`TCPTimeWaitOverflow`).
    pub time_wait_overflow: u64,
}

impl Facts {
    /// Those of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// When `/proc` cannot be read or says something else than expected.
    pub fn read() -> io::Result<Self> {
        let setting = |name| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        let range = PortRange::parse(
            &setting("ip_local_port_range")?,
            // Older than every supported kernel, but absent in some sandboxes.
            &setting("ip_local_reserved_ports").unwrap_or_default(),
        );
        // Not /proc/net, which shows the namespace of the process's first thread.
        let snmp = fs::read_to_string("/proc/thread-self/net/snmp")?;
        let netstat = fs::read_to_string("/proc/thread-self/net/netstat")?;
        let segments = |name| counter(&snmp, "Tcp", name).unwrap_or(0);
        Ok(Self {
            range: range.ok_or_else(|| io::Error::other("ip_local_port_range holds no range"))?,
            segments: segments("InSegs").wrapping_add(segments("OutSegs")),
            // Initial network namespaces of old kernels alone have it; 0 stands for unknown.
            time_wait_limit: setting("tcp_max_tw_buckets")
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0),
            time_wait_overflow: counter(&netstat, "TcpExt", "TCPTimeWaitOverflow").unwrap_or(0),
        })
    }
}
