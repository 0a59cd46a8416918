//! Findings as text, for an engineer in an incident.

use std::{iter, mem};

use anstyle::{AnsiColor, Style as Paint};

use super::{
    facts,
    finding::{Candidate, Change, End, Finding, HarmClass, Level, Subject},
    kinds::Kind,
    layout::{shorten, width, wrapped},
    looked_at, pairs_table,
};
use crate::model::{
    labels::{Labels, Side, harmless},
    observation::Observation,
};

/// A narrower width is not kept to.
pub const MIN_WIDTH: usize = 60;
/// Changes that are printed for one finding; more are in the JSON.
const MAX_CHANGES: usize = 6;
/// Candidates likewise.
const MAX_CANDIDATES: usize = 8;
/// Columns of the words before a finding's paragraphs.
const TERM: usize = 10;

/// How text is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// No line is wider, in columns; [`MIN_WIDTH`] at least.
    pub width: usize,
    /// Whether colours may be used.
    pub color: bool,
}

/// Lines that keep to the style.
pub(super) struct Page {
    /// How.
    pub(super) style: Style,
    lines: Vec<String>,
}

impl Page {
    /// A blank line, unless there is one.
    pub(super) fn gap(&mut self) {
        if self.lines.last().is_some_and(|line| !line.is_empty()) {
            self.lines.push(String::new());
        }
    }

    /// A line as it is, shortened where it is too wide.
    pub(super) fn line(&mut self, text: &str) {
        self.lines.push(shorten(&harmless(text), self.style.width).trim_end().to_owned());
    }

    /// A line in a colour.
    pub(super) fn painted(&mut self, text: &str, paint: Paint) {
        let text = shorten(&harmless(text), self.style.width);
        self.lines.push(if self.style.color { format!("{paint}{text}{paint:#}") } else { text });
    }

    /// A paragraph.
    pub(super) fn paragraph(&mut self, text: &str, first: &str, rest: &str) {
        self.lines.extend(wrapped(text, self.style.width, first, rest));
    }

    /// A paragraph beside a word; the word is left out after its first paragraph.
    fn beside(&mut self, word: &str, text: &str) {
        self.paragraph(text, &format!("   {word:<TERM$}"), &" ".repeat(3 + TERM));
    }
}

/// What `finwatch triage` prints.
pub fn report(observation: &Observation, findings: &[Finding], style: Style) -> String {
    let style = Style { width: style.width.max(MIN_WIDTH), ..style };
    let mut page = Page { style, lines: Vec::new() };
    let trouble = findings.iter().filter(|finding| finding.is_trouble()).count();
    let span = facts::span(observation.window.seconds);
    let heading = match trouble {
        0 => format!("No trouble found in the last {span}"),
        count => format!("{} in the last {span}, worst first", facts::many(count as u64, "finding")),
    };
    page.painted(&heading, Paint::new().bold());
    for (number, finding) in (1_u64..).zip(findings) {
        page.gap();
        match finding.kind {
            Kind::NothingWrong => write_silence(&mut page, finding),
            _ => write_finding(&mut page, number, finding),
        }
    }
    pairs_table::write(&mut page, observation);
    page.gap();
    page.painted("Looked at", Paint::new().bold());
    for line in looked_at::lines(observation) {
        page.paragraph(&line, "  - ", "    ");
    }
    let mut text = page.lines.join("\n");
    text.push('\n');
    text
}

fn write_finding(page: &mut Page, number: u64, finding: &Finding) {
    let (class, color) = match finding.harm.class {
        HarmClass::LostRequests => ("REQUESTS LOST", Some(AnsiColor::Red)),
        HarmClass::FailedConnects => ("CONNECTS FAIL", Some(AnsiColor::Red)),
        HarmClass::Imminent => ("ABOUT TO FAIL", Some(AnsiColor::Yellow)),
        HarmClass::Latent => ("NOTHING LOST YET", Some(AnsiColor::Yellow)),
        HarmClass::Informative => ("TO KNOW", None),
    };
    let paint = Paint::new().bold().fg_color(color.map(Into::into));
    page.painted(&format!("{number}. {class}: {}", finding.kind.title()), paint);
    if let Some(subject) = subject(&finding.subject, page.style.width - 3) {
        page.line(&format!("   {subject}"));
    }
    page.gap();
    page.paragraph(&finding.verdict, "   ", "   ");
    page.gap();
    let words = ["seen"].into_iter().chain(iter::repeat(""));
    for (line, word) in finding.evidence.iter().zip(words) {
        page.beside(word, line);
    }
    page.beside("sure", &sure(finding));
    write_candidates(page, &finding.candidates);
    write_changes(page, &finding.changes);
}

/// That nothing is wrong; what was looked at stands at the end of every report.
fn write_silence(page: &mut Page, finding: &Finding) {
    page.paragraph(&finding.verdict, "   ", "   ");
    page.gap();
    page.beside("sure", &sure(finding));
}

fn sure(finding: &Finding) -> String {
    let level = match finding.confidence.level {
        Level::High => "high",
        Level::Medium => "medium",
        Level::Low => "low",
    };
    format!("{level}: {}", finding.confidence.reason)
}

fn write_candidates(page: &mut Page, candidates: &[Candidate]) {
    let mut word = "may be";
    for candidate in candidates.iter().take(MAX_CANDIDATES) {
        match candidate {
            Candidate::Listening(process) => {
                page.beside("listens", &format!("{} (pid {}), on this host", process.name, process.pid));
            }
            Candidate::IdleTime { product, .. } => page.beside(mem::take(&mut word), product),
        }
    }
    if candidates.len() > MAX_CANDIDATES {
        page.beside("", &format!("and {} more, see --json", candidates.len() - MAX_CANDIDATES));
    }
}

fn write_changes(page: &mut Page, changes: &[Change]) {
    if changes.is_empty() {
        return;
    }
    page.gap();
    let ends = |end: End| changes.iter().any(|change| change.end == end);
    let title = if ends(End::Proxy) && ends(End::Upstream) {
        "To change, at one end or the other:"
    } else {
        "To change:"
    };
    page.line(&format!("   {title}"));
    for change in changes.iter().take(MAX_CHANGES) {
        let end = match change.end {
            End::Proxy => " (proxy)",
            End::Upstream => " (upstream)",
            End::Host => "",
        };
        page.paragraph(&format!("{}{end}: {}", change.software, change.what), "   * ", "     ");
        page.paragraph(&format!("in {}:", change.context), "     ", "     ");
        for line in change.directives.lines() {
            page.painted(&format!("         {line}"), Paint::new().fg_color(Some(AnsiColor::Cyan.into())));
        }
    }
    if changes.len() > MAX_CHANGES {
        page.line(&format!("   and {} more for other software, see --json", changes.len() - MAX_CHANGES));
    }
}

fn subject(subject: &Subject, columns: usize) -> Option<String> {
    match subject {
        Subject::Pair(labels) => Some(pair_name(labels, columns)),
        Subject::Ports { netns, src, upstream } => {
            Some(fitted(&format!("{src} -> "), upstream, &format!(", netns {netns}"), columns))
        }
        Subject::Queue { netns, upstream, workload } => {
            let workload = if workload.is_empty() { String::new() } else { format!(", {workload}") };
            Some(fitted("", upstream, &format!("{workload}, netns {netns}"), columns))
        }
        Subject::Host => None,
    }
}

/// A pair's name in at most so many columns: who opened, who accepted, the local unit. What is least is left out first.
pub(super) fn pair_name(labels: &Labels, columns: usize) -> String {
    let here = match labels.side {
        Side::Proxy => "",
        Side::Upstream => " (this host)",
    };
    let unit = if labels.workload.is_empty() { String::new() } else { format!(", {}", labels.workload) };
    fitted(&format!("{} -> ", labels.proxy), &labels.upstream, &format!("{here}{unit}"), columns)
}

/// Three texts, of which the last is left out and the first shortened before the second, the address, is touched.
fn fitted(before: &str, address: &str, after: &str, columns: usize) -> String {
    let [before, address, after] = [before, address, after].map(harmless);
    let whole = format!("{before}{address}{after}");
    if width(&whole) <= columns {
        return whole;
    }
    let room = columns.saturating_sub(width(&address));
    let least = "a… -> ".len();
    if width(&before) <= room {
        return format!("{before}{address}");
    }
    match before.strip_suffix(" -> ") {
        Some(name) if room > least => format!("{} -> {address}", shorten(name, room - " -> ".len())),
        _ => shorten(&format!("{before}{address}"), columns),
    }
}
