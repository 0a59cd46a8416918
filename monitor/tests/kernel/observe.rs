//! What the daemon answers on its socket, and what `triage` makes of it without a daemon.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use finwatch::{
    api::socket,
    model::{
        incident::{IncidentCause, IncidentRecord},
        labels::Side,
        observation::{Observation, Pair},
    },
};
use finwatch_ebpf::wire::Counter;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::{
    can_run,
    daemon::Daemon,
    netns,
    traffic::{listen, local, open_and_close, pair},
    until,
};

const PORT: u16 = 30_000;

fn triage(arguments: &[&str], run_dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finwatch"));
    command.args(["triage", "--json", "--run-dir"]).arg(run_dir).args(arguments);
    command.output().expect("the finwatch binary starts")
}

fn of_upstream<'a>(pairs: &'a [Pair], upstream: &str) -> Vec<&'a Pair> {
    pairs.iter().filter(|pair| pair.labels.upstream == upstream).collect()
}

#[test]
fn an_observation_equals_the_metrics() {
    if !can_run("an_observation_equals_the_metrics") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--snapshot-age", "1s"]);
        let listener = listen(local(1, PORT));
        (0..7).for_each(|_| open_and_close(&listener));
        let held: Vec<_> = (0..3).map(|_| pair(&listener)).collect();
        let upstream = local(1, PORT).to_string();
        let observation = until("levels show what is open", || {
            let observation = daemon.observe();
            let pairs = of_upstream(&observation.pairs, &upstream);
            let open = pairs.iter().all(|pair| pair.in_state("established") == 3);
            (pairs.len() == 2 && open).then_some(observation)
        });
        let scrape = daemon.scrape();
        for pair in of_upstream(&observation.pairs, &upstream) {
            let side = [("side", pair.labels.side.name()), ("upstream", upstream.as_str())];
            let shown = |family: &str| scrape.sum(&format!("finwatch_{family}"), &side);
            let same = |family: &str, count: u64| {
                assert!(
                    (shown(family) - count as f64).abs() < 0.5,
                    "{family}: {} and {count}",
                    shown(family)
                );
            };
            same("connections_opened_total", pair.counts.get(Counter::Opened));
            same("time_wait_entered_total", pair.counts.get(Counter::TimeWaitEntered));
            same("connection_duration_seconds_count", pair.connection_duration.count);
            assert_eq!(pair.counts.get(Counter::Opened), 10, "{pair:?}");
            assert_eq!(pair.connection_duration.count, 7, "{pair:?}");
        }
        assert!(observation.queues.iter().any(|queue| queue.upstream == upstream && queue.length == 0));
        let ports: Vec<_> = observation.ports.iter().filter(|ports| ports.upstream == upstream).collect();
        assert_eq!(ports.len(), 1, "{ports:?}");
        assert!(ports[0].used >= 3 && ports[0].used <= 10, "{ports:?}");
        drop(held);
    });
}

#[test]
fn the_oldest_socket_in_close_wait_has_an_age() {
    if !can_run("the_oldest_socket_in_close_wait_has_an_age") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--snapshot-age", "1s"]);
        let listener = listen(local(1, PORT));
        let _open = pair(&listener);
        let (proxy, _left) = pair(&listener);
        let upstream = local(1, PORT).to_string();
        let observe = || daemon.observe().pairs;
        let ages = |pairs: &[Pair]| {
            let ages = of_upstream(pairs, &upstream).into_iter();
            ages.filter_map(|pair| Some((pair.labels.side, pair.oldest_close_wait_seconds?)))
                .collect::<Vec<_>>()
        };
        assert_eq!(ages(&observe()), []);
        drop(proxy);
        let first = until("the socket has been in CLOSE_WAIT for a second", || {
            let ages = ages(&observe());
            (!ages.is_empty()).then_some(ages)
        });
        let &[(Side::Upstream, first)] = first.as_slice() else { panic!("one end is closed: {first:?}") };
        until("it grows older", || match ages(&observe()).as_slice() {
            [(Side::Upstream, later)] => (*later > first).then_some(()),
            others => panic!("one end is closed: {others:?}"),
        });
    });
}

#[test]
fn the_socket_is_for_owner_and_group() {
    if !can_run("the_socket_is_for_owner_and_group") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let path = socket::path(daemon.directory.path());
        let mode = fs::metadata(&path).expect("there is a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(daemon.stop(Signal::SIGTERM).is_some(), "it ends");
        assert!(!path.exists(), "the socket goes with the daemon");
    });
}

/// Without a daemon `triage` attaches by itself, sees what happens meanwhile, and leaves nothing attached.
#[test]
fn triage_without_a_daemon() {
    if !can_run("triage_without_a_daemon") {
        return;
    }
    netns::in_namespace(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("finwatch.toml");
        fs::write(&config, "netns = \"host\"\n").expect("written");
        let listener = listen(local(1, PORT));
        let old = pair(&listener);
        let path = directory.path().to_path_buf();
        let config = config.to_str().expect("a plain path").to_owned();
        // The thread that starts the process is in this namespace, and so is the process.
        let mut child = Command::new(env!("CARGO_BIN_EXE_finwatch"))
            .args([
                "triage",
                "--json",
                "--for",
                "60s",
                "--log-level",
                "debug",
                "--config",
                &config,
                "--run-dir",
            ])
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the finwatch binary starts");
        let upstream = local(1, PORT).to_string();
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        assert!(log.any(|line| line.contains("watching")), "it ended before it watched");
        for _ in 0..5 {
            open_and_close(&listener);
        }
        kill(pid, Signal::SIGINT).expect("it is there");
        let output = child.wait_with_output().expect("it ends");
        let rest: Vec<String> = log.collect();
        assert!(!output.stdout.is_empty(), "{}", rest.join("\n"));
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let observation: Observation =
            serde_json::from_value(printed["observation"].clone()).expect("an observation");
        let pairs = of_upstream(&observation.pairs, &upstream);
        let opened: Vec<u64> = pairs.iter().map(|pair| pair.counts.get(Counter::Opened)).collect();
        assert_eq!(opened.iter().filter(|opened| **opened > 0).count(), 2, "either side: {pairs:?}");
        assert_eq!(opened.iter().sum::<u64>(), 10, "{pairs:?}");
        let established: u32 = pairs.iter().map(|pair| pair.in_state("established")).sum();
        assert_eq!(established, 2, "the old one was taken in, either side: {pairs:?}");
        assert!(observation.window.seconds < 60.0, "SIGINT ended it early");
        drop(old);
        let again = triage(&["--for", "1s", "--config", &config], &path);
        assert_ne!(again.status.code(), Some(2), "{}", String::from_utf8_lossy(&again.stderr));
    });
}

fn incidents(arguments: &[&str], run_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finwatch"));
    command.args(["incidents", "--json", "--run-dir"]).arg(run_dir).args(arguments).stdout(Stdio::piped());
    command
}

/// What is kept, what comes, and which of them are asked for; the exit status says whether there are any.
#[test]
fn incidents_are_listed_and_followed() {
    if !can_run("incidents_are_listed_and_followed") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let run_dir = daemon.directory.path();
        let list = |arguments: &[&str]| {
            let output = incidents(arguments, run_dir).output().expect("the finwatch binary starts");
            let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
            let records = text.lines().map(|line| serde_json::from_str(line).expect("a record"));
            (output.status.code(), records.collect::<Vec<IncidentRecord>>())
        };
        assert_eq!(list(&[]), (Some(0), Vec::new()));
        let refused = |port| assert!(TcpStream::connect(local(1, port)).is_err(), "nobody listens");
        refused(1);
        until("the first is kept", || (list(&[]).1.len() == 1).then_some(()));
        let mut follower = incidents(&["--follow"], run_dir).spawn().expect("the finwatch binary starts");
        let mut lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
        let mut next = || {
            let line = lines.next().expect("it goes on").expect("UTF-8");
            serde_json::from_str::<IncidentRecord>(&line).expect("a record")
        };
        assert_eq!(next().remote, "127.0.0.1:1", "what is kept comes first");
        refused(2);
        assert_eq!(next().remote, "127.0.0.1:2", "then what comes");
        let pid = Pid::from_raw(i32::try_from(follower.id()).expect("a process id"));
        kill(pid, Signal::SIGINT).expect("it is there");
        assert_eq!(follower.wait().expect("it ends").code(), Some(1));

        let (status, all) = list(&[]);
        assert_eq!((status, all.len()), (Some(1), 2));
        assert!(all.iter().all(|record| record.cause == IncidentCause::ConnectRefused), "{all:?}");
        let pids: Vec<_> =
            all.iter().map(|record| record.process.as_ref().map(|process| process.pid)).collect();
        assert_eq!(pids, [Some(std::process::id()); 2]);
        assert_eq!(list(&["--cause", "reset_idle"]), (Some(0), Vec::new()));
        assert_eq!(list(&["--cause", "reset_idle", "--cause", "connect_refused"]).1.len(), 2);
        assert_eq!(list(&["--pair", "127.0.0.1:2"]).1, all[1..]);
        assert_eq!(list(&["--pair", "127.0.0.1:3"]).0, Some(0));
        assert_eq!(list(&["--since", "1h"]).1.len(), 2);
    });
}
