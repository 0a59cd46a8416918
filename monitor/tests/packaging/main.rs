//! What deploy/ installs agrees with the program: capabilities, options, versions; and systemd accepts it.

mod capabilities;
mod files;
mod settings;
mod unit;

use std::{fs, path::PathBuf};

/// A file's path, by its name in the repository.
fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(name)
}

/// Its text.
fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
