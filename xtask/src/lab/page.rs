//! docs/lab.md, from the scenarios and their records.

use std::fmt::Write as _;

use super::{record::Record, scenario::Scenario};
use crate::account::{Said, Table};

/// A scenario with its last run of either kind.
pub(super) struct Entry<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) scaled: Option<Record>,
    pub(super) real: Option<Record>,
}

impl Entry<'_> {
    fn runs(&self) -> impl Iterator<Item = (&'static str, &Record)> {
        [("scaled", &self.scaled), ("real", &self.real)]
            .into_iter()
            .filter_map(|(times, record)| Some((times, record.as_ref()?)))
    }

    fn agreement(&self, record: &Record) -> &'static str {
        if record.account.agrees(self.scenario.expected) { "yes" } else { "**no**" }
    }
}

const HEAD: &str = "\
# The lab

Failures that the field describes, each reproduced with real servers and explained by finwatch. Written by `cargo xtask lab`, never by
hand; the results are in docs/lab. `cargo xtask lab --list` names the scenarios, `cargo xtask lab NAME` plays one again, `--true-times`
those that are also played with the timeouts of the field.

*Counts* are compared one by one, to the unit: what finwatch counts, and what logs, clients, statistics or the kernel's own counters
say. *Triage* is right when it finds the trouble that was made, and none beside it; a line without a finding says that nothing is
wrong, and is expected where nothing is. *Agree* is computed from both.

";

/// The whole page.
pub(super) fn page(entries: &[Entry<'_>]) -> String {
    let mut page = HEAD.to_owned();
    page += "| case | scenario | times | date | counts | triage | agree |\n|---|---|---|---|---|---|---|\n";
    for entry in entries {
        for (times, record) in entry.runs() {
            let Scenario { case, name, .. } = entry.scenario;
            let found =
                record.account.looks.iter().map(|look| kinds(look)).collect::<Vec<_>>().join(", then ");
            let (date, counts, agree) = (&record.date, record.account.counts.len(), entry.agreement(record));
            line(
                &mut page,
                &format!("| {case} | [{name}](#{name}) | {times} | {date} | {counts} | {found} | {agree} |"),
            );
        }
    }
    for entry in entries.iter().filter(|entry| entry.runs().next().is_some()) {
        let Scenario { case, name, title, setup, scaled, real, .. } = entry.scenario;
        line(&mut page, &format!("\n## {name}\n\nCase {case}. {title}\n\n**Set-up.** {setup}"));
        for (times, record) in entry.runs() {
            let words = if times == "real" { real.unwrap_or_default() } else { scaled };
            run(&mut page, words, times, record, entry.agreement(record));
        }
    }
    page
}

fn run(page: &mut String, words: &str, times: &str, record: &Record, agree: &str) {
    let Record { date, software, seconds, account } = record;
    let software = software.join("; ");
    line(
        page,
        &format!("\n### With {times} times, {date}, {seconds} s\n\n{words}\n\nSoftware: {software}.\n"),
    );
    line(page, "| counted | finwatch | ground truth |\n|---|---|---|");
    for count in &account.counts {
        line(page, &format!("| {} | {} | {} |", count.what, count.finwatch, count.truth));
    }
    for table in &account.measured {
        line(page, "");
        measured(page, table);
    }
    line(page, "");
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
    line(page, &format!("Agree: {agree}."));
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
    use super::{
        super::scenario::{Play, Times},
        *,
    };
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
        Entry { scenario: &SCENARIO, scaled: Some(record), real: None }
    }

    #[test]
    fn a_run_is_written_whole() {
        let page = page(&[entry(3)]);
        for text in [
            "| 9 | [refused](#refused) | scaled | 2026-01-02 | 1 | `refuses` | yes |",
            "\n## refused\n\nCase 9. Nobody listens.",
            "| connects refused | 3 | 3 |",
            "| p99 | 2 ms | 1 ms |",
            "* who it may be: node listens\n* change nginx: a; b;\n",
            "\nAgree: yes.",
        ] {
            assert!(page.contains(text), "no {text:?} in {page}");
        }
        assert!(!page.contains("**no**"));
    }

    #[test]
    fn a_disagreement_shows_and_what_was_not_played_does_not() {
        assert!(page(&[entry(2)]).contains("Agree: **no**."));
        let none = Entry { scaled: None, ..entry(3) };
        assert_eq!(page(&[none]).lines().count(), HEAD.lines().count() + 2);
        assert_ne!(Times::Scaled, Times::Real);
    }
}
