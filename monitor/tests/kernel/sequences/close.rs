//! Closes that are no finding, and closes instead of an answer.

use crate::{harness::lab::tick, sequence::sequences};

sequences! {
    /// The peer closes after answering, then we do.
    clean_close_by_peer near "peer_closes_instead_of_answering"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.peer.fin();
            connection.close_last();
        });

    /// The peer closes an idle connection: its idle time shows.
    idle_close_by_peer near "clean_close_by_peer"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle>1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            lab.quiet();
            connection.peer.fin();
            connection.close_last();
        });

    /// We close after the answer.
    clean_close_by_local near "gave_up_acked"
        on Proxy "7->2 2->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait", "local_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.close_first();
        });

    /// The peer's FIN comes while a request that it acknowledged is unanswered.
    peer_closes_instead_of_answering near "clean_close_by_peer"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_closed_before_response"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            connection.peer.ack();
            connection.peer.fin();
            connection.close_last();
        });

    /// The same upon the first request.
    peer_closes_instead_of_first_answer near "peer_closes_instead_of_answering"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_closed_before_response"]
        run Crafted(|lab| {
            let mut connection = lab.connect();
            connection.request(200);
            connection.peer.ack();
            connection.peer.fin();
            connection.close_last();
        });

    /// The peer's FIN crosses a request, which is acknowledged later and never answered; no RST.
    request_in_flight_at_fin near "crossed_fin"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_closed_before_response"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            connection.peer.fin();
            connection.peer.ack();
            connection.close_last();
        });

    /// The peer closes its sending half and still takes what we send.
    half_close_by_peer near "stale_reuse"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.peer.fin();
            connection.request(200);
            connection.peer.ack();
            tick();
            connection.request(300);
            connection.peer.ack();
            connection.close_last();
        });

    /// We close our sending half after the request; the answer still comes and is read.
    half_close_by_local near "clean_close_by_local"
        on Proxy "7->2 2->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait"]
        run Crafted(|lab| {
            let mut connection = lab.connect();
            connection.request(200);
            connection.shutdown_write();
            connection.peer.ack();
            lab.quiet();
            connection.peer.answer(300);
            connection.read(300);
            connection.peer.fin();
            connection.read_end();
            connection.close();
        });

    /// We give up on a request that the peer acknowledged, more than a second after it.
    gave_up_acked near "gave_up_soon"
        on Proxy "7->2 2->1 1->4 4->5 5->7" => ["opened", "closed:local", "gave_up:true", "time_wait"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            connection.peer.ack();
            lab.quiet();
            connection.close_first();
        });

    /// We give up on a request that the peer never acknowledged: a silent drop.
    gave_up_unacked near "gave_up_acked"
        on Proxy "7->2 2->1 1->4 4->5 5->7" => ["opened", "closed:local", "gave_up:false", "time_wait"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            lab.quiet();
            connection.close_first();
        });

    /// The same where the request was sent again meanwhile, which moves the time of the last data sent.
    gave_up_unacked_after_retransmission near "gave_up_unacked"
        on Proxy "7->2 2->1 1->4 4->5 5->7" => ["opened", "closed:local", "gave_up:false", "time_wait"]
        run Crafted(|lab| {
            lab.retransmit_after("200ms");
            let mut connection = lab.used();
            connection.request(200);
            lab.quiet();
            connection.close();
            // What was lost goes first: the FIN comes when it is acknowledged.
            connection.peer.ack();
            connection.peer.receive_fin();
            connection.peer.ack();
            connection.peer.fin();
        });

    /// We give up on a request less than a second after it.
    gave_up_soon near "gave_up_acked"
        on Proxy "7->2 2->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            connection.peer.ack();
            tick();
            connection.close_first();
        });

    /// We give up on a request with a RST of ours.
    gave_up_by_reset near "linger_zero"
        on Proxy "7->2 2->1 1->7 RST-out" => ["opened", "closed:reset", "gave_up:true", "sent:abort"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            connection.peer.ack();
            lab.quiet();
            connection.abort();
        });

    /// An upstream closes after answering; its peer follows.
    upstream_closes near "late_data_meets_timewait"
        on Upstream "3->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait", "local_close_idle>1"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            connection.serve();
            lab.quiet();
            connection.close_first();
        });

    /// An upstream closes a connection upon which nothing was ever asked.
    upstream_closes_unused near "upstream_closes"
        on Upstream "3->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait", "local_close_idle>1"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            lab.quiet();
            connection.close_first();
        });

    /// The proxy closes an idle connection; the upstream follows.
    upstream_sees_close near "upstream_closes"
        on Upstream "3->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle>1"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            connection.serve();
            lab.quiet();
            connection.peer.fin();
            connection.close_last();
        });
}
