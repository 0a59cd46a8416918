//! What npm installs by a lock, in a directory of its own under `target/`.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use crate::{host, process};

/// Downloading some MiB.
const LIMIT: Duration = Duration::from_mins(5);

/// What is to be installed.
pub(super) struct Project {
    /// What it is called.
    pub(super) name: &'static str,
    /// What it is for.
    pub(super) why: &'static str,
    /// Its directory under `target/`.
    pub(super) directory: &'static str,
    /// Exact versions.
    pub(super) package: &'static str,
    /// The same with their hashes.
    pub(super) lock: &'static str,
}

impl Project {
    /// Where it is.
    pub(super) fn directory(&self) -> PathBuf {
        host::target().join(self.directory)
    }

    /// Whether what the lock asks for is there.
    pub(super) fn installed(&self) -> bool {
        fs::read_to_string(self.marker()).is_ok_and(|installed| installed == self.lock)
    }

    /// Installs it anew; none of its scripts is run.
    pub(super) fn install(&self) -> Result<()> {
        let dir = self.directory();
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        fs::write(dir.join("package.json"), self.package).context("writing what npm shall install")?;
        fs::write(dir.join("package-lock.json"), self.lock).context("writing what npm shall install")?;
        let mut npm = host::command("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]).arg(&dir);
        println!("{}", process::typed(&npm));
        process::run("npm ci", npm.current_dir(&dir), LIMIT)?;
        fs::write(self.marker(), self.lock).context("noting what npm has installed")
    }

    /// Written last: what has been installed.
    fn marker(&self) -> PathBuf {
        self.directory().join("installed.json")
    }
}
