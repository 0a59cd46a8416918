//! Reads the TCP sockets of one network namespace, by whichever way this kernel has.

use std::{io, sync::Arc};

use aya::Ebpf;
use finwatch_ebpf::wire::Settings;

use super::{
    dumper::Dumper, error::KernelError, loader::Options, mapped::Tables, processes::Processes, walker::Walker,
};
use crate::model::{levels::Walked, port_range::PortRange};

/// The way.
pub enum Reader {
    /// The kernel's iterator, which sees every socket as the programs do.
    Iterator(Box<Walker>),
    /// A list by netlink, which does not tell a socket's address: the connections' records are out of its reach.
    Netlink(Box<Dumper>),
}

impl Reader {
    /// By the iterator, whose program is loaded.
    ///
    /// # Errors
    /// When the kernel refuses to attach the program or to map its tables.
    pub fn iterator(ebpf: &Ebpf, tables: &Arc<Tables>) -> Result<Self, KernelError> {
        Walker::new(ebpf, tables.clone()).map(Box::new).map(Self::Iterator)
    }

    /// By netlink.
    ///
    /// # Errors
    /// When the kernel does not list sockets.
    pub fn netlink(
        ebpf: &mut Ebpf,
        tables: &Arc<Tables>,
        options: &Options,
        settings: &Settings,
    ) -> Result<Self, KernelError> {
        Dumper::new(ebpf, tables.clone(), options, settings).map(Box::new).map(Self::Netlink)
    }

    /// Reads the namespace `netns` that the calling thread is in, whose ephemeral ports are `range`; connections that
    /// are not tracked yet are taken in where `adopts` says so and the way allows it.
    ///
    /// # Errors
    /// When the kernel refuses, or the reading does not come to its end.
    pub fn read(
        &mut self,
        netns: u32,
        range: &PortRange,
        adopts: bool,
        processes: &Processes,
    ) -> io::Result<Walked> {
        match self {
            Self::Iterator(walker) => walker.walk(range, adopts),
            Self::Netlink(dumper) => dumper.walk(netns, range, processes),
        }
    }

    /// Whether it meets the connections that are tracked, so that those whose end was missed stand out.
    pub const fn meets_connections(&self) -> bool {
        matches!(self, Self::Iterator(_))
    }

    /// Whether any reading needs to know who holds which socket.
    pub fn needs_holders(&self) -> bool {
        match self {
            Self::Iterator(_) => false,
            Self::Netlink(dumper) => dumper.is_ambiguous(),
        }
    }
}
