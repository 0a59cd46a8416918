//! Which of the kernel tests run in a virtual machine, and what they need there.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    image::Image,
    machine::Processors,
    report::{Plan, Step},
};
use crate::{
    host, process,
    test::{KERNEL, kernel_tests},
};

/// What tests run, beside what this repository builds.
const PROGRAMS: [&str; 17] = [
    "sh", "cat", "clear", "curl", "env", "install", "ip", "mv", "nft", "nginx", "nsenter", "setpriv",
    "sleep", "ss", "stty", "tc", "tmux",
];
/// What these read.
const FILES: [&str; 3] = ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"];
const TREES: [&str; 3] = ["/etc/nginx", "/lib/terminfo", "/usr/lib/locale/C.utf8"];
/// Under this name the guest's environment says that the kernel is a virtual machine's of its own.
const IN_MACHINE: (&str, &str) = ("FINWATCH_TEST_VM", "1");
/// They share a daemon, and one look at it serves all that wait for one.
const TOGETHER: &str = "16";
/// Each has a daemon of its own: more at once would only make each other late.
const APART: &str = "2";

/// Each over each family.
const SEQUENCES: &str = "sequences::";
/// The short form of everything else: what touches the kernel in a way of its own.
const SHORT: [&str; 12] = [
    "adoption::old_connections_of_a_proxy",
    "adoption::old_connections_of_an_upstream",
    "fallbacks::without_the_iterator",
    "filters::every_hook_is_attached_whatever_is_filtered",
    "levels::every_state_of_a_proxy_v6",
    "levels::every_state_of_an_upstream_v4",
    "levels_netlink::netlink_processes_with_one_upstream",
    "missed_ends::missed_ends_are_closed_in_the_books",
    "missed_resets::the_next_program_counts_resets",
    "ports::the_same_addresses_in_three_namespaces",
    "quiet_namespaces::a_namespace_that_is_only_mounted_is_found",
    "requests::requests_are_counted_exactly",
];

/// What runs in virtual machines only, and there by itself.
pub(crate) const MACHINE: &str = "machine::";
/// What of this needs two processors.
const TWO_PROCESSORS: [&str; 2] = ["machine::interrupts::", "machine::processors::"];

/// What a processor that is emulated, and a file system without accounts or units, have no part in: these run on the host.
const NOT_HERE: [&str; 8] = [
    // Steps of their own.
    MACHINE,
    SEQUENCES,
    // Node.js takes minutes to start.
    "requests_nginx::",
    // Twenty thousand connections each: counted on the host.
    "volume::twenty_thousand",
    "five_thousand_active_closes",
    "busy::",
    "docs::",
    // Two hundred namespaces.
    "namespaces::two_hundred_namespaces",
];

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// What fits into minutes.
    Short,
    /// All that can be.
    All,
}

/// What was built for it.
pub(super) struct Built {
    test: PathBuf,
    finwatch: PathBuf,
}

impl Built {
    /// Builds the kernel tests, and the daemon that they run.
    pub(super) fn new() -> Result<Self> {
        let mut build = host::cargo();
        build.args(["test", "--workspace", "--test", KERNEL, "--no-run", "--message-format", "json"]);
        let output = build.stderr(Stdio::inherit()).output().context("building the kernel tests")?;
        ensure!(output.status.success(), "the kernel tests do not build");
        let messages = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Self {
            test: executable(&messages, KERNEL, "test")?,
            finwatch: executable(&messages, "finwatch", "bin")?,
        })
    }

    /// The file system in which they run; programs without symbols are written to `directory`.
    pub(super) fn image(&self, directory: &Path) -> Result<Image> {
        let mut image = Image::default();
        for program in PROGRAMS {
            let path = host::find_program(program).with_context(|| format!("{program} is not installed"))?;
            image.program(&path)?;
        }
        for file in FILES {
            image.file(Path::new(file))?;
        }
        for tree in TREES {
            image.tree(Path::new(tree))?;
        }
        for place in ["/proc", "/sys", "/dev", "/run/netns", "/root", "/var/log/nginx", "/var/lib/nginx"] {
            image.directory(Path::new(place));
        }
        image.shared_directory(Path::new("/tmp"));
        image.directory(&host::root().join("monitor"));
        image.tree(&host::root().join("docs"))?;
        let own = std::env::current_exe().context("finding this program")?;
        for (path, source) in
            [(self.test.as_path(), &self.test), (&self.finwatch, &self.finwatch), (Path::new("/init"), &own)]
        {
            let name = source.file_name().context("a program's name")?;
            let stripped = directory.join(name);
            let mut strip = host::command("strip");
            process::run("strip", strip.arg("-o").arg(&stripped).arg(source), Duration::from_mins(2))?;
            image.program_from(path, &stripped)?;
        }
        Ok(image)
    }

    /// The guests test.
    pub(super) fn tests(&self, extent: Extent) -> Vec<Boot> {
        let others = match extent {
            Extent::Short => words(&SHORT),
            Extent::All => skip(&NOT_HERE),
        };
        let alone = [words(&[MACHINE]), skip(&TWO_PROCESSORS)].concat();
        let one = vec![
            self.step(SEQUENCES_STEP, words(&[SEQUENCES])),
            self.step(OTHERS, others),
            self.step(ALONE, alone),
        ];
        let two = vec![self.step(TWO, words(&TWO_PROCESSORS))];
        vec![boot(Processors::One, one), boot(Processors::Two, two)]
    }

    /// Only tests whose names hold one of the texts that are wanted.
    pub(super) fn only(&self, wanted: &[String]) -> Result<Vec<Boot>> {
        let tests = kernel_tests()?;
        let is_of = |text: &String, name: &String| name.contains(text.as_str());
        for text in wanted {
            ensure!(tests.iter().any(|name| is_of(text, name)), "no kernel test's name holds `{text}`");
        }
        let mut chosen: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for name in tests.into_iter().filter(|name| wanted.iter().any(|text| is_of(text, name))) {
            chosen.entry(step_of(&name)).or_default().push(name);
        }
        let two = chosen.remove(TWO);
        let exactly = |(name, tests): (&str, Vec<String>)| {
            self.step(name, std::iter::once("--exact".to_owned()).chain(tests).collect())
        };
        let one: Vec<Step> = chosen.into_iter().map(exactly).collect();
        let two = two.map(|tests| boot(Processors::Two, vec![exactly((TWO, tests))]));
        Ok((!one.is_empty()).then(|| boot(Processors::One, one)).into_iter().chain(two).collect())
    }

    fn step(&self, name: &str, tests: Vec<String>) -> Step {
        let threads = match name {
            SEQUENCES_STEP => TOGETHER,
            OTHERS => APART,
            _ => "1",
        };
        step(name, &self.test, [words(&["--test-threads", threads]), tests].concat())
    }

    /// The guest only tells what its kernel offers.
    pub(super) fn look(&self) -> Boot {
        boot(Processors::One, vec![step(CHECK, &self.finwatch, words(&["check", "--json"]))])
    }
}

/// A machine that is to be booted.
pub(super) struct Boot {
    pub(super) processors: Processors,
    pub(super) plan: Plan,
}

fn boot(processors: Processors, steps: Vec<Step>) -> Boot {
    Boot { processors, plan: plan(steps) }
}

fn skip(names: &[&str]) -> Vec<String> {
    names.iter().flat_map(|name| words(&["--skip", name])).collect()
}

fn plan(steps: Vec<Step>) -> Plan {
    let variables = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("CI", "true"),
        IN_MACHINE,
    ];
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    // As on every host; the kernel leaves it down.
    let loopback = step("loopback", Path::new("/bin/sh"), words(&["-c", "ip link set lo up"]));
    Plan {
        directory: host::root().join("monitor").to_string_lossy().into_owned(),
        environment: variables.into_iter().map(own).collect(),
        steps: std::iter::once(loopback).chain(steps).collect(),
    }
}

fn step(name: &str, path: &Path, arguments: Vec<String>) -> Step {
    Step { name: name.to_owned(), program: path.to_string_lossy().into_owned(), arguments }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The step that tells what the kernel offers.
pub(super) const CHECK: &str = "check";
/// The step of the sequences.
pub(super) const SEQUENCES_STEP: &str = "sequences";
/// The step of everything else.
pub(super) const OTHERS: &str = "others";
/// The step of those tests that change the machine, one after the other.
pub(super) const ALONE: &str = "alone";
/// The step of those of them that need two processors.
pub(super) const TWO: &str = "two-processors";

/// In which step a test runs.
fn step_of(test: &str) -> &'static str {
    if TWO_PROCESSORS.iter().any(|name| test.starts_with(name)) {
        TWO
    } else if test.starts_with(MACHINE) {
        ALONE
    } else if test.starts_with(SEQUENCES) {
        SEQUENCES_STEP
    } else {
        OTHERS
    }
}

/// Where cargo says that it has put a program.
fn executable(messages: &str, name: &str, kind: &str) -> Result<PathBuf> {
    let of_target = |message: &Value| {
        let target = &message["target"];
        let is_kind = target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|one| one == kind));
        (target["name"] == name && is_kind)
            .then(|| message["executable"].as_str().map(PathBuf::from))
            .flatten()
    };
    let mut messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = messages.find_map(|message| of_target(&message));
    found.with_context(|| format!("cargo has built no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_has_its_step() {
        for (test, step) in [
            ("machine::interrupts::interrupts_land_in_programs", TWO),
            ("machine::clock::steps", ALONE),
            ("sequences::close::one", SEQUENCES_STEP),
            ("levels::every_state", OTHERS),
        ] {
            assert_eq!(step_of(test), step, "{test}");
        }
    }

    #[test]
    fn what_was_built_is_found() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"finwatch","kind":["lib"]},"executable":null}"#,
            "\nno JSON\n",
            r#"{"reason":"compiler-artifact","target":{"name":"finwatch","kind":["bin"]},"executable":"/a/finwatch"}"#,
        );
        assert_eq!(executable(messages, "finwatch", "bin").expect("it is there"), Path::new("/a/finwatch"));
        assert!(executable(messages, "kernel", "test").is_err());
    }
}
