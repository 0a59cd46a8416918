//! A sequence: what happens to a connection, the transitions it makes, and what must be counted, no more and no less.

use std::{net::SocketAddr, thread};

use crate::harness::{
    can_run, daemon,
    lab::{FAMILIES, Family, Lab, address, own_port},
    metrics::Side,
    netns, process_name, trace,
};

/// One end of the connection.
pub(crate) struct End {
    /// Which.
    pub(crate) side: Side,
    /// Transitions and resets in order, as the kernel traces them.
    pub(crate) path: &'static str,
    /// What is counted, in the short notation of [`crate::harness::metrics::expand`].
    pub(crate) counted: &'static [&'static str],
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
    pub(crate) remote: std::net::IpAddr,
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
    if !paths_only() {
        daemon::shared();
    }
    let wrong: Vec<String> = thread::scope(|scope| {
        let runs: Vec<_> = FAMILIES.map(|family| scope.spawn(move || run_one(sequence, family))).into();
        runs.into_iter()
            .zip(FAMILIES)
            .filter_map(|(run, family)| {
                let outcome = run.join().unwrap_or_else(|panic| Err(message(&*panic)));
                outcome.err().map(|wrong| format!("{family:?}:\n{wrong}"))
            })
            .collect()
    });
    assert!(wrong.is_empty(), "{}: {}\n{}", sequence.name, sequence.what, wrong.join("\n"));
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
}

fn run_one(sequence: &Sequence, family: Family) -> Result<(), String> {
    let port = own_port();
    let (upstream, remote) = match sequence.run {
        Run::Crafted(run) => {
            let side = sequence.ends[0].side;
            netns::in_namespace(|| {
                let lab = Lab::new(family, side, port);
                run(&lab);
                ((lab.upstream).into(), lab.remote())
            })
        }
        Run::Real(run) => {
            let real = netns::in_namespace(|| run(family, port));
            (real.upstream, real.remote)
        }
    };
    let mut wrong = String::new();
    for end in sequence.ends {
        wrong += &compare(end, upstream, &remote.to_string());
    }
    if matches!(sequence.run, Run::Crafted(_)) {
        wrong += &others(sequence, upstream);
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Waits until what is counted for one end is what should be, and gives the difference where it never is.
fn compare(end: &End, upstream: SocketAddr, remote: &str) -> String {
    let name = process_name();
    let proxy = if end.side == Side::Proxy { &*name } else { remote };
    let differences = || {
        let mut text = if paths_only() {
            String::new()
        } else {
            daemon::shared().scrape().differences(end.side, &upstream.to_string(), proxy, end.counted)
        };
        if let Some(path) = trace::path(end.side, upstream.port()).filter(|path| path != end.path) {
            text += &format!("  the kernel went {path}, should be {}\n", end.path);
        }
        text
    };
    let mut wrong = differences();
    // Counted at the event: what is not there soon never comes.
    for _ in 0..40 {
        if wrong.is_empty() {
            return wrong;
        }
        thread::sleep(std::time::Duration::from_millis(50));
        wrong = differences();
    }
    let side = end.side.label();
    let path = trace::path(end.side, upstream.port()).unwrap_or_default();
    format!(" side={side} upstream={upstream}, the kernel went {path}:\n{wrong}")
}

/// Pairs that must not be there: the same port with the ends confused.
fn others(sequence: &Sequence, upstream: SocketAddr) -> String {
    if paths_only() {
        return String::new();
    }
    let scrape = daemon::shared().scrape();
    let known = upstream.to_string();
    let sides: Vec<&str> = sequence.ends.iter().map(|end| end.side.label()).collect();
    let ours = [address(Family::V4, 0).to_string(), address(Family::V6, 0).to_string()];
    let nets = ours.map(|net| net.trim_end_matches('0').to_owned());
    let mut wrong = String::new();
    for (name, labels) in scrape.0.keys() {
        let of = |label: &str| labels.get(label).map_or("", String::as_str);
        let at = of("upstream");
        let confused = at == known && !of("side").is_empty() && !sides.contains(&of("side"));
        let port = at.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let in_nets = nets.iter().any(|net| at.trim_start_matches('[').starts_with(net.as_str()));
        if confused || (in_nets && port.is_none_or(|port| !trace::PORTS.contains(&port))) {
            wrong += &format!("  a series that must not be: {name} {labels:?}\n");
        }
    }
    wrong
}

/// While working on sequences: compares the transitions only.
fn paths_only() -> bool {
    std::env::var_os("FINWATCH_PATHS_ONLY").is_some()
}
