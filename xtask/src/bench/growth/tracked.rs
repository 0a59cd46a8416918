//! Connections that are tracked at once.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{
    Amount, Curve, FLAGS, PER_STATE_CHANGE, RESIDENT, SNAPSHOT, per_state_change, snapshot_milliseconds,
};
use crate::{
    bench::{
        agent::metric,
        crowd::Crowd,
        network::{self, DESTINATIONS, Gate},
        usage::resident_bytes,
    },
    daemon::Daemon,
};

/// Room for all of them and for those that programs are timed with.
const ROOM: [&str; 2] = ["--max-connections", "600000"];

pub(super) fn curve(binary: &Path, amount: Amount) -> Result<Curve> {
    network::alone(|| {
        let daemon = Daemon::private_with(binary, &[&FLAGS[..], &ROOM].concat())?;
        let gate = Gate::open()?;
        let (mut crowd, mut points, mut there) = (Crowd::default(), Vec::new(), 0);
        for &tracked in amount.tracked {
            crowd.established((tracked - there) / 2, DESTINATIONS * 2)?;
            there = tracked;
            let per_state_change = per_state_change(&daemon, &gate, amount, DESTINATIONS)?;
            let snapshot = snapshot_milliseconds(&daemon, amount.readings)?;
            let counted = metric(&daemon, "finwatch_tracked_connections")?;
            ensure!(counted >= f64::from(tracked), "only {counted} of {tracked} connections are tracked");
            let resident = resident_bytes(daemon.pid())? as f64 / f64::from(1 << 20);
            points.push((f64::from(tracked), vec![per_state_change, snapshot, resident]));
        }
        Ok(Curve::of("tracked connections", &[PER_STATE_CHANGE, SNAPSHOT, RESIDENT], points))
    })
}
