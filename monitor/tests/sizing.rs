//! What pairs cost a Prometheus: docs/sizing.md has the figures of this very exporter, and `UPDATE_DOCS=1` rewrites them.

#[path = "support/mix.rs"]
mod mix;
#[expect(dead_code, reason = "each test binary uses its part of it")]
mod support;

use std::{
    env,
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use mix::{EVERYTHING, KEPT, Mix, USUAL, exporter};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sizing.md");
const BEGIN: &str = "<!-- Figures of monitor/tests/sizing.rs, rewritten by UPDATE_DOCS=1 cargo test -p finwatch --test sizing -->\n";
const END: &str = "<!-- End of the figures. -->\n";
/// Enough that names are as long as they usually are.
const PAIRS: u32 = 1_000;
/// What Prometheus is told by default.
const SCRAPE_SECONDS: u64 = 15;
const HOUR: Duration = Duration::from_hours(1);
const HOSTS: u64 = 10_000;
const PAIRS_OF_A_HOST: u64 = 20;

/// From a pair that does nothing to one that had everything.
const MIXES: [&Mix; 3] = [&KEPT, &USUAL, &EVERYTHING];

/// Series and bytes of a scrape. What differs from run to run, clocks and this process's own sizes, counts as one digit.
fn scrape(mix: &'static Mix, pairs: u32) -> (u64, u64) {
    let mut text = Vec::new();
    // Counts that do not rise yet.
    exporter(mix, pairs, Instant::now() + HOUR).write(&mut text).expect("memory");
    let text = String::from_utf8(text).expect("text");
    let bytes = |line: &str| match line.split_once(' ') {
        Some((name, _)) if name.starts_with("process_") => name.len() + " 0\n".len(),
        _ => line.len() + "\n".len(),
    };
    (
        text.lines().filter(|line| !line.starts_with('#')).count() as u64,
        text.lines().map(bytes).sum::<usize>() as u64,
    )
}

fn figures() -> String {
    let mut text = String::from("| a pair | series | bytes of a scrape, uncompressed |\n|---|---|---|\n");
    let mut usual = (0, 0);
    for mix in MIXES {
        let (none, empty) = scrape(mix, 0);
        let (series, bytes) = scrape(mix, PAIRS);
        let each = ((series - none) / u64::from(PAIRS), (bytes - empty) / u64::from(PAIRS));
        writeln!(text, "| {} | {} | {} |", mix.name, each.0, each.1).expect("a string");
        if mix.name == USUAL.name {
            usual = each;
        }
    }
    let (own, bytes) = scrape(&KEPT, 0);
    writeln!(text, "| the agent itself, without any pair, what varies as one digit | {own} | {bytes} |")
        .expect("a string");
    let (series, bytes) = (own + PAIRS_OF_A_HOST * usual.0, bytes + PAIRS_OF_A_HOST * usual.1);
    let (all, samples) = (HOSTS * series, HOSTS * series / SCRAPE_SECONDS);
    let kilobytes = HOSTS * bytes / SCRAPE_SECONDS / 1_000;
    write!(
        text,
        "\nA host with {PAIRS_OF_A_HOST} usual pairs has {series} series and {bytes} bytes a scrape. {HOSTS} such hosts, scraped every {SCRAPE_SECONDS} s: \
         {all} series, {samples} samples\nand {kilobytes} kB of text a second before compression.\n"
    )
    .expect("a string");
    text
}

#[test]
fn the_document_has_the_figures() {
    let document = fs::read_to_string(DOCUMENT).expect("docs/sizing.md");
    let (before, rest) = document.split_once(BEGIN).expect("the figures' begin");
    let (have, after) = rest.split_once(END).expect("the figures' end");
    let wanted = figures();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(DOCUMENT, [before, BEGIN, &wanted, END, after].concat()).expect("docs/ is writable");
        return;
    }
    assert_eq!(have, wanted, "UPDATE_DOCS=1 rewrites it");
}
