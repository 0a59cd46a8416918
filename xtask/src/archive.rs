//! Debian's packages of suites that are not this host's: read and unpacked with a state directory of apt's own, so that the
//! host's sources and packages stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{host, process};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const LIMIT: Duration = Duration::from_mins(10);

/// What some suites offer.
pub(crate) struct Archive {
    directory: PathBuf,
}

/// A package as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// The checksum that the suite's signed index names.
    pub(crate) sha256: String,
}

impl Archive {
    /// Reads the suites' indices anew; what cannot be read is missing in what follows, or older.
    pub(crate) fn read(directory: PathBuf, suites: &[&str]) -> Result<Self> {
        fs::create_dir_all(directory.join("lists/partial")).context("making a directory for apt")?;
        fs::create_dir_all(directory.join("cache/archives/partial")).context("making a directory for apt")?;
        let mirror = mirror().context("apt knows no mirror of Debian: other suites are read from there")?;
        let source = |suite: &&str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        let sources: Vec<_> = suites.iter().map(source).collect();
        fs::write(directory.join("sources.list"), sources.concat()).context("writing apt's sources")?;
        let archive = Self { directory };
        process::run("apt-get update", archive.apt("apt-get").args(["-q", "update"]), LIMIT)?;
        Ok(archive)
    }

    /// What the index says of a package, as `apt-cache show` takes its name.
    pub(crate) fn show(&self, package: &str) -> Result<String> {
        let shown = process::output(self.apt("apt-cache").args(["show", package]));
        match shown {
            Some(text) if !text.is_empty() => Ok(text),
            _ => bail!("the index has no {package}: could it be read?"),
        }
    }

    /// Downloads a package, compares it with the index, and unpacks it to a directory.
    pub(crate) fn unpack(&self, package: &Package, to: &Path) -> Result<()> {
        let Package { name, version, sha256 } = package;
        let downloads = tempfile::tempdir_in(&self.directory).context("a directory for a package")?;
        let mut download = self.apt("apt-get");
        download.args(["-q", "download"]).arg(format!("{name}={version}")).current_dir(&downloads);
        process::run(&format!("downloading {name} {version}"), &mut download, LIMIT)?;
        let mut files = fs::read_dir(&downloads).context("reading what apt-get has downloaded")?.flatten();
        let file = files.next().with_context(|| format!("apt-get has not downloaded {name}"))?.path();
        let sum = checksum(&file)?;
        ensure!(sum == *sha256, "{} is not what the index says: {sum}", file.display());
        process::run("dpkg-deb", host::command("dpkg-deb").arg("-x").arg(&file).arg(to), LIMIT)
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

impl Package {
    /// The one that the index tells of.
    pub(crate) fn read(text: &str) -> Result<Self> {
        Ok(Self {
            name: field(text, "Package")?.to_owned(),
            version: field(text, "Version")?.to_owned(),
            sha256: field(text, "SHA256")?.to_owned(),
        })
    }
}

/// A field of what the index says.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Result<&'a str> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.with_context(|| format!("the index names no {name}"))
}

/// A file's SHA-256.
pub(crate) fn checksum(file: &Path) -> Result<String> {
    let printed = process::output(host::command("sha256sum").arg("--").arg(file));
    let printed = printed.with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(printed.split(' ').next().unwrap_or_default().to_owned())
}

/// Where this host's own sources have Debian from.
fn mirror() -> Option<String> {
    let mut targets = host::command("apt-get");
    targets.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    process::output(&mut targets)?.lines().find_map(|line| line.strip_prefix("Debian ").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read_whole_or_not_at_all() {
        let text = "Package: nginx\nVersion: 1.30.6-2\nDepends: libc6\nSHA256: 12";
        let package = Package::read(text).expect("a package");
        assert_eq!((package.version.as_str(), package.sha256.as_str()), ("1.30.6-2", "12"));
        assert!(Package::read("Package: nginx\nSHA256: 12").is_err(), "it has no version");
    }
}
