//! No file descriptor is left: the daemon says so once, counts on, and serves again as soon as there is one.

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    os::unix::process::CommandExt as _,
    process::Output,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};

use crate::harness::{
    can_run,
    daemon::{self, Daemon},
    netns,
    reference::{FRESH, assert_count, fresh, untraced_port},
    traffic::{listen, local, open_and_close},
    until,
};

/// Clients that ask for nothing: more than the daemon may have.
const CLIENTS: usize = 20;
const SPARE: usize = 4;
const CONNECTIONS: usize = 100;
const OUTAGES: usize = 2;
const LOOK: Duration = Duration::from_millis(1_500);

fn open_files(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

/// From now on it may have so many.
fn limit_files(pid: Pid, files: usize) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits can be read");
    let limit = libc::rlimit { rlim_cur: files as u64, rlim_max: most };
    // SAFETY: the kernel reads the one struct that it is given, and writes nothing.
    let status =
        unsafe { libc::prlimit(pid.as_raw(), libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(status, 0, "prlimit: {}", std::io::Error::last_os_error());
}

/// Time on processors so far, in user and kernel mode.
fn cpu_time(pid: Pid) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs");
    Duration::from_nanos(stat.split(' ').next().and_then(|time| time.parse().ok()).expect("a time"))
}

fn refused() {
    TcpStream::connect(local(2, 1)).expect_err("nobody listens there");
}

#[test]
fn without_descriptors_nothing_is_lost() {
    if !can_run("without_descriptors_nothing_is_lost") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&FRESH);
        let since = Instant::now();
        let said = || daemon.output().matches("cannot accept connections").count();
        let listener = listen(local(1, untraced_port()));
        let upstream = listener.local_addr().expect("bound").to_string();
        // The file is opened with the first incident.
        refused();
        until("the first incident is in the file", || (daemon.incidents().len() == 1).then_some(()));
        for outage in 1..=OUTAGES {
            limit_files(daemon.pid, open_files(daemon.pid) + SPARE);
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let mut client = TcpStream::connect(daemon.address).expect("the kernel takes it");
                    client.write_all(b"GET /met").expect("room");
                    client
                })
                .collect();
            until("it says so", || (said() > 0).then_some(()));
            (0..CONNECTIONS).for_each(|_| open_and_close(&listener));
            refused();
            let before = cpu_time(daemon.pid);
            thread::sleep(LOOK);
            let taken = cpu_time(daemon.pid).saturating_sub(before);
            assert!(taken < LOOK / 2, "it waits: {taken:?} of {LOOK:?}");

            drop(clients);
            let scrape = fresh(&daemon);
            for side in ["proxy", "upstream"] {
                for family in ["connections_opened_total", "connections_closed_total"] {
                    let labels = [("side", side), ("upstream", upstream.as_str())];
                    let count = scrape.sum(&format!("finwatch_{family}"), &labels);
                    assert_count(&format!("{family} side={side}"), count, outage * CONNECTIONS);
                }
            }
            assert!(!daemon.observe().pairs.is_empty(), "its socket answers");
            until("each incident is in the file", || (daemon.incidents().len() == 1 + outage).then_some(()));
        }
        assert_count("untracked", daemon.scrape().sum("finwatch_untracked_connections_total", &[]), 0);
        let output = daemon.output();
        assert!(output.contains("LimitNOFILE"), "the remedy: {output}");
        let most = 1 + since.elapsed().as_secs() / 60;
        assert!(said() as u64 <= most, "once a minute at most: {output}");
    });
}

/// It does not even come to run.
#[test]
fn too_few_descriptors_to_start() {
    if !can_run("too_few_descriptors_to_start") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    for files in [12, 24, 48, 96, 255] {
        let mut command = daemon::command(daemon::free_address(), &[]);
        command.arg("--run-dir").arg(directory.path());
        // SAFETY: one system call, nothing is allocated.
        unsafe {
            command.pre_exec(move || setrlimit(Resource::RLIMIT_NOFILE, files, files).map_err(Into::into));
        }
        let Output { status, stderr, .. } = command.output().expect("the finwatch binary starts");
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(2), "{files} files: {said}");
        assert_eq!(said.lines().count(), 1, "{files} files: {said}");
        assert!(said.contains("LimitNOFILE"), "{files} files: {said}");
    }
}
