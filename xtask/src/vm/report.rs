//! What host and guest tell each other: the plan, and what comes back over the serial line.

use serde::{Deserialize, Serialize};

/// Where the guest finds the plan.
pub(super) const PLAN: &str = "/plan.json";
/// Where the guest writes.
pub(super) const RESULTS: &str = "/dev/ttyS1";
/// Begins the lines that are not a step's own.
const MARK: &str = "@guest";

/// What the guest is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Where the steps run.
    pub(super) directory: String,
    /// What they find in their environment.
    pub(super) environment: Vec<(String, String)>,
    /// One after the other.
    pub(super) steps: Vec<Step>,
}

/// A program to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Step {
    /// By this name its results are found.
    pub(super) name: String,
    /// Its path.
    pub(super) program: String,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
}

impl Step {
    pub(super) fn kernel(release: &str) -> String {
        format!("{MARK} kernel {release}")
    }

    pub(super) fn begin(&self) -> String {
        format!("{MARK} begin {}", self.name)
    }

    pub(super) fn end(&self, status: i32) -> String {
        format!("{MARK} end {} {status}", self.name)
    }
}

/// What a guest has told, as far as it came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// What the kernel calls itself.
    pub(super) release: Option<String>,
    /// Each step's name, exit status (`None` when it did not end) and output.
    pub(super) steps: Vec<(String, Option<i32>, String)>,
}

impl Report {
    /// Reads what came over the line.
    pub(super) fn read(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines().map(|line| line.trim_end_matches('\r')) {
            let words: Vec<&str> = line.split(' ').collect();
            match (words.as_slice(), report.steps.last_mut()) {
                ([MARK, "kernel", release], _) => report.release = Some((*release).to_owned()),
                ([MARK, "begin", name], _) => report.steps.push(((*name).to_owned(), None, String::new())),
                ([MARK, "end", name, status], Some(step)) if step.0 == *name => step.1 = status.parse().ok(),
                (_, Some(step)) if step.1.is_none() => {
                    step.2.push_str(line);
                    step.2.push('\n');
                }
                _ => {}
            }
        }
        report
    }

    /// Takes in what another machine with the same kernel has told.
    pub(super) fn add(&mut self, other: Self) {
        self.release = self.release.take().or(other.release);
        self.steps.extend(other.steps);
    }

    /// What a step printed, and how it ended; nothing of one that did not begin.
    pub(super) fn step(&self, name: &str) -> (Option<i32>, &str) {
        let step = self.steps.iter().find(|step| step.0 == name);
        step.map_or((None, ""), |(_, status, output)| (*status, output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_far_as_it_came() {
        let text = "@guest kernel 6.1.0\r\n@guest begin a\r\none\r\ntwo\r\n@guest end a 3\r\n@guest begin b\r\nthree";
        let report = Report::read(text);
        assert_eq!(report.release.as_deref(), Some("6.1.0"));
        assert_eq!(report.step("a"), (Some(3), "one\ntwo\n"));
        assert_eq!(report.step("b"), (None, "three\n"));
        assert_eq!(report.step("c"), (None, ""));
    }
}
