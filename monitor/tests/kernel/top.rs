//! `finwatch top` in a real terminal: what it shows of known traffic, and how it leaves the terminal.

use std::{env, fs, process::Command, time::Duration};

use finwatch::top::terminal::Screen;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use socket2::SockRef;

use crate::harness::{
    can_run,
    daemon::Daemon,
    netns::in_namespace,
    process_name,
    tmux::Tmux,
    traffic::{listen, local, open_and_close, pair},
    until,
};

const PORT: u16 = 8_080;
const HELPER: &str = "FINWATCH_HELPER_PANIC";

/// Whether a terminal can be had here.
pub(crate) fn possible(test: &str) -> bool {
    if !can_run(test) {
        return false;
    }
    let there = Command::new("tmux").arg("-V").output().is_ok();
    assert!(
        there || env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{test} needs tmux and CI may not skip it"
    );
    if !there {
        eprintln!("SKIPPED {test}: needs tmux");
    }
    there
}

/// Runs top in the window; its status shows when it has ended.
pub(crate) fn start(tmux: &Tmux, daemon: &Daemon) {
    tmux.command("clear");
    tmux.command(&format!(
        "{} top --interval 1s --run-dir {}; echo status=$?",
        env!("CARGO_BIN_EXE_finwatch"),
        daemon.directory.path().display()
    ));
}

/// The cells of a pair's line after its name.
fn cells(screen: &str, name: &str) -> Option<Vec<String>> {
    let line = screen.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn what_it_shows() {
    if !possible("what_it_shows") {
        return;
    }
    in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let listener = listen(local(1, PORT));
        let mut open: Vec<_> = (0..3).map(|_| pair(&listener)).collect();
        (0..4).for_each(|_| open_and_close(&listener));
        let tmux = Tmux::start(120, 40);
        start(&tmux, &daemon);
        let ours = format!("{} -> 127.0.0.1:{PORT}", process_name());
        let theirs = format!("127.0.0.1 -> 127.0.0.1:{PORT}");
        // open/s, open, busy, idle, t_wait, ports, lost, rst/s, closed by.
        tmux.shows("the counts of the pair", |screen| {
            cells(screen, &ours).is_some_and(|cells| {
                cells[0] == "0"
                    && cells[1..5] == ["3", "0", "3", "4"]
                    && cells[6..10] == ["0", "0", "proxy", "100%"]
            })
        });
        tmux.key("Left");
        tmux.key("Left");
        let place = |screen: &str, name: &str| screen.lines().position(|line| line.starts_with(name));
        let above = |screen: &str, a: &str, b: &str| {
            place(screen, a).zip(place(screen, b)).is_some_and(|(a, b)| a < b)
        };
        tmux.shows("those with TIME_WAIT first", |screen| above(screen, &ours, &theirs));
        tmux.key("r");
        tmux.shows("those with TIME_WAIT last", |screen| above(screen, &theirs, &ours));
        tmux.text("/");
        tmux.text(&process_name());
        tmux.key("Enter");
        tmux.shows("only our pair", |screen| {
            place(screen, &ours).is_some() && place(screen, &theirs).is_none()
        });
        tmux.key("Enter");
        tmux.shows("the pair's counts", |screen| {
            let counted = |title: &str, value: &str, count: &str| {
                let after = screen.lines().skip_while(|line| !line.starts_with(title)).nth(1);
                after.is_some_and(|line| line.split_whitespace().take(2).eq([value, count]))
            };
            counted("connections opened", "all", "7") && counted("connections closed", "local", "4")
        });
        // The upstream gives one up by a reset, as the pair's story then tells.
        let (proxy, accepted) = open.pop().expect("one of three");
        SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(accepted);
        tmux.shows("the pair's last incident", |screen| {
            let after = screen.lines().skip_while(|line| !line.contains("last incidents, the newest first"));
            after.skip(1).any(|line| line.contains("reset while idle"))
        });
        drop(proxy);
        tmux.key("Escape");
        tmux.resize(40, 10);
        tmux.shows("a narrow table", |screen| {
            screen.contains("lost") && !screen.contains("closed by") && screen.contains(":8080")
        });
        tmux.resize(120, 40);
        tmux.shows("a wide table", |screen| screen.contains("closed by"));
        daemon.stop(Signal::SIGTERM).expect("it ends");
        tmux.shows("that the daemon is gone", |screen| {
            screen.contains("daemon gone, retrying") && screen.contains(&ours)
        });
        let daemon = daemon.successor(&["--netns", "host"]);
        open.push(pair(&listener));
        tmux.shows("what the next daemon sees", |screen| {
            !screen.contains("daemon gone") && cells(screen, &ours).is_some_and(|cells| cells[1] == "1")
        });
        tmux.key("q");
        tmux.shows("the status", |screen| screen.contains("status=0"));
        drop((open, daemon));
    });
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    if !possible("colour_is_for_terminals_that_want_it") {
        return;
    }
    in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let tmux = Tmux::start(80, 24);
        let triage = format!(
            "{} triage --since 1s --run-dir {}",
            env!("CARGO_BIN_EXE_finwatch"),
            daemon.directory.path().display()
        );
        for (command, coloured) in [
            (triage.clone(), true),
            (format!("NO_COLOR= {triage}"), true),
            (format!("NO_COLOR=1 {triage}"), false),
            (format!("{triage} | cat"), false),
        ] {
            tmux.command("clear");
            tmux.command(&format!("{command}; echo status=$?"));
            tmux.shows("the status", |screen| screen.contains("status=0"));
            assert_eq!(tmux.painted().contains('\u{1b}'), coloured, "{command}");
        }
    });
}

#[test]
fn how_it_leaves_the_terminal() {
    if !possible("how_it_leaves_the_terminal") {
        return;
    }
    in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let tmux = Tmux::start(80, 24);
        let before = tmux.state("before");
        for key in ["q", "Escape", "C-c"] {
            start(&tmux, &daemon);
            tmux.shows("top", |screen| screen.starts_with("finwatch top") && screen.contains("q quit"));
            tmux.key(key);
            tmux.shows("the status", |screen| screen.contains("status=0"));
            assert_eq!(tmux.state(&format!("after-{key}")), before, "{key}");
        }
        let pid = daemon.directory.path().join("top.pid");
        tmux.command("clear");
        tmux.command(&format!(
            "sh -c 'echo $$ > {0}.new && mv {0}.new {0}; exec {1} top --run-dir {2}'; echo status=$?",
            pid.display(),
            env!("CARGO_BIN_EXE_finwatch"),
            daemon.directory.path().display()
        ));
        tmux.shows("top", |screen| screen.starts_with("finwatch top") && screen.contains("q quit"));
        let pid = until("its process id", || fs::read_to_string(&pid).ok()?.trim().parse().ok());
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        tmux.shows("the status", |screen| screen.contains("status=0"));
        assert_eq!(tmux.state("after-sigterm"), before, "SIGTERM");
        tmux.command("clear");
        let this = env::current_exe().expect("a path");
        tmux.command(&format!(
            "RUST_BACKTRACE=0 {HELPER}=1 {} --exact top::helper --nocapture; echo status=$?",
            this.display()
        ));
        tmux.shows("a panic", |screen| {
            screen.contains("in the middle of a picture") && screen.contains("status=101")
        });
        assert_eq!(tmux.state("after-panic"), before, "panic");
    });
}

/// Not a test: what panics in the window.
#[test]
fn helper() {
    if env::var_os(HELPER).is_none() {
        return;
    }
    let mut screen = Screen::open().expect("a terminal");
    screen.draw(|frame| frame.render_widget("a picture", frame.area())).expect("a terminal");
    panic!("in the middle of a picture");
}
