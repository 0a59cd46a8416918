//! Pairs that ask for a record, whether or not there is one left.

use std::{path::Path, time::Instant};

use anyhow::Result;

use super::{Amount, Curve, FLAGS, PER_STATE_CHANGE, RESIDENT, per_state_change, sum};
use crate::{
    bench::{
        agent::metric,
        network::{self, Gate},
        usage::resident_bytes,
    },
    daemon::{Daemon, metrics},
};

pub(super) fn curve(binary: &Path, amount: Amount) -> Result<Curve> {
    network::alone(|| {
        let daemon = Daemon::private_with(binary, &FLAGS)?;
        let gate = Gate::open()?;
        let mut points = Vec::new();
        for &pairs in amount.pairs {
            // Either end's.
            let destinations = pairs / 2;
            gate.churn(destinations, destinations)?;
            let per_state_change = per_state_change(&daemon, &gate, amount, destinations)?;
            let recorded = metric(&daemon, "finwatch_pairs")?;
            let mut scrape = f64::INFINITY;
            for _ in 0..amount.readings {
                let begun = Instant::now();
                drop(metrics::get(&daemon.metrics_url())?);
                scrape = scrape.min(begun.elapsed().as_secs_f64() * 1e3);
            }
            let resident = resident_bytes(daemon.pid())? as f64 / f64::from(1 << 20);
            points.push((f64::from(pairs), vec![per_state_change, recorded, scrape, resident]));
        }
        let columns = [PER_STATE_CHANGE, sum("pairs with a record", 0), sum("a scrape, ms", 1), RESIDENT];
        Ok(Curve::of("pairs offered", &columns, points))
    })
}
