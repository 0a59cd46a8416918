//! What a scenario of the lab is.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::software::Software;
use crate::{
    account::Account,
    daemon::Daemon,
    test::{findings, software},
};

/// One failure that the field describes, or its cure.
pub(super) struct Scenario {
    /// What it is called on the command line.
    pub(super) name: &'static str,
    /// The number under which the page has it, with others of its kind.
    pub(super) case: u8,
    /// What happens, in a line.
    pub(super) title: &'static str,
    /// The set-up, in words.
    pub(super) setup: &'static str,
    /// What takes part.
    pub(super) software: &'static [Software],
    /// Timeouts, and how they are scaled down.
    pub(super) scaled: &'static str,
    /// The real values, where it is played with them, too.
    pub(super) real: Option<&'static str>,
    /// The kinds of trouble that are the right verdict, look by look.
    pub(super) expected: &'static [&'static [&'static str]],
    /// What plays it.
    pub(super) play: Play,
}

/// What plays a scenario.
pub(super) enum Play {
    /// The lab itself; a step of the test command plays it as well.
    Lab(fn(&Path, Times, &mut Account) -> Result<()>),
    /// The lab itself; the test of that name of one of the findings' steps is its short form, so no other test plays it.
    Long(fn(&Path, Times, &mut Account) -> Result<()>, &'static str),
    /// The lab itself, with a newer nginx only.
    NewerNginx(fn(&Path, Times, &mut Account) -> Result<()>),
    /// The test of that name of the step "findings: nginx and Node.js".
    Findings(&'static str),
    /// The test of that name of the step "findings: other software".
    Software(&'static str),
}

/// Which values timeouts have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Times {
    /// Shorter ones, whose ratios are those of the real ones.
    Scaled,
    /// Those of the field.
    Real,
}

/// One of the ways in which a scenario is played, each with a record of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// With scaled times.
    Scaled,
    /// With those of the field.
    Real,
    /// With scaled times, and an nginx newer than the host's.
    NewerNginx,
}

impl Run {
    pub(super) const ALL: [Self; 3] = [Self::Scaled, Self::Real, Self::NewerNginx];

    /// The values that timeouts have.
    pub(super) const fn times(self) -> Times {
        match self {
            Self::Scaled | Self::NewerNginx => Times::Scaled,
            Self::Real => Times::Real,
        }
    }
}

/// The cases that are played with a newer nginx, too.
const NEWER_NGINX: [u8; 4] = [1, 2, 5, 6];

impl Scenario {
    /// Whether it is played that way.
    pub(super) fn has(&self, run: Run) -> bool {
        match run {
            Run::Scaled => !matches!(self.play, Play::NewerNginx(_)),
            Run::Real => self.real.is_some(),
            Run::NewerNginx => NEWER_NGINX.contains(&self.case) && self.software.contains(&Software::Nginx),
        }
    }

    /// Plays it, and leaves in the account what there is to tell.
    pub(super) fn play(&self, binary: &Path, times: Times, account: &mut Account) -> Result<()> {
        match self.play {
            Play::Lab(play) | Play::Long(play, _) | Play::NewerNginx(play) => play(binary, times, account),
            Play::Findings(name) => findings::named(name)?(binary, &Daemon::private(binary)?, account),
            Play::Software(name) => software::named(name)?(binary, account),
        }
    }

    /// The test of another step that plays it, or its short form.
    pub(super) fn tested_as(&self) -> Option<&'static str> {
        match self.play {
            Play::Lab(_) | Play::NewerNginx(_) => None,
            Play::Long(_, name) | Play::Findings(name) | Play::Software(name) => Some(name),
        }
    }
}
