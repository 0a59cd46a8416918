//! TCP socket states as `tcp_set_state` numbers them.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/include/net/tcp_states.h#L12-L28>

/// A connection that carries data both ways.
pub const ESTABLISHED: u8 = 1;
/// Our SYN is out.
pub const SYN_SENT: u8 = 2;
/// A SYN has been answered (full sockets only for Fast Open and simultaneous open).
pub const SYN_RECV: u8 = 3;
/// Our FIN went first and is not acknowledged.
pub const FIN_WAIT1: u8 = 4;
/// Our FIN is acknowledged, the peer's has not come.
pub const FIN_WAIT2: u8 = 5;
/// Never a new state of a full socket: a timewait mini-socket takes its place.
pub const TIME_WAIT: u8 = 6;
/// The end, and the beginning.
pub const CLOSE: u8 = 7;
/// The peer's FIN came first.
pub const CLOSE_WAIT: u8 = 8;
/// The peer's FIN came first, ours is out.
pub const LAST_ACK: u8 = 9;
/// A listening socket.
pub const LISTEN: u8 = 10;
/// Both FINs are out, ours is not acknowledged.
pub const CLOSING: u8 = 11;
/// A request mini-socket.
pub const NEW_SYN_RECV: u8 = 12;
