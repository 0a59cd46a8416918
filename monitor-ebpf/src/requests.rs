//! Requests on one connection, told apart by which way data goes. No payload is looked at.
//!
//! Where this host opened the connection, what it writes after it has read, or first of all, is a request, and what it
//! reads next the answer; where it accepted it, the other way round. How far the application has come is taken from the
//! socket's sequence numbers: a peek, a failed call and a FIN move nothing, and a hook that comes late finds done what
//! another has counted. Only the end that answers counts, so two hooks at once never write the same numbers.

use crate::{
    histogram::SLOTS,
    state::{CLOSE_WAIT, CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK},
    wire::{CONN_PROXY, Histogram},
};

/// Upper bounds in microseconds for the time to an answer's first byte.
pub const FIRST_BYTE_BOUNDS_US: [u32; SLOTS - 1] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    20_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
];

/// Upper bounds for the requests that one connection has carried. The limits usual in the field have a bucket of their
/// own or end one: 10, 20, 50, 100, 200, 500, 999, 1000, 1001, 10000.
pub const PER_CONNECTION_BOUNDS: [u32; SLOTS - 1] =
    [0, 1, 2, 3, 5, 9, 10, 20, 50, 99, 100, 200, 499, 500, 998, 999, 1_000, 1_001, 9_999, 10_000, 100_000];

/// What a pair's requests come to: one slot of the `REQUESTS` array, which the agent maps into its memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord {
    /// From a request's first byte to its answer's, in microseconds.
    pub time_to_first_byte: Histogram,
    /// Requests answered on each connection that was opened and has ended.
    pub per_connection: Histogram,
}

/// How far a connection's requests have come, keyed by its socket's address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchanges {
    /// When a request began, in nanoseconds of CLOCK_MONOTONIC.
    pub begun_ns: u64,
    /// The pair's slot in `PAIRS`.
    pub slot: u32,
    /// The connection's `CONN_*` bits when it was taken in.
    pub flags: u32,
    /// As of the last look.
    pub progress: Progress,
    /// 1 while a request waits for its answer.
    pub under_way: u32,
    /// Requests answered.
    pub answered: u32,
    /// The number, from 1, of the request that began at [`Self::begun_ns`].
    pub begun: u32,
    /// Always 0.
    pub reserved: u32,
}

/// How far the application has come: sequence numbers, without FINs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// End of what it has written.
    pub written: u32,
    /// End of what it has read.
    pub read: u32,
}

/// The sequence numbers of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// The socket's state; at its end, the one it leaves.
    pub state: u8,
    /// End of what was written.
    pub write_seq: u32,
    /// End of what was read.
    pub copied_seq: u32,
    /// End of what was received.
    pub rcv_nxt: u32,
    /// The peer's FIN has been received.
    pub peer_fin: bool,
    /// The application has closed the socket.
    pub dead: bool,
}

impl Position {
    /// Both FINs count one: ours as soon as it is queued, the peer's once the application has read up to it.
    #[inline]
    pub fn progress(&self) -> Progress {
        let read_all = self.copied_seq == self.rcv_nxt;
        Progress {
            written: self.written(),
            read: self.copied_seq.wrapping_sub(u32::from(read_all && self.peer_fin())),
        }
    }

    /// At the connection's end: what has come can still be read, unless the application has closed the socket.
    #[inline]
    pub fn progress_at_end(&self) -> Progress {
        if self.dead {
            return self.progress();
        }
        Progress { written: self.written(), read: self.rcv_nxt.wrapping_sub(u32::from(self.peer_fin())) }
    }

    #[inline]
    fn written(&self) -> u32 {
        let fin = matches!(self.state, FIN_WAIT1 | FIN_WAIT2 | CLOSING | LAST_ACK);
        self.write_seq.wrapping_sub(u32::from(fin))
    }

    #[inline]
    fn peer_fin(&self) -> bool {
        self.peer_fin || matches!(self.state, CLOSE_WAIT | CLOSING | LAST_ACK)
    }
}

/// What the application has just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It has written.
    Sent,
    /// It has read.
    Received,
}

/// What a look has found. Plain numbers: the verifier takes no half-set `Option`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether a request was answered.
    pub found: bool,
    /// Nanoseconds from the request's first byte to the answer's; 0 where they are not known.
    pub after_ns: u64,
}

impl Answer {
    const NONE: Self = Self { found: false, after_ns: 0 };
}

impl Exchanges {
    /// Those of a connection that has come so far.
    #[inline]
    pub fn new(slot: u32, flags: u32, progress: Progress) -> Self {
        Self { begun_ns: 0, slot, flags, progress, under_way: 0, answered: 0, begun: 0, reserved: 0 }
    }

    /// After each send and each receive: the end that asks notes the time, the end that answers counts.
    #[inline]
    pub fn on_call(&mut self, done: Done, to: Progress, now_ns: u64) -> Answer {
        if self.asks_by_sending() == (done == Done::Sent) {
            let (asked, before) = if self.asks_by_sending() {
                (to.written, self.progress.written)
            } else {
                (to.read, self.progress.read)
            };
            // Where a call of another thread came first, it has been answered already.
            if is_after(asked, before) {
                self.begin(now_ns);
            }
            return Answer::NONE;
        }
        let (asked, answered) = self.advance(to);
        self.ask(asked);
        self.answer(answered, now_ns)
    }

    /// After data was read, where sends are not announced: they came before it. `sent_ns` tells when the last one went.
    #[inline]
    pub fn on_read(&mut self, to: Progress, now_ns: u64, sent_ns: u64) -> Answer {
        let (asked, answered) = self.advance(to);
        if self.asks_by_sending() {
            if asked {
                self.begin(sent_ns);
            }
            self.ask(asked);
            return self.answer(answered, now_ns);
        }
        let answer = self.answer(answered, 0);
        self.ask(asked);
        answer
    }

    /// The last look, at the connection's end.
    #[inline]
    pub fn on_end(&mut self, to: Progress) -> Answer {
        let (asked, answered) = self.advance(to);
        self.ask(asked);
        self.answer(answered, 0)
    }

    #[inline]
    fn asks_by_sending(&self) -> bool {
        self.flags & CONN_PROXY != 0
    }

    /// Moves forward; says whether what asks and what answers have moved.
    #[inline]
    fn advance(&mut self, to: Progress) -> (bool, bool) {
        let sent = advance(&mut self.progress.written, to.written);
        let received = advance(&mut self.progress.read, to.read);
        if self.asks_by_sending() { (sent, received) } else { (received, sent) }
    }

    #[inline]
    fn begin(&mut self, at_ns: u64) {
        let next = self.answered.wrapping_add(1);
        if self.begun != next {
            self.begun = next;
            self.begun_ns = at_ns;
        }
    }

    #[inline]
    fn ask(&mut self, asked: bool) {
        if asked {
            self.under_way = 1;
        }
    }

    #[inline]
    fn answer(&mut self, answered: bool, at_ns: u64) -> Answer {
        if !answered || self.under_way == 0 {
            return Answer::NONE;
        }
        self.under_way = 0;
        self.answered = self.answered.wrapping_add(1);
        let known = at_ns != 0 && self.begun == self.answered;
        Answer { found: true, after_ns: if known { at_ns.saturating_sub(self.begun_ns).max(1) } else { 0 } }
    }
}

/// Moves a sequence number forward; says whether it has moved.
#[inline]
fn advance(number: &mut u32, to: u32) -> bool {
    let moved = is_after(to, *number);
    if moved {
        *number = to;
    }
    moved
}

#[inline]
fn is_after(sequence: u32, other: u32) -> bool {
    sequence.wrapping_sub(other).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{ESTABLISHED, FIN_WAIT2};

    const NONE: Answer = Answer::NONE;

    fn at(written: u32, read: u32) -> Progress {
        Progress { written, read }
    }

    fn after(after_ns: u64) -> Answer {
        Answer { found: true, after_ns }
    }

    fn proxy() -> Exchanges {
        Exchanges::new(7, CONN_PROXY, at(0, 0))
    }

    fn upstream() -> Exchanges {
        Exchanges::new(7, 0, at(0, 0))
    }

    #[test]
    fn several_sends_and_several_receives_are_one_request() {
        let mut of = proxy();
        assert_eq!(of.on_call(Done::Sent, at(10, 0), 100), NONE);
        assert_eq!(of.on_call(Done::Sent, at(20, 0), 150), NONE);
        assert_eq!(of.on_call(Done::Received, at(20, 5), 400), after(300));
        assert_eq!(of.on_call(Done::Received, at(20, 9), 500), NONE);
        assert_eq!(of.on_call(Done::Sent, at(30, 9), 600), NONE);
        assert_eq!(of.on_call(Done::Received, at(30, 10), 601), after(1));
        assert_eq!(of.answered, 2);
    }

    #[test]
    fn the_accepting_end_answers_by_sending() {
        let mut of = upstream();
        assert_eq!(of.on_call(Done::Sent, at(5, 0), 50), NONE, "a greeting answers nothing");
        assert_eq!(of.on_call(Done::Received, at(5, 10), 100), NONE);
        assert_eq!(of.on_call(Done::Sent, at(15, 10), 130), after(30));
        assert_eq!(of.on_call(Done::Sent, at(25, 10), 140), NONE);
        assert_eq!(of.answered, 1);
    }

    #[test]
    fn what_moves_nothing_counts_nothing() {
        let mut of = proxy();
        of.on_call(Done::Sent, at(10, 0), 100);
        assert_eq!(of.on_call(Done::Received, at(10, 0), 200), NONE, "a peek");
        assert_eq!(of.on_call(Done::Received, at(10, 1), 300), after(200));
    }

    #[test]
    fn calls_that_overtake_each_other() {
        let mut of = proxy();
        assert_eq!(
            of.on_call(Done::Received, at(10, 1), 300),
            after(0),
            "the answer, before the send's hook"
        );
        assert_eq!(of.on_call(Done::Sent, at(10, 1), 301), NONE, "which comes late and finds it done");
        of.on_call(Done::Sent, at(20, 1), 400);
        assert_eq!(of.on_call(Done::Received, at(20, 2), 450), after(50), "the next has its own time");
        assert_eq!(of.answered, 2);
    }

    #[test]
    fn reads_alone_tell_requests_of_both_ends() {
        let mut of = proxy();
        assert_eq!(of.on_read(at(10, 1), 500, 420), after(80));
        assert_eq!(of.on_read(at(10, 2), 510, 420), NONE, "more of the answer");
        assert_eq!(of.on_read(at(20, 2), 600, 580), NONE, "a peek: the answer has not been read");
        assert_eq!(of.on_read(at(20, 3), 610, 580), after(30));
        let mut of = upstream();
        assert_eq!(of.on_read(at(0, 10), 100, 0), NONE);
        assert_eq!(of.on_read(at(0, 20), 110, 0), NONE, "more of the request");
        assert_eq!(of.on_read(at(5, 30), 200, 150), after(0), "the next request: the first was answered");
        assert_eq!(of.on_end(at(10, 30)), after(0));
        assert_eq!(of.answered, 2);
    }

    #[test]
    fn the_end_answers_what_no_hook_has_announced() {
        let mut of = upstream();
        of.on_call(Done::Received, at(0, 10), 100);
        assert_eq!(of.on_end(at(5, 10)), after(0));
        let mut of = proxy();
        of.on_call(Done::Sent, at(10, 0), 100);
        assert_eq!(of.on_end(at(10, 0)), NONE, "unanswered");
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut of = Exchanges::new(7, CONN_PROXY, at(u32::MAX - 1, u32::MAX));
        of.on_call(Done::Sent, at(3, u32::MAX), 100);
        assert_eq!(of.on_call(Done::Received, at(3, 0), 101), after(1));
    }

    #[test]
    fn fins_are_no_data() {
        let open = Position {
            state: ESTABLISHED,
            write_seq: 100,
            copied_seq: 50,
            rcv_nxt: 50,
            peer_fin: false,
            dead: false,
        };
        assert_eq!(open.progress(), at(100, 50));
        let shut = Position { state: FIN_WAIT2, write_seq: 101, ..open };
        assert_eq!(shut.progress(), at(100, 50), "our FIN");
        let read_to_the_end = Position { state: CLOSE_WAIT, copied_seq: 51, rcv_nxt: 51, ..open };
        assert_eq!(read_to_the_end.progress(), at(100, 50), "the peer's FIN, read");
        let not_yet = Position { state: CLOSE_WAIT, copied_seq: 40, rcv_nxt: 51, ..open };
        assert_eq!(not_yet.progress(), at(100, 40), "the peer's FIN, not read yet");
    }

    #[test]
    fn at_the_end_what_can_still_be_read_has_come() {
        let half_closed = Position {
            state: FIN_WAIT2,
            write_seq: 101,
            copied_seq: 40,
            rcv_nxt: 51,
            peer_fin: true,
            dead: false,
        };
        assert_eq!(half_closed.progress_at_end(), at(100, 50));
        assert_eq!(Position { dead: true, ..half_closed }.progress_at_end(), at(100, 40));
    }

    #[test]
    fn bounds_rise_and_tell_limits_apart() {
        assert!(FIRST_BYTE_BOUNDS_US.is_sorted_by(|a, b| a < b));
        assert!(PER_CONNECTION_BOUNDS.is_sorted_by(|a, b| a < b));
        let of = |count| crate::histogram::slot(&PER_CONNECTION_BOUNDS, count);
        let limits = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 999, 1_000, 1_001, 10_000].map(of);
        assert!(limits.is_sorted_by(|a, b| a < b), "{limits:?}");
        for limit in [1, 2, 10, 100, 500, 999, 1_000, 1_001, 10_000] {
            assert_ne!(of(limit - 1), of(limit), "{limit} begins a bucket");
            assert_ne!(of(limit), of(limit + 1), "{limit} ends it");
        }
    }
}
