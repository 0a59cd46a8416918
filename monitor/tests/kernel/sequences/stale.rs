//! Requests lost to a connection that the peer was closing, and what only looks like it.

use crate::{
    harness::lab::{Lab, tick},
    sequence::sequences,
};

sequences! {
    /// A request of 200 bytes is written after the peer's FIN; the peer answers with RST.
    stale_reuse near "goodbye_of_80_bytes"
        on Proxy "7->2 2->1 1->8 RST-in 8->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "lost:after_fin", "fin_then_rst:received",
                "peer_close_idle>1", "lost_idle>1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            lab.quiet();
            connection.peer.fin();
            connection.request(200);
            connection.peer.rst();
            connection.close();
        });

    /// The same, and the application closes before the RST arrives.
    stale_reuse_closed_first near "tls_goodbye"
        on Proxy "7->2 2->1 1->8 8->9 RST-in 9->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "lost:after_fin", "fin_then_rst:received",
                "peer_close_idle<1", "lost_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.peer.fin();
            connection.request(200);
            connection.close();
            connection.peer.rst();
        });

    /// The shortest request that is no goodbye: 81 bytes after the peer's FIN.
    request_of_81_bytes near "goodbye_of_80_bytes"
        on Proxy "7->2 2->1 1->8 8->9 RST-in 9->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "lost:after_fin", "fin_then_rst:received",
                "peer_close_idle<1", "lost_idle<1"]
        run Crafted(|lab| goodbye(lab, 81));

    /// The longest goodbye: 80 bytes after the peer's FIN (HTTP/2 GOAWAY and close_notify).
    goodbye_of_80_bytes near "request_of_81_bytes"
        on Proxy "7->2 2->1 1->8 8->9 RST-in 9->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "fin_then_rst:received", "peer_close_idle<1"]
        run Crafted(|lab| goodbye(lab, 80));

    /// A TLS client answers the peer's FIN with its close_notify and closes.
    tls_goodbye near "stale_reuse_closed_first"
        on Proxy "7->2 2->1 1->8 8->9 RST-in 9->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "fin_then_rst:received", "peer_close_idle<1"]
        run Crafted(|lab| goodbye(lab, 31));

    /// The same, and the RST arrives before we close.
    tls_goodbye_reset_in_close_wait near "stale_reuse"
        on Proxy "7->2 2->1 1->8 RST-in 8->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "fin_then_rst:received", "peer_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.peer.fin();
            connection.request(31);
            connection.peer.rst();
            connection.close();
        });

    /// A bare RST after the peer's FIN, nothing written.
    reset_after_fin near "stale_reuse"
        on Proxy "7->2 2->1 1->8 RST-in 8->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "fin_then_rst:received", "peer_close_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.peer.fin();
            connection.peer.rst();
            connection.close();
        });

    /// The request is in flight when the peer's FIN comes; then RST.
    crossed_fin near "request_in_flight_at_fin"
        on Proxy "7->2 2->1 1->8 RST-in 8->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "lost:crossed_fin", "fin_then_rst:received",
                "lost_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            connection.peer.fin();
            connection.peer.rst();
            connection.close();
        });

    /// The same after a quiet time, and the application closes before the RST arrives.
    crossed_fin_closed_first near "stale_reuse_closed_first"
        on Proxy "7->2 2->1 1->8 8->9 RST-in 9->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "lost:crossed_fin", "fin_then_rst:received",
                "lost_idle>1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            lab.quiet();
            connection.request(200);
            connection.peer.fin();
            connection.close();
            connection.peer.rst();
        });

    /// A short request in flight at the peer's FIN is lost as well: goodbyes come after it.
    crossed_fin_short near "tls_goodbye_reset_in_close_wait"
        on Proxy "7->2 2->1 1->8 RST-in 8->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "lost:crossed_fin", "fin_then_rst:received",
                "lost_idle<1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(31);
            connection.peer.fin();
            connection.peer.rst();
            connection.close();
        });

    /// The peer closes with a request acknowledged and unanswered, then resets.
    reset_after_fin_instead_of_answer near "peer_closes_instead_of_answering"
        on Proxy "7->2 2->1 1->8 RST-in 8->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "peer_closed_before_response",
                "fin_then_rst:received"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            connection.peer.ack();
            connection.peer.fin();
            connection.peer.rst();
            connection.close();
        });

    /// A request after a quiet time is answered by RST, without any FIN: what nginx and Node.js produce most.
    lost_without_fin near "reset_upon_quick_reuse"
        on Proxy "7->2 2->1 RST-in 1->7"
            => ["opened", "closed:reset", "received:reused_request", "lost:no_fin", "lost_idle>1"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            lab.quiet();
            connection.request(200);
            connection.peer.rst();
            connection.close();
        });

    /// The same where the request was sent again first: counted, but the quiet time is not known.
    lost_without_fin_after_retransmission near "lost_without_fin"
        on Proxy "7->2 2->1 RST-in 1->7"
            => ["opened", "closed:reset", "received:reused_request", "lost:no_fin"]
        run Crafted(|lab| {
            lab.retransmit_after("200ms");
            let mut connection = lab.used();
            lab.quiet();
            connection.request(200);
            connection.peer.await_segment("the request again", |segment| segment.len > 0);
            connection.peer.rst();
            connection.close();
        });

    /// A request right after an answer is answered by RST.
    reset_upon_quick_reuse near "lost_without_fin"
        on Proxy "7->2 2->1 RST-in 1->7" => ["opened", "closed:reset", "received:reused_request"]
        run Crafted(|lab| {
            let mut connection = lab.used();
            connection.request(200);
            connection.peer.rst();
            connection.close();
        });

    /// The proxy's FIN, then its RST upon the answer the upstream still writes.
    proxy_gone_while_answering near "upstream_sees_close"
        on Upstream "3->1 1->8 RST-in 8->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "fin_then_rst:received"]
        run Crafted(|lab| {
            let mut connection = lab.accept();
            connection.peer.data(200);
            connection.read(200);
            connection.peer.fin();
            tick();
            connection.request(300);
            connection.peer.rst();
            connection.close();
        });
}

/// Writes this much after the peer's FIN and closes at once; the peer answers with RST.
fn goodbye(lab: &Lab, length: u32) {
    let mut connection = lab.used();
    connection.peer.fin();
    connection.request(length);
    connection.close();
    connection.peer.rst();
}
