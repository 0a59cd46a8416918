//! Instances of tracefs, mounted where nobody else sees it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process,
    sync::Mutex,
    thread,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    thread::{UnshareFlags, unshare_unsafe},
};

const PREFIX: &str = "finwatch-";
/// What goes with the process.
static OWN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A trace of its own, until the process ends.
pub(crate) struct Instance {
    directory: PathBuf,
    _root: File,
}

impl Instance {
    /// Makes one for this process and `purpose`; `None` where the kernel offers no tracefs.
    pub(crate) fn new(purpose: &str) -> Option<Self> {
        // The mount is for the thread that makes it alone.
        let root = thread::spawn(mount_tracefs).join().ok()?.ok()?;
        let base = PathBuf::from(format!("/proc/self/fd/{}/instances", root.as_raw_fd()));
        remove_stale(&base);
        let directory = base.join(format!("{PREFIX}{purpose}-{}", process::id()));
        fs::create_dir(&directory).ok()?;
        let mut own = OWN.lock().ok()?;
        if own.is_empty() {
            // SAFETY: `remove_own` is a plain function that takes nothing.
            unsafe { libc::atexit(remove_own) };
        }
        own.push(directory.clone());
        Some(Self { directory, _root: root })
    }

    /// Writes to one of its files; where the file is a list, adds to it.
    pub(crate) fn set(&self, file: &str, text: &str) -> Option<()> {
        let mut file = OpenOptions::new().append(true).open(self.directory.join(file)).ok()?;
        file.write_all(text.as_bytes()).ok()
    }

    /// What has been traced; `None` where events were written over for want of room.
    pub(crate) fn text(&self) -> Option<String> {
        if self.overrun() > 0 {
            eprintln!(
                "so much happens elsewhere on this host that a trace has overrun: nothing is compared with it"
            );
            return None;
        }
        // Names of processes are bytes.
        fs::read(self.directory.join("trace")).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    fn overrun(&self) -> u64 {
        let processors = fs::read_dir(self.directory.join("per_cpu")).into_iter().flatten().flatten();
        let lost = |stats: String| {
            stats.lines().find_map(|line| line.strip_prefix("overrun: ")?.parse::<u64>().ok())
        };
        processors.filter_map(|one| lost(fs::read_to_string(one.path().join("stats")).ok()?)).sum()
    }
}

extern "C" fn remove_own() {
    for own in OWN.lock().iter().flat_map(|own| own.iter()) {
        drop(fs::remove_dir(own));
    }
}

/// Mounts it and keeps only the directory open.
fn mount_tracefs() -> io::Result<File> {
    // SAFETY: descriptors are not touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let place = tempfile::tempdir()?;
    mount("tracefs", place.path(), "tracefs", MountFlags::empty(), None)?;
    let root = File::open(place.path());
    unmount(place.path(), UnmountFlags::DETACH)?;
    root
}

/// Instances of processes that were killed.
fn remove_stale(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((_, pid)) = name.strip_prefix(PREFIX).and_then(|name| name.rsplit_once('-')) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            drop(fs::remove_dir(entry.path()));
        }
    }
}
