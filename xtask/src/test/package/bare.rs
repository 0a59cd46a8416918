//! The binary where there is nothing else: in an empty root, and in the image's.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{MINUTE, Namespace, assert_works};
use crate::{
    host,
    package::{self, Packages, VERSION},
    process::{self, Running},
};

/// Everything that is in the image.
const FILES: [&str; 4] = ["LICENSE-APACHE", "LICENSE-MIT", "finwatch", "run/finwatch"];

/// It needs no loader and no library, and runs where there are none.
pub(super) fn binary(packages: &Packages) -> Result<()> {
    let headers =
        host::command("readelf").args(["--program-headers", "--wide"]).arg(&packages.binary).output();
    let headers = String::from_utf8_lossy(&headers.context("readelf does not start")?.stdout).into_owned();
    ensure!(headers.contains("LOAD"), "no program: {headers}");
    ensure!(!headers.contains("INTERP"), "it asks for a loader: {headers}");
    let root = tempfile::tempdir().context("a directory")?;
    fs::copy(&packages.binary, root.path().join("finwatch")).context("room for a copy")?;
    let told = process::output(host::command("chroot").arg(root.path()).args(["/finwatch", "--version"]));
    let told = told.context("it does not run in an empty root")?;
    ensure!(told == format!("finwatch {VERSION}"), "it says {told}");
    Ok(())
}

/// The archive holds the program and nothing else, says how to start it, and the daemon works in it with the capabilities
/// of the chart.
pub(super) fn image(packages: &Packages) -> Result<()> {
    let container = Container::from(&packages.image)?;
    let files = files(&container.root, &container.root)?;
    ensure!(files == FILES.map(str::to_owned).into(), "the image holds {files:?}");
    let asked = container.inspect("{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}}")?;
    ensure!(asked == "65532:65532 [/finwatch]", "the image is started as {asked}");

    let namespace = Namespace::for_guest()?;
    // CAP_SYS_CHROOT is chroot's; engines make roots otherwise.
    let only = "-all,+bpf,+perfmon,+sys_chroot";
    // What engines mount, on mount points and in a mount namespace of its own.
    let start = r#"mkdir -p "$1/proc" "$1/sys"
        mount --rbind /proc "$1/proc"; mount --rbind /sys "$1/sys"; mount -t tmpfs tmpfs "$1/run/finwatch"
        exec setpriv --no-new-privs --bounding-set "$2" --inh-caps -all chroot "$1" /finwatch run"#;
    let mut command = namespace.command("unshare");
    command.args(["--mount", "sh", "-euc", start, "sh"]).arg(&container.root).arg(only);
    let _running = Running::spawn("finwatch in the image", &mut command)?;
    assert_works(&namespace)
}

fn files(dir: &Path, root: &Path) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry.context("cannot read the image")?.path();
        let within =
            if path.is_dir() && !path.is_symlink() { self::files(&path, root)? } else { BTreeSet::new() };
        if within.is_empty() {
            files.insert(path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned());
        }
        files.extend(within);
    }
    Ok(files)
}

/// A container of the image, whose root can be reached; dropping it removes it.
struct Container {
    name: String,
    root: std::path::PathBuf,
}

impl Container {
    fn from(archive: &Path) -> Result<Self> {
        let mut from = buildah();
        let name = process::output(from.arg("from").arg(format!("oci-archive:{}", archive.display())));
        let name = name.context("buildah from does not take the archive")?;
        let root = process::output(buildah().args(["mount", &name])).context("buildah mount fails")?;
        Ok(Self { name, root: root.into() })
    }

    fn inspect(&self, format: &str) -> Result<String> {
        process::output(buildah().args(["inspect", "--format", format, &self.name]))
            .context("buildah inspect fails")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = process::run("buildah rm", buildah().args(["rm", &self.name]), MINUTE) {
            eprintln!("container {} stays: {error:#}", self.name);
        }
    }
}

fn buildah() -> Command {
    package::buildah(&package::directory())
}
