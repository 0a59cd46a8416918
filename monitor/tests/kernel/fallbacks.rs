//! Kernels that lack something: what is left counts as exactly as ever, and what is lost is told.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

use finwatch::kernel::hooks::is_required;
use finwatch_ebpf::offsets::FIELDS;
use socket2::SockRef;

use crate::harness::{
    can_run,
    daemon::Daemon,
    metrics::Scrape,
    netns,
    reference::{FRESH, assert_count, untraced_port},
    traffic::{Held, listen, local, open_and_close, open_and_close_as, open_as, pair},
    types, until,
};

/// What Node.js calls its main thread: it is named by its executable, where that can be found.
const GENERIC: &str = "MainThread";
const CLEAN: usize = 3;

/// The daemon on a kernel without these names.
fn daemon_without(names: &[&str], arguments: &[&str]) -> Daemon {
    Daemon::isolated_with(&[&FRESH[..], arguments].concat(), types::without(names))
}

/// Some connections that end cleanly, one of them another process's; one that the upstream resets.
fn connections(listener: &TcpListener) {
    (1..CLEAN).for_each(|_| open_and_close(listener));
    open_and_close_as(GENERIC.as_bytes(), listener);
    let (proxy, upstream) = pair(listener);
    SockRef::from(&upstream).set_linger(Some(Duration::ZERO)).expect("an option");
    drop((upstream, proxy));
}

/// Everything has ended.
fn settled(daemon: &Daemon) -> Scrape {
    until("nothing is tracked", || {
        let scrape = daemon.scrape();
        (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
    })
}

/// All that [`connections`] are, but for the resets that are sent.
fn assert_counted(scrape: &Scrape, listener: &TcpListener) {
    let upstream = listener.local_addr().expect("bound").to_string();
    for side in ["proxy", "upstream"] {
        let of = |name: &str| scrape.sum(name, &[("side", side), ("upstream", &upstream)]);
        assert_count("opened", of("finwatch_connections_opened_total"), CLEAN + 1);
        assert_count("closed", of("finwatch_connections_closed_total"), CLEAN + 1);
        assert_count("received", of("finwatch_resets_received_total"), usize::from(side == "proxy"));
    }
}

fn assert_sent(scrape: &Scrape, resets: usize) {
    assert_count("sent", scrape.sum("finwatch_resets_sent_total", &[("side", "upstream")]), resets);
}

fn assert_mode(scrape: &Scrape, hook: &str, mode: &str) {
    let labels = [("hook", hook), ("mode", mode)];
    assert_count(&format!("{hook} {mode}"), scrape.sum("finwatch_hook_attached", &labels), 1);
}

/// What a command says on a kernel without these names, and its exit status.
fn told(arguments: &[&str], names: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finwatch"));
    command.args(arguments).stdin(Stdio::null());
    types::without(names)(&mut command);
    let output = command.output().expect("the finwatch binary starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

fn listener() -> TcpListener {
    listen(local(1, untraced_port()))
}

#[test]
fn without_the_hook_for_resets_sent() {
    if !can_run("without_the_hook_for_resets_sent") {
        return;
    }
    let gone = ["btf_trace_tcp_send_reset"];
    netns::in_namespace(|| {
        let daemon = daemon_without(&gone, &[]);
        let listener = listener();
        connections(&listener);
        let scrape = settled(&daemon);
        assert_counted(&scrape, &listener);
        assert_sent(&scrape, 0);
        assert_mode(&scrape, "tcp_send_reset", "off");
        assert_mode(&scrape, "tcp_receive_reset", "full");
    });
    let (status, text) = told(&["check", "--strict"], &gone);
    let row = text.lines().find(|line| line.contains("hook tcp_send_reset")).expect("a row for the hook");
    assert!(row.starts_with("degraded") && row.contains("resets sent are not counted"), "{row}");
    assert_eq!(status, Some(1), "{text}");
}

#[test]
fn without_a_hook_that_is_required() {
    if !can_run("without_a_hook_that_is_required") {
        return;
    }
    for hook in ["tcp_receive_reset", "inet_sock_set_state"] {
        let (status, text) = told(&["check"], &[&format!("btf_trace_{hook}")]);
        assert!(text.contains(&format!("this kernel has no tracepoint {hook}")), "{text}");
        assert_eq!(status, Some(2), "{text}");
    }
}

#[test]
fn without_a_field_that_is_required() {
    if !can_run("without_a_field_that_is_required") {
        return;
    }
    let (status, text) = told(&["check"], &["srtt_us"]);
    assert!(text.contains("tcp_sock.srtt_us"), "{text}");
    assert_eq!(status, Some(2), "{text}");
}

#[test]
fn without_the_iterator() {
    if !can_run("without_the_iterator") {
        return;
    }
    netns::in_namespace(|| {
        let listener = listener();
        let old = pair(&listener);
        let daemon = daemon_without(&["bpf_iter__tcp"], &[]);
        connections(&listener);
        drop(old);
        let scrape = settled(&daemon);
        assert_counted(&scrape, &listener);
        assert_sent(&scrape, 1);
        assert_mode(&scrape, "iter/tcp", "partial");
    });
}

/// The current task and a socket's control group, read as kernels before 5.11 have them read.
#[test]
fn without_pointers_of_known_type() {
    if !can_run("without_pointers_of_known_type") {
        return;
    }
    let shown = |names: &[&str]| {
        netns::in_namespace(|| {
            let daemon = daemon_without(names, &[]);
            let listener = listener();
            connections(&listener);
            let scrape = settled(&daemon);
            assert_counted(&scrape, &listener);
            assert_sent(&scrape, 1);
            who(&scrape, &listener)
        })
    };
    let (this, executable) = own_names();
    let whole = shown(&[]);
    assert_eq!(whole.0, sorted(&[&this, &executable]));
    assert_eq!(whole.1.len(), 1, "all are in one group");
    assert_eq!(shown(&["bpf_get_current_task_btf", "sock_cgroup_data"]), whole);
}

/// The names of the proxies and of the workloads that show.
fn who(scrape: &Scrape, listener: &TcpListener) -> (Vec<String>, Vec<String>) {
    let upstream = listener.local_addr().expect("bound").to_string();
    let labels = [("side", "proxy"), ("upstream", upstream.as_str())];
    let all: Vec<_> = scrape.matching("finwatch_connections_opened_total", &labels).collect();
    let values = |label: &str| {
        let mut values = all.iter().map(|(labels, _)| labels[label].clone()).collect::<Vec<_>>();
        values.sort();
        values.dedup();
        values
    };
    (values("proxy"), values("workload"))
}

/// What this process is called, and what its executable is, as the kernel cuts it.
fn own_names() -> (String, String) {
    let executable = std::env::current_exe().expect("/proc is mounted");
    let name = executable.file_name().and_then(|name| name.to_str()).expect("text");
    (crate::harness::process_name(), name.chars().take(15).collect())
}

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// Each field that may be missing is missing once.
#[test]
fn without_a_field() {
    if !can_run("without_a_field") {
        return;
    }
    let (this, executable) = own_names();
    for field in FIELDS.iter().filter(|field| !is_required(field)) {
        // The first member on the way.
        let name = field.path.split('.').next().expect("a path");
        eprintln!("{}.{name}", field.kernel_type);
        netns::in_namespace(|| {
            let listener = listener();
            let _old: Held = open_as(b"older", &listener);
            let daemon = daemon_without(&[name], &[]);
            connections(&listener);
            let scrape = until("only the old connection is left", || {
                let scrape = daemon.scrape();
                (scrape.sum("finwatch_tracked_connections", &[]) < 2.5).then_some(scrape)
            });
            assert_counted(&scrape, &listener);
            assert_sent(&scrape, 1);
            let (proxies, workloads) = who(&scrape, &listener);
            let of_executable = ["task_struct", "mm_struct", "file", "dentry"].contains(&field.kernel_type);
            let named = if of_executable { GENERIC } else { &executable };
            assert_eq!(proxies, sorted(&[&this, named]));
            if ["sock", "cgroup", "kernfs_node"].contains(&field.kernel_type) {
                assert_eq!(workloads, [""]);
            }
        });
    }
}

/// Requests are followed by another hook, where the usual ones are missing; or not at all.
#[test]
fn without_the_hooks_for_requests() {
    if !can_run("without_the_hooks_for_requests") {
        return;
    }
    let all = ["btf_trace_sock_send_length", "btf_trace_sock_recv_length", "btf_trace_tcp_rcv_space_adjust"];
    for (gone, hook, mode) in
        [(&all[1..2], "tcp_rcv_space_adjust", "partial"), (&all[..], "sock_send_length", "off")]
    {
        netns::in_namespace(|| {
            let daemon = daemon_without(gone, &["--requests"]);
            let listener = listener();
            connections(&listener);
            let scrape = settled(&daemon);
            assert_counted(&scrape, &listener);
            assert_mode(&scrape, hook, mode);
        });
    }
}
