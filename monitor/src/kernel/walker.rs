//! One walk over the TCP sockets of the calling thread's network namespace.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    sync::Arc,
};

use aya::{Ebpf, maps::MapData, programs::Iter};
use aya_obj::generated::{bpf_attach_type::BPF_TRACE_ITER, bpf_cmd};
use finwatch_ebpf::levels::{
    LISTENER_SLOTS, LevelRecord, ListenerEntry, PORT_SLOTS, PORTS, PortEntry, WALK_ADOPTS, WALK_RESERVED,
    Walk,
};

use super::{array::Array, error::KernelError, mapped::Tables};
use crate::model::{levels::Walked, port_range::PortRange, source::PairSource as _};

/// The iterator program's link and the tables it fills.
pub struct Walker {
    link: OwnedFd,
    tables: Arc<Tables>,
    walk: Array<Walk>,
    levels: Array<LevelRecord>,
    ports: Array<PortEntry>,
    queues: Array<ListenerEntry>,
    reserved: Array<u64>,
    last: u32,
}

impl Walker {
    /// A walker with the program `walk` of `ebpf`, which is loaded.
    ///
    /// # Errors
    /// When the kernel refuses to attach the program or to map its tables.
    pub fn new(ebpf: &Ebpf, tables: Arc<Tables>) -> Result<Self, KernelError> {
        let map = |name| match ebpf.map(name) {
            Some(aya::maps::Map::Array(data)) => Ok::<&MapData, _>(data),
            _ => Err(KernelError::Foreign(name)),
        };
        let program = ebpf.program("walk").ok_or(KernelError::Foreign("walk"))?;
        let failed = |error| KernelError::Attach { hook: "iter/tcp", error };
        let program: &Iter = program.try_into().map_err(failed)?;
        let link = create_link(program.fd().map_err(failed)?.as_fd()).map_err(KernelError::Walk)?;
        // Whether walks can be made at all shows here, not at the first one.
        drop(create_iterator(link.as_fd()).map_err(KernelError::Walk)?);
        let io = KernelError::Mapping;
        Ok(Self {
            link,
            walk: Array::map(map("WALK")?, 1).map_err(io)?,
            levels: Array::map(map("LEVELS")?, tables.slots()).map_err(io)?,
            ports: Array::map(map("PORTS_HELD")?, PORT_SLOTS).map_err(io)?,
            queues: Array::map(map("QUEUES")?, LISTENER_SLOTS).map_err(io)?,
            reserved: Array::map(map("RESERVED_PORTS")?, PORTS / u64::BITS).map_err(io)?,
            tables,
            last: 0,
        })
    }

    /// Walks the namespace that the calling thread is in, whose ephemeral ports are `range`; connections that are not
    /// tracked yet are taken in where `adopts` says so.
    ///
    /// # Errors
    /// When the kernel refuses, or the walk does not come to its end.
    pub fn walk(&mut self, range: &PortRange, adopts: bool) -> io::Result<Walked> {
        self.last += 1;
        let mut mode = if adopts { WALK_ADOPTS } else { 0 };
        if range.has_reserved() {
            mode |= WALK_RESERVED;
            for (index, bits) in (0..).zip(range.reserved_bits()) {
                self.reserved.write(index, bits);
            }
        }
        self.walk.write(
            0,
            Walk {
                id: self.last,
                mode,
                port_low: range.low.into(),
                port_high: range.high.into(),
                ..Walk::default()
            },
        );
        read_to_end(create_iterator(self.link.as_fd())?)?;
        let walk = self.walk.read(0);
        if walk.finished == 0 {
            return Err(io::Error::other("the walk did not come to its end"));
        }
        let slots = (0..self.levels.length()).filter(|slot| self.tables.key(*slot).is_some());
        Ok(Walked {
            walk,
            levels: slots
                .map(|slot| (slot, self.levels.read(slot)))
                .filter(|(_, record)| record.walk == walk.id)
                .collect(),
            ports: written(&self.ports, |entry| entry.walk == walk.id),
            queues: written(&self.queues, |entry| entry.walk == walk.id),
        })
    }
}

fn written<T: aya::Pod>(table: &Array<T>, by_this_walk: impl Fn(&T) -> bool) -> Vec<T> {
    (0..table.length()).map(|index| table.read(index)).filter(by_this_walk).collect()
}

/// The program prints nothing; reading makes it run. The kernel pauses after a million sockets with `EAGAIN`:
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/bpf_iter.c#L86-L215>.
fn read_to_end(mut iterator: File) -> io::Result<()> {
    let mut nothing = [0; 64];
    loop {
        match iterator.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The part of `union bpf_attr` for `BPF_LINK_CREATE`; aya keeps the link's descriptor to itself.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_length: u32,
    reserved: u32,
}

/// The part of `union bpf_attr` for `BPF_ITER_CREATE`.
#[repr(C)]
struct IteratorCreate {
    link: u32,
    flags: u32,
}

/// One link serves all namespaces.
fn create_link(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let program = program.as_raw_fd().cast_unsigned();
    let attributes = LinkCreate {
        program,
        target: 0,
        attach_type: BPF_TRACE_ITER as u32,
        flags: 0,
        info: 0,
        info_length: 0,
        reserved: 0,
    };
    bpf(bpf_cmd::BPF_LINK_CREATE, &attributes)
}

/// The iterator belongs to the network namespace that the caller is in now:
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/bpf_iter.c#L583-L640>, `bpf_iter_init_seq_net`.
fn create_iterator(link: BorrowedFd<'_>) -> io::Result<File> {
    let link = link.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_ITER_CREATE, &IteratorCreate { link, flags: 0 }).map(File::from)
}

fn bpf<T>(command: bpf_cmd, attributes: &T) -> io::Result<OwnedFd> {
    let attributes: *const T = attributes;
    // SAFETY: the kernel reads as many bytes of the attributes as it is told, and writes none for these commands.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u32, attributes, size_of::<T>()) };
    let descriptor = i32::try_from(result).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
