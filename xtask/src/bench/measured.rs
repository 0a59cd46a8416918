//! The load with each watcher in turns, round by round.

use std::{path::Path, time::Duration};

use anyhow::Result;
use serde::Serialize;

use super::{
    load::{Connections, Load},
    peers::Peer,
    programs::Spent,
    report::Report,
    tracer::{Mode, Tracer},
    usage::Usage,
};

/// One mode measured once.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) connections: Connections,
    pub(crate) mode: Mode,
    pub(crate) round: u32,
    pub(crate) requests_per_second: f64,
    /// Requests while the programs were timed: in a run of its own, since the statistics cost something themselves.
    pub(crate) requests_traced: f64,
    pub(crate) programs: Option<Spent>,
    pub(crate) usage: Option<Usage>,
}

/// What watches where every request opens a connection: all that is here.
fn closed() -> Vec<Mode> {
    let installed = Peer::ALL.into_iter().filter(|peer| peer.is_installed()).map(Mode::Peer);
    [Mode::Untraced, Mode::Empty, Mode::Finwatch].into_iter().chain(installed).collect()
}

/// Measures so many rounds of one kind of connections, each run so long.
pub(crate) fn measure(
    connections: Connections,
    binary: &Path,
    rounds: u32,
    time: Duration,
) -> Result<Report> {
    let mut modes = match connections {
        Connections::Closed => closed(),
        Connections::Kept => vec![Mode::Untraced, Mode::Finwatch, Mode::Requests, Mode::RequestsCoarse],
    };
    let mut all = Vec::new();
    let load = Load::start(connections)?;
    for round in 0..rounds {
        for &mode in &modes {
            let measured = one(&load, connections, mode, round, binary, time)?;
            let rate = measured.requests_per_second;
            println!("{connections:?}, round {}: {}: {rate:.0} requests/s", round + 1, mode.name());
            all.push(measured);
        }
        // Nothing is always first.
        modes.rotate_left(1);
    }
    Ok(Report::new(all))
}

fn one(
    load: &Load,
    connections: Connections,
    mode: Mode,
    round: u32,
    binary: &Path,
    time: Duration,
) -> Result<Measured> {
    let nothing = Measured {
        connections,
        mode,
        round,
        requests_per_second: 0.0,
        requests_traced: 0.0,
        programs: None,
        usage: None,
    };
    let Some(tracer) = Tracer::start(mode, binary)? else {
        return Ok(Measured { requests_per_second: load.run(time)?.per_second, ..nothing });
    };
    let (served, usage) = tracer.usage(|| load.run(time))?;
    // Half as long: an average over some ten thousand runs either way.
    let (again, programs) = Spent::during(tracer.pid(), || load.run(time.div_f64(2.0)))?;
    Ok(Measured {
        requests_per_second: served.per_second,
        requests_traced: again.requests as f64,
        programs: Some(programs),
        usage,
        ..nothing
    })
}
