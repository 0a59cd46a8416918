//! Resets received by established connections, and resets of ours.

use crate::{
    harness::lab::{disconnect, tick},
    sequence::sequences,
};

sequences! {
    /// RST upon the first request, nothing was ever answered.
    reset_upon_first_request near "reset_upon_quick_reuse"
        on Proxy "7->2 2->1 RST-in 1->7" => ["opened", "closed:reset", "received:first_request"]
        run Crafted(|lab| {
            let mut connection = lab.connect();
            connection.request(200);
            connection.peer.rst();
            connection.close();
        });

    /// The same long after the first request was acknowledged.
    reset_long_after_first_request near "reset_while_waiting"
        on Proxy "7->2 2->1 RST-in 1->7" => ["opened", "closed:reset", "received:first_request"]
        run Crafted(|lab| {
            let mut connection = lab.connect();
            connection.request(200);
            connection.peer.ack();
            lab.quiet();
            connection.peer.rst();
            connection.close();
        });

    /// RST before any request.
    reset_unused near "reset_upon_first_request"
        on Proxy "7->2 2->1 RST-in 1->7" => ["opened", "closed:reset", "received:idle"]
        run Crafted(|lab| {
            let mut connection = lab.connect();
            lab.quiet();
            connection.peer.rst();
            connection.close();
        });

    /// RST while we wait for an answer; the request was acknowledged more than a second ago.
    reset_while_waiting near "reset_soon_after_acknowledged"
        on Proxy "7->2 2->1 RST-in 1->7" => ["opened", "closed:reset", "received:waiting"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            connection.peer.ack();
            lab.quiet();
            connection.peer.rst();
            connection.close();
        });

    /// RST soon after a request was acknowledged.
    reset_soon_after_acknowledged near "reset_while_waiting"
        on Proxy "7->2 2->1 RST-in 1->7" => ["opened", "closed:reset", "received:reused_request"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            connection.peer.ack();
            tick();
            connection.peer.rst();
            connection.close();
        });

    /// RST more than a second after a request that was never acknowledged.
    reset_long_unacknowledged near "reset_while_waiting"
        on Proxy "7->2 2->1 RST-in 1->7" => ["opened", "closed:reset", "received:reused_request"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            lab.quiet();
            connection.peer.rst();
            connection.close();
        });

    /// RST right after a part of the answer.
    reset_during_response near "reset_while_idle"
        on Proxy "7->2 2->1 RST-in 1->7" => ["opened", "closed:reset", "received:response"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            tick();
            connection.peer.answer(100);
            connection.peer.rst();
            connection.close();
        });

    /// RST on an idle connection.
    reset_while_idle near "reset_during_response"
        on Proxy "7->2 2->1 RST-in 1->7" => ["opened", "closed:reset", "received:idle"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            lab.quiet();
            connection.peer.rst();
            connection.close();
        });

    /// The peer sends its RST three times: it counts once.
    reset_sent_thrice near "reset_while_idle"
        on Proxy "7->2 2->1 RST-in 1->7" => ["opened", "closed:reset", "received:idle"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            lab.quiet();
            (0..3).for_each(|_| connection.peer.rst());
            connection.close();
        });

    /// A SYN in the middle of a connection gets a challenge ACK; the connection lives on.
    challenged_syn near "challenged_reset"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.peer.stray_syn();
            connection.exchange();
            connection.peer.fin();
            connection.close_last();
        });

    /// A RST in the window but not exactly next gets a challenge ACK; the connection lives on.
    challenged_reset near "reset_during_response"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.peer.rst_at(connection.peer.send_next.wrapping_add(1_000));
            connection.exchange();
            connection.peer.fin();
            connection.close_last();
        });

    /// A RST outside the window is ignored.
    reset_out_of_window near "reset_during_response"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.peer.rst_at(connection.peer.send_next.wrapping_sub(10_000));
            connection.exchange();
            connection.peer.fin();
            connection.close_last();
        });

    /// The upstream has a request unanswered when the proxy's RST comes.
    upstream_reset_before_answering near "upstream_reset_while_idle"
        on Upstream "3->1 RST-in 1->7" => ["opened", "closed:reset", "received:answering"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            connection.serve();
            connection.peer.data(200);
            connection.read(200);
            connection.peer.rst();
            connection.close();
        });

    /// The upstream's answer is unacknowledged when the proxy's RST comes.
    upstream_reset_while_answering near "upstream_reset_while_idle"
        on Upstream "3->1 RST-in 1->7" => ["opened", "closed:reset", "received:answering"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            connection.peer.data(200);
            connection.read(200);
            tick();
            connection.request(300);
            connection.peer.rst();
            connection.close();
        });

    /// The upstream has answered everything when the proxy's RST comes.
    upstream_reset_while_idle near "upstream_reset_while_answering"
        on Upstream "3->1 RST-in 1->7" => ["opened", "closed:reset", "received:idle"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            connection.serve();
            connection.peer.rst();
            connection.close();
        });

    /// `SO_LINGER` 0: we close with a RST; health checks do it.
    linger_zero near "clean_close_by_local"
        on Proxy "7->2 2->1 1->7 RST-out" => ["opened", "closed:reset", "sent:abort"]
        run Crafted(|lab| lab.used().abort());

    /// `connect(AF_UNSPEC)` ends a connection with a RST.
    disconnected near "linger_zero"
        on Proxy "7->2 2->1 1->7 RST-out" => ["opened", "closed:reset", "sent:abort"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            disconnect(connection.socket());
            connection.peer.receive_rst();
            connection.close();
        });

    /// The listener closes with two connections nobody has accepted.
    listener_closed near "upstream_closes_unused"
        on Upstream "3->1 3->1 1->7 RST-out 1->7 RST-out" => ["opened*2", "closed:reset*2", "sent:abort*2"]
        run Crafted(|lab| {
            let listener = lab.listen();
            let mut peers = [lab.peer(), lab.peer()];
            for peer in &mut peers {
                peer.connect();
            }
            drop(listener);
            for peer in &peers {
                peer.receive_rst();
            }
        });

    /// The upstream closes with a request unread: RST instead of FIN.
    unread_at_close near "upstream_closes"
        on Upstream "3->1 1->7 RST-out" => ["opened", "closed:reset", "sent:unread_data_at_close"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            connection.peer.data(200);
            connection.close();
            connection.peer.receive_rst();
        });

    /// The proxy closes with a part of the answer unread.
    proxy_closes_with_answer_unread near "clean_close_by_local"
        on Proxy "7->2 2->1 1->7 RST-out" => ["opened", "closed:reset", "sent:unread_data_at_close"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            tick();
            connection.peer.answer(300);
            connection.read(100);
            connection.close();
            connection.peer.receive_rst();
        });

    /// A TLS peer says close_notify and FIN; we close without reading it. Harmless, and very common.
    close_notify_unread near "unread_at_close"
        on Proxy "7->2 2->1 1->8 8->7 RST-out"
            => ["opened", "closed:peer", "sent:unread_data_at_close", "peer_close_idle>1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            lab.quiet();
            connection.peer.data(24);
            connection.peer.fin();
            connection.close();
            connection.peer.receive_rst();
        });

    /// `SO_LINGER` 0 after the peer's FIN.
    linger_zero_after_fin near "clean_close_by_peer"
        on Proxy "7->2 2->1 1->8 8->7 RST-out" => ["opened", "closed:peer", "sent:abort", "peer_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.peer.fin();
            connection.abort();
        });
}
