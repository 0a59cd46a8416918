//! Which kernels there are: what Debian's suites offer, read with a state directory of apt's own, so that the host's
//! sources stay as they are.

use std::{
    cmp::Reverse,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{host, process};

/// One suite's kernel each; the first of a series is the one that the short form is for.
const SUITES: [&str; 6] = ["bullseye", "bookworm", "trixie", "bookworm-backports", "trixie-backports", "sid"];
/// The series of the short form, besides the newest kernel of all.
const SERIES: [&str; 3] = ["5.10", "6.1", "6.12"];
/// Depends on the suite's newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";
/// What a kernel is made of; from 6.19 on in several packages.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const LIMIT: Duration = Duration::from_mins(10);

/// What the suites offer.
pub(super) struct Suites {
    directory: PathBuf,
}

/// A suite's newest kernel.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    /// Where it comes from.
    pub(super) suite: &'static str,
    /// The packages' version.
    pub(super) version: String,
    /// The packages that have files in them.
    pub(super) packages: Vec<Package>,
}

/// A package as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    /// The checksum that the suite's signed index names.
    pub(super) sha256: String,
}

impl Suites {
    /// Reads the suites' indices anew; what cannot be read is missing in what follows, or older.
    pub(super) fn read(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(directory.join("lists/partial")).context("making a directory for apt")?;
        fs::create_dir_all(directory.join("cache/archives/partial")).context("making a directory for apt")?;
        let mirror = mirror().context("apt knows no mirror of Debian: other kernels come from there")?;
        let sources = SUITES.map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"));
        fs::write(directory.join("sources.list"), sources.concat()).context("writing apt's sources")?;
        let suites = Self { directory };
        process::run("apt-get update", suites.apt("apt-get").args(["-q", "update"]), LIMIT)?;
        Ok(suites)
    }

    /// The kernel of each suite; where there is none, why.
    pub(super) fn offers(&self) -> Vec<(&'static str, Result<Offer>)> {
        SUITES.iter().map(|suite| (*suite, self.offer(suite))).collect()
    }

    fn offer(&self, suite: &'static str) -> Result<Offer> {
        let newest = self.show(&format!("{NEWEST}/{suite}"))?;
        let mut packages = Vec::new();
        let mut wanted = parts(&newest);
        while let Some(part) = wanted.pop() {
            let text = self.show(&part)?;
            wanted.extend(parts(&text));
            let package = package(&text)?;
            if !packages.contains(&package) {
                packages.push(package);
            }
        }
        ensure!(!packages.is_empty(), "{suite}: {NEWEST} names no kernel");
        Ok(Offer { suite, version: field(&newest, "Version")?.to_owned(), packages })
    }

    /// Downloads a package to a directory.
    pub(super) fn download(&self, package: &Package, to: &Path) -> Result<()> {
        let Package { name, version, .. } = package;
        let mut download = self.apt("apt-get");
        download.args(["-q", "download"]).arg(format!("{name}={version}")).current_dir(to);
        process::run(&format!("downloading {name} {version}"), &mut download, LIMIT)
    }

    fn show(&self, package: &str) -> Result<String> {
        let shown = process::output(self.apt("apt-cache").args(["show", package]));
        match shown {
            Some(text) if !text.is_empty() => Ok(text),
            _ => bail!("the index has no {package}: could it be read?"),
        }
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = host::command(program);
        let directory = self.directory.display();
        for option in [
            format!("Dir::Etc::sourcelist={directory}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::Lists={directory}/lists"),
            format!("Dir::Cache={directory}/cache"),
            // Images of containers switch these off; without them each call takes seconds.
            "Dir::Cache::pkgcache=pkgcache.bin".to_owned(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            apt.args(["-o", &option]);
        }
        apt
    }
}

/// Where this host's own sources have Debian from.
fn mirror() -> Option<String> {
    let mut targets = host::command("apt-get");
    targets.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    process::output(&mut targets)?.lines().find_map(|line| line.strip_prefix("Debian ").map(str::to_owned))
}

impl Offer {
    /// The kernel's own version: numbers only.
    pub(super) fn numbers(&self) -> [u32; 3] {
        let mut numbers =
            self.version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        [(); 3].map(|()| numbers.next().unwrap_or(0))
    }

    /// Whether it is of a series such as `6.12`.
    pub(super) fn is_of(&self, series: &str) -> bool {
        let [major, minor, patch] = self.numbers();
        series == format!("{major}.{minor}") || series == format!("{major}.{minor}.{patch}")
    }
}

/// The kernels of the short form: of each series the first that the suites name, and the newest of all.
pub(super) fn series_and_newest(offers: &[Offer]) -> Vec<Offer> {
    let newest = offers.iter().min_by_key(|offer| Reverse(offer.numbers()));
    let of_series = SERIES.iter().filter_map(|series| offers.iter().find(|offer| offer.is_of(series)));
    of_series.chain(newest).cloned().collect()
}

/// The series without which [`series_and_newest`] is not whole.
pub(super) fn missing(offers: &[Offer]) -> Vec<&'static str> {
    SERIES.iter().copied().filter(|series| !offers.iter().any(|offer| offer.is_of(series))).collect()
}

/// What of a package's dependencies is a part of the kernel, as `apt-cache show` takes it.
fn parts(text: &str) -> Vec<String> {
    let depends = field(text, "Depends").unwrap_or_default();
    let parts = depends.split(", ").filter(|one| PARTS.iter().any(|part| one.starts_with(part)));
    parts
        .map(|part| {
            let (name, version) = part.split_once(" (= ").unwrap_or((part, ""));
            let version = version.trim_end_matches(')');
            if version.is_empty() { name.to_owned() } else { format!("{name}={version}") }
        })
        .collect()
}

fn package(text: &str) -> Result<Package> {
    Ok(Package {
        name: field(text, "Package")?.to_owned(),
        version: field(text, "Version")?.to_owned(),
        sha256: field(text, "SHA256")?.to_owned(),
    })
}

fn field<'a>(text: &'a str, name: &str) -> Result<&'a str> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.with_context(|| format!("the index names no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(suite: &'static str, version: &str) -> Offer {
        Offer { suite, version: version.to_owned(), packages: Vec::new() }
    }

    #[test]
    fn each_series_and_the_newest_are_chosen() {
        let offers = [
            offer("a", "5.10.223-1"),
            offer("b", "6.1.176-1"),
            offer("c", "6.12.107-1"),
            offer("d", "6.12.95-1~bpo12+1"),
            offer("e", "7.3.4-1~bpo13+1"),
            offer("f", "7.2.13-1"),
        ];
        let chosen = series_and_newest(&offers);
        let suites: Vec<_> = chosen.iter().map(|offer| offer.suite).collect();
        assert_eq!(suites, ["a", "b", "c", "e"]);
        assert_eq!(missing(&offers[1..3]), ["5.10"]);
        assert!(offers[1].is_of("6.1") && !offers[2].is_of("6.1") && offers[2].is_of("6.12.107"));
    }

    #[test]
    fn a_kernel_in_parts_is_put_together() {
        let text = "Package: linux-image-7.3\nDepends: dracut | initramfs-tools, linux-base-7.3 (= 7.3-1), \
                    linux-binary-7.3 (= 7.3-1), linux-modules-7.3\nSHA256: 12";
        assert_eq!(parts(text), ["linux-binary-7.3=7.3-1", "linux-modules-7.3"]);
        assert!(package(text).is_err(), "it has no version");
    }
}
