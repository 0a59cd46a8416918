//! Names the workload of each pair from the control group its socket was made in.
//!
//! An id of control group version 2 is the inode number of its directory, so one walk of the tree below the cgroup2
//! mount resolves any number of ids. Where that tells nothing (the group is the root, or lies outside of the mount), the
//! process's own `/proc/<pid>/cgroup` is asked. All of it happens in [`Workloads::refresh`], never during a scrape.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    fs,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use finwatch_ebpf::wire::{KEY_FOLDED, PairKey, SIDE_PROXY};

use crate::model::{source::PairSource, workload::workload};

/// Directories one refresh looks into at most; a host with 300 pods has about 1,500.
const MAX_DIRECTORIES: usize = 20_000;
/// Processes one refresh asks at most.
const MAX_PROCESSES: usize = 256;
/// After this long an unknown control group is looked for again.
const RETRY: Duration = Duration::from_mins(1);

/// What names a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    /// The control group with this id.
    Group(u64),
    /// The process that opened the pair's first connection, with its name: process ids are used again.
    Process(u32, [u8; 16]),
}

#[derive(Debug)]
enum Answer {
    Known(Arc<str>),
    UnknownSince(Instant),
}

/// The workloads of all pairs, as of the last refresh.
#[derive(Debug)]
pub struct Workloads {
    tree: Option<Tree>,
    answers: RwLock<HashMap<Origin, Answer>>,
    nameless: Arc<str>,
}

impl Workloads {
    /// Finds this host's cgroup2 mount.
    pub fn new() -> Self {
        Self::below(Tree::mounted())
    }

    fn below(tree: Option<Tree>) -> Self {
        Self { tree, answers: RwLock::default(), nameless: "".into() }
    }

    /// Looks up what is new among the pairs and forgets what no pair needs any more. Costs a walk of the control
    /// groups when a new one has appeared; to be called about once a second.
    /// `listeners` stand for listening sockets, which may have no pair yet.
    pub fn refresh(&self, pairs: &dyn PairSource, listeners: &[PairKey]) {
        let of_pairs = (0..pairs.slots()).filter_map(|slot| {
            let key = pairs.key(slot)?;
            let pid = pairs.pid(slot);
            Some((self.origin(&key, pid)?, pid))
        });
        let of_listeners = listeners.iter().filter_map(|key| Some((self.origin(key, 0)?, 0)));
        // A pair's process can be asked where its control group tells nothing, so pairs come last.
        let open = self.forget_all_but(&of_listeners.chain(of_pairs).collect());
        let groups = open.iter().filter_map(|(origin, _)| match origin {
            Origin::Group(id) => Some(*id),
            Origin::Process(..) => None,
        });
        let mut paths = self.tree.as_ref().map(|tree| tree.find(groups.collect())).unwrap_or_default();
        let mut processes = 0;
        for (origin, pid) in open {
            let path = match origin {
                Origin::Group(id) => paths.remove(&id),
                Origin::Process(..) => None,
            };
            if path.is_none() && processes == MAX_PROCESSES {
                continue;
            }
            let path = path.or_else(|| {
                processes += 1;
                path_of_process(pid)
            });
            let answer = match path {
                Some(path) => Answer::Known(workload(&path).into()),
                None => Answer::UnknownSince(Instant::now()),
            };
            self.answers.write().unwrap_or_else(PoisonError::into_inner).insert(origin, answer);
        }
    }

    /// Every workload there is, by its id.
    pub fn known(&self) -> BTreeSet<Arc<str>> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        let known = answers.values().filter_map(|answer| match answer {
            Answer::Known(workload) => Some(workload.clone()),
            Answer::UnknownSince(_) => None,
        });
        known.collect()
    }

    /// Keeps the answers that are needed; returns the questions that are open, each with a process to ask.
    fn forget_all_but(&self, needed: &HashMap<Origin, u32>) -> Vec<(Origin, u32)> {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|origin, _| needed.contains_key(origin));
        let is_open = |origin: &Origin| match answers.get(origin) {
            None => true,
            Some(Answer::Known(_)) => false,
            Some(Answer::UnknownSince(since)) => since.elapsed() >= RETRY,
        };
        needed.iter().filter(|(origin, _)| is_open(origin)).map(|(origin, pid)| (*origin, *pid)).collect()
    }

    fn origin(&self, key: &PairKey, pid: u32) -> Option<Origin> {
        let root = self.tree.as_ref().map(|tree| tree.root_id);
        if key.flags & KEY_FOLDED != 0 {
            None
        } else if key.cgroup != 0 && root.is_some_and(|root| root != key.cgroup) {
            Some(Origin::Group(key.cgroup))
        } else if pid == 0 {
            None
        } else {
            Some(Origin::Process(pid, if key.side == SIDE_PROXY { key.proxy } else { [0; 16] }))
        }
    }
}

impl Default for Workloads {
    fn default() -> Self {
        Self::new()
    }
}

impl Workloads {
    /// The systemd unit, container or pod of a pair's local process; empty when unknown.
    pub fn workload(&self, key: &PairKey, pid: u32) -> Arc<str> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        match self.origin(key, pid).and_then(|origin| answers.get(&origin)) {
            Some(Answer::Known(workload)) => Arc::clone(workload),
            Some(Answer::UnknownSince(_)) | None => Arc::clone(&self.nameless),
        }
    }
}

/// The tree of control groups of version 2.
#[derive(Debug)]
struct Tree {
    mount: PathBuf,
    root_id: u64,
}

impl Tree {
    fn mounted() -> Option<Self> {
        let mounts = procfs::process::Process::myself().and_then(|process| process.mountinfo()).ok()?;
        let mount = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2")?.mount_point;
        Self::at(mount)
    }

    fn at(mount: PathBuf) -> Option<Self> {
        let root_id = fs::metadata(&mount).ok()?.ino();
        Some(Self { mount, root_id })
    }

    /// The paths of the groups with these ids, as far as they exist, by walking breadth first.
    fn find(&self, mut wanted: HashSet<u64>) -> HashMap<u64, String> {
        let mut found = HashMap::new();
        let mut open = VecDeque::from([self.mount.clone()]);
        let mut visited = 0;
        while let Some(directory) = open.pop_front() {
            if wanted.is_empty() || visited == MAX_DIRECTORIES {
                break;
            }
            visited += 1;
            for (id, path) in subdirectories(&directory) {
                if wanted.remove(&id) {
                    found.insert(id, self.name(&path));
                }
                open.push_back(path);
            }
        }
        found
    }

    fn name(&self, path: &Path) -> String {
        format!("/{}", path.strip_prefix(&self.mount).unwrap_or(path).to_string_lossy())
    }
}

/// A directory's subdirectories with their inode numbers. Control groups come and go: what cannot be read is gone.
fn subdirectories(directory: &Path) -> impl Iterator<Item = (u64, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| (entry.ino(), entry.path()))
}

/// The process's control group: that of version 2, or that of systemd where version 2 is not in use.
fn path_of_process(pid: u32) -> Option<String> {
    // There is no process 0: it stands for an unknown one.
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    path_in(&text).map(str::to_owned)
}

fn path_in(text: &str) -> Option<&str> {
    let path = |prefix: &str| {
        text.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(prefix)).filter(|path| *path != "/")
    };
    path(":").or_else(|| path("name=systemd:")).or_else(|| text.lines().next().map(|_| "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_inode_number() {
        let directory = tempfile::tempdir().expect("a directory");
        let unit = directory.path().join("system.slice/nginx.service");
        fs::create_dir_all(&unit).expect("a directory");
        let id = fs::metadata(&unit).expect("metadata").ino();
        let tree = Tree::at(directory.path().to_owned()).expect("a tree");
        let found = tree.find(HashSet::from([id, u64::MAX]));
        assert_eq!(found, HashMap::from([(id, "/system.slice/nginx.service".to_owned())]));
    }

    #[test]
    fn version_two_comes_first_and_systemd_next() {
        assert_eq!(path_in("1:name=systemd:/a\n0::/b\n"), Some("/b"));
        assert_eq!(path_in("9:name=systemd:/a\n4:memory:/m\n0::/\n"), Some("/a"));
        assert_eq!(path_in("9:name=systemd:/\n4:memory:/m\n0::/\n"), Some("/"));
        assert_eq!(path_in(""), None);
    }
}
