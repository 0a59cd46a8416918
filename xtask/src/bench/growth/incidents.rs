//! Incidents per second: requests that meet a close, each with a record of its own on its way to the agent.

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, Result};

use super::{Amount, Curve, FLAGS, PER_STATE_CHANGE, RESIDENT, sum};
use crate::{
    bench::{
        agent::metric,
        network::{self, DESTINATIONS, Gate, paced},
        programs::Spent,
        usage::Usage,
    },
    daemon::Daemon,
};

/// Every one is reported.
const UNLIMITED: [&str; 2] = ["--incidents-per-second", "1000000"];
const REPORTED: &str = "finwatch_incidents_total";
const LOST: &str = "finwatch_incidents_lost_total";

pub(super) fn curve(binary: &Path, amount: Amount) -> Result<Curve> {
    let points = amount.incidents.iter().map(|rate| {
        network::alone(|| {
            let daemon = Daemon::private_with(binary, &[&FLAGS[..], &UNLIMITED].concat())?;
            let gate = Gate::open()?;
            let load = || {
                paced(*rate, amount.time, |number| {
                    let (mut proxy, upstream) = gate.connect(number % DESTINATIONS)?;
                    proxy.write_all(b"?").context("a request")?;
                    // With the request unread: a reset answers it.
                    drop(upstream);
                    drop(proxy);
                    Ok(())
                })
            };
            let (before, lost_before) = (metric(&daemon, REPORTED)?, metric(&daemon, LOST)?);
            let (_, usage) = Usage::during(daemon.pid(), load)?;
            let reported = metric(&daemon, REPORTED)? - before;
            let lost = metric(&daemon, LOST)? - lost_before;
            let (_, spent) = Spent::during(daemon.pid(), load)?;
            let figures = vec![
                spent.nanoseconds_per_state_change(),
                usage.cpu_ratio * 100.0,
                lost,
                usage.resident_bytes as f64 / f64::from(1 << 20),
            ];
            Ok((reported / amount.time.as_secs_f64(), figures))
        })
    });
    let columns =
        [PER_STATE_CHANGE, sum("daemon, % of one CPU", 2), sum("lost for want of room", 0), RESIDENT];
    Ok(Curve::of("incidents/s", &columns, points.collect::<Result<_>>()?))
}
