//! What the demo showed, in 80 columns.

use std::fmt::Write as _;

use anyhow::Result;

use crate::{
    daemon::metrics::Samples,
    traffic::{self, LOST, Seen, node::IdleTimeout},
};

const WIDTH: usize = 78;
/// Columns of a line's text before its figure.
const TEXT: usize = 67;

/// Everything the report tells.
pub(crate) struct Findings<'a> {
    pub(crate) upstream: &'a str,
    pub(crate) idle: IdleTimeout,
    pub(crate) seen: &'a Seen,
    pub(crate) samples: &'a Samples,
    pub(crate) metrics_url: &'a str,
}

impl Findings<'_> {
    /// The report as it is printed.
    pub(crate) fn report(&self) -> Result<String> {
        let rule = "-".repeat(WIDTH);
        let (answers, failures) = (&self.seen.answers, &self.seen.failures);
        let mut lines = vec![
            rule.clone(),
            "Why nginx's upstream connections died".to_owned(),
            rule.clone(),
            "nginx's own logs".to_owned(),
            figure("requests", answers.all),
            figure("answered 502 (access log)", answers.bad_gateway),
            figure("upstream failures, those nginx retried included (error log)", failures.all()),
            String::new(),
            format!("finwatch, for nginx -> {}", self.upstream),
        ];
        for family in LOST {
            for sample in self.samples.matching(family, &traffic::pair(self.upstream)) {
                let timing = sample.label("timing");
                let label =
                    if timing.is_empty() { String::new() } else { format!("{{timing=\"{timing}\"}}") };
                lines.push(figure(&format!("{family}{label}"), sample.count()?));
            }
        }
        let lost = traffic::lost(self.samples, self.upstream)?;
        let verdict = if lost == failures.all() {
            "as many as nginx's error log has"
        } else {
            "nginx's error log differs"
        };
        lines.extend([figure(&format!("lost requests: {verdict}"), lost), String::new()]);
        lines.push("the idle time at which the upstream closes".to_owned());
        for (from, to, closes) in traffic::close_idle_times(self.samples, self.upstream)? {
            lines.push(figure(&format!("closed after {from} to {to} s"), closes));
        }
        let (shortest, longest) = (self.idle.shortest.as_secs_f64(), self.idle.longest.as_secs_f64());
        lines.push(format!(
            "  measured beforehand: {shortest:.2} to {longest:.2} s; nginx keeps connections 60 s"
        ));
        lines.extend([String::new(), format!("metrics: {}", self.metrics_url), rule]);
        Ok(lines.iter().fold(String::new(), |mut text, line| {
            // Writing to a String cannot fail.
            _ = writeln!(text, "{line}");
            text
        }))
    }
}

fn figure(text: &str, figure: u64) -> String {
    format!("  {text:<TEXT$} {figure:>8}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::traffic::logs::{Answers, Failures};

    const SAMPLES: &str = r#"
finwatch_requests_on_peer_closed_socket_total{side="proxy",proxy="nginx",upstream="127.0.0.1:65535",timing="crossed_fin"} 1
finwatch_requests_on_peer_closed_socket_total{side="proxy",proxy="nginx",upstream="127.0.0.1:65535",timing="no_fin"} 2
finwatch_peer_closed_before_response_total{side="proxy",proxy="nginx",upstream="127.0.0.1:65535"} 0
finwatch_peer_close_idle_seconds_bucket{side="proxy",proxy="nginx",upstream="127.0.0.1:65535",le="2.5"} 4
"#;

    #[test]
    fn a_report_fits_a_terminal_and_names_every_figure() {
        let failures = Failures { by_message: [("recv() failed", 3)].into(), ..Failures::default() };
        let seen = Seen { answers: Answers { all: 64, bad_gateway: 2 }, failures };
        let samples = Samples::parse(SAMPLES).expect("well-formed");
        let idle = IdleTimeout {
            shortest: Duration::from_secs(2),
            median: Duration::from_millis(2020),
            longest: Duration::from_millis(2040),
        };
        let metrics_url = "http://127.0.0.1:9778/metrics";
        let findings =
            Findings { upstream: "127.0.0.1:65535", idle, seen: &seen, samples: &samples, metrics_url };
        let report = findings.report().expect("whole numbers");
        assert!(report.lines().all(|line| line.chars().count() <= 80), "{report}");
        for part in ["as many as", "closed after 0 to 2.5 s", "no_fin", metrics_url] {
            assert!(report.contains(part), "{part}: {report}");
        }
    }
}
