//! What a scenario counted on both sides, and what triage said of it.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The account of one scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Counts of both sides.
    pub(crate) counts: Vec<Count>,
    /// What triage said, look by look.
    pub(crate) looks: Vec<Vec<Said>>,
    /// What was measured beside, and what no count is compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) measured: Vec<Table>,
}

/// One thing that both sides count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) what: String,
    pub(crate) finwatch: u64,
    pub(crate) truth: u64,
}

/// One thing that is wrong, as triage says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) kind: String,
    pub(crate) verdict: String,
    pub(crate) confidence: String,
    /// Whose timeout it may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) candidates: Vec<String>,
    /// What to change where, as `software: directives`.
    pub(crate) changes: Vec<String>,
}

/// Figures with their units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Account {
    /// Notes both counts; fails unless they are the same.
    pub(crate) fn same(&mut self, what: &str, finwatch: u64, theirs: u64) -> Result<()> {
        self.counts.push(Count { what: what.to_owned(), finwatch, truth: theirs });
        if finwatch != theirs {
            bail!("{what}: finwatch counts {finwatch}, they count {theirs}");
        }
        println!("  {what}: {finwatch} by either count");
        Ok(())
    }

    /// Notes what triage finds at one look.
    pub(crate) fn look<'a>(&mut self, troubles: impl IntoIterator<Item = &'a Value>) {
        self.looks.push(troubles.into_iter().map(Said::read).collect());
    }

    /// Notes what another account has.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.counts.append(&mut other.counts);
        self.looks.append(&mut other.looks);
        self.measured.append(&mut other.measured);
    }

    /// Notes figures.
    pub(crate) fn table(&mut self, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        self.measured.push(Table { head, rows: rows.into_iter().collect() });
    }

    /// Whether some count is not the same.
    pub(crate) fn differs(&self) -> bool {
        self.counts.iter().any(|count| count.finwatch != count.truth)
    }

    /// Whether all counts are the same and triage found these kinds, look by look, and nothing else.
    pub(crate) fn agrees(&self, expected: &[&[&str]]) -> bool {
        let kinds = |look: &Vec<Said>| look.iter().map(|said| said.kind.clone()).collect::<Vec<_>>();
        let said: Vec<_> = self.looks.iter().map(kinds).collect();
        !self.differs() && !self.counts.is_empty() && said == expected
    }
}

/// Fails unless something else than finwatch counts as many as there are.
pub(crate) fn expect(what: &str, counted: u64, expected: u64) -> Result<()> {
    if counted != expected {
        bail!("{what}: {counted}, expected {expected}");
    }
    println!("  {what}: {counted}");
    Ok(())
}

impl Said {
    fn read(finding: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |name: &str| finding[name].as_array().into_iter().flatten();
        let candidate = |one: &Value| match one["product"].as_str() {
            Some(product) => product.to_owned(),
            None => format!("{} listens", text(&one["name"])),
        };
        Self {
            kind: text(&finding["kind"]),
            verdict: text(&finding["verdict"]),
            confidence: text(&finding["confidence"]["level"]),
            candidates: list("candidates").map(candidate).collect(),
            changes: list("changes")
                .map(|change| format!("{}: {}", text(&change["software"]), text(&change["directives"])))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_equal_counts_and_the_expected_findings_agree() {
        let finding = json!({"kind": "refuses", "verdict": "It refuses.", "confidence": {"level": "high"}});
        let mut account = Account::default();
        account.look([&finding]);
        assert!(!account.agrees(&[&["refuses"]]), "nothing was counted");
        account.same("connects refused", 3, 3).expect("equal counts");
        assert!(account.agrees(&[&["refuses"]]));
        assert!(!account.agrees(&[&[]]) && !account.agrees(&[]) && !account.agrees(&[&["refuses"], &[]]));
        assert!(account.same("connects", 3, 4).is_err());
        assert!(!account.agrees(&[&["refuses"]]));
    }
}
