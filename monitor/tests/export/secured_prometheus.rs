//! The scrape configuration that docs/web-config.md shows: promtool takes it, and Prometheus scrapes with it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::Pid,
};

use crate::secured::{Authority, Files, Server, TLS};

const PATIENCE: Duration = Duration::from_secs(30);
const TARGET: &str = "10.0.0.7:9778";

/// The block of the document that begins with `scrape_configs:`.
fn documented() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/web-config.md");
    let document = fs::read_to_string(path).expect("docs/web-config.md");
    let begin = document.find("    scrape_configs:").expect("a scrape configuration");
    let block = document[begin..].lines().take_while(|line| line.starts_with("    "));
    block.map(|line| &line[4..]).collect::<Vec<_>>().join("\n")
}

struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).expect("a process id");
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        drop(self.0.wait());
    }
}

impl Prometheus {
    fn start(files: &Files, config: &Path, address: SocketAddr) -> Self {
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", files.path("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(files.path("prometheus.log")).expect("our own directory"));
        // SAFETY: prctl() is async-signal-safe and touches no memory of the parent.
        unsafe { command.pre_exec(|| set_pdeathsig(Signal::SIGTERM).map_err(Into::into)) };
        Self(command.spawn().expect("prometheus starts; `cargo xtask setup --for test` installs it"))
    }
}

/// What the one sample of a query is, once there is one.
fn value(address: SocketAddr, query: &str) -> Option<String> {
    let url = format!("http://{address}/api/v1/query");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "5", "--get", "--data-urlencode", &format!("query={query}"), &url]);
    let output = curl.output().expect("curl starts");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_as_the_document_says() {
    let (files, authority) = (Files::new(), Authority::new());
    files.server(&authority);
    let (certificate, key) = authority.sign(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    files.write("prometheus.crt", &certificate);
    files.write("prometheus.key", &key);
    files.write("finwatch-ca.crt", &authority.certificate);
    files.write("finwatch-password", "spring");
    let hash = bcrypt::hash("spring", 4).expect("a hash");
    let clients = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n";
    let web = files.write("web.yml", &format!("{TLS}{clients}basic_auth_users:\n  prometheus: {hash}\n"));
    let server = Server::start(&web);
    let text = documented();
    assert!(text.contains(TARGET), "{text}");
    let text = text.replace(TARGET, &server.address.to_string());
    let text = text.replace("/etc/prometheus", files.path("").to_str().expect("text").trim_end_matches('/'));
    let config = files.write("prometheus.yml", &format!("global: {{scrape_interval: 1s}}\n{text}"));
    let checked = Command::new("promtool").args(["check", "config"]).arg(&config).output();
    let checked = checked.expect("promtool starts; `cargo xtask setup --for test` installs it");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let _prometheus = Prometheus::start(&files, &config, address);
    let end = Instant::now() + PATIENCE;
    let query = format!("up{{job=\"finwatch\",instance=\"{}\"}}", server.address);
    while value(address, &query).as_deref() != Some("1") {
        let log = || fs::read_to_string(files.path("prometheus.log")).unwrap_or_default();
        assert!(Instant::now() < end, "not within {PATIENCE:?}: it is up:\n{}", log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(value(address, "finwatch_pairs").as_deref(), Some("13"));
}
