//! What cargo-deny says of the dependencies: licences, duplicates and sources anywhere, advisories where their database
//! can be fetched.

use std::time::Duration;

use anyhow::Result;

use super::{Tally, tell_failure};
use crate::{host, process};

/// Fetching what the lock file names, on a slow network.
const LIMIT: Duration = Duration::from_mins(10);

/// What the lock file tells is one test, and advisories are another. That there is no network for these is nobody's
/// fault, in CI neither: it is told, and counts as skipped.
pub(super) fn run() -> Tally {
    let tally = outcome(&["check", "licenses", "bans", "sources"]);
    if let Err(error) = deny(&["fetch", "db"]) {
        eprintln!(
            "SKIPPED advisories: the database at https://github.com/RustSec/advisory-db cannot be fetched from here \
             ({error:#}); nothing is known of vulnerabilities in the dependencies"
        );
        return tally + Tally { skipped: 1, ..Tally::default() };
    }
    tally + outcome(&["check", "advisories"])
}

fn outcome(args: &[&str]) -> Tally {
    match deny(args) {
        Ok(()) => Tally::ONE_PASSED,
        Err(error) => {
            tell_failure(format!("{error:#}; deny.toml says what is allowed, and why"));
            Tally::ONE_FAILED
        }
    }
}

fn deny(args: &[&str]) -> Result<()> {
    let name = format!("cargo deny {}", args.join(" "));
    process::run(&name, host::cargo().arg("deny").args(args), LIMIT)
}
