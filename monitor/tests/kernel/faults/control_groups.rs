//! Hosts whose processes are in control groups of version 1: the group of systemd's hierarchy names the workload.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

use crate::harness::{
    can_run,
    daemon::Daemon,
    netns,
    reference::untraced_port,
    traffic::{listen, local, open_as},
    until,
};

/// A group of systemd's hierarchy with the calling thread in it, which leaves it in the end.
struct Group {
    hierarchy: PathBuf,
    group: PathBuf,
}

impl Group {
    /// Mounts the hierarchy at `hierarchy` for this thread alone.
    fn enter(hierarchy: &Path, name: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).expect("a thread's own mounts");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("they stay our own");
        mount(Some("cgroup"), hierarchy, Some("cgroup"), MsFlags::empty(), Some("none,name=systemd"))
            .expect("control groups of version 1");
        let group = hierarchy.join(name);
        fs::create_dir(&group).expect("root may make control groups");
        let entered = Self { hierarchy: hierarchy.to_owned(), group };
        move_to(&entered.group);
        entered
    }
}

fn move_to(group: &Path) {
    fs::write(group.join("tasks"), gettid().to_string()).expect("a thread may be moved");
}

impl Drop for Group {
    fn drop(&mut self) {
        move_to(&self.hierarchy);
        drop(fs::remove_dir(&self.group));
    }
}

/// Whether version 2 tells nothing about this process, as where version 1 is in use.
fn only_version_1() -> bool {
    let text = fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
    text.lines().filter_map(|line| line.strip_prefix("0::")).all(|path| path == "/")
}

#[test]
fn a_unit_of_version_1_is_named() {
    if !can_run("a_unit_of_version_1_is_named") {
        return;
    }
    if !only_version_1() {
        eprintln!("SKIPPED a_unit_of_version_1_is_named: processes here are in control groups of version 2");
        return;
    }
    let unit = format!("finwatch-test-{}.service", std::process::id());
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let listener = listen(local(1, untraced_port()));
        let upstream = listener.local_addr().expect("bound").to_string();
        let directory = tempfile::tempdir().expect("a directory");
        let group = Group::enter(directory.path(), &unit);
        // A process is in the group of the thread that started it.
        let held = open_as(b"in-version-1", &listener);
        drop(group);
        until("its workload", || {
            let labels = [("side", "proxy"), ("proxy", "in-version-1"), ("upstream", upstream.as_str())];
            let scrape = daemon.scrape();
            let (labels, count) = scrape.matching("finwatch_connections_opened_total", &labels).next()?;
            assert!((count - 1.0).abs() < f64::EPSILON, "{count}");
            (labels["workload"] == unit).then_some(())
        });
        drop(held);
    });
}
