//! An incident as a few lines of text.

use std::fmt;

use textwrap::{Options, fill};

use super::{EventKind, IncidentCause, IncidentRecord, TimelineEvent};
use crate::model::labels::Side;

/// Where the format gives no width.
const COLUMNS: usize = 80;
/// A space at which no line is broken.
const TOGETHER: char = '\u{a0}';
/// Where the text of a step begins.
const INDENT: &str = "               ";

/// Several lines, the last without its end, none wider than the format's width (`{record:60}`) where words allow it.
impl fmt::Display for IncidentRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = f.width().unwrap_or(COLUMNS);
        let wrapped = |text: &str, first: &str, rest: &str| wrapped(text, columns, first, rest);
        let time = humantime::format_rfc3339_millis(self.time).to_string().replace('T', " ");
        writeln!(f, "{}", wrapped(&format!("{time}  {}", self.cause.sentence()), "", "  "))?;
        writeln!(f, "{}", wrapped(&self.who(), "  ", "    "))?;
        for (at, step) in self.timeline.iter().enumerate() {
            let what = self.what(step, at + 1 == self.timeline.len());
            writeln!(f, "{}", wrapped(&what, &format!("{:>13}  ", offset(step.offset_ms)), INDENT))?;
        }
        write!(f, "{}", wrapped(&self.summary(), INDENT, INDENT))
    }
}

fn wrapped(text: &str, columns: usize, first: &str, rest: &str) -> String {
    fill(text, Options::new(columns).initial_indent(first).subsequent_indent(rest).break_words(false))
        .replace(TOGETHER, " ")
}

fn offset(ms: i64) -> String {
    if ms == 0 {
        "0  ".into()
    } else {
        format!("-{}.{:03} s", ms.unsigned_abs() / 1_000, ms.unsigned_abs() % 1_000)
    }
}

impl IncidentRecord {
    fn who(&self) -> String {
        let process = self.process.as_ref().map(|process| format!("{} pid {}", process.name, process.pid));
        let ends = match self.pair.side {
            Side::Proxy => format!("from {}", self.local),
            Side::Upstream => format!("accepted from {}", self.remote),
        };
        let backend = self.backend.as_ref().map(|backend| format!("translated to {backend}"));
        let netns = (self.netns != "host").then(|| format!("netns {}", self.netns));
        let workload = Some(self.pair.workload.clone()).filter(|workload| !workload.is_empty());
        let rest: Vec<String> =
            [process, Some(ends), backend, workload, netns].into_iter().flatten().collect();
        format!("{}  ({})", self.pair_text(), rest.join(", "))
    }

    fn what(&self, step: &TimelineEvent, last: bool) -> String {
        let words = match step.event {
            EventKind::Opened => "connection opened",
            EventKind::DataReceived if self.is_late() => "data came, nobody can read it any more",
            EventKind::DataReceived => {
                self.words("last answer received", "request received", "last data received")
            }
            EventKind::DataSent => self.words("request sent", "last answer sent", "last data sent"),
            EventKind::PeerFin => "peer's FIN",
            EventKind::LocalFin => "our FIN",
            EventKind::RstReceived => "RST received",
            EventKind::RstSent => "RST sent",
            EventKind::Closed => "closed",
            EventKind::TimedOut => "given up by the kernel",
            EventKind::ConnectFailed => "connect() failed",
        };
        let bytes = step.bytes.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
        let state = if last { format!(" in {}", self.state) } else { String::new() };
        format!("{words}{bytes}{state}")
    }

    fn is_late(&self) -> bool {
        self.traffic.is_none()
    }

    /// The words for the end that asks, for the one that answers, or those that claim neither.
    fn words(&self, asks: &'static str, answers: &'static str, neither: &'static str) -> &'static str {
        match (self.cause.is_about_requests(), self.pair.side) {
            (true, Side::Proxy) => asks,
            (true, Side::Upstream) => answers,
            (false, _) => neither,
        }
    }

    fn summary(&self) -> String {
        let mut parts = Vec::new();
        if let Some(quiet) = self.quiet_ms.filter(|_| self.cause.is_about_requests()) {
            parts.push(format!("quiet for {} before the request", seconds(quiet)));
        }
        if let Some(traffic) = &self.traffic {
            if traffic.bytes_unacked > 0 {
                parts.push(format!("{} unacknowledged", size(traffic.bytes_unacked.into())));
            }
            if self.adopted {
                parts.push("older than the daemon".into());
            }
            if let Some(opened) = self.timeline.iter().find(|step| step.event == EventKind::Opened) {
                parts.push(format!("open {}", seconds(opened.offset_ms.unsigned_abs())));
            }
            parts.push(format!("in {}, out {}", size(traffic.bytes_received), size(traffic.bytes_sent)));
            if traffic.srtt_us > 0 {
                parts.push(format!(
                    "srtt {}.{:02} ms",
                    traffic.srtt_us / 1_000,
                    traffic.srtt_us % 1_000 / 10
                ));
            }
            if traffic.retransmits > 0 {
                parts.push(format!("{} retransmitted", traffic.retransmits));
            }
        }
        if let Some(errno) = self.errno {
            parts.push(format!("errno {errno}"));
        }
        parts.push(format!("times +-{} ms", self.resolution_ms));
        let together = |part: String| part.replace(' ', &TOGETHER.to_string());
        parts.into_iter().map(together).collect::<Vec<_>>().join("; ")
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit / (unit / 10)),
        None if bytes == 1 => "1 byte".into(),
        None => format!("{bytes} bytes"),
    }
}

impl IncidentCause {
    /// What happened, in a few words.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect() refused",
            Self::ConnectUnreachable => "connect() answered by ICMP: unreachable",
            Self::ConnectTimeout => "connect() timed out, no answer to the SYN",
            Self::ConnectNoLocalPort => "connect() found no free local port",
            Self::ConnectOther => "connect() failed",
            Self::RequestCrossedFin => "lost request, crossed the peer's FIN",
            Self::RequestAfterFin => "lost request, written after the peer's FIN",
            Self::RequestNoFin => "lost request, reset by a peer that was closing",
            Self::PeerClosedBeforeResponse => "peer closed instead of answering",
            Self::LocalClosedBeforeResponseAcked => "gave up on a request, acknowledged but not answered",
            Self::LocalClosedBeforeResponseUnacked => "gave up on a request, never acknowledged",
            Self::ResetAfterLocalClose => "reset by the peer after our FIN",
            Self::ResetAfterPeerFin => "reset by the peer after its FIN, no request lost",
            Self::ResetFirstRequest => "reset upon the connection's first request",
            Self::ResetWaiting => "reset while waiting for the answer",
            Self::ResetReusedRequest => "reset upon a request on a connection in use",
            Self::ResetResponse => "reset during the answer or right after it",
            Self::ResetIdle => "reset while idle",
            Self::ResetAnswering => "reset by the proxy while we were answering",
            Self::ResetSentDataAfterClose => "data came after our close, answered by a reset",
            Self::TimedOut => "peer no longer answers, the kernel gave up",
        }
    }

    /// Whether it is a judgement about a request and its answer.
    const fn is_about_requests(self) -> bool {
        !matches!(
            self,
            Self::ResetAfterLocalClose
                | Self::ResetAfterPeerFin
                | Self::ResetIdle
                | Self::ResetSentDataAfterClose
                | Self::TimedOut
        )
    }
}
