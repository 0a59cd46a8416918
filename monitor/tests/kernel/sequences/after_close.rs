//! After our FIN: `TIME_WAIT`, late data, late resets.

use crate::{harness::lab::tick, sequence::sequences};

sequences! {
    /// Our FIN is acknowledged by the segment that brings the peer's: straight into `TIME_WAIT`.
    fin_and_ack_together near "clean_close_by_local"
        on Proxy "7->2 2->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.close();
            connection.peer.receive_fin();
            connection.peer.acked = connection.peer.receive_next;
            connection.peer.fin();
        });

    /// Both ends close at once.
    simultaneous_close near "fin_and_ack_together"
        on Proxy "7->2 2->1 1->4 4->11 11->7" => ["opened", "closed:local", "time_wait", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.close();
            connection.peer.receive_fin();
            connection.peer.fin();
            connection.peer.ack();
        });

    /// Both ends close at once, then the peer resets.
    reset_in_closing near "simultaneous_close"
        on Proxy "7->2 2->1 1->4 4->11 RST-in 11->7"
            => ["opened", "closed:local", "received:after_local_close", "fin_then_rst:received", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.close();
            connection.peer.receive_fin();
            connection.peer.fin();
            connection.peer.rst();
        });

    /// A RST answers our FIN.
    reset_answers_our_fin near "data_into_fin_wait1"
        on Proxy "7->2 2->1 1->4 RST-in 4->7" => ["opened", "closed:local", "received:after_local_close", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.close();
            connection.peer.receive_fin();
            connection.peer.rst();
        });

    /// Data and then RST come after we closed our sending half: the data was wanted, the RST is real.
    data_then_reset_in_fin_wait1 near "data_into_fin_wait1"
        on Upstream "3->1 1->4 RST-in 4->7" => ["opened", "closed:local", "received:after_local_close", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            connection.serve();
            connection.shutdown_write();
            connection.peer.data(100);
            connection.read(100);
            connection.peer.rst();
            connection.close();
        });

    /// RST after the peer acknowledged the FIN of our sending half.
    reset_in_fin_wait2 near "half_close_by_local"
        on Proxy "7->2 2->1 1->4 4->5 RST-in 5->7" => ["opened", "closed:local", "received:after_local_close", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.shutdown_write();
            connection.peer.ack();
            tick();
            connection.peer.rst();
            connection.close();
        });

    /// RST that meets a timewait mini-socket: nobody sees it, nothing is counted.
    reset_meets_timewait near "reset_answers_our_fin"
        on Proxy "7->2 2->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.close();
            connection.peer.receive_fin();
            connection.peer.ack();
            connection.peer.rst();
        });

    /// The upstream's view of a stale reuse: its FIN was acknowledged, the request meets the timewait mini-socket.
    late_data_meets_timewait near "upstream_closes"
        on Upstream "3->1 1->4 4->5 5->7 RST-out?"
            => ["opened", "closed:local", "time_wait", "sent:data_after_close?", "fin_then_rst:sent?", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            connection.serve();
            connection.close();
            connection.peer.receive_fin();
            connection.peer.ack();
            connection.peer.data(200);
            connection.peer.receive_rst();
        });

    /// The same from a proxy that closed in the middle of an answer.
    rest_of_answer_meets_timewait near "clean_close_by_local"
        on Proxy "7->2 2->1 1->4 4->5 5->7 RST-out?"
            => ["opened", "closed:local", "time_wait", "sent:data_after_close?", "fin_then_rst:sent?", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            tick();
            connection.peer.answer(300);
            connection.read(300);
            connection.close();
            connection.peer.receive_fin();
            connection.peer.ack();
            connection.peer.data(300);
            connection.peer.receive_rst();
        });

    /// The request reaches a closed socket whose FIN is not acknowledged: `tcp_receive_reset` fires although no RST came.
    data_into_fin_wait1 near "reset_answers_our_fin"
        on Upstream "3->1 1->4 RST-in 4->7 RST-out"
            => ["opened", "closed:local", "sent:data_after_close", "fin_then_rst:sent", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            connection.serve();
            connection.close();
            connection.peer.receive_fin();
            connection.peer.data(200);
            connection.peer.receive_rst();
        });

    /// The segment that acknowledges the upstream's FIN brings a request.
    data_acknowledging_our_fin near "late_data_meets_timewait"
        on Upstream "3->1 1->4 4->5 5->7 RST-out"
            => ["opened", "closed:local", "sent:data_after_close", "fin_then_rst:sent", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            connection.serve();
            connection.close();
            connection.peer.receive_fin();
            connection.peer.answer(200);
            connection.peer.receive_rst();
        });

    /// `TCP_LINGER2` below 0: no `TIME_WAIT`, a RST of ours ends it. No data came.
    linger2_below_zero near "clean_close_by_local"
        on Proxy "7->2 2->1 1->4 4->5 5->7 RST-out" => ["opened", "closed:local", "sent:abort", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.set(libc::IPPROTO_TCP, libc::TCP_LINGER2, -1);
            connection.close();
            connection.peer.receive_fin();
            connection.peer.ack();
            connection.peer.receive_rst();
        });

    /// Closed in `FIN_WAIT2` after a half-close: the mini-socket takes over, the peer's FIN comes later.
    closed_in_fin_wait2 near "half_close_by_local"
        on Proxy "7->2 2->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.shutdown_write();
            connection.peer.ack();
            tick();
            connection.close();
            connection.peer.fin();
        });

    /// Closed in `FIN_WAIT2` with data unread: RST, no `TIME_WAIT`.
    unread_in_fin_wait2 near "closed_in_fin_wait2"
        on Proxy "7->2 2->1 1->4 4->5 5->7 RST-out" => ["opened", "closed:local", "sent:unread_data_at_close", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.shutdown_write();
            connection.peer.answer(100);
            connection.close();
            connection.peer.receive_rst();
        });
}
