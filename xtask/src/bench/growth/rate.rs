//! Connections per second.

use std::path::Path;

use anyhow::Result;

use super::{Amount, Curve, FLAGS, PER_STATE_CHANGE, sum};
use crate::{
    bench::{
        network::{self, DESTINATIONS, Gate, paced},
        programs::Spent,
        tracer::scraped,
        usage::Usage,
    },
    daemon::Daemon,
};

const NANOSECONDS: f64 = 1e9;

/// Each connection opens and closes on both of its ends, on this host.
pub(super) fn curve(binary: &Path, amount: Amount) -> Result<Curve> {
    let points = amount.rates.iter().map(|rate| {
        network::alone(|| {
            let daemon = Daemon::private_with(binary, &FLAGS)?;
            let gate = Gate::open()?;
            let load = || {
                paced(*rate, amount.time, |number| {
                    let (proxy, upstream) = gate.connect(number % DESTINATIONS)?;
                    drop(proxy);
                    drop(upstream);
                    Ok(())
                })
            };
            let (done, usage) = Usage::during(daemon.pid(), || scraped(&daemon, load))?;
            let per_second = f64::from(done) / amount.time.as_secs_f64();
            let (done, spent) = Spent::during(daemon.pid(), load)?;
            let nanoseconds_per_connection = spent.nanoseconds() / f64::from(done);
            let programs = nanoseconds_per_connection * per_second / NANOSECONDS;
            let figures =
                vec![spent.nanoseconds_per_state_change(), programs * 100.0, usage.cpu_ratio * 100.0];
            Ok((per_second, figures))
        })
    });
    let points = points.collect::<Result<_>>()?;
    let columns = [PER_STATE_CHANGE, sum("programs, % of one CPU", 3), sum("daemon, % of one CPU", 2)];
    Ok(Curve::of("connections/s", &columns, points))
}
