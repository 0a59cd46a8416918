//! Incidents: what is recorded of each, what is held back or lost is counted, and the file has them all.

use std::{collections::BTreeSet, fs, io::Write as _, net::TcpStream, time::Duration};

use finwatch::model::{
    incident::{
        EventKind::{Closed, DataReceived, DataSent, LocalFin, Opened, PeerFin, RstReceived, RstSent},
        IncidentCause, IncidentRecord, Traffic,
    },
    observation::Process,
};
use nix::sys::signal::{Signal, kill};
use socket2::SockRef;

use crate::harness::{
    can_run,
    daemon::Daemon,
    incidents::{of_pair, story, wrong},
    lab::{Family, Lab, own_port, tick},
    metrics::{Scrape, Side},
    netns,
    traffic::local,
    until,
};

/// Nobody listens there.
const CLOSED_PORT: u16 = 30_000;

/// Runs `body` at one end, and returns the one incident that it leads to.
fn one_incident(side: Side, body: impl FnOnce(&Lab) + Send) -> IncidentRecord {
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let lab = Lab::new(Family::V4, side, own_port());
        body(&lab);
        until("the incident", || (!daemon.incidents().is_empty()).then_some(()));
        let upstream = format!("{}:{}", lab.upstream.0, lab.upstream.1);
        let all = daemon.incidents();
        let record = of_pair(&all, side, &upstream).next().expect("one of this pair").clone();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(wrong(&record), Vec::<String>::new(), "{record:?}");
        record
    })
}

#[test]
fn a_request_after_the_fin_is_told_step_by_step() {
    if !can_run("a_request_after_the_fin_is_told_step_by_step") {
        return;
    }
    let record = one_incident(Side::Proxy, |lab| {
        let mut connection = lab.used();
        connection.peer.fin();
        tick();
        connection.request(200);
        tick();
        connection.peer.rst();
        connection.close();
    });
    assert_eq!((record.cause, record.state.as_str()), (IncidentCause::RequestAfterFin, "close_wait"));
    assert_eq!(story(&record), [Opened, DataReceived, PeerFin, DataSent, RstReceived]);
    assert_eq!(record.timeline[3].bytes, Some(200));
    let traffic = record.traffic.expect("a socket");
    let bytes = Traffic {
        bytes_sent: 400,
        bytes_received: 300,
        bytes_unacked: 200,
        bytes_after_peer_fin: 200,
        retransmits: 0,
        srtt_us: traffic.srtt_us,
    };
    assert_eq!(traffic, bytes);
    assert!(traffic.srtt_us > 0, "measured at the handshake");
    assert_eq!(record.errno, Some(libc::EPIPE.cast_unsigned()));
    let own = "requests_on_peer_closed_socket_total{timing=\"after_fin\"}";
    assert_eq!(record.counted_in.first().map(String::as_str), Some(own));
}

#[test]
fn a_request_that_crosses_the_fin_is_told_before_it() {
    if !can_run("a_request_that_crosses_the_fin_is_told_before_it") {
        return;
    }
    let record = one_incident(Side::Proxy, |lab| {
        let mut connection = lab.used();
        connection.request(200);
        tick();
        connection.peer.fin();
        connection.peer.rst();
        connection.close();
    });
    assert_eq!(record.cause, IncidentCause::RequestCrossedFin);
    assert_eq!(story(&record), [Opened, DataReceived, DataSent, PeerFin, RstReceived]);
    let traffic = record.traffic.expect("a socket");
    assert_eq!((traffic.bytes_unacked, traffic.bytes_after_peer_fin), (200, 0));
}

#[test]
fn a_request_lost_without_a_fin_knows_how_long_it_was_quiet() {
    if !can_run("a_request_lost_without_a_fin_knows_how_long_it_was_quiet") {
        return;
    }
    let record = one_incident(Side::Proxy, |lab| {
        let mut connection = lab.used();
        lab.quiet();
        connection.request(200);
        connection.peer.rst();
        connection.close();
    });
    assert_eq!(record.cause, IncidentCause::RequestNoFin);
    assert_eq!(story(&record), [Opened, DataReceived, DataSent, RstReceived]);
    assert!(record.quiet_ms.is_some_and(|quiet| quiet >= 1_000), "{record:?}");
}

#[test]
fn a_fin_instead_of_an_answer_is_told() {
    if !can_run("a_fin_instead_of_an_answer_is_told") {
        return;
    }
    let record = one_incident(Side::Proxy, |lab| {
        let mut connection = lab.used();
        connection.request(200);
        connection.peer.ack();
        tick();
        connection.peer.fin();
        connection.close_last();
    });
    assert_eq!(record.cause, IncidentCause::PeerClosedBeforeResponse);
    assert_eq!(story(&record), [Opened, DataReceived, DataSent, PeerFin, Closed]);
    let traffic = record.traffic.expect("a socket");
    assert_eq!((traffic.bytes_sent, traffic.bytes_received, traffic.bytes_unacked), (400, 300, 0));
}

#[test]
fn giving_up_is_told() {
    if !can_run("giving_up_is_told") {
        return;
    }
    let record = one_incident(Side::Proxy, |lab| {
        let mut connection = lab.used();
        connection.request(200);
        lab.quiet();
        connection.close();
        connection.peer.receive_fin();
        connection.peer.rst();
    });
    assert_eq!(record.cause, IncidentCause::LocalClosedBeforeResponseUnacked);
    assert_eq!(story(&record), [Opened, DataReceived, DataSent, LocalFin, RstReceived]);
    assert_eq!(record.traffic.expect("a socket").bytes_unacked, 200);
}

#[test]
fn late_data_that_meets_the_socket_is_one_incident() {
    if !can_run("late_data_that_meets_the_socket_is_one_incident") {
        return;
    }
    let record = one_incident(Side::Upstream, |lab| {
        let mut connection = lab.accept();
        connection.serve();
        connection.close();
        connection.peer.receive_fin();
        connection.peer.data(200);
        connection.peer.receive_rst();
    });
    assert_eq!(record.cause, IncidentCause::ResetSentDataAfterClose);
    assert_eq!(story(&record), [Opened, DataReceived, DataSent, LocalFin, RstSent]);
}

#[test]
fn late_data_that_meets_a_mini_socket_tells_its_bytes() {
    if !can_run("late_data_that_meets_a_mini_socket_tells_its_bytes")
        || !crate::harness::trace::traces_all_resets()
    {
        return;
    }
    let record = one_incident(Side::Upstream, |lab| {
        let mut connection = lab.accept();
        connection.serve();
        connection.close();
        connection.peer.receive_fin();
        connection.peer.ack();
        tick();
        connection.peer.data(200);
        connection.peer.receive_rst();
    });
    assert_eq!((record.cause, record.state.as_str()), (IncidentCause::ResetSentDataAfterClose, "fin_wait2"));
    assert_eq!(story(&record), [LocalFin, DataReceived, RstSent]);
    assert_eq!((record.timeline[1].bytes, record.traffic), (Some(200), None));
}

/// The listening process of an accepted connection is found.
#[test]
fn the_accepting_process_is_the_one_that_listens() {
    if !can_run("the_accepting_process_is_the_one_that_listens") {
        return;
    }
    netns::in_namespace(|| {
        // The listening process is the daemon itself.
        let daemon = Daemon::start(&["--netns", "host"]);
        let mut proxy = TcpStream::connect(daemon.address).expect("it listens");
        proxy.write_all(b"GET /met").expect("connected");
        SockRef::from(&proxy).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(proxy);
        let of_daemon = || {
            let all = daemon.incidents();
            of_pair(&all, Side::Upstream, &daemon.address.to_string()).next().cloned()
        };
        let record = until("the incident", of_daemon);
        assert_eq!(record.cause, IncidentCause::ResetAnswering);
        let pid = daemon.pid.as_raw().cast_unsigned();
        assert_eq!(record.process, Some(Process { name: "finwatch".into(), pid }));
    });
}

fn refused(count: u32) {
    let address = local(1, CLOSED_PORT);
    for _ in 0..count {
        TcpStream::connect(address).expect_err("nobody listens there");
    }
}

/// Exact counts of whole things, as floating point.
fn whole(scrape: &Scrape, name: &str) -> u32 {
    let value = scrape.sum(name, &[]);
    assert!((0.0..1e9).contains(&value) && value.fract() == 0.0, "{name}: {value}");
    value.to_string().parse().expect("a whole number")
}

/// What became of the incidents: recorded, held back, lost; and what the pairs count.
fn fates(daemon: &Daemon) -> [u32; 4] {
    let scrape = daemon.scrape();
    let counted = whole(&scrape, "finwatch_connect_failures_total");
    let [recorded, limited, lost] =
        ["", "_limited", "_lost"].map(|fate| whole(&scrape, &format!("finwatch_incidents{fate}_total")));
    [recorded, limited, lost, counted]
}

/// The file has those numbered from 1 to `last`, each once.
fn assert_complete(daemon: &Daemon, last: u32) {
    until("all incidents are in the file", || (daemon.incidents().len() == last as usize).then_some(()));
    let ids: BTreeSet<u64> = daemon.incidents().iter().map(|record| record.id).collect();
    assert!(ids.iter().copied().eq(1..=u64::from(last)), "{ids:?}");
}

#[test]
fn what_is_held_back_is_counted() {
    if !can_run("what_is_held_back_is_counted") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--incidents-per-second", "3"]);
        refused(200);
        let [recorded, limited, lost, counted] = fates(&daemon);
        assert_eq!((recorded + limited, lost, counted), (200, 0, 200));
        assert!(recorded >= 3 && limited > 0, "recorded {recorded}, held back {limited}");
        assert_complete(&daemon, recorded);
    });
}

#[test]
fn what_finds_the_ring_buffer_full_is_counted() {
    if !can_run("what_finds_the_ring_buffer_full_is_counted") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--incidents-per-second", "1000000"]);
        kill(daemon.pid, Signal::SIGSTOP).expect("a process of ours");
        refused(3_000);
        kill(daemon.pid, Signal::SIGCONT).expect("a process of ours");
        let [recorded, limited, lost, counted] = fates(&daemon);
        assert_eq!((recorded + lost, limited, counted), (3_000, 0, 3_000));
        assert!(recorded > 0 && lost > 0, "recorded {recorded}, lost {lost}");
        assert_complete(&daemon, recorded);
    });
}

#[test]
fn the_file_rotates_and_loses_nothing() {
    if !can_run("the_file_rotates_and_loses_nothing") {
        return;
    }
    netns::in_namespace(|| {
        let flags = ["--incidents-per-second", "1000000", "--incident-file-size", "8KiB"];
        let daemon = Daemon::isolated(&[&flags[..], &["--incident-file-count", "1000"]].concat());
        refused(200);
        assert_complete(&daemon, 200);
        let files = daemon.incident_files();
        assert!(files.len() > 5, "it has rotated: {files:?}");
        for file in files {
            assert!(fs::metadata(&file).expect("metadata").len() <= 8 * 1024, "{}", file.display());
        }
        // What is still in the kernel when it is asked to end is written too.
        refused(100);
        daemon.stop(Signal::SIGTERM).expect("it ends");
        assert_complete(&daemon, 300);
    });
}

#[test]
fn a_killed_daemon_leaves_whole_lines() {
    if !can_run("a_killed_daemon_leaves_whole_lines") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--incidents-per-second", "1000000"]);
        refused(500);
        daemon.stop(Signal::SIGKILL).expect("it ends");
        // Reading them asserts that each line is a record.
        let records = daemon.incidents();
        let ids: Vec<u64> = records.iter().map(|record| record.id).collect();
        assert!(ids.iter().copied().eq(1..=ids.len() as u64), "from the first on, none missing: {ids:?}");
    });
}

#[test]
fn a_file_that_cannot_be_written_is_counted_and_tried_again() {
    if !can_run("a_file_that_cannot_be_written_is_counted_and_tried_again") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--incidents-per-second", "1000000"]);
        let path = daemon.incident_files().pop().unwrap_or_else(|| daemon.incident_file());
        fs::create_dir(&path).expect("a directory where the file should be");
        refused(5);
        until("the errors are counted", || {
            (whole(&daemon.scrape(), "finwatch_incident_file_errors_total") == 5).then_some(())
        });
        assert_eq!(daemon.output().matches("cannot write to the incident file").count(), 1, "said once");
        fs::remove_dir(&path).expect("an empty directory");
        refused(5);
        until("it is written again", || (daemon.incidents().len() == 5).then_some(()));
        assert!(daemon.output().contains("written to the file again"), "{}", daemon.output());
        assert_eq!(whole(&daemon.scrape(), "finwatch_incident_file_errors_total"), 5);
    });
}
