//! What a virtual machine boots into: programs of this host with the libraries they need, at the same paths, in a cpio
//! archive that the kernel unpacks into its memory.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use cpio::{NewcBuilder, newc};

use crate::{host, process};

const DIRECTORY: u32 = 0o040_755;
const SHARED_DIRECTORY: u32 = 0o041_777;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;
const CONSOLE: u32 = 0o020_600;
/// More links than this on the way to a file are a circle.
const LINKS: usize = 40;

/// What is at a path.
#[derive(Clone, Debug)]
enum Entry {
    Directory(u32),
    Link(PathBuf),
    /// The file of this host that it is a copy of.
    File(PathBuf),
    Text(String),
}

/// The file system that is booted into.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Image {
    /// A file of this host, with the links on the way to it.
    pub(super) fn file(&mut self, path: &Path) -> Result<()> {
        let real = self.follow(path)?;
        self.entries.insert(real.clone(), Entry::File(real));
        Ok(())
    }

    /// A program of this host, with the libraries that it is linked with.
    pub(super) fn program(&mut self, path: &Path) -> Result<()> {
        self.libraries(path)?;
        self.file(path)
    }

    /// A program that stands at `path` but is read from elsewhere.
    pub(super) fn program_from(&mut self, path: &Path, source: &Path) -> Result<()> {
        self.libraries(source)?;
        self.copy(path, source);
        Ok(())
    }

    /// A file that stands at `path` but is read from elsewhere.
    pub(super) fn copy(&mut self, path: &Path, source: &Path) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::File(source.to_owned()));
    }

    /// A directory of this host and what is in it.
    pub(super) fn tree(&mut self, path: &Path) -> Result<()> {
        self.directory(path);
        for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
            let entry = entry.context("reading a directory")?.path();
            if entry.is_dir() { self.tree(&entry)? } else { self.file(&entry)? }
        }
        Ok(())
    }

    /// A directory, empty unless something is put there.
    pub(super) fn directory(&mut self, path: &Path) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::Directory(DIRECTORY));
    }

    /// A directory for everybody's files.
    pub(super) fn shared_directory(&mut self, path: &Path) {
        self.directory(path);
        self.entries.insert(path.to_owned(), Entry::Directory(SHARED_DIRECTORY));
    }

    /// A file of this text.
    pub(super) fn text(&mut self, path: &Path, text: String) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::Text(text));
    }

    fn libraries(&mut self, program: &Path) -> Result<()> {
        // It fails for a program that is linked with none.
        let printed = process::output(host::command("ldd").arg(program)).unwrap_or_default();
        for word in printed.split_whitespace().filter(|word| word.starts_with('/')) {
            self.file(Path::new(word))?;
        }
        Ok(())
    }

    fn parents(&mut self, path: &Path) {
        for parent in path.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory(DIRECTORY));
        }
    }

    /// Takes in each link on the way to a file, and says where it really is.
    fn follow(&mut self, path: &Path) -> Result<PathBuf> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            match first_link(&path)? {
                None => {
                    self.parents(&path);
                    return Ok(path);
                }
                Some((link, target, rest)) => {
                    self.parents(&link);
                    self.entries.insert(link.clone(), Entry::Link(target.clone()));
                    let from = link.parent().unwrap_or(Path::new("/")).join(target);
                    path = if rest.as_os_str().is_empty() { plain(&from) } else { plain(&from.join(rest)) };
                }
            }
        }
        anyhow::bail!("{} is a circle of links", path.display())
    }

    /// Writes the archive.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut out =
            BufWriter::new(File::create(path).with_context(|| format!("writing {}", path.display()))?);
        // The kernel gives it to the first process; the rest of /dev is the kernel's own file system.
        entry(&mut out, "dev", DIRECTORY, &[], (0, 0))?;
        entry(&mut out, "dev/console", CONSOLE, &[], (5, 1))?;
        for (path, what) in &self.entries {
            let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
            match what {
                Entry::Directory(mode) => entry(&mut out, &name, *mode, &[], (0, 0))?,
                Entry::Link(target) => {
                    entry(&mut out, &name, LINK, target.as_os_str().as_encoded_bytes(), (0, 0))?;
                }
                Entry::File(source) => {
                    let bytes = fs::read(source).with_context(|| format!("reading {}", source.display()))?;
                    let mode = fs::metadata(source).context("reading a mode")?.permissions().mode() & 0o7777;
                    entry(&mut out, &name, FILE | mode, &bytes, (0, 0))?;
                }
                Entry::Text(text) => entry(&mut out, &name, FILE | 0o644, text.as_bytes(), (0, 0))?,
            }
        }
        newc::trailer(&mut out).context("ending the archive")?;
        out.flush().context("ending the archive")
    }
}

fn entry(out: &mut impl Write, name: &str, mode: u32, bytes: &[u8], device: (u32, u32)) -> Result<()> {
    let length = u32::try_from(bytes.len()).context("a file of more than 4 GiB")?;
    let builder = NewcBuilder::new(name).mode(mode).rdev_major(device.0).rdev_minor(device.1);
    let mut writer = builder.write(out, length);
    io::copy(&mut &*bytes, &mut writer).with_context(|| format!("writing {name}"))?;
    writer.finish().map(|_| ()).with_context(|| format!("writing {name}"))
}

/// The first link on the way to a file: where it is, what it says, and what of the way comes after it.
fn first_link(path: &Path) -> Result<Option<(PathBuf, PathBuf, PathBuf)>> {
    let mut at = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        at.push(component);
        let metadata = fs::symlink_metadata(&at).with_context(|| format!("no {}", at.display()))?;
        if metadata.is_symlink() {
            let target = fs::read_link(&at).with_context(|| format!("reading {}", at.display()))?;
            return Ok(Some((at, target, components.as_path().to_owned())));
        }
    }
    ensure!(
        fs::metadata(&at).is_ok_and(|found| found.is_file() && found.nlink() > 0),
        "{} is no file",
        at.display()
    );
    Ok(None)
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_on_the_way_are_taken_in() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("it is there");
        fs::create_dir(root.join("real")).expect("made");
        fs::write(root.join("real/file"), "text").expect("written");
        symlink("real", root.join("link")).expect("made");
        symlink("../real/file", root.join("real/other")).expect("made");
        let mut image = Image::default();
        image.file(&root.join("link/other")).expect("it is there");
        let kinds: Vec<_> = ["link", "real", "real/other", "real/file"]
            .map(|name| match image.entries.get(&root.join(name)) {
                Some(Entry::Directory(_)) => "directory",
                Some(Entry::Link(_)) => "link",
                Some(Entry::File(_)) => "file",
                _ => "nothing",
            })
            .into();
        assert_eq!(kinds, ["link", "directory", "link", "file"]);
        assert!(image.file(&root.join("none")).is_err());
    }
}
