//! Requests that got no answer: what nginx logged of them, and what finwatch counted.

use anyhow::{Context as _, Result, ensure};

use crate::{account::Account, daemon::watch::Verdict, traffic::Seen};

/// Both counts are the same; `more` is measured beside. Returns how many there were.
pub(super) fn compare(
    account: &mut Account,
    verdict: &Verdict,
    seen: &Seen,
    more: impl IntoIterator<Item = Vec<String>>,
) -> Result<u64> {
    let measured = [
        vec!["requests".into(), seen.answers.all.to_string()],
        vec!["answered 502".into(), seen.answers.bad_gateway.to_string()],
    ];
    account.table(&["measured", ""], more.into_iter().chain(measured));
    ensure!(seen.failures.unknown.is_empty(), "nginx logged errors: {:#?}", seen.failures.unknown);
    account.table(&["finwatch's counters", ""], verdict.failures("nginx")?);
    let failed = seen.failures.all();
    account
        .same("requests without an answer; failures in nginx's error log", verdict.failed("nginx")?, failed)
        .with_context(|| format!("{}\n{:?}", verdict.told_of("nginx"), seen.failures.by_message))?;
    Ok(failed)
}
