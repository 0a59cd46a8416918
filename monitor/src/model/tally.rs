//! Adds up sockets that are listed one by one, as the program `walk` does in the kernel. Nothing is kept of a socket.
//!
//! A list names both ends, the control group and the inode number, never the process: that is the pair's. Where several
//! processes of one control group talk to one upstream, whoever holds the socket decides; a socket that nobody holds
//! counts under `other` then.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv6Addr,
};

use finwatch_ebpf::{
    levels::{
        LISTENER_SLOTS, LevelRecord, ListenerEntry, PORT_SLOTS, PortEntry, STATE_SLOTS, UNKNOWN_PROCESS, Walk,
    },
    state::{ESTABLISHED, SYN_RECV},
    wire::{
        COMM_LEN, KEY_EXTERNAL, KEY_FOLDED, PairKey, SIDE_PROXY, SIDE_UPSTREAM, SLOT_FOLDED_PROXY,
        SLOT_FOLDED_UPSTREAM,
    },
};

use super::{
    levels::{Walked, words},
    port_range::PortRange,
    selection::Selection,
    source::PairSource,
};

/// An address, IPv4 as `::ffff:a.b.c.d`, and a port.
pub type End = (Ipv6Addr, u16);

/// A socket as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// As `ss` prints it: a mini-socket's is the state it stands for.
    pub state: u8,
    /// This end.
    pub local: End,
    /// The far end.
    pub remote: End,
    /// The inode number that `/proc` shows, 0 where nobody holds the socket.
    pub inode: u64,
    /// Id of the control group in which the socket was made, 0 when unknown.
    pub cgroup: u64,
    /// Quiet for at least a second.
    pub quiet: bool,
    /// Who sent the last data.
    pub spoke_last: Option<Speaker>,
    /// Of a listening socket: connections that wait for accept().
    pub waiting: u32,
    /// Of a listening socket: how many may wait.
    pub limit: u32,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// This end.
    Local,
    /// The far end.
    Remote,
}

/// Whose a timewait mini-socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The pair's slot; `None` once the pair has expired.
    pub slot: Option<u32>,
    /// This host opened the connection.
    pub opened_here: bool,
}

/// A process's name and its pair's slot.
type ProcessSlot = ([u8; COMM_LEN], u32);

/// Every pair's slot, by what a list tells of a socket.
#[derive(Debug, Default)]
pub struct PairIndex {
    accepted: HashMap<PairKey, u32>,
    opened: HashMap<(End, u64), Vec<ProcessSlot>>,
}

impl PairIndex {
    /// Of all pairs there are now.
    pub fn of(pairs: &dyn PairSource) -> Self {
        let mut index = Self::default();
        for slot in 0..pairs.slots() {
            let Some(key) = pairs.key(slot).filter(|key| key.flags & KEY_FOLDED == 0) else { continue };
            if key.side == SIDE_UPSTREAM {
                index.accepted.insert(key, slot);
            } else {
                let upstream = (Ipv6Addr::from(key.upstream), key.port);
                index.opened.entry((upstream, key.cgroup)).or_default().push((key.proxy, slot));
            }
        }
        index
    }

    /// Whether a socket's holder must be known to tell its pair.
    pub fn is_ambiguous(&self) -> bool {
        self.opened.values().any(|processes| processes.len() > 1)
    }

    fn opened(&self, upstream: End, cgroup: u64, holder: impl FnOnce() -> Option<[u8; COMM_LEN]>) -> u32 {
        let slot = match self.opened.get(&(upstream, cgroup)).map(Vec::as_slice) {
            None | Some([]) => None,
            Some([(_, slot)]) => Some(*slot),
            Some(several) => holder().and_then(|holder| {
                several.iter().find(|(process, _)| *process == holder).map(|(_, slot)| *slot)
            }),
        };
        slot.unwrap_or(SLOT_FOLDED_PROXY)
    }

    fn accepted(&self, key: &PairKey) -> u32 {
        self.accepted.get(key).copied().unwrap_or(SLOT_FOLDED_UPSTREAM)
    }
}

/// The sums of one namespace. Listening sockets come first: they tell who has accepted.
pub struct Tally<'a> {
    range: &'a PortRange,
    selection: &'a Selection,
    pairs: &'a PairIndex,
    listening: HashMap<u16, HashSet<(Ipv6Addr, u64)>>,
    levels: HashMap<u32, LevelRecord>,
    ports: HashMap<(Ipv6Addr, End), u32>,
    queues: HashMap<(End, u64), (u32, u32)>,
    walk: Walk,
}

impl<'a> Tally<'a> {
    /// Nothing yet, as walk number `id`.
    pub fn new(id: u32, range: &'a PortRange, selection: &'a Selection, pairs: &'a PairIndex) -> Self {
        Self {
            range,
            selection,
            pairs,
            listening: HashMap::new(),
            levels: HashMap::new(),
            ports: HashMap::new(),
            queues: HashMap::new(),
            walk: Walk { id, finished: 1, ..Walk::default() },
        }
    }

    /// A listening socket.
    pub fn listening(&mut self, socket: &Listed) {
        let (address, port) = socket.local;
        self.walk.sockets += 1;
        self.walk.waiting += u64::from(socket.waiting);
        let full = self.queues.len() >= LISTENER_SLOTS as usize;
        if full && !self.queues.contains_key(&(socket.local, socket.cgroup)) {
            self.walk.listeners_lost += 1;
            // Who accepts must be known all the same: there are no more ports than this.
            self.listening.entry(port).or_default();
            return;
        }
        self.listening.entry(port).or_default().insert((address, socket.cgroup));
        let (length, limit) = self.queues.entry((socket.local, socket.cgroup)).or_default();
        *length = length.saturating_add(socket.waiting);
        *limit = limit.saturating_add(socket.limit);
    }

    /// A full socket in any other state; `holder` names the process that holds it.
    pub fn full(&mut self, socket: &Listed, holder: impl FnOnce() -> Option<[u8; COMM_LEN]>) {
        self.walk.sockets += 1;
        self.walk.passing += u64::from(socket.state != ESTABLISHED);
        let opened_here = self.opened_here(socket);
        let slot = self.wanted(socket, opened_here).then(|| {
            if opened_here {
                self.pairs.opened(socket.remote, socket.cgroup, holder)
            } else {
                self.pairs.accepted(&self.accepted_key(socket, socket.cgroup))
            }
        });
        self.count(socket, Owner { slot, opened_here });
    }

    /// A timewait mini-socket; its `owner` is unknown where the connection ended before the agent came.
    pub fn time_wait(&mut self, socket: &Listed, owner: Option<Owner>) {
        self.walk.sockets += 1;
        self.walk.passing += 1;
        let owner = owner.unwrap_or_else(|| {
            let opened_here = self.opened_here(socket);
            let slot = self.wanted(socket, opened_here).then(|| {
                if opened_here {
                    self.pairs.opened(socket.remote, 0, || Some(UNKNOWN_PROCESS))
                } else {
                    self.pairs.accepted(&self.accepted_key(socket, 0))
                }
            });
            Owner { slot, opened_here }
        });
        self.count(socket, owner);
    }

    /// A handshake on the accepting end, whose control group is the listening socket's.
    pub fn request(&mut self, socket: &Listed) {
        self.walk.sockets += 1;
        self.walk.passing += 1;
        let (address, port) = socket.local;
        let listening = self.listening.get(&port);
        let exact = listening.and_then(|sockets| sockets.iter().find(|(at, _)| *at == address));
        let found = exact.or_else(|| listening?.iter().find(|(at, _)| is_wildcard(*at)));
        let cgroup = found.map_or(0, |(_, cgroup)| *cgroup);
        if self.wanted(socket, false) {
            let slot = self.pairs.accepted(&self.accepted_key(socket, cgroup));
            self.add(slot, SYN_RECV, false, false);
        }
    }

    /// All that was added.
    pub fn finish(self) -> Walked {
        let walk = self.walk;
        let ports = self.ports.into_iter().map(|((source, (destination, port)), used)| PortEntry {
            walk: walk.id,
            used,
            source: words(source),
            destination: words(destination),
            port: port.into(),
            reserved: 0,
        });
        let queues = self.queues.into_iter().map(|(((address, port), cgroup), (length, limit))| {
            ListenerEntry { walk: walk.id, port: port.into(), address: words(address), cgroup, length, limit }
        });
        Walked {
            walk,
            levels: self.levels.into_iter().collect(),
            ports: ports.collect(),
            queues: queues.collect(),
        }
    }

    fn count(&mut self, socket: &Listed, owner: Owner) {
        if let Some(slot) = owner.slot {
            let idle = socket.state == ESTABLISHED && socket.quiet;
            let unanswered = idle && self.is_unanswered(socket, owner.opened_here);
            self.add(slot, socket.state, idle, unanswered);
        }
        if owner.opened_here && self.range.offers(socket.local.1) {
            let key = (socket.local.0, socket.remote);
            if self.ports.len() < PORT_SLOTS as usize || self.ports.contains_key(&key) {
                *self.ports.entry(key).or_default() += 1;
            } else {
                self.walk.ports_lost += 1;
            }
        }
    }

    /// Whether a request waits for its answer, as far as requests are told by who spoke last.
    fn is_unanswered(&self, socket: &Listed, opened_here: bool) -> bool {
        let (asks, upstream) =
            if opened_here { (Speaker::Local, socket.remote) } else { (Speaker::Remote, socket.local) };
        socket.spoke_last == Some(asks) && self.selection.has_requests(upstream)
    }

    fn add(&mut self, slot: u32, state: u8, idle: bool, unanswered: bool) {
        // Netlink does not tell for how long a socket has been in its state.
        let empty = LevelRecord {
            walk: self.walk.id,
            idle: 0,
            oldest_close_wait: 0,
            unanswered: 0,
            sockets: [0; STATE_SLOTS],
        };
        let record = self.levels.entry(slot).or_insert(empty);
        record.sockets[usize::from(state) % STATE_SLOTS] += 1;
        record.idle += u32::from(idle);
        record.unanswered += u32::from(unanswered);
    }

    /// Whoever uses a listening socket's port has accepted; where that is gone, whoever has a port outside the ephemeral
    /// range toward one inside it.
    fn opened_here(&self, socket: &Listed) -> bool {
        let is_ephemeral = |port| (self.range.low..=self.range.high).contains(&port);
        !self.listening.contains_key(&socket.local.1)
            && (is_ephemeral(socket.local.1) || !is_ephemeral(socket.remote.1))
    }

    fn wanted(&self, socket: &Listed, opened_here: bool) -> bool {
        let (_, port) = if opened_here { socket.remote } else { socket.local };
        self.selection.wants(port, socket.remote.0)
    }

    fn accepted_key(&self, socket: &Listed, cgroup: u64) -> PairKey {
        let remote = socket.remote.0;
        let (flags, proxy) =
            if self.selection.names(remote) { (0, remote.octets()) } else { (KEY_EXTERNAL, [0; 16]) };
        PairKey {
            side: SIDE_UPSTREAM,
            flags,
            port: socket.local.1,
            reserved: 0,
            upstream: socket.local.0.octets(),
            proxy,
            cgroup,
        }
    }
}

fn is_wildcard(address: Ipv6Addr) -> bool {
    address.to_canonical().is_unspecified()
}

/// The side that a slot of folded pairs stands for.
pub fn folded_side(slot: u32) -> Option<u8> {
    match slot {
        SLOT_FOLDED_PROXY => Some(SIDE_PROXY),
        SLOT_FOLDED_UPSTREAM => Some(SIDE_UPSTREAM),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use finwatch_ebpf::state::{CLOSE_WAIT, TIME_WAIT};

    use super::*;

    const PROXY: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a00, 1);
    const UPSTREAM: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a00, 2);
    const NGINX: [u8; COMM_LEN] = *b"nginx\0\0\0\0\0\0\0\0\0\0\0";
    const ENVOY: [u8; COMM_LEN] = *b"envoy\0\0\0\0\0\0\0\0\0\0\0";

    fn key(side: u8, proxy: [u8; COMM_LEN], cgroup: u64) -> PairKey {
        PairKey { side, flags: 0, port: 80, reserved: 0, upstream: UPSTREAM.octets(), proxy, cgroup }
    }

    fn index(keys: &[PairKey]) -> PairIndex {
        let mut index = PairIndex::default();
        for (slot, key) in (2..).zip(keys) {
            if key.side == SIDE_UPSTREAM {
                index.accepted.insert(*key, slot);
            } else {
                index.opened.entry(((UPSTREAM, 80), key.cgroup)).or_default().push((key.proxy, slot));
            }
        }
        index
    }

    fn socket(state: u8, opened_here: bool) -> Listed {
        let (own, far) = ((PROXY, 40_000), (UPSTREAM, 80));
        let (local, remote) = if opened_here { (own, far) } else { (far, own) };
        let spoke_last = Some(Speaker::Local);
        Listed { state, local, remote, inode: 1, cgroup: 7, quiet: true, spoke_last, waiting: 0, limit: 0 }
    }

    fn selection() -> Selection {
        Selection::new([&[], &[]], [&[], &[]], &["10.0.0.0/8".parse().expect("a network")])
    }

    fn tally(pairs: &PairIndex, add: impl FnOnce(&mut Tally<'_>)) -> Walked {
        let range = PortRange::parse("32768 60999", "").expect("a range");
        let selection = selection();
        let mut tally = Tally::new(3, &range, &selection, pairs);
        add(&mut tally);
        tally.finish()
    }

    fn level(walked: &Walked, slot: u32, state: u8) -> u32 {
        let found = walked.levels.iter().find(|(at, _)| *at == slot);
        found.map_or(0, |(_, record)| record.sockets[usize::from(state)])
    }

    #[test]
    fn the_only_process_has_the_socket_and_of_several_the_holder() {
        let one = index(&[key(SIDE_PROXY, NGINX, 7), key(SIDE_PROXY, ENVOY, 8)]);
        assert!(!one.is_ambiguous());
        let open = |tally: &mut Tally<'_>| tally.full(&socket(ESTABLISHED, true), || None);
        assert_eq!(level(&tally(&one, open), 2, ESTABLISHED), 1);
        let two = index(&[key(SIDE_PROXY, NGINX, 7), key(SIDE_PROXY, ENVOY, 7)]);
        assert!(two.is_ambiguous());
        let held = |tally: &mut Tally<'_>| tally.full(&socket(ESTABLISHED, true), || Some(ENVOY));
        assert_eq!(level(&tally(&two, held), 3, ESTABLISHED), 1);
        assert_eq!(level(&tally(&two, open), SLOT_FOLDED_PROXY, ESTABLISHED), 1, "nobody holds it");
    }

    #[test]
    fn a_listening_port_has_accepted() {
        let pairs = index(&[key(SIDE_UPSTREAM, PROXY.octets(), 7)]);
        let walked = tally(&pairs, |tally| {
            let listener = Listed { waiting: 2, limit: 9, ..socket(10, false) };
            tally.listening(&listener);
            tally.listening(&listener);
            tally.full(&Listed { state: CLOSE_WAIT, ..socket(0, false) }, || None);
            tally.request(&Listed { cgroup: 0, ..socket(SYN_RECV, false) });
        });
        assert_eq!(level(&walked, 2, CLOSE_WAIT), 1);
        assert_eq!(level(&walked, 2, SYN_RECV), 1, "in its listener's control group");
        assert_eq!((walked.queues[0].length, walked.queues[0].limit), (4, 18), "two sockets of one port");
        assert_eq!(walked.walk.waiting, 4);
        assert!(walked.ports.is_empty());
    }

    #[test]
    fn a_request_waits_where_the_opening_end_spoke_last() {
        let pairs = index(&[key(SIDE_PROXY, NGINX, 7), key(SIDE_UPSTREAM, PROXY.octets(), 7)]);
        let listen = |tally: &mut Tally<'_>| tally.listening(&socket(10, false));
        let by = |who, opened_here| {
            let one = Listed { spoke_last: who, ..socket(ESTABLISHED, opened_here) };
            let walked = tally(&pairs, |tally| {
                if !opened_here {
                    listen(tally);
                }
                tally.full(&one, || None);
                tally.full(&Listed { quiet: false, ..one }, || None);
            });
            (walked.levels[0].1.idle, walked.levels[0].1.unanswered)
        };
        let (local, remote) = (Some(Speaker::Local), Some(Speaker::Remote));
        assert_eq!([by(local, true), by(remote, true), by(None, true)], [(1, 1), (1, 0), (1, 0)]);
        assert_eq!([by(local, false), by(remote, false), by(None, false)], [(1, 0), (1, 1), (1, 0)]);
        let range = PortRange::parse("32768 60999", "").expect("a range");
        let selection = selection().without_requests(&[(None, 80)]);
        let mut tally = Tally::new(3, &range, &selection, &pairs);
        tally.full(&socket(ESTABLISHED, true), || None);
        assert_eq!(tally.finish().levels[0].1.unanswered, 0, "no rules about requests at this port");
    }

    #[test]
    fn a_port_is_held_by_whoever_opened() {
        let pairs = index(&[]);
        let walked = tally(&pairs, |tally| {
            tally.full(&socket(ESTABLISHED, true), || None);
            let owner = Owner { slot: None, opened_here: true };
            tally.time_wait(&Listed { local: (PROXY, 40_001), ..socket(TIME_WAIT, true) }, Some(owner));
            tally.time_wait(&Listed { local: (PROXY, 80), ..socket(TIME_WAIT, true) }, None);
        });
        assert_eq!(walked.ports.len(), 1);
        assert_eq!(walked.ports[0].used, 2, "80 is no ephemeral port");
        assert_eq!(level(&walked, SLOT_FOLDED_PROXY, TIME_WAIT), 1, "the expired pair's is shown nowhere");
        assert_eq!(walked.walk.passing, 2);
    }
}
