//! The disk under the incident file is full: the daemon lives, says so once, counts what it could not write, and goes on
//! writing when there is room again.

use std::{fs, net::TcpStream, path::Path};

use finwatch::model::incident::IncidentRecord;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::harness::{can_run, daemon::Daemon, netns, traffic::local, until};

/// Incidents of about 0.8 kB for which there is no room.
const TOO_MANY: usize = 300;
const FEW: usize = 20;
const OUTAGES: usize = 2;

/// A small disk of the calling thread's own: gone with it and what it starts.
fn small_disk(at: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("a thread's own mounts");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("they stay our own");
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).expect("a small disk");
}

/// Takes nearly all of the room that is left.
fn fill(path: &Path) {
    let free = nix::sys::statvfs::statvfs(path.parent().expect("a directory")).expect("a mount");
    let bytes = (free.blocks_available() - 16) * free.fragment_size();
    fs::write(path, vec![0; usize::try_from(bytes).expect("a small disk")]).expect("room");
}

/// The incidents in the file; panics where a line is none.
fn written(file: &Path) -> Vec<u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let id = |line: &str| serde_json::from_str::<IncidentRecord>(line).map(|record| record.id);
    whole.lines().map(|line| id(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn refused(count: usize) {
    for _ in 0..count {
        TcpStream::connect(local(1, 30_000)).expect_err("nobody listens there");
    }
}

#[test]
fn a_full_disk_costs_no_count() {
    if !can_run("a_full_disk_costs_no_count") {
        return;
    }
    netns::in_namespace(|| {
        let disk = tempfile::tempdir().expect("a directory");
        small_disk(disk.path());
        let file = disk.path().join("incidents.jsonl");
        let filler = disk.path().join("filler");
        let flags = ["--incidents-per-second", "1000000", "--incident-file"];
        let daemon = Daemon::isolated(&[&flags[..], &[file.to_str().expect("UTF-8")]].concat());
        let sum = |family: &str| daemon.scrape().whole(&format!("finwatch_{family}_total"), &[]);
        let mut all = 0;
        for outage in 1..=OUTAGES {
            fill(&filler);
            let (before, errors_before) = (written(&file).len(), sum("incident_file_errors"));
            refused(TOO_MANY);
            all += TOO_MANY;
            until("each was written or is counted", || {
                let errors = sum("incident_file_errors") - errors_before;
                let more = written(&file).len() - before;
                (more + errors == TOO_MANY).then_some(())
            });
            let errors = sum("incident_file_errors");
            assert!(errors > errors_before, "there was no room");
            let said = daemon.output();
            assert_eq!(said.matches("cannot write to the incident file").count(), outage, "{said}");
            assert!(said.contains("No space left on device"), "{said}");

            fs::remove_file(&filler).expect("ours");
            let before = written(&file).len();
            refused(FEW);
            all += FEW;
            until("it is written again", || (written(&file).len() == before + FEW).then_some(()));
            assert_eq!(sum("incident_file_errors"), errors, "no more errors");
            let said = daemon.output();
            assert_eq!(said.matches("written to the file again").count(), outage, "{said}");
        }
        let written = written(&file);
        assert!(written.is_sorted_by(|one, next| one < next), "in order, each once: {written:?}");
        assert_eq!(written.len() + sum("incident_file_errors"), all, "written or counted");
        assert_eq!(sum("incidents"), all, "recorded");
        assert_eq!(sum("connect_failures"), all, "refused");
        assert_eq!(sum("incidents_lost") + sum("incidents_limited"), 0, "lost");
    });
}
