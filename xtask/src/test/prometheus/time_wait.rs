//! Connections that are not kept, in a namespace that may hold few sockets in TIME_WAIT: they grow, then there is no room.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::traffic::{
    clients::{post_at, until},
    namespace::Namespace,
};

const PORT: u16 = 8080;
/// Enough to be told of as growth.
const ROOM: u32 = 1_100;
/// Together the clients fill that in three quarters of the time, and it is shorter than TIME_WAIT.
const CLIENTS: u32 = 5;
const TIME: Duration = Duration::from_secs(30);

/// nginx closes after each exchange.
pub(super) fn grows() -> Result<()> {
    let namespace = Namespace::alone("time-wait")?;
    namespace.set("/proc/sys/net/ipv4/tcp_max_tw_buckets", &ROOM.to_string())?;
    let (_node, nginx) = namespace.unkept(PORT)?;
    let (socket, end) = (nginx.socket(), Instant::now() + TIME);
    let pace = TIME * 3 / 4 * CLIENTS / ROOM;
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| until(end, pace, || post_at(&socket, "/ok")))).collect();
        clients.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a client panicked")))
    })
}
