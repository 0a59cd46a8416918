//! No daemon, one of another version, one that is not for us, a reader that has gone: one clear sentence each.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixListener, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use finwatch::api::{routes, socket::Socket};
use nix::{pty::openpty, unistd::geteuid};

use crate::{finwatch, skip};

/// A user without rights, whom files of others do not concern.
const NOBODY: u32 = 65_534;
/// Answers of another version.
const OTHER_VERSION: &str = "9.9.9";

/// A directory that everybody may enter.
fn open_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("our own directory");
    directory
}

/// `finwatch COMMAND --run-dir DIR` of a user who may not attach by himself. `top` gets a terminal.
fn unprivileged(command: &str, run_dir: &Path, home: &Path) -> Output {
    let mut asked = if geteuid().is_root() {
        // Where the tests are built may be closed to others.
        let copy: PathBuf = home.join("finwatch");
        if !copy.exists() {
            // By another process: what a test beside this one starts may inherit a descriptor of ours that writes, and
            // then the program is busy.
            let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_finwatch")).arg(&copy).status();
            assert!(copied.expect("`cp` starts").success());
        }
        let mut asked = Command::new(copy);
        asked.uid(NOBODY).gid(NOBODY);
        asked
    } else {
        finwatch(&[])
    };
    asked.args([command, "--run-dir"]).arg(run_dir).stdin(Stdio::null()).stderr(Stdio::piped());
    if command == "triage" {
        return asked.output().expect("finwatch starts");
    }
    let terminal = openpty(None, None).expect("a pseudoterminal");
    let child = asked.stdout(Stdio::from(terminal.slave)).spawn().expect("finwatch starts");
    drop(asked);
    let output = child.wait_with_output().expect("a child of ours");
    let mut drawn = Vec::new();
    // At the end the other side of a pseudoterminal is an error.
    drop(File::from(terminal.master).read_to_end(&mut drawn));
    Output { stdout: drawn, ..output }
}

fn assert_sentence(command: &str, output: &Output, about: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{command}: {text}");
    assert_eq!(text.lines().count(), 1, "{command}: one line:\n{text}");
    assert!(text.starts_with("finwatch: "), "{command}: {text}");
    for word in about {
        assert!(text.contains(word), "{command} names {word}: {text}");
    }
    assert!(output.stdout.is_empty(), "{command} draws nothing");
}

#[test]
fn no_daemon() {
    let (home, run_dir) = (open_directory(), open_directory());
    for command in ["triage", "top"] {
        let output = unprivileged(command, run_dir.path(), home.path());
        assert_sentence(command, &output, &["no finwatch daemon answers", "finwatch run", "root"]);
    }
}

#[test]
fn a_socket_that_is_not_for_us() {
    if !geteuid().is_root() {
        return skip("a_socket_that_is_not_for_us", "needs root, to be somebody else");
    }
    let (home, run_dir) = (open_directory(), open_directory());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let socket = runtime.block_on(async { Socket::bind(run_dir.path()).expect("a writable directory") });
    let served = routes::router(std::sync::Arc::default());
    let Socket { listener, file: _file } = socket;
    runtime.spawn(finwatch::export::server::serve(listener, served, std::future::pending()));
    for command in ["triage", "top"] {
        let output = unprivileged(command, run_dir.path(), home.path());
        assert_sentence(command, &output, &["owner and group only", "finwatch.sock"]);
    }
    // To us it speaks.
    let output = finwatch(&["triage", "--run-dir"]).arg(run_dir.path()).output().expect("finwatch starts");
    assert_sentence("triage", &output, &["still taking in"]);
}

#[test]
fn a_daemon_of_another_version() {
    let (home, run_dir) = (open_directory(), open_directory());
    let path = run_dir.path().join("finwatch.sock");
    let listener = UnixListener::bind(&path).expect("a writable directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("our own socket");
    let answers = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().expect("a question");
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a whole question");
                question.push(byte[0]);
            }
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nfinwatch-version: {OTHER_VERSION}\r\ncontent-length: 2\r\n\r\n{{}}"
            )
            .expect("it listens");
        }
    });
    for command in ["triage", "top"] {
        let output = unprivileged(command, run_dir.path(), home.path());
        assert_sentence(command, &output, &[OTHER_VERSION, env!("CARGO_PKG_VERSION"), "restart"]);
    }
    answers.join().expect("both asked once");
}

#[test]
fn top_without_a_terminal() {
    let output = finwatch(&["top"]).output().expect("finwatch starts");
    assert_sentence("top", &output, &["terminal", "triage"]);
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    for arguments in [&["completions", "bash"][..], &["man"]] {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        drop(reader);
        let output = finwatch(arguments).stdout(Stdio::from(writer)).stderr(Stdio::piped()).output();
        let output = output.expect("finwatch starts");
        assert!(output.status.success(), "{arguments:?}: {}", output.status);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}
