//! The real daemon, started for the tests and gone with them.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use finwatch::model::incident::IncidentRecord;
use finwatch::{api::socket, model::observation::Observation};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use tempfile::TempDir;

use super::{metrics::Scrape, until};

const INCIDENT_FILE: &str = "incidents.jsonl";
const BINARY: &str = env!("CARGO_BIN_EXE_finwatch");

/// A running daemon; dropping it ends it.
pub(crate) struct Daemon {
    /// Where it serves.
    pub(crate) address: SocketAddr,
    /// Its process.
    pub(crate) pid: Pid,
    /// Its run directory; its output is in `output` there.
    pub(crate) directory: Arc<TempDir>,
    ended: Mutex<mpsc::Receiver<ExitStatus>>,
}

/// A port nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// `finwatch run` with these arguments, not started yet.
pub(crate) fn command(address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("run").args(["--listen", &address.to_string()]).args(arguments).stdin(Stdio::null());
    command
}

/// The address of a daemon to come.
pub(crate) fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

impl Daemon {
    /// Starts it with these arguments and waits until it is ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_at(free_address(), arguments, |_| ())
    }

    /// Starts one that watches the calling thread's namespace only, and not its own scrapes.
    pub(crate) fn isolated(arguments: &[&str]) -> Self {
        Self::isolated_with(arguments, |_| ())
    }

    /// The same, on a kernel that refuses its iterator over sockets.
    pub(crate) fn isolated_without_iterator(arguments: &[&str]) -> Self {
        Self::isolated_with(arguments, refuse_iterators)
    }

    /// The same with its command changed.
    pub(crate) fn isolated_with(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let address = free_address();
        let port = address.port().to_string();
        let mut all = vec!["--netns", "host"];
        // Where ports to include are named, its own is not among them.
        if !arguments.contains(&"--include-port") {
            all.extend(["--exclude-port", &port]);
        }
        all.extend(arguments);
        Self::start_at(address, &all, prepare)
    }

    /// Starts it at this address, with its command changed, and waits until it is ready.
    pub(crate) fn start_at(
        address: SocketAddr,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let daemon = Self::starting(address, arguments, prepare);
        daemon.wait_ready();
        daemon
    }

    /// Starts one and does not wait for anything.
    pub(crate) fn starting(
        address: SocketAddr,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory").into();
        Self::starting_in(directory, address, arguments, prepare)
    }

    /// Starts one in the place of this one, which has ended.
    pub(crate) fn successor(&self, arguments: &[&str]) -> Self {
        let next = Self::starting_in(Arc::clone(&self.directory), free_address(), arguments, |_| ());
        next.wait_ready();
        next
    }

    fn starting_in(
        directory: Arc<TempDir>,
        address: SocketAddr,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = command(address, arguments);
        command.arg("--run-dir").arg(directory.path());
        if !arguments.contains(&"--incident-file") {
            command.arg("--incident-file").arg(directory.path().join(INCIDENT_FILE));
        }
        prepare(&mut command);
        let (pid, ended) = spawn(command, directory.path().join("output"));
        Self { address, pid, directory, ended: Mutex::new(ended) }
    }

    /// Waits until it is ready.
    pub(crate) fn wait_ready(&self) {
        until("the daemon is ready", || {
            if let Ok(status) = self.ended().try_recv() {
                panic!("the daemon ended at once, {status}:\n{}", self.output());
            }
            get(self.address, "/readyz").is_some_and(|(status, _)| status == 200).then_some(())
        });
    }

    fn ended(&self) -> MutexGuard<'_, mpsc::Receiver<ExitStatus>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has written.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.output_path()).unwrap_or_default()
    }

    fn output_path(&self) -> PathBuf {
        self.directory.path().join("output")
    }

    /// Where it writes incidents.
    pub(crate) fn incident_file(&self) -> PathBuf {
        self.directory.path().join(INCIDENT_FILE)
    }

    /// The files it has written incidents to.
    pub(crate) fn incident_files(&self) -> Vec<PathBuf> {
        let is_one = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(INCIDENT_FILE))
        };
        let entries = fs::read_dir(self.directory.path()).expect("the run directory").flatten();
        entries.map(|entry| entry.path()).filter(is_one).collect()
    }

    /// The incidents it has written, by number; panics where a whole line is no record.
    pub(crate) fn incidents(&self) -> Vec<IncidentRecord> {
        records(self.incident_lines().lines())
    }

    /// The whole lines of the files it has written incidents to.
    pub(crate) fn incident_lines(&self) -> String {
        let texts =
            self.incident_files().into_iter().map(|file| fs::read_to_string(file).unwrap_or_default());
        // The last line may just be being written.
        texts.map(|text| text[..text.rfind('\n').map_or(0, |end| end + 1)].to_owned()).collect()
    }

    /// The exposition.
    pub(crate) fn text(&self) -> String {
        match get(self.address, "/metrics") {
            Some((200, body)) => body,
            other => panic!("/metrics: {other:?}\n{}", self.output()),
        }
    }

    /// The exposition's samples.
    pub(crate) fn scrape(&self) -> Scrape {
        Scrape::parse(&self.text())
    }

    /// Everything it has seen since its start, as its socket tells. By hand: tokio's signal pipe belongs to the
    /// descriptors of one thread, and each namespace here has its own.
    pub(crate) fn observe(&self) -> Observation {
        let path = socket::path(self.directory.path());
        let mut stream = UnixStream::connect(path).expect("the daemon listens");
        write!(stream, "GET /observation?since=86400 HTTP/1.0\r\nHost: finwatch\r\n\r\n")
            .expect("room to write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Sends a signal and returns how and when it ended.
    pub(crate) fn stop(&self, signal: Signal) -> Option<(ExitStatus, Duration)> {
        let since = Instant::now();
        kill(self.pid, signal).ok()?;
        let status = self.ended().recv_timeout(Duration::from_secs(5)).ok()?;
        Some((status, since.elapsed()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.ended().try_recv().is_err() && self.stop(Signal::SIGTERM).is_none() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

/// Starts `command` from a thread that lives as long as it does: the kernel kills it with that thread, so that it never
/// outlives the tests.
fn spawn(mut command: Command, output: PathBuf) -> (Pid, mpsc::Receiver<ExitStatus>) {
    let (started, pid) = mpsc::channel();
    let (ended, ending) = mpsc::channel();
    let output = fs::File::create(output).expect("the run directory is writable");
    command.stdout(output.try_clone().expect("a second descriptor")).stderr(output);
    // SAFETY: prctl() is async-signal-safe and touches no memory of the parent.
    unsafe { command.pre_exec(die_with_parent) };
    thread::spawn(move || {
        let mut child = command.spawn().expect("the finwatch binary starts");
        let pid = i32::try_from(child.id()).expect("a process id");
        started.send(Pid::from_raw(pid)).expect("the test waits for it");
        let status = child.wait().expect("a child of ours");
        let _ = ended.send(status);
    });
    (pid.recv().expect("the thread has started it"), ending)
}

/// From now on the kernel answers `BPF_ITER_CREATE` with EPERM, and everything else as ever.
pub(crate) fn refuse_iterators(command: &mut Command) {
    const BPF_ITER_CREATE: u64 = 33;
    let is_create = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, BPF_ITER_CREATE);
    let rule = SeccompRule::new(vec![is_create.expect("a condition")]).expect("a rule");
    let refusal = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into().expect("seccompiler knows it");
    let rules = [(libc::SYS_bpf, vec![rule])].into_iter().collect();
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refusal, architecture).expect("a filter of one rule");
    let program: BpfProgram = filter.try_into().expect("a short program");
    let apply = move || seccompiler::apply_filter(&program).map_err(std::io::Error::other);
    // SAFETY: two system calls upon a program that was made before; nothing is allocated unless they fail.
    unsafe { command.pre_exec(apply) };
}

fn die_with_parent() -> std::io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into)
}

/// The incidents of these lines, by number; panics where one is no record.
pub(crate) fn records<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<IncidentRecord> {
    let record = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let mut records: Vec<IncidentRecord> = lines.map(record).collect();
    records.sort_by_key(|record| record.id);
    records
}

/// One HTTP request; `None` while nobody answers.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).expect("the exposition is UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
