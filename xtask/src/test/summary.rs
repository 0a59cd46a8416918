//! What the steps came to.

use std::{
    iter::Sum,
    ops::Add,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{interrupt, unseen};

/// How often a scenario is played that nobody could see all of.
const ATTEMPTS: usize = 3;

/// How much of a failure the summary repeats.
const REPEATED_LINES: usize = 24;
static FAILURES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Prints what has failed, now and once more under the summary.
pub(crate) fn tell_failure(what: String) {
    eprintln!("FAILED: {what}");
    note_failure(what);
}

/// The same of what has been printed.
pub(super) fn note_failure(what: String) {
    FAILURES.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}

/// The beginning of what has failed.
fn repeated(what: &str) -> String {
    let mut lines: Vec<_> = what.trim().lines().collect();
    if lines.len() > REPEATED_LINES {
        lines.truncate(REPEATED_LINES);
        lines.push("...");
    }
    lines.join("\n  ")
}

/// Tests counted by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    /// A step that counts as one test and passed.
    pub(crate) const ONE_PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    /// A step that counts as one test and failed.
    pub(crate) const ONE_FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };

    /// Plays one scenario and tells how it went; once more where nobody could see all of it.
    pub(crate) fn of(name: &str, mut play: impl FnMut() -> Result<()>) -> Self {
        unseen::watch();
        for attempt in 1.. {
            if interrupt::seen() {
                break;
            }
            let (start, before) = (Instant::now(), unseen::transitions().len());
            let outcome = play();
            let seconds = start.elapsed().as_secs_f64();
            let Err(error) = outcome else {
                println!("ok: {name} ({seconds:.1} s)");
                return Self::ONE_PASSED;
            };
            let landed = unseen::transitions().split_off(before);
            if landed.is_empty() || attempt == ATTEMPTS {
                tell_failure(format!("{name} ({seconds:.1} s): {error:#}"));
                return Self::ONE_FAILED;
            }
            let landed = landed.join("\n");
            eprintln!("{name} ({seconds:.1} s): {error:#}\nonce more, since nobody could see:\n{landed}");
        }
        Self::default()
    }

    /// In CI a skipped test is a failure.
    pub(crate) fn without_excuses(self) -> Self {
        Self { failed: self.failed + self.skipped, skipped: 0, ..self }
    }

    fn verdict(self) -> String {
        match self {
            Self { failed: 1.., .. } => "FAILED".to_owned(),
            Self { skipped: 0, .. } => "ok".to_owned(),
            Self { passed: 0, skipped, .. } => format!("{skipped} SKIPPED"),
            Self { skipped, .. } => format!("ok, {skipped} SKIPPED"),
        }
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Add::add)
    }
}

/// Every step's outcome.
#[derive(Debug, Default)]
pub(crate) struct Summary(Vec<(&'static str, Tally, Duration)>);

impl Summary {
    /// Whether there was no step.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes a step.
    pub(crate) fn add(&mut self, name: &'static str, tally: Tally, time: Duration) {
        self.0.push((name, tally, time));
    }

    /// Prints the table and, as the last line, the totals; returns them.
    pub(crate) fn print(&self) -> Tally {
        println!(
            "\n{:<28} {:<18} {:>7} {:>7} {:>7} {:>8}",
            "step", "result", "passed", "failed", "skipped", "seconds"
        );
        for (name, tally, time) in &self.0 {
            let Tally { passed, failed, skipped } = tally;
            let (verdict, seconds) = (tally.verdict(), time.as_secs_f64());
            println!("{name:<28} {verdict:<18} {passed:>7} {failed:>7} {skipped:>7} {seconds:>8.1}");
            if *skipped > 0 {
                println!("{:<28} {skipped} {name} SKIPPED: listed above with the reason", "");
            }
        }
        let failures = FAILURES.lock().unwrap_or_else(PoisonError::into_inner);
        if !failures.is_empty() {
            println!("\nwhat has failed, as told above:");
        }
        for what in failures.iter() {
            println!("- {}", repeated(what));
        }
        let total: Tally = self.0.iter().map(|(_, tally, _)| *tally).sum();
        println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_tests_are_never_silent() {
        assert_eq!(Tally { passed: 3, failed: 0, skipped: 0 }.verdict(), "ok");
        assert_eq!(Tally { passed: 0, failed: 0, skipped: 9 }.verdict(), "9 SKIPPED");
        assert_eq!(Tally { passed: 3, failed: 0, skipped: 9 }.verdict(), "ok, 9 SKIPPED");
        assert_eq!(Tally { passed: 3, failed: 1, skipped: 9 }.verdict(), "FAILED");
    }

    #[test]
    fn a_long_failure_is_not_repeated_whole() {
        assert_eq!(repeated("one\ntwo\n"), "one\n  two");
        let long = repeated(&"line\n".repeat(REPEATED_LINES + 1));
        assert_eq!(long.lines().count(), REPEATED_LINES + 1);
        assert!(long.ends_with("..."));
    }

    #[test]
    fn in_ci_skipped_means_failed() {
        let tally = Tally { passed: 3, failed: 1, skipped: 2 };
        assert_eq!(tally.without_excuses(), Tally { passed: 3, failed: 3, skipped: 0 });
    }

    #[test]
    fn tallies_add_up() {
        let total: Tally = [Tally::ONE_PASSED, Tally::ONE_FAILED, Tally { skipped: 4, ..Tally::default() }]
            .into_iter()
            .sum();
        assert_eq!(total, Tally { passed: 1, failed: 1, skipped: 4 });
    }
}
