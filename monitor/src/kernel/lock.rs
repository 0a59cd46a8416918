//! One agent per host: a lock on a file in the run directory.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Nobody else's: whoever can open the file can take the lock, and keep a daemon from starting.
const MODE: u32 = 0o600;

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent holds it.
    #[error(
        "another finwatch (pid {pid}) already runs on this host and would count everything a second time: stop it, or \
         use its metrics; --run-dir DIR runs a second one beside it on purpose"
    )]
    Held {
        /// Whoever wrote its number into the file.
        pid: String,
    },
    /// The file cannot be made.
    #[error("cannot make {path}: {error}; run as root, or give a writable directory with --run-dir")]
    Unwritable {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The number of the process that took the lock in `run_dir` last; it may have ended since.
pub fn last_holder(run_dir: &Path) -> Option<i32> {
    fs::read_to_string(path(run_dir)).ok()?.trim().parse().ok()
}

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("finwatch.lock")
}

/// Holds the lock until dropped, or until the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock in `run_dir`, which is made when it is missing.
    ///
    /// # Errors
    /// When another agent holds it, or the file cannot be made.
    pub fn take(run_dir: &Path) -> Result<Self, LockError> {
        let path = path(run_dir);
        let unwritable = |error| LockError::Unwritable { path: path.clone(), error };
        fs::create_dir_all(run_dir).map_err(unwritable)?;
        let mut options = File::options();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(MODE).open(&path);
        let mut file = opened.map_err(unwritable)?;
        // One that an older version has left.
        file.set_permissions(fs::Permissions::from_mode(MODE)).map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The number only helps the reader; without it the sentence still stands.
                let read = file.read_to_string(&mut pid);
                let pid = if read.is_ok() && !pid.is_empty() {
                    pid.trim().to_owned()
                } else {
                    "unknown".to_owned()
                };
                return Err(LockError::Held { pid });
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        file.set_len(0).map_err(unwritable)?;
        write!(file, "{}", std::process::id()).map_err(unwritable)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first() {
        let dir = std::env::temp_dir().join(format!("finwatch-lock-{}", std::process::id()));
        let first = Lock::take(&dir).expect("nobody holds it");
        let told = Lock::take(&dir).expect_err("held").to_string();
        assert!(told.contains(&format!("pid {}", std::process::id())), "{told}");
        assert_eq!(last_holder(&dir), i32::try_from(std::process::id()).ok());
        drop(first);
        drop(Lock::take(&dir).expect("free again"));
        fs::remove_dir_all(&dir).expect("ours");
    }
}
