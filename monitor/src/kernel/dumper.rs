//! One reading of the TCP sockets of the calling thread's network namespace where the kernel's iterator does not work:
//! they are listed by netlink and added up here.

use std::{io, sync::Arc};

use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use finwatch_ebpf::wire::{CONN_PROXY, ClosedKey, ClosedSet, Settings};

use super::{
    error::KernelError,
    loader::{Options, typed},
    mapped::Tables,
    processes::Processes,
    sock_diag::{Kind, list},
};
use crate::model::{
    levels::Walked,
    port_range::PortRange,
    selection::Selection,
    source::PairSource as _,
    tally::{Listed, Owner, PairIndex, Tally, folded_side},
};

/// Reads by netlink.
pub struct Dumper {
    tables: Arc<Tables>,
    closed: Array<MapData, ClosedSet>,
    closed_mask: u32,
    closed_seed: u32,
    selection: Selection,
    last: u32,
}

impl Dumper {
    /// Finds the pairs of sockets in the maps of `ebpf`.
    ///
    /// # Errors
    /// When the kernel does not list sockets by netlink.
    pub fn new(
        ebpf: &mut Ebpf,
        tables: Arc<Tables>,
        options: &Options,
        settings: &Settings,
    ) -> Result<Self, KernelError> {
        list(|_, _| ()).map_err(KernelError::List)?;
        let selection = Selection::new(
            [&options.include_ports, &options.exclude_ports],
            [&options.include_nets, &options.exclude_nets],
            &options.proxy_ranges,
        )
        .without_requests(&options.no_request_rules);
        let closed = typed(ebpf, "CLOSED")?;
        let Settings { closed_mask, closed_seed, .. } = *settings;
        Ok(Self { tables, closed, closed_mask, closed_seed, selection, last: 0 })
    }

    /// Whether holders of sockets must be known to tell their pairs.
    pub fn is_ambiguous(&self) -> bool {
        PairIndex::of(&*self.tables).is_ambiguous()
    }

    /// Reads the namespace `netns` that the calling thread is in, whose ephemeral ports are `range`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn walk(&mut self, netns: u32, range: &PortRange, processes: &Processes) -> io::Result<Walked> {
        self.last += 1;
        let pairs = PairIndex::of(&*self.tables);
        let mut tally = Tally::new(self.last, range, &self.selection, &pairs);
        list(|kind, socket| match kind {
            Kind::Listening => tally.listening(socket),
            Kind::Request => tally.request(socket),
            Kind::TimeWait => tally.time_wait(socket, self.owner(netns, socket)),
            Kind::Full => tally.full(socket, || processes.holder(socket.inode)),
        })?;
        let walked = tally.finish();
        for (slot, _) in &walked.levels {
            match folded_side(*slot) {
                Some(side) => self.tables.show_folded(*slot, side),
                None => self.tables.keep(*slot),
            }
        }
        Ok(walked)
    }

    /// Whose a timewait mini-socket is, by the connection that it is left of.
    fn owner(&self, netns: u32, socket: &Listed) -> Option<Owner> {
        let key = ClosedKey {
            netns,
            local_port: socket.local.1,
            remote_port: socket.remote.1,
            local: socket.local.0.octets(),
            remote: socket.remote.0.octets(),
        };
        let place = key.place(self.closed_seed);
        let set = self.closed.get(&(place.set & self.closed_mask), 0).ok()?;
        let closed = set.find(&key, place)?;
        let slot = (self.tables.generation(closed.slot) == closed.generation
            && self.tables.key(closed.slot).is_some())
        .then_some(closed.slot);
        Some(Owner { slot, opened_here: u32::from(closed.flags) & CONN_PROXY != 0 })
    }
}
