//! A kernel as Debian ships it, kept ready to boot: fetched, checked against the suite's index, unpacked, its modules
//! put in the order in which they load.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::suites::{Offer, Suites};
use crate::archive::checksum;

/// What tests need beyond what is built in; the modules that these need are found.
const MODULES: [&str; 11] = [
    "tun",
    "veth",
    "sch_netem",
    "tcp_diag",
    "inet_diag",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nf_conntrack_netlink",
    "virtio_pci",
    "virtio_net",
];
/// Lists what is no module in this kernel, but a part of it.
const BUILT_IN: &str = "modules.builtin";
/// The checksums of packages and of what was made of them: what does not fit them is made anew.
const STAMP: &str = "checksums";

/// A kernel that is ready.
pub(super) struct Stock {
    /// The kernel itself.
    pub(super) kernel: PathBuf,
    /// Its modules, in the order in which they load.
    pub(super) modules: Vec<PathBuf>,
}

impl Stock {
    /// The kernel of an offer, from the cache where it is whole there.
    pub(super) fn get(suites: &Suites, offer: &Offer, cache: &Path) -> Result<Self> {
        let directory = cache.join(offer.version.replace(['~', '+', ':'], "-"));
        if let Some(stock) = Self::cached(&directory, offer) {
            return Ok(stock);
        }
        drop(fs::remove_dir_all(&directory));
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let unpacked = directory.join("unpacked");
        for package in &offer.packages {
            suites.archive.unpack(package, &unpacked)?;
        }
        keep(&unpacked, &directory)?;
        fs::remove_dir_all(&unpacked).context("removing what is not needed")?;
        fs::write(directory.join(STAMP), stamp(&directory, offer)?).context("writing checksums")?;
        Self::cached(&directory, offer).context("a kernel just made ready is not as it was written")
    }

    fn cached(directory: &Path, offer: &Offer) -> Option<Self> {
        let stamped = fs::read_to_string(directory.join(STAMP)).ok()?;
        if stamp(directory, offer).ok()? != stamped {
            return None;
        }
        let mut modules = files(&directory.join("modules")).ok()?;
        modules.sort();
        Some(Self { kernel: directory.join("vmlinuz"), modules })
    }
}

/// Keeps the kernel and the modules that are needed.
fn keep(unpacked: &Path, directory: &Path) -> Result<()> {
    let mut kernels = Vec::new();
    let mut modules = BTreeMap::new();
    let mut built_in = String::new();
    visit(unpacked, &mut |path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == BUILT_IN {
            built_in = fs::read_to_string(path).unwrap_or_default();
        } else if name.starts_with("vmlinuz") {
            kernels.push(path.to_owned());
        } else if let Some((module, "" | ".xz")) = name.split_once(".ko") {
            modules.insert(module.replace('-', "_"), path.to_owned());
        }
    })?;
    let [kernel] = kernels.as_slice() else { bail!("not one kernel in the packages: {kernels:?}") };
    fs::rename(kernel, directory.join("vmlinuz")).context("keeping the kernel")?;
    let kept = directory.join("modules");
    fs::create_dir(&kept).context("making a directory for modules")?;
    let mut order = Vec::new();
    let is_built_in = |module: &&str| built_in.lines().any(|line| line.ends_with(&format!("/{module}.ko")));
    for module in MODULES.iter().filter(|module| !is_built_in(module)) {
        load(module, &modules, &mut order)?;
    }
    for (number, (module, bytes)) in order.into_iter().enumerate() {
        fs::write(kept.join(format!("{number:02}-{module}.ko")), bytes).context("keeping a module")?;
    }
    Ok(())
}

/// Puts a module after those that it needs.
fn load(module: &str, modules: &BTreeMap<String, PathBuf>, order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    if order.iter().any(|(there, _)| there == module) {
        return Ok(());
    }
    let path = modules.get(module).with_context(|| format!("the kernel has no module {module}"))?;
    let bytes = if path.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new("xz").args(["-dc"]).arg(path).output().context("xz")?;
        ensure!(output.status.success(), "{} cannot be unpacked", path.display());
        output.stdout
    } else {
        fs::read(path).context("reading a module")?
    };
    for needed in needs(&bytes) {
        load(&needed, modules, order)?;
    }
    order.push((module.to_owned(), bytes));
    Ok(())
}

/// What a module says it needs.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// The packages' checksums by the index, what was asked of them, and the checksums of what was made of them.
fn stamp(directory: &Path, offer: &Offer) -> Result<String> {
    let mut lines: Vec<String> =
        offer.packages.iter().map(|package| format!("{} {}\n", package.sha256, package.name)).collect();
    lines.push(format!("{}\n", MODULES.join(" ")));
    let mut made = files(&directory.join("modules"))?;
    made.sort();
    made.push(directory.join("vmlinuz"));
    for file in made {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        lines.push(format!("{} {name}\n", checksum(&file)?));
    }
    Ok(lines.concat())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

fn visit(directory: &Path, look: &mut impl FnMut(&Path)) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry.context("reading what was unpacked")?;
        let kind = entry.file_type().context("reading what was unpacked")?;
        if kind.is_dir() {
            visit(&entry.path(), look)?;
        } else if kind.is_file() {
            look(&entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_needs_are_read() {
        assert_eq!(needs(b"\0license=GPL\0depends=inet-diag,nfnetlink\0x"), ["inet_diag", "nfnetlink"]);
        assert_eq!(needs(b"\0depends=\0x"), [""; 0]);
        assert_eq!(needs(b"no module"), [""; 0]);
    }

    #[test]
    fn a_module_comes_after_those_it_needs() {
        let directory = tempfile::tempdir().expect("a directory");
        let modules = [("tcp_diag", "inet_diag"), ("inet_diag", "")].map(|(name, needs)| {
            let path = directory.path().join(format!("{name}.ko"));
            fs::write(&path, format!("\0depends={needs}\0")).expect("written");
            (name.to_owned(), path)
        });
        let mut order = Vec::new();
        load("tcp_diag", &modules.into(), &mut order).expect("both are there");
        let names: Vec<_> = order.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["inet_diag", "tcp_diag"]);
    }
}
