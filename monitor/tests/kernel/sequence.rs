//! A sequence: what happens to a connection, the transitions it makes, and what must be counted, no more and no less.

use std::{
    any::Any,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use crate::harness::{
    can_run, incidents, judge,
    lab::{FAMILIES, Family, Lab, address, own_port},
    look::{self, Look},
    metrics::{Scrape, Side},
    netns, process_name, trace,
};

/// For how long what is to be seen may be on its way. Counts are made at the event; records are written when the daemon's
/// turn comes, which a processor that is emulated and has sixteen tests to run may put off by seconds.
const SETTLED: Duration = Duration::from_secs(15);

/// One end of the connection.
pub(crate) struct End {
    /// Which.
    pub(crate) side: Side,
    /// Transitions and resets in order, as the kernel traces them.
    pub(crate) path: &'static str,
    /// What is counted, in the short notation of [`crate::harness::metrics::expand`].
    pub(crate) counted: &'static [&'static str],
}

impl End {
    /// The transitions and counts to expect of this kernel: `?` marks what comes of resets that older ones do not trace.
    fn here(&self) -> (String, Vec<&'static str>) {
        let all = trace::traces_all_resets();
        let path: Vec<&str> = self.path.split(' ').filter(|step| all || !step.ends_with('?')).collect();
        let counted = self.counted.iter().filter(|item| all || !item.ends_with('?'));
        (path.join(" ").replace('?', ""), counted.map(|item| item.trim_end_matches('?')).collect())
    }
}

/// How a sequence is run.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// Against the crafted peer.
    Crafted(fn(&Lab)),
    /// Between two real stacks.
    Real(fn(Family, u16) -> Real),
}

/// Between which addresses a sequence of real stacks ran.
pub(crate) struct Real {
    /// The accepting end.
    pub(crate) upstream: SocketAddr,
    /// The other end's address, as the accepting end sees it.
    pub(crate) remote: IpAddr,
}

/// A row of the table.
pub(crate) struct Sequence {
    /// Also the name of its test.
    pub(crate) name: &'static str,
    /// What happens.
    pub(crate) what: &'static str,
    /// The ends this host's kernel has.
    pub(crate) ends: &'static [End],
    /// What looks like it and is counted otherwise.
    pub(crate) near: &'static str,
    /// How it is made to happen.
    pub(crate) run: Run,
}

/// Declares sequences: one table, and one test for each.
macro_rules! sequences {
    ($(
        #[doc = $what:literal]
        $name:ident near $near:literal
        $(on $side:ident $path:literal => [$($counted:literal),* $(,)?])+
        run $kind:ident($run:expr);
    )+) => {
        /// The sequences of this file.
        pub(crate) const TABLE: &[$crate::sequence::Sequence] = &[$(
            $crate::sequence::Sequence {
                name: stringify!($name),
                what: $what,
                ends: &[$($crate::sequence::End {
                    side: $crate::harness::metrics::Side::$side,
                    path: $path,
                    counted: &[$($counted),*],
                }),+],
                near: $near,
                run: $crate::sequence::Run::$kind($run),
            },
        )+];
        $(
            #[test]
            fn $name() {
                let row = TABLE.iter().find(|row| row.name == stringify!($name));
                $crate::sequence::run(row.expect("declared above"));
            }
        )+
    };
}
pub(crate) use sequences;

/// Runs it in every family and compares.
pub(crate) fn run(sequence: &Sequence) {
    if !can_run(sequence.name) {
        return;
    }
    trace::start();
    look::shared();
    judge(|| {
        let runs = thread::scope(|scope| {
            let runs = FAMILIES.map(|family| (family, scope.spawn(move || run_one(sequence, family))));
            runs.map(|(family, run)| (family, run.join().map_err(|panic| message(&*panic))))
        });
        let wrong = settled(sequence, &runs)?;
        let upstreams = runs.iter().filter_map(|(_, run)| Some(run.as_ref().ok()?.upstream.port()));
        Some((format!("{}: {}\n{wrong}", sequence.name, sequence.what), upstreams.collect()))
    });
}

/// What is not as it should be, once counts and records have had time to arrive; `None` as soon as all is.
fn settled(sequence: &Sequence, runs: &[(Family, Result<Real, String>)]) -> Option<String> {
    let end = Instant::now() + SETTLED;
    loop {
        let wrong = differences(sequence, runs);
        if wrong.is_empty() {
            return None;
        }
        if Instant::now() > end {
            return Some(wrong);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
}

fn run_one(sequence: &Sequence, family: Family) -> Real {
    let port = own_port();
    netns::in_namespace(|| match sequence.run {
        Run::Crafted(run) => {
            let lab = Lab::new(family, sequence.ends[0].side, port);
            run(&lab);
            Real { upstream: lab.upstream.into(), remote: lab.remote() }
        }
        Run::Real(run) => run(family, port),
    })
}

/// What is not as it should be, by family and end; empty when all is.
fn differences(sequence: &Sequence, runs: &[(Family, Result<Real, String>)]) -> String {
    let look = Look::fresh();
    let name = process_name();
    let mut wrong = Vec::new();
    for (family, outcome) in runs {
        let real = match outcome {
            Ok(real) => real,
            Err(panic) => {
                wrong.push(format!("{family:?}: {panic}"));
                continue;
            }
        };
        let upstream = real.upstream.to_string();
        let lines = look.lines(&upstream);
        let records = look.incidents(&upstream);
        let scrape = Scrape::parse(&lines.join("\n"));
        let remote = real.remote.to_string();
        for end in sequence.ends {
            let proxy = if end.side == Side::Proxy { &name } else { &remote };
            let (wanted, counted) = end.here();
            let mut found = scrape.differences(end.side, &upstream, proxy, &counted);
            let (recorded, anomalies) =
                (incidents::causes(&records, end.side, &upstream), incidents::expected(&counted));
            if recorded != anomalies {
                found.push(format!("incidents are {recorded:?}, should be {anomalies:?}"));
            }
            found.extend(incidents::of_pair(&records, end.side, &upstream).flat_map(incidents::wrong));
            let path = look.trace().map(|trace| trace::path(trace, end.side, real.upstream));
            if path.as_ref().is_some_and(|path| *path != wanted) {
                found.push(format!("transitions should be {wanted}"));
            }
            if !found.is_empty() {
                let (side, path) = (end.side.label(), path.unwrap_or_default());
                let found = found.join("\n  ");
                wrong.push(format!(
                    "{family:?} side={side} upstream={upstream}, transitions {path}:\n  {found}"
                ));
            }
        }
        for side in [Side::Proxy, Side::Upstream] {
            let side_label = format!("side=\"{}\"", side.label());
            let confused = lines.iter().find(|line| line.contains(&side_label));
            if let Some(line) = confused.filter(|_| sequence.ends.iter().all(|end| end.side != side)) {
                wrong.push(format!("{family:?}: a series of an end that is not there: {line}"));
            }
        }
    }
    wrong.extend(strangers(&look));
    wrong.join("\n")
}

/// Pairs of the crafted networks at ports that no sequence uses: the two ends taken for each other.
fn strangers(look: &Look) -> Vec<String> {
    let ours = [Family::V4, Family::V6].map(|family| match address(family, 0) {
        IpAddr::V4(net) => net.to_string().trim_end_matches('0').to_owned(),
        IpAddr::V6(net) => format!("[{net}"),
    });
    let mut wrong = Vec::new();
    for upstream in look.upstreams() {
        let port = upstream.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let is_ours = ours.iter().any(|net| upstream.starts_with(net.as_str()));
        if is_ours && port.is_none_or(|port| !trace::PORTS.contains(&port)) {
            wrong.push(format!("a series that must not be: {}", look.lines(upstream)[0]));
        }
    }
    wrong
}
