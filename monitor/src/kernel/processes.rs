//! Who holds which socket, from `/proc`: for connections whose beginning nobody saw.

use std::{fs, os::unix::ffi::OsStrExt as _, path::Path};

use aya::maps::{HashMap, MapData, MapError};
use finwatch_ebpf::{levels::Process, wire::COMM_LEN};

use super::namespaces;
use crate::model::labels::process_name;

/// What newer Node.js calls its main thread, whatever the program.
const GENERIC: &str = "MainThread";
/// Keys that are in memory at once.
const EMPTIED_AT_ONCE: usize = 4_096;
/// Flag of a map update: only where the key is new.
const NOEXIST: u64 = 1;

/// The table in which a walk looks up who holds a socket.
pub struct Processes {
    table: HashMap<MapData, u64, Process>,
}

impl Processes {
    /// Fills and empties `table`.
    pub fn new(table: HashMap<MapData, u64, Process>) -> Self {
        Self { table }
    }

    /// Looks at every open file of every process. Of several holders the first is taken. Processes come and go: what
    /// cannot be read is gone.
    pub fn fill(&mut self) {
        for directory in namespaces::processes() {
            let Some(pid) = directory.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
                continue;
            };
            let mut process = None;
            for inode in sockets(&directory) {
                let process = *process.get_or_insert_with(|| Process { name: name(&directory), pid });
                match self.table.insert(inode, process, NOEXIST) {
                    // Held by another process too; or no room, and the process stays unknown.
                    Ok(()) | Err(MapError::SyscallError(_)) => {}
                    Err(error) => tracing::debug!(%error, "the table of processes cannot be filled"),
                }
            }
        }
    }

    /// The name of the process that holds a socket, while the table is filled.
    pub fn holder(&self, inode: u64) -> Option<[u8; COMM_LEN]> {
        self.table.get(&inode, 0).ok().map(|process| process.name)
    }

    /// Gives the memory back, and forgets inode numbers before they are used again.
    pub fn empty(&mut self) {
        loop {
            let some: Vec<u64> = self.table.keys().take(EMPTIED_AT_ONCE).filter_map(Result::ok).collect();
            if some.is_empty() || some.iter().any(|inode| self.table.remove(inode).is_err()) {
                return;
            }
        }
    }
}

/// The inode numbers of the sockets that a process holds.
pub(super) fn sockets(process: &Path) -> impl Iterator<Item = u64> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    files.filter_map(|file| {
        let target = fs::read_link(file.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// The name of the process `pid` as labels print it; empty when it is gone.
pub fn name_of(pid: u32) -> String {
    printed_name(&Path::new("/proc").join(pid.to_string()))
}

/// A process's name as labels print it.
pub(super) fn printed_name(process: &Path) -> String {
    process_name(&name(process))
}

/// The thread group leader's name; the executable's where that name says nothing.
fn name(process: &Path) -> [u8; COMM_LEN] {
    let comm = fs::read(process.join("comm")).unwrap_or_default();
    let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
    let executable = (comm == GENERIC.as_bytes())
        .then(|| fs::read_link(process.join("exe")).ok())
        .flatten()
        .and_then(|path| path.file_name().map(|name| name.as_bytes().to_owned()));
    padded(executable.as_deref().unwrap_or(comm))
}

/// Cut as the kernel cuts it: the last byte is always 0.
fn padded(name: &[u8]) -> [u8; COMM_LEN] {
    let mut padded = [0; COMM_LEN];
    for (to, from) in padded[..COMM_LEN - 1].iter_mut().zip(name) {
        *to = *from;
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_socket_is_ours() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let link = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&socket)));
        let inode = link.expect("a link").to_string_lossy().replace("socket:[", "").replace(']', "");
        assert!(sockets(Path::new("/proc/self")).any(|found| found.to_string() == inode));
        assert_ne!(name(Path::new("/proc/self")), [0; COMM_LEN]);
    }

    #[test]
    fn names_are_cut_as_the_kernel_cuts_them() {
        assert_eq!(&padded(b"node"), b"node\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&padded(b"a-name-that-is-too-long"), b"a-name-that-is-\0");
    }
}
