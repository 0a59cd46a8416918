//! Kernels that have less than this one: the daemon finds other types than the running kernel's in their place.

use std::{fs, io::Write as _, os::unix::process::CommandExt as _, path::Path, process::Command};

use finwatch::kernel::loader::BTF_PATH;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tempfile::NamedTempFile;

/// Where the format's header says how long it is, and where the strings are in what follows.
const HEADER_LENGTH: usize = 4;
const STRINGS: usize = 16;

/// Has the program find the running kernel's types without these names, where it has them: whatever is called so is called
/// otherwise. Every type keeps its number, so the kernel takes what is attached by them.
pub(crate) fn without(names: &[&str]) -> impl FnOnce(&mut Command) + use<> {
    let mut types = fs::read(BTF_PATH).expect("the kernel's types");
    let number = |types: &[u8], at: usize| {
        let bytes = types[at..at + 4].try_into().expect("four bytes");
        usize::try_from(u32::from_ne_bytes(bytes)).expect("64 bits")
    };
    let strings = number(&types, HEADER_LENGTH) + number(&types, STRINGS);
    for name in names {
        let whole = [&[0], name.as_bytes(), &[0]].concat();
        if let Some(at) = types[strings..].windows(whole.len()).position(|window| window == whole) {
            types[strings + at + 1] = b'~';
        }
    }
    instead(&types)
}

/// Has the program find these in place of the running kernel's types.
fn instead(types: &[u8]) -> impl FnOnce(&mut Command) + use<> {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(types).expect("room to write");
    move |command| {
        // SAFETY: system calls on paths that were made before; the file is there until the command is no more.
        unsafe { command.pre_exec(move || put(file.path())) };
    }
}

/// Puts the file there for the calling process alone.
fn put(file: &Path) -> std::io::Result<()> {
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some(file), BTF_PATH, nothing, MsFlags::MS_BIND, nothing).map_err(Into::into)
}
