//! docs/lab.md, from the scenarios and their records.

use std::fmt::Write as _;

use super::{
    record::Record,
    scenario::{Run, Scenario},
};
use crate::account::{Said, Table};

/// A scenario with its last run of each kind.
pub(super) struct Entry<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) runs: Vec<(Run, Record)>,
}

impl Entry<'_> {
    fn agrees(&self, record: &Record) -> bool {
        record.account.agrees(self.scenario.expected)
    }

    fn agreement(&self, record: &Record) -> &'static str {
        if self.agrees(record) { "yes" } else { "**no**" }
    }
}

/// What the page calls it.
fn words(run: Run) -> &'static str {
    match run {
        Run::Scaled => "scaled times",
        Run::Real => "true times",
        Run::NewerNginx => "a newer nginx",
    }
}

const HEAD: &str = "\
# The lab

Failures that the field describes, each reproduced with real servers and explained by finwatch. Written by `cargo xtask lab`, never by
hand; the results are in docs/lab.

";

const HOW_TO_READ: &str = "\
*Counts* are compared one by one, to the unit: what finwatch counts, and what logs, clients, statistics or the kernel's own counters
say. *Triage* is right when it finds the trouble that was made, and none beside it; where nothing is wrong it has to say so. *Agree* is
computed from both.

*Scaled times* are the field's, divided so that a run takes seconds; *true times* are the field's own. *A newer nginx* is the newest that
Debian has; since 1.29.7 nginx keeps upstream connections unless told not to, so what older ones do by default is written out for it,
except in `nobody-asked`.

`cargo xtask lab --list` names the scenarios, `cargo xtask lab NAME` plays one again, `--true-times` and `--newer-nginx` play those that
have such a run.

";

/// The headings of the cases.
const CASES: [&str; 11] = [
    "nginx in front of Node.js: the upstream closes first",
    "The cure: the upstream keeps connections for longer",
    "`headersTimeout` below `keepAliveTimeout`",
    "Express and Fastify",
    "nginx without upstream keep-alive, and what it costs",
    "Mistakes in the configuration",
    "A load balancer in the middle, and equal timeouts",
    "A firewall or NAT that forgets idle connections",
    "Pools and queues that are full, upstreams that die or restart",
    "Goodbyes: TLS, HTTP/2 and gRPC",
    "Upstreams, and how long each keeps an idle connection",
];

/// The whole page.
pub(super) fn page(entries: &[Entry<'_>]) -> String {
    let mut page = HEAD.to_owned();
    page += &summary(entries);
    page += HOW_TO_READ;
    page += "| case | scenario | with | date | counts | triage | agree |\n|---|---|---|---|---|---|---|\n";
    for entry in entries {
        for (run, record) in &entry.runs {
            let Scenario { case, name, .. } = entry.scenario;
            let found =
                record.account.looks.iter().map(|look| kinds(look)).collect::<Vec<_>>().join(", then ");
            let (date, counts, agree) = (&record.date, record.account.counts.len(), entry.agreement(record));
            let with = words(*run);
            line(
                &mut page,
                &format!("| {case} | [{name}](#{name}) | {with} | {date} | {counts} | {found} | {agree} |"),
            );
        }
    }
    let mut last = 0;
    for entry in entries.iter().filter(|entry| !entry.runs.is_empty()) {
        let Scenario { case, name, title, setup, scaled, real, .. } = entry.scenario;
        if *case != last {
            last = *case;
            line(&mut page, &format!("\n## {case}. {}", CASES[usize::from(case - 1)]));
        }
        line(&mut page, &format!("\n### {name}\n\n{title}\n\n**Set-up.** {setup}"));
        for (run, record) in &entry.runs {
            let times = if *run == Run::Real { real.unwrap_or_default() } else { scaled };
            result(&mut page, words(*run), times, record, entry.agreement(record));
        }
    }
    page
}

/// How many results there are, and whether they agree.
fn summary(entries: &[Entry<'_>]) -> String {
    let results: Vec<_> =
        entries.iter().flat_map(|entry| entry.runs.iter().map(move |(_, record)| (entry, record))).collect();
    let agreeing = results.iter().filter(|(entry, record)| entry.agrees(record)).count();
    let counts: usize = results.iter().map(|(_, record)| record.account.counts.len()).sum();
    let dates = results.iter().map(|(_, record)| record.date.as_str());
    let (Some(first), Some(last)) = (dates.clone().min(), dates.max()) else { return String::new() };
    let when = if first == last { format!("on {first}") } else { format!("between {first} and {last}") };
    format!(
        "**{agreeing} of {} results agree**, in {} scenarios, with {counts} counts compared, {when}.\n\n",
        results.len(),
        entries.len()
    )
}

fn result(page: &mut String, with: &str, times: &str, record: &Record, agree: &str) {
    let Record { date, software, seconds, account } = record;
    let software = software.join("; ");
    line(page, &format!("\n#### With {with}, {date}, {seconds} s: agree {agree}\n"));
    line(page, &format!("{times}\n\nSoftware: {software}.\n"));
    for look in &account.looks {
        if look.is_empty() {
            line(page, "Triage: nothing is wrong.\n");
        }
        for Said { kind, verdict, confidence, candidates, changes } in look {
            line(page, &format!("Triage, `{kind}`, {confidence} confidence: {verdict}\n"));
            if !candidates.is_empty() {
                line(page, &format!("* who it may be: {}", candidates.join("; ")));
            }
            for change in changes {
                line(page, &format!("* change {}", change.split_whitespace().collect::<Vec<_>>().join(" ")));
            }
            if !(candidates.is_empty() && changes.is_empty()) {
                line(page, "");
            }
        }
    }
    line(page, "| counted | finwatch | ground truth |\n|---|---|---|");
    for count in &account.counts {
        line(page, &format!("| {} | {} | {} |", count.what, count.finwatch, count.truth));
    }
    for table in account.measured.iter().filter(|table| !table.rows.is_empty()) {
        line(page, "");
        measured(page, table);
    }
}

fn measured(page: &mut String, table: &Table) {
    let row = |cells: &[String]| format!("| {} |", cells.join(" | "));
    line(page, &row(&table.head));
    line(page, &row(&vec!["---".to_owned(); table.head.len()]));
    for cells in &table.rows {
        line(page, &row(cells));
    }
}

fn kinds(look: &[Said]) -> String {
    if look.is_empty() {
        return "nothing".to_owned();
    }
    look.iter().map(|said| format!("`{}`", said.kind)).collect::<Vec<_>>().join(" and ")
}

fn line(page: &mut String, line: &str) {
    writeln!(page, "{line}").expect("writing to a string");
}

#[cfg(test)]
mod tests {
    use super::{super::scenario::Play, *};
    use crate::account::Account;

    const SCENARIO: Scenario = Scenario {
        name: "refused",
        case: 9,
        title: "Nobody listens.",
        setup: "nginx in front of nothing.",
        software: &[],
        scaled: "No timeout.",
        real: None,
        expected: &[&["refuses"]],
        play: Play::Findings("upstream refuses"),
    };

    fn entry(finwatch: u64) -> Entry<'static> {
        let mut account = Account::default();
        let finding = serde_json::json!({"kind": "refuses", "verdict": "It refuses.", "confidence": {"level": "high"},
            "candidates": [{"known_by": "listening", "name": "node"}],
            "changes": [{"software": "nginx", "directives": "a;\nb;"}]});
        account.look([&finding]);
        drop(account.same("connects refused", finwatch, 3));
        account
            .table(&["", "before", "after"], [vec!["p99".to_owned(), "2 ms".to_owned(), "1 ms".to_owned()]]);
        let record =
            Record { date: "2026-01-02".into(), software: vec!["nginx/1".into()], seconds: 4, account };
        Entry { scenario: &SCENARIO, runs: vec![(Run::Scaled, record)] }
    }

    #[test]
    fn a_run_is_written_whole() {
        let page = page(&[entry(3)]);
        for text in [
            "**1 of 1 results agree**, in 1 scenarios, with 1 counts compared, on 2026-01-02.",
            "| 9 | [refused](#refused) | scaled times | 2026-01-02 | 1 | `refuses` | yes |",
            "\n### refused\n\nNobody listens.",
            "\n#### With scaled times, 2026-01-02, 4 s: agree yes\n",
            "| connects refused | 3 | 3 |",
            "| p99 | 2 ms | 1 ms |",
            "* who it may be: node listens\n* change nginx: a; b;\n",
        ] {
            assert!(page.contains(text), "no {text:?} in {page}");
        }
        assert!(!page.contains("**no**"));
    }

    #[test]
    fn a_disagreement_shows_and_what_was_not_played_does_not() {
        let wrong = page(&[entry(2)]);
        assert!(wrong.contains("4 s: agree **no**") && wrong.contains("**0 of 1 results agree**"), "{wrong}");
        let none = page(&[Entry { runs: Vec::new(), ..entry(3) }]);
        assert!(!none.contains("refused"), "{none}");
    }
}
