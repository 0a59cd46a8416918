//! Reads files that somebody wrote for finwatch, and refuses those that others could have written or read.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::model::labels::harmless;

/// Largest such file in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Rights of users who are neither the owner nor in the group.
const OTHERS: u32 = 0o007;
/// Their right to write.
const OTHERS_WRITE: u32 = 0o002;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system does not let us, or it is no such file.
    #[error("cannot read {}: {error}", shown(.path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It holds a secret that others may read or replace.
    #[error(
        "{path} holds secrets and others may use it (mode {mode:04o}); `chmod o= {path}` takes that right away",
        path = shown(.path)
    )]
    SecretTooOpen {
        /// The file.
        path: PathBuf,
        /// Its rights.
        mode: u32,
    },
    /// Others may replace what is trusted.
    #[error(
        "{path} may be written by others (mode {mode:04o}); `chmod o-w {path}` takes that right away",
        path = shown(.path)
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its rights.
        mode: u32,
    },
}

/// A path as a message tells it: another file may have named it.
pub(crate) fn shown(path: &Path) -> String {
    harmless(&path.to_string_lossy())
}

/// The text of a file that anybody may read and write.
pub fn plain(path: &Path) -> Result<String, FileError> {
    Ok(read(path)?.0)
}

/// The text of a file that others may read but not write.
pub fn trusted(path: &Path) -> Result<String, FileError> {
    let (text, mode) = read(path)?;
    if mode & OTHERS_WRITE != 0 {
        return Err(FileError::Writable { path: path.to_owned(), mode });
    }
    Ok(text)
}

/// The text of a file that is nobody's business but the owner's and the group's.
pub fn secret(path: &Path) -> Result<String, FileError> {
    let (text, mode) = read(path)?;
    if mode & OTHERS != 0 {
        return Err(FileError::SecretTooOpen { path: path.to_owned(), mode });
    }
    Ok(text)
}

/// The text of a regular file of a sensible size, and the rights of the very file that was read.
fn read(path: &Path) -> Result<(String, u32), FileError> {
    contents(path).map_err(|error| FileError::Unreadable { path: path.to_owned(), error })
}

fn contents(path: &Path) -> io::Result<(String, u32)> {
    let invalid = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    // Opening a pipe would wait for whoever writes to it.
    if !fs::metadata(path)?.is_file() {
        return invalid("it is not a regular file");
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return invalid("it is larger than 1 MiB");
    }
    Ok((text, metadata.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "text").expect("our own file");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).expect("our own file");
        file
    }

    #[test]
    fn secrets_are_for_owner_and_group() {
        for mode in [0o600, 0o640, 0o660, 0o400] {
            assert_eq!(secret(file(mode).path()).expect("a secret"), "text", "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o602, 0o601, 0o666] {
            let error = secret(file(mode).path()).expect_err("too open").to_string();
            assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod o= "), "{error}");
        }
    }

    #[test]
    fn what_is_trusted_may_be_read_by_all() {
        assert_eq!(trusted(file(0o644).path()).expect("a file"), "text");
        let error = trusted(file(0o646).path()).expect_err("too open").to_string();
        assert!(error.contains("written by others (mode 0646)"), "{error}");
        assert_eq!(plain(file(0o666).path()).expect("a file"), "text");
    }

    #[test]
    fn only_regular_files_of_sensible_size_are_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = plain(directory.path()).expect_err("a directory").to_string();
        assert!(error.contains("not a regular file"), "{error}");
        let large = file(0o600);
        fs::write(large.path(), vec![b'a'; 1 << 20]).expect("our own file");
        assert_eq!(plain(large.path()).expect("just small enough").len(), 1 << 20);
        fs::write(large.path(), vec![b'a'; (1 << 20) + 1]).expect("our own file");
        let error = plain(large.path()).expect_err("too large").to_string();
        assert!(error.contains("larger than 1 MiB"), "{error}");
    }
}
