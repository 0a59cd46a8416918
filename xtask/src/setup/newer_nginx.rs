//! An nginx newer than this host's, out of Debian's newest suite, with that suite's own libraries, under `target/`; nothing
//! of it is installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    archive::{Archive, Package, field},
    host,
};

/// The newest suite, and the one before it.
const SUITES: [&str; 2] = ["sid", "trixie"];

/// The program, fetched where it is not there yet.
pub(crate) fn get() -> Result<PathBuf> {
    let directory = host::target().join("newer-nginx");
    let program = directory.join("nginx");
    if !program.is_file() {
        let archive = Archive::read(directory.join("apt"), &SUITES)?;
        let suite = SUITES.into_iter().find(|suite| archive.show(&format!("nginx/{suite}")).is_ok());
        let suite = suite.context("no suite of Debian's has an nginx")?;
        let unpacked = directory.join("unpacked");
        for package in needed(&archive, suite)? {
            println!("unpacking {} {} of {suite}", package.name, package.version);
            archive.unpack(&package, &unpacked)?;
        }
        write(&program, &unpacked)?;
    }
    Ok(program)
}

/// nginx and the libraries it is linked with.
fn needed(archive: &Archive, suite: &str) -> Result<Vec<Package>> {
    let (mut packages, mut wanted): (Vec<Package>, _) = (Vec::new(), vec!["nginx".to_owned()]);
    while let Some(name) = wanted.pop() {
        if packages.iter().any(|package| package.name == name) {
            continue;
        }
        let text = archive.show(&format!("{name}/{suite}"))?;
        wanted.extend(libraries(field(&text, "Depends").unwrap_or_default()));
        packages.push(Package::read(&text)?);
    }
    Ok(packages)
}

/// Those of the dependencies that are libraries, by name.
fn libraries(depends: &str) -> Vec<String> {
    let names = depends.split(", ").filter_map(|one| one.split([' ', ':']).next());
    names.filter(|name| name.starts_with("lib") || *name == "zlib1g").map(str::to_owned).collect()
}

/// A script that starts it with its own loader and libraries. Processes are called by the file that is run: the loader's
/// copy has nginx's name.
fn write(program: &Path, unpacked: &Path) -> Result<()> {
    let libraries = fs::read_dir(unpacked.join("usr/lib")).context("reading what was unpacked")?.flatten();
    let libraries = libraries.map(|entry| entry.path()).find(|path| path.join("libc.so.6").exists());
    let libraries = libraries.context("the packages have no C library")?;
    let files = fs::read_dir(&libraries).context("reading the libraries")?.flatten();
    let is_loader = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"ld-linux"))
    };
    let loader = files.map(|entry| entry.path()).find(is_loader).context("the packages have no loader")?;
    let named = unpacked.join("loader/nginx");
    fs::create_dir_all(unpacked.join("loader")).context("a directory for the loader")?;
    fs::copy(&loader, &named).context("copying the loader")?;
    let script = format!(
        "#!/bin/sh\nexec {} --library-path {} {} \"$@\"\n",
        named.display(),
        libraries.display(),
        unpacked.join("usr/sbin/nginx").display()
    );
    let written = program.with_extension("new");
    fs::write(&written, script).context("writing nginx's script")?;
    fs::set_permissions(&written, fs::Permissions::from_mode(0o755)).context("nginx's script")?;
    fs::rename(written, program).context("nginx's script")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_from_other_dependencies() {
        let depends = "nginx-common (= 1.30.6-2), libc6 (>= 2.34), libpcre2-8-0:amd64, zlib1g (>= 1:1.1.4)";
        assert_eq!(libraries(depends), ["libc6", "libpcre2-8-0", "zlib1g"]);
        assert!(libraries("").is_empty());
    }
}
