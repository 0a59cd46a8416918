//! What a rule says about an observation. Part of the API's format.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use crate::model::{labels::Labels, observation::Process};

/// One thing that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// What it is about.
    pub subject: Subject,
    /// One sentence.
    pub verdict: String,
    /// What was seen, with numbers, a line each.
    pub evidence: Vec<String>,
    /// How sure it is.
    pub confidence: Confidence,
    /// Who may be at the other end, what is known locally first.
    pub candidates: Vec<Candidate>,
    /// What to change; any one of them is enough unless it says otherwise.
    pub changes: Vec<Change>,
    /// What it costs.
    pub harm: Harm,
}

impl Finding {
    /// Whether something is wrong, rather than only worth knowing.
    pub fn is_trouble(&self) -> bool {
        self.harm.class != HarmClass::Informative
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Subject {
    /// A pair.
    Pair(Labels),
    /// The ephemeral ports toward a destination.
    Ports {
        /// `host`, or the namespace's inode number.
        netns: String,
        /// Local address.
        src: String,
        /// The destination.
        upstream: String,
    },
    /// A listening socket's queue.
    Queue {
        /// `host`, or the namespace's inode number.
        netns: String,
        /// Where it listens.
        upstream: String,
        /// The unit, container or pod.
        workload: String,
    },
    /// The host, or the agent itself.
    Host,
}

/// How sure a finding is, and why not surer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confidence {
    /// How sure.
    pub level: Level,
    /// Why.
    pub reason: String,
}

impl Confidence {
    /// The kernel shows it.
    pub fn high(reason: &str) -> Self {
        Self { level: Level::High, reason: reason.into() }
    }

    /// The likely reading.
    pub fn medium(reason: &str) -> Self {
        Self { level: Level::Medium, reason: reason.into() }
    }

    /// One reading of several.
    pub fn low(reason: &str) -> Self {
        Self { level: Level::Low, reason: reason.into() }
    }
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One reading of several.
    Low,
    /// The likely reading.
    Medium,
    /// The kernel shows it.
    High,
}

/// Who may be at an end of the connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "known_by", rename_all = "snake_case")]
pub enum Candidate {
    /// It listens there, on this host.
    Listening(Process),
    /// It is known to close or forget idle connections after this time.
    IdleTime {
        /// Product and setting.
        product: String,
        /// The time in seconds.
        seconds: u32,
    },
}

/// Text to paste into one product's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The product: `nginx`, `Node.js`, `Linux`.
    pub software: String,
    /// Which end is changed.
    pub end: End,
    /// What it does, in a few words.
    pub what: String,
    /// Where the text belongs: a block, a file or a command line.
    pub context: String,
    /// The text.
    pub directives: String,
}

/// An end of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// That which opens connections.
    Proxy,
    /// That which accepts them.
    Upstream,
    /// The kernel of this host.
    Host,
}

/// What a finding costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Harm {
    /// In what way.
    pub class: HarmClass,
    /// Requests without an answer, in the window.
    pub requests_lost: u64,
    /// Attempts to connect that failed, in the window.
    pub connects_failed: u64,
    /// In how many seconds connects will fail, where that can be told.
    pub seconds_left: Option<f64>,
}

impl Harm {
    /// Requests are lost.
    pub const fn lost(requests: u64) -> Self {
        Self { requests_lost: requests, ..Self::none(HarmClass::LostRequests) }
    }

    /// Nothing that can be counted.
    pub const fn none(class: HarmClass) -> Self {
        Self { class, requests_lost: 0, connects_failed: 0, seconds_left: None }
    }

    /// The order of findings: by class, then what costs most.
    pub fn order(&self, other: &Self) -> Ordering {
        let soonest = |harm: &Self| harm.seconds_left.unwrap_or(f64::INFINITY);
        (self.class.cmp(&other.class))
            .then(other.requests_lost.cmp(&self.requests_lost))
            .then(other.connects_failed.cmp(&self.connects_failed))
            .then(soonest(self).total_cmp(&soonest(other)))
    }
}

/// Kinds of harm, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HarmClass {
    /// Requests are lost.
    LostRequests,
    /// Connects fail.
    FailedConnects,
    /// Connects are about to fail.
    Imminent,
    /// Nothing is lost yet.
    Latent,
    /// Nothing is wrong.
    Informative,
}
