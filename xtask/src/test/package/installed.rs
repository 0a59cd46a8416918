//! The Debian package on a Debian: installed, started, scraped, upgraded, reloaded, given more rights, removed and purged.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{
    assert_works,
    guest::Guest,
    older::{HOLDER, Older},
    reloaded,
};
use crate::package::{self, Packages, VERSION};

/// What the unit grants, with and without its drop-in.
const GRANTED: &str = "CAP_BPF,CAP_PERFMON,CAP_SYS_ADMIN,CAP_SYS_PTRACE,CAP_DAC_READ_SEARCH";
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const CONFIG: &str = "/etc/finwatch.toml";
const EXAMPLE: &str = "/usr/share/doc/finwatch/examples/namespaces.conf";
/// What the package brings that a user looks for.
const FILES: [&str; 7] = [
    "/usr/bin/finwatch",
    "/usr/share/man/man1/finwatch.1.gz",
    "/usr/share/man/man1/finwatch-run.1.gz",
    "/usr/share/bash-completion/completions/finwatch",
    "/usr/share/zsh/vendor-completions/_finwatch",
    "/usr/share/fish/vendor_completions.d/finwatch.fish",
    "/usr/share/doc/finwatch/examples/conntrack.conf",
];

/// The whole life.
pub(super) fn run(packages: &Packages) -> Result<()> {
    let before = package::deb(&package::directory(), Some(&format!("{VERSION}~before-1")))?;
    let guest = Guest::boot(GRANTED)?;
    guest.put(&before, "/before.deb")?;
    guest.put(&packages.deb, "/finwatch.deb")?;

    guest.run("dpkg", &["--install", "/before.deb"])?;
    assert_works(&guest.namespace).context("installed")?;
    assert_confined(&guest, 0).context("installed")?;
    for file in FILES {
        ensure!(guest.path(file).is_file(), "the package brings no {file}");
    }
    let enabled = guest.run("systemctl", &["is-enabled", "finwatch"])?;
    ensure!(enabled == "enabled", "after a boot it would be {enabled}");
    let first = pid(&guest)?;

    let config = guest.path(CONFIG);
    let changed = fs::read_to_string(&config).context("no configuration")? + "max-pairs = 512\n";
    fs::write(&config, &changed).context("the configuration is not ours to change")?;
    guest.run("dpkg", &["--install", "/finwatch.deb"])?;
    ensure!(pid(&guest)? != first, "the upgrade did not start the new version");
    assert_works(&guest.namespace).context("upgraded")?;
    ensure!(
        fs::read_to_string(&config).context("upgraded")? == changed,
        "the upgrade changed the configuration"
    );
    let version = guest.run("dpkg-query", &["--show", "--showformat", "${Version}", "finwatch"])?;
    ensure!(version == format!("{VERSION}-1"), "installed is {version}");
    assert_limit(&guest, 512)?;
    reloaded::run(&guest, CONFIG).context("reloaded")?;

    let older = Older::open(&guest)?;
    guest.run("systemctl", &["restart", "finwatch"])?;
    older.assert_holder(&guest, "unknown").context("without the drop-in")?;

    let drop_ins = "/etc/systemd/system/finwatch.service.d";
    guest.run("mkdir", &["--parents", drop_ins])?;
    guest.run("cp", &[EXAMPLE, drop_ins])?;
    guest.run("systemctl", &["daemon-reload"])?;
    guest.run("systemctl", &["restart", "finwatch"])?;
    older.assert_holder(&guest, HOLDER).context("with the drop-in")?;
    assert_works(&guest.namespace).context("with the drop-in")?;
    assert_confined(&guest, SYS_ADMIN | SYS_PTRACE | DAC_READ_SEARCH).context("with the drop-in")?;
    let told = guest.run("finwatch", &["check", "--config", CONFIG])?;
    let row = format!("pid {}: holds CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN", pid(&guest)?);
    ensure!(told.contains(&row), "check does not say {row}:\n{told}");

    guest.run("dpkg", &["--remove", "finwatch"])?;
    let left = guest.command("pidof").arg("finwatch").output().context("pidof")?;
    ensure!(!left.status.success(), "removed, and still running");
    ensure!(
        !guest.path("/usr/bin/finwatch").exists() && config.exists(),
        "removing keeps the configuration only"
    );
    guest.run("dpkg", &["--purge", "finwatch"])?;
    ensure!(!config.exists(), "purging leaves no configuration");
    let units = guest.run("systemctl", &["list-unit-files", "--no-legend", "--plain"])?;
    ensure!(!units.contains("finwatch"), "a unit stays: {units}");
    Ok(())
}

pub(super) fn pid(guest: &Guest) -> Result<u32> {
    let told = guest.run("systemctl", &["show", "--property", "MainPID", "--value", "finwatch"])?;
    let pid = told.parse().ok().filter(|pid| *pid != 0);
    pid.with_context(|| format!("finwatch does not run: {told}"))
}

fn assert_limit(guest: &Guest, pairs: u64) -> Result<()> {
    let samples = guest
        .namespace
        .within(|| crate::daemon::metrics::Samples::scrape("http://127.0.0.1:9778/metrics"))?;
    let limit = samples.sum("finwatch_pairs_limit", &[])?;
    ensure!(limit == pairs, "the configuration is not read: room for {limit} pairs");
    Ok(())
}

/// Another user than root, these capabilities on every thread, no way to more, and a filter of system calls.
fn assert_confined(guest: &Guest, capabilities: u64) -> Result<()> {
    let tasks = format!("/proc/{}/task", pid(guest)?);
    let statuses = guest.run("sh", &["-c", &format!("cat {tasks}/*/status")])?;
    let mask = format!("{capabilities:016x}");
    let none = format!("{:016x}", 0);
    for (name, wanted) in [
        ("CapPrm", &mask),
        ("CapEff", &mask),
        ("CapInh", &none),
        ("CapAmb", &none),
        ("NoNewPrivs", &"1".to_owned()),
        ("Seccomp", &"2".to_owned()),
    ] {
        let values: Vec<&str> = statuses
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .collect();
        ensure!(
            !values.is_empty() && values.iter().all(|value| value == wanted),
            "{name} {values:?}, not {wanted}"
        );
    }
    let root = statuses.lines().any(|line| line.starts_with("Uid:\t0\t"));
    ensure!(!root, "it runs as root");
    Ok(())
}
