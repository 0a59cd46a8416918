//! Walks the TCP sockets of one network namespace; produces the levels of its pairs, and finds connections whose
//! beginning was missed.
//!
//! The kernel runs the program once per socket, listening sockets first, and once more with no socket at the end; full
//! sockets are locked meanwhile (not on 5.10, where the bucket is), so no event of theirs comes in between. Timewait and
//! request mini-sockets have the common part alone.
//! <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp_ipv4.c#L3111-L3167>

use core::{
    ffi::c_void,
    ptr::{addr_of, read_volatile},
};

use finwatch_ebpf::{
    levels::{ListenerKey, Process, UNKNOWN_PROCESS, WALK_ADOPTS, Walk},
    state::{CLOSE, CLOSE_WAIT, ESTABLISHED, LISTEN, NEW_SYN_RECV, SYN_RECV, TIME_WAIT},
    wire::{CONN_PROXY, Connection},
};

use crate::{
    connections::{adopt, own, recall, record_of},
    maps::{LISTENERS, PROCESSES, WALK, setting},
    pairs::{Pair, without_request_rules},
    requests,
    socket::{Common, Tcp, cgroup_of, jiffies, words},
    walk_tables::{Seen, count_socket, hold_port, queue},
};

/// Set by [`remembered`] in an [`Attribution`] that is known.
const REMEMBERED: u64 = 1 << 34;

/// `struct bpf_iter__tcp`: what the program is handed.
#[repr(C)]
pub struct Context {
    _meta: *const c_void,
    socket: *const c_void,
    _uid: u32,
}

/// The pair's slot, where the socket is to be counted, and whether this host opened the connection.
struct Attribution {
    slot: Option<u32>,
    opened_here: bool,
}

impl Attribution {
    const HAS_SLOT: u64 = 1 << 32;
    const OPENED_HERE: u64 = 1 << 33;

    /// As one number: a function of its own that returns more leaves whatever it last used in the register of the result,
    /// and the verifier refuses a pointer to the stack there.
    #[inline(always)]
    fn pack(self) -> u64 {
        let slot = match self.slot {
            Some(slot) => u64::from(slot) | Self::HAS_SLOT,
            None => 0,
        };
        slot | if self.opened_here { Self::OPENED_HERE } else { 0 }
    }

    #[inline(always)]
    fn unpack(packed: u64) -> Self {
        let slot = if packed & Self::HAS_SLOT != 0 { Some(packed as u32) } else { None };
        Self { slot, opened_here: packed & Self::OPENED_HERE != 0 }
    }
}

/// The hook.
///
/// # Safety
/// `ctx` is the kernel's.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub unsafe extern "C" fn walk(ctx: *mut Context) -> i32 {
    // SAFETY: the verifier knows the context's layout and checks the access.
    let field = unsafe { addr_of!((*ctx).socket) };
    // SAFETY: as above.
    let socket = unsafe { read_volatile(field) };
    let Some(walk) = WALK.get_ptr_mut(0) else { return 0 };
    // SAFETY: a live map value; the agent makes one walk at a time, and nobody else writes it.
    let walk = unsafe { &mut *walk };
    match Common::new(socket) {
        Some(sk) => visit(sk, walk),
        None => walk.finished = 1,
    }
    0
}

#[inline(always)]
fn visit(sk: Common, walk: &mut Walk) {
    walk.sockets += 1;
    let _ = match sk.state() {
        CLOSE => 0,
        LISTEN => listening(sk, walk),
        TIME_WAIT => time_wait(sk, walk),
        NEW_SYN_RECV => request(sk, walk),
        state => full(sk, state, walk),
    };
}

#[inline(never)]
fn listening(sk: Common, walk: &mut Walk) -> u32 {
    let Some(tcp) = sk.tcp() else { return 0 };
    let key = listener_key(sk);
    // The oldest make room in a full table: an insertion does not fail.
    let _ = LISTENERS.insert(key, walk.id, 0);
    let length = tcp.backlog();
    walk.waiting += u64::from(length);
    if !queue(walk.id, sk, tcp.cgroup(), length, tcp.max_backlog()) {
        walk.listeners_lost += 1;
    }
    0
}

#[inline(always)]
fn full(sk: Common, state: u8, walk: &mut Walk) -> u32 {
    let Some(tcp) = sk.tcp() else { return 0 };
    let mut seen = Seen::default();
    let found = match own(sk) {
        Some(conn) => {
            walk.tracked += 1;
            // SAFETY: a live map value; only walks write the field.
            unsafe { (*conn).seen = walk.id };
            // SAFETY: a live map value.
            let flags = unsafe { (*conn).flags };
            // SAFETY: as above.
            let first_fin = unsafe { (*conn).first_fin };
            // Of a connection that was taken in like this the FIN was not seen.
            if state == CLOSE_WAIT && first_fin != 0 {
                seen.close_wait = (jiffies() as u32).wrapping_sub(first_fin) / setting!(hz).max(1);
            }
            // SAFETY: as above.
            Attribution { slot: Some(unsafe { (*conn).slot }), opened_here: flags & CONN_PROXY != 0 }
        }
        None => Attribution::unpack(untracked(sk, tcp, state, walk)),
    };
    if state != ESTABLISHED {
        walk.passing += 1;
    } else if tcp.quiet() >= setting!(hz) {
        seen.idle = 1;
        seen.unanswered = unanswered(sk, tcp, found.opened_here);
    }
    if let Some(slot) = found.slot {
        count_socket(walk.id, slot, state, seen);
    }
    if found.opened_here {
        hold_port(walk, sk);
    }
    0
}

/// 1 when a request waits for its answer, the far end's or ours. On its own for the sake of the stack.
#[inline(never)]
fn unanswered(sk: Common, tcp: Tcp, opened_here: bool) -> u32 {
    let (upstream, port) =
        if opened_here { (sk.remote(), sk.remote_port()) } else { (sk.local(), sk.bound_port()) };
    if without_request_rules(upstream, port) {
        return 0;
    }
    let ev = tcp.exchange();
    u32::from(if opened_here { ev.unanswered(false, false) } else { ev.owes_answer(false) })
}

/// A full socket that no event has announced: older than the agent, or its beginning was missed.
#[inline(never)]
fn untracked(sk: Common, tcp: Tcp, state: u8, walk: &mut Walk) -> u64 {
    let opened_here = opened_here(sk, walk);
    if !sk.is_inet() {
        return Attribution { slot: None, opened_here }.pack();
    }
    let pair = if opened_here {
        let Process { name, pid } = holder(tcp).unwrap_or(Process { name: UNKNOWN_PROCESS, pid: 0 });
        Pair::opened_by(sk, tcp, words(name), pid)
    } else {
        Pair::accepted(sk, tcp)
    };
    if !pair.wanted(sk) {
        return Attribution { slot: None, opened_here }.pack();
    }
    let slot = pair.slot();
    let adopted = Connection::adopted(slot, opened_here, state, &tcp.evidence());
    match adopted {
        Some(conn) if walk.mode & WALK_ADOPTS != 0 && adopt(sk, &pair, conn) => {
            walk.tracked += 1;
            requests::begin(sk);
        }
        Some(_) => walk.untracked += 1,
        None => {}
    }
    Attribution { slot: Some(slot), opened_here }.pack()
}

#[inline(always)]
fn holder(tcp: Tcp) -> Option<Process> {
    let inode = tcp.inode()?;
    // SAFETY: copied at once; the agent changes the table between walks only.
    unsafe { PROCESSES.get(inode) }.copied()
}

/// The role of a socket whose beginning is unknown. Whoever uses a listening socket's port has accepted; where the
/// listening socket is gone, whoever has a port outside the ephemeral range toward one inside it.
#[inline(always)]
fn opened_here(sk: Common, walk: &Walk) -> bool {
    // SAFETY: copied at once.
    if unsafe { LISTENERS.get(listener_key(sk)) }.copied() == Some(walk.id) {
        return false;
    }
    let is_ephemeral = |port: u16| (walk.port_low..=walk.port_high).contains(&u32::from(port));
    is_ephemeral(sk.bound_port()) || !is_ephemeral(sk.remote_port())
}

#[inline(always)]
fn listener_key(sk: Common) -> ListenerKey {
    ListenerKey { netns: sk.netns(), port: u32::from(sk.bound_port()) }
}

/// A closed connection's port, still taken. The pair is the connection's; of those that closed before the agent came
/// only the ends are known.
#[inline(never)]
fn time_wait(sk: Common, walk: &mut Walk) -> u32 {
    walk.passing += 1;
    let Some(state) = sk.substate() else { return 0 };
    let remembered = remembered(sk);
    let found = Attribution::unpack(if remembered & REMEMBERED == 0 { before(sk, walk) } else { remembered });
    if let Some(slot) = found.slot {
        count_socket(walk.id, slot, state, Seen::default());
    }
    if found.opened_here {
        hold_port(walk, sk);
    }
    0
}

/// What is remembered of it, with [`REMEMBERED`]. A function of its own, since the stack has no room for both a closed
/// connection and the search for a pair's slot.
#[inline(never)]
fn remembered(sk: Common) -> u64 {
    let Some(closed) = recall(&sk.endpoints(sk.bound_port())) else { return 0 };
    // A pair that has expired meanwhile is not made anew by what is left of its connections.
    let slot = record_of(&closed).map(|_| closed.slot);
    REMEMBERED | Attribution { slot, opened_here: u32::from(closed.flags) & CONN_PROXY != 0 }.pack()
}

#[inline(never)]
fn before(sk: Common, walk: &Walk) -> u64 {
    let opened_here = opened_here(sk, walk);
    let pair = if opened_here {
        Pair::toward(sk, words(UNKNOWN_PROCESS), 0)
    } else {
        Pair::from(sk, sk.bound_port(), 0)
    };
    Attribution { slot: pair.wanted(sk).then(|| pair.slot()), opened_here }.pack()
}

/// A handshake on the accepting end: counted for its pair where there is one already, so that nobody can make pairs
/// with SYN segments alone.
#[inline(never)]
fn request(sk: Common, walk: &mut Walk) -> u32 {
    walk.passing += 1;
    let pair = Pair::from(sk, sk.bound_port(), cgroup_of(sk.listener()));
    if pair.wanted(sk) {
        count_socket(walk.id, pair.known_slot(), SYN_RECV, Seen::default());
    }
    0
}
