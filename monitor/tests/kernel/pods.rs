//! A pod's connections, made in a control group as a kubelet makes it, under the name that an API server has for it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::harness::{can_run, daemon::Daemon, until};

const UID: &str = "0f0f0f0f-1111-2222-3333-444455556666";
const ID: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const LIST: &str = r#"{"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": [{
    "metadata": {"name": "web-0", "namespace": "shop", "uid": "0f0f0f0f-1111-2222-3333-444455556666"},
    "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "web:1"}]},
    "status": {"phase": "Running", "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0,
        "image": "web:1", "imageID": "sha256:1",
        "containerID": "containerd://fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"}]}
}]}"#;

/// The control group of a pod's container; it and those above it that were made for it go in the end.
struct Group(PathBuf, Vec<PathBuf>);

impl Group {
    fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount =
            fields.into_iter().find(|fields| fields[2] == "cgroup2").expect("control groups of version 2")[1];
        let path = Path::new(mount).join(format!("kubepods/burstable/pod{UID}/{ID}"));
        let made = path.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
        fs::create_dir_all(&path).expect("root may make control groups");
        Self(path, made)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in &self.1 {
            drop(fs::remove_dir(directory));
        }
    }
}

/// An API server that is away until it is told to answer.
fn api(answers: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            if !answers.load(Ordering::SeqCst) {
                continue;
            }
            let head =
                BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let asked = head.collect::<Vec<_>>();
            assert!(asked[0].contains("fieldSelector=spec.nodeName%3Dnode-1"), "{asked:?}");
            let length = LIST.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{LIST}")
                .expect("room to write");
        }
    });
    address
}

#[test]
fn pods_have_names_and_ids_until_then() {
    if !can_run("pods_have_names_and_ids_until_then") {
        return;
    }
    let group = Group::new();
    let answers = Arc::new(AtomicBool::new(false));
    let api = format!("http://{}", api(answers.clone()));
    let daemon = Daemon::start(&["--kubernetes", "--kubernetes-api", &api, "--node-name", "node-1"]);
    let procs = group.0.join("cgroup.procs");
    let asking = "echo $$ > \"$1\" && exec curl --silent --output /dev/null \"$2\"";
    let url = format!("http://{}/healthz", daemon.address);
    let mut curl = Command::new("sh");
    curl.args(["-c", asking, "sh", procs.to_str().expect("text"), &url]);
    assert!(curl.status().expect("sh starts").success(), "curl was answered");

    let opened = |workload: &str| {
        let (upstream, text) = (daemon.address, daemon.text());
        let labels = format!("side=\"proxy\",proxy=\"curl\",upstream=\"{upstream}\",workload=\"{workload}\"");
        text.contains(&format!("\nfinwatch_connections_opened_total{{{labels}}} 1\n"))
    };
    until("its id is shown while the server is away", || {
        opened(&format!("pod/{UID}/{}", &ID[..12])).then_some(())
    });
    until("the failure is counted", || {
        let none = "\nfinwatch_workload_name_errors_total{source=\"kubernetes\"} 0\n";
        (!daemon.text().contains(none)).then_some(())
    });
    answers.store(true, Ordering::SeqCst);
    until("its name is shown", || opened("shop/web-0/app").then_some(()));
    assert!(!opened(&format!("pod/{UID}/{}", &ID[..12])), "and the id no longer");
}
