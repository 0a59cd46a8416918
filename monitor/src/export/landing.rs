//! The page at `/`, for people.

use std::fmt::Write as _;

use super::agent::VERSION;
use crate::model::source::{AgentState, HookMode, HookState};

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #888; --good: #2a8a4a; --fair: #b7791f; --bad: #c53030 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 4rem auto; padding: 0 1.5rem }
h1 { margin: 0; font-size: 1.75rem } h1 small { color: var(--soft); font-weight: normal; font-size: 1rem }
p { margin: .5rem 0 1.5rem }
nav { display: flex; gap: .75rem; margin: 1.5rem 0 }
nav a { border: 1px solid var(--line); border-radius: .5rem; padding: .4rem .9rem; text-decoration: none }
nav a:hover { border-color: currentColor }
table { border-collapse: collapse; width: 100% } td, th { padding: .4rem 0; border-top: 1px solid var(--line); text-align: left }
td:last-child, th:last-child { text-align: right } th { font-weight: 600; border: 0 }
.full { color: var(--good) } .partial { color: var(--fair) } .off { color: var(--bad) }
";

/// The page of a running agent.
pub(super) fn page(agent: &AgentState, pairs: u64) -> String {
    let hooks: String = agent.hooks.iter().fold(String::new(), |rows, hook| rows + &row(hook));
    frame(&format!(
        "<table><tr><th>Pairs</th><th>{pairs} of {limit}</th></tr></table>\n\
         <table><tr><th>Hook</th><th>Works</th></tr>\n{hooks}</table>",
        limit = agent.pairs_limit
    ))
}

/// The page before there is anything to show.
pub(super) fn waiting_page(reason: &str) -> String {
    frame(&format!("<p class=\"partial\">Not ready: {}.</p>", escaped(reason)))
}

fn row(HookState { hook, mode }: &HookState) -> String {
    let works = match mode {
        HookMode::Full => "in full",
        HookMode::Partial => "in part: <code>finwatch check</code> tells what is missing",
        HookMode::Off => "not at all: <code>finwatch check</code> tells why",
    };
    format!("<tr><td><code>{}</code></td><td class=\"{}\">{works}</td></tr>\n", escaped(hook), mode.name())
}

fn frame(content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>finwatch</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>finwatch <small>{VERSION}</small></h1>\n\
         <p>Tells why a proxy's upstream connections die.</p>\n\
         <nav><a href=\"/metrics\">/metrics</a><a href=\"/healthz\">/healthz</a><a href=\"/readyz\">/readyz</a></nav>\n\
         {content}\n</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '"' | '\'' => {
                write!(out, "&#{};", u32::from(c)).expect("writing to a string cannot fail");
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let hooks = vec![HookState { hook: "<script>".into(), mode: HookMode::Off }];
        let page = page(&AgentState { hooks, ..AgentState::default() }, 3);
        assert!(page.contains("&#60;script&#62;"));
        assert!(!page.contains("<script>"));
    }
}
