//! What pairs cost a Prometheus: docs/sizing.md has the figures of this very exporter, and `UPDATE_DOCS=1` rewrites them.

#[expect(dead_code, reason = "each test binary uses its part of it")]
mod support;

use std::{
    env,
    fmt::Write as _,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use finwatch::{
    export::exposition::Exporter,
    model::{
        labels::ProcessFilter,
        levels::{PairLevel, Snapshot},
        source::{HistogramId, LevelSource, PairSource},
    },
};
use finwatch_ebpf::{
    histogram::SLOTS,
    levels::STATE_SLOTS,
    state::{ESTABLISHED, FIN_WAIT2, TIME_WAIT},
    wire::{Counter, Histogram, PairKey, Totals},
};

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

/// What has happened to a pair, and which states its sockets were ever in.
struct Mix {
    name: &'static str,
    counts: fn(Counter) -> bool,
    histograms: &'static [HistogramId],
    states: &'static [u8],
}

/// From a pair that does nothing to one that had everything.
const MIXES: [Mix; 3] = [
    Mix {
        name: "one connection, kept",
        counts: |counter| counter == Counter::Opened,
        histograms: &[],
        states: &[ESTABLISHED],
    },
    Mix {
        name: "usual: two ways of closing, three states, two histograms",
        counts: |counter| {
            use Counter::{ClosedLocal, ClosedPeer, Opened, TimeWaitEntered};
            [Opened, ClosedLocal, ClosedPeer, TimeWaitEntered].contains(&counter)
        },
        histograms: &[HistogramId::PeerCloseIdle, HistogramId::ConnectionDuration],
        states: &[ESTABLISHED, FIN_WAIT2, TIME_WAIT],
    },
    Mix {
        name: "everything that there is, requests followed",
        counts: |_| true,
        histograms: &HistogramId::ALL,
        states: &[1, 2, 3, 4, 5, 6, 8, 9, 11],
    },
];

/// So many pairs of one mix.
struct Pairs(&'static Mix, u32);

impl PairSource for Pairs {
    fn slots(&self) -> u32 {
        self.1
    }

    fn key(&self, slot: u32) -> Option<PairKey> {
        let upstream = format!("10.0.{}.{}", slot >> 8, slot & 0xff);
        Some(PairKey { cgroup: u64::from(slot) + 1, ..support::proxy_key(b"nginx", &upstream, 8080) })
    }

    fn pid(&self, _slot: u32) -> u32 {
        1
    }

    fn generation(&self, _slot: u32) -> u32 {
        1
    }

    fn counter(&self, _slot: u32, counter: Counter) -> u64 {
        if (self.0.counts)(counter) { 123_456 } else { 0 }
    }

    fn histogram(&self, _slot: u32, id: HistogramId) -> Histogram {
        let touched = u64::from(self.0.histograms.contains(&id));
        Histogram { sum: 123_456_789 * touched, slots: [9_876 * touched; SLOTS] }
    }

    fn follows_requests(&self) -> bool {
        self.0.histograms.contains(&HistogramId::TimeToFirstByte)
    }

    fn totals(&self) -> Totals {
        support::totals()
    }
}

struct Levels(Arc<Snapshot>);

impl LevelSource for Levels {
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        Some(self.0.clone())
    }

    fn latest(&self) -> Option<Arc<Snapshot>> {
        Some(self.0.clone())
    }
}

/// Series and bytes of a scrape. What differs from run to run, clocks and this process's own sizes, counts as one digit.
fn scrape(mix: &'static Mix, pairs: u32) -> (u64, u64) {
    let touched = mix.states.iter().fold(0, |bits, state| bits | 1 << state);
    let level = PairLevel { sockets: [12; STATE_SLOTS], idle: 9, touched, ..PairLevel::default() };
    let snapshot = Snapshot {
        // Still to come, so its age prints as 0.
        taken: Instant::now() + HOUR,
        duration: Duration::ZERO,
        pairs: (0..pairs).map(|slot| (slot, level)).collect(),
        namespaces: Vec::new(),
    };
    let (units, agent) = (Arc::new(support::Units), Arc::new(support::Agent));
    let exporter = Exporter::new(Arc::new(Pairs(mix, pairs)), units, agent, ProcessFilter::default());
    let mut text = Vec::new();
    exporter.with_levels(Arc::new(Levels(Arc::new(snapshot))), 0).write(&mut text).expect("memory");
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
    for mix in &MIXES {
        let (none, empty) = scrape(mix, 0);
        let (series, bytes) = scrape(mix, PAIRS);
        let each = ((series - none) / u64::from(PAIRS), (bytes - empty) / u64::from(PAIRS));
        writeln!(text, "| {} | {} | {} |", mix.name, each.0, each.1).expect("a string");
        if mix.name.starts_with("usual") {
            usual = each;
        }
    }
    let (own, bytes) = scrape(&MIXES[0], 0);
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
