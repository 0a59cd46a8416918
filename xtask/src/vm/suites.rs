//! Which kernels there are: what Debian's suites offer.

use std::{cmp::Reverse, path::PathBuf};

use anyhow::{Result, ensure};

use crate::archive::{Archive, Package, field};

/// One suite's kernel each; the first of a series is the one that the short form is for.
const SUITES: [&str; 6] = ["bullseye", "bookworm", "trixie", "bookworm-backports", "trixie-backports", "sid"];
/// The series of the short form, besides the newest kernel of all.
const SERIES: [&str; 3] = ["5.10", "6.1", "6.12"];
/// Depends on the suite's newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";
/// What a kernel is made of; from 6.19 on in several packages.
const PARTS: [&str; 4] = ["linux-image-", "linux-base-", "linux-binary-", "linux-modules-"];

/// What the suites offer.
pub(super) struct Suites {
    pub(super) archive: Archive,
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

impl Suites {
    /// Reads the suites' indices anew; what cannot be read is missing in what follows, or older.
    pub(super) fn read(directory: PathBuf) -> Result<Self> {
        Ok(Self { archive: Archive::read(directory, &SUITES)? })
    }

    /// The kernel of each suite; where there is none, why.
    pub(super) fn offers(&self) -> Vec<(&'static str, Result<Offer>)> {
        SUITES.iter().map(|suite| (*suite, self.offer(suite))).collect()
    }

    fn offer(&self, suite: &'static str) -> Result<Offer> {
        let newest = self.archive.show(&format!("{NEWEST}/{suite}"))?;
        let mut packages = Vec::new();
        let mut wanted = parts(&newest);
        while let Some(part) = wanted.pop() {
            let text = self.archive.show(&part)?;
            wanted.extend(parts(&text));
            let package = Package::read(&text)?;
            if !packages.contains(&package) {
                packages.push(package);
            }
        }
        ensure!(!packages.is_empty(), "{suite}: {NEWEST} names no kernel");
        Ok(Offer { suite, version: field(&newest, "Version")?.to_owned(), packages })
    }
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
        assert_eq!(parts(text), ["linux-base-7.3=7.3-1", "linux-binary-7.3=7.3-1", "linux-modules-7.3"]);
    }
}
