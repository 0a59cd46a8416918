//! docs/findings.md: each kind explained, with the thresholds that the rules have.

use std::fmt::Write as _;

use super::{kinds::Kind, rules};

/// What docs/findings.md says of one kind.
pub(super) struct Explanation {
    /// What it means.
    pub(super) means: &'static str,
    /// What it is told from.
    pub(super) evidence: &'static str,
    /// When it fires.
    pub(super) fires: String,
    /// What looks alike and is left alone.
    pub(super) silent: &'static str,
    /// What to do.
    pub(super) remedy: &'static str,
}

const INTRODUCTION: &str = "\
# Findings

What `finwatch triage` may say, worst first. A finding is computed from the counts of one window and from how things stand at
its end; nothing else is looked at, no payload, no log. Counters leave out the prefix `finwatch_`
([metrics.md](metrics.md) defines them). The names are those of `kind` in the JSON.

Where the upstream is a service's address that stands for others, and `--conntrack` is on, a finding also says which of them answered
in the incidents that were recorded of it: `recorded behind 10.96.0.10:80: 10.244.1.7:8080 (40), 10.244.2.9:8080 (1)`. In the JSON
each pair of the observation has them under `behind`.

*Recurs* means: in both halves of the window; where the agent does not know the halves, more often than there are connections open
(and more than five times), as one restart or crash hits no connection twice.

This file is generated: `UPDATE_DOCS=1 cargo test -p finwatch --lib findings_md` writes it, the same test checks it.
";

/// The whole of docs/findings.md.
pub fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    for kind in Kind::ALL {
        let Explanation { means, evidence, fires, silent, remedy } = rules::explanation(kind);
        let title = kind.title();
        write!(
            text,
            "\n## {}\n\n`{}`. {means}\n\n- **Evidence**: {evidence}\n- **Fires**: {fires}\n- **Stays silent**: {silent}\n\
             - **Do**: {remedy}\n",
            title[..1].to_uppercase() + &title[1..],
            kind.name()
        )
        .expect("a string");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn findings_md_is_what_the_rules_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/findings.md");
        let wanted = document();
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, &wanted).expect("docs/ is writable");
        }
        let have = fs::read_to_string(&path).unwrap_or_default();
        assert!(have == wanted, "docs/findings.md is not what the rules say; UPDATE_DOCS=1 rewrites it");
    }
}
