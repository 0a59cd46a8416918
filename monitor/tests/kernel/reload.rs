//! SIGHUP: names and the web config are read again, all or nothing.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use nix::sys::signal::{Signal, kill};

use crate::harness::{
    can_run,
    daemon::{self, Daemon},
    until,
};

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("our own directory");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
}

/// Whether the last reload was accepted, and whether the daemon's own scrapes are shown under this name.
fn shown(daemon: &Daemon, name: &str) -> (bool, bool) {
    let text = daemon.text();
    let accepted = text.contains("\nfinwatch_config_last_reload_successful 1\n");
    (accepted, text.contains(&format!("side=\"upstream\",proxy=\"scraper\",upstream=\"{name}\"")))
}

#[test]
fn names_are_read_again_and_mistakes_change_nothing() {
    if !can_run("names_are_read_again_and_mistakes_change_nothing") {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (config, web) = (directory.path().join("finwatch.toml"), directory.path().join("web.yml"));
    let flags = ["--config", config.to_str().expect("text"), "--web-config", web.to_str().expect("text")];
    let named = |name: &str| {
        let proxies = "[names.proxies]\n\"127.0.0.0/8\" = \"scraper\"\n";
        write(&config, &format!("{proxies}[names.upstreams]\n\"127.0.0.1\" = \"{name}\"\n"));
    };
    named("first");
    write(&web, "http_server_config:\n  headers:\n    X-Frame-Options: deny\n");
    let daemon = Daemon::start(&flags);
    until("it has the first name", || (shown(&daemon, "first") == (true, true)).then_some(()));
    let hangup = || kill(daemon.pid, Signal::SIGHUP).expect("it runs");

    named("second");
    hangup();
    until("it has the second name", || (shown(&daemon, "second") == (true, true)).then_some(()));
    assert_eq!(shown(&daemon, "first"), (true, false), "no series has the old one");
    let observed = daemon.observe();
    let pair =
        observed.pairs.iter().find(|pair| pair.labels.upstream == "second").expect("the API names it too");
    assert!(pair.addresses.contains(&daemon.address), "{:?}", pair.addresses);

    // Names that are right do not go in where the web config is wrong.
    named("third");
    write(&web, "http_server_confi: {}\n");
    hangup();
    until("it refuses", || (shown(&daemon, "second") == (false, true)).then_some(()));
    assert!(daemon.output().contains("unknown key"), "{}", daemon.output());

    write(&config, "[names.upstreams]\n\"nowhere\" = \"x\"\n");
    write(&web, "");
    hangup();
    until("it says so", || daemon.output().contains("nowhere").then_some(()));
    assert_eq!(shown(&daemon, "second"), (false, true));

    named("third");
    hangup();
    until("all is well again", || (shown(&daemon, "third") == (true, true)).then_some(()));
}

#[test]
fn a_web_config_that_others_may_read_is_refused() {
    if !can_run("a_web_config_that_others_may_read_is_refused") {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let web = directory.path().join("web.yml");
    write(&web, "");
    fs::set_permissions(&web, fs::Permissions::from_mode(0o644)).expect("our own file");
    let mut command = daemon::command(daemon::free_address(), &["--web-config", web.to_str().expect("text")]);
    let output = command.arg("--run-dir").arg(directory.path()).output().expect("finwatch starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
    assert!(text.contains("web.yml") && text.contains("chmod o="), "{text}");
}
