//! Levels are there whatever is filtered, and follow the filter.

use crate::harness::{
    can_run,
    daemon::Daemon,
    netns,
    reference::{FRESH, assert_count, fresh, untraced_port},
    traffic::{listen, local, pair},
};

#[test]
fn levels_with_every_filter() {
    if !can_run("levels_with_every_filter") {
        return;
    }
    let [shown, hidden] = [untraced_port(), untraced_port()];
    let [shown_port, hidden_port] = [shown.to_string(), hidden.to_string()];
    let cases: [(&[&str], usize); 7] = [
        (&[], 1),
        (&["--include-port", &shown_port], 0),
        (&["--exclude-port", &hidden_port], 0),
        (&["--include-net", "127.0.0.0/8"], 1),
        (&["--exclude-net", "10.0.0.0/8"], 1),
        (&["--no-request-rules", &shown_port], 1),
        (&["--proxy-ranges", "127.0.0.0/8", "--include-port", &shown_port, "--exclude-net", "10.0.0.0/8"], 0),
    ];
    for (arguments, of_hidden) in cases {
        netns::in_namespace(|| {
            let listeners = [shown, hidden].map(|port| listen(local(1, port)));
            let old = listeners.each_ref().map(pair);
            let daemon = Daemon::isolated(&[&FRESH[..], arguments].concat());
            let new = listeners.each_ref().map(pair);
            let scrape = fresh(&daemon);
            let hook = scrape.sum("finwatch_hook_attached", &[("hook", "iter/tcp"), ("mode", "full")]);
            assert_count(&format!("{arguments:?}: iter/tcp, {}", daemon.output()), hook, 1);
            for (port, pairs) in [(shown, 1), (hidden, of_hidden)] {
                let upstream = local(1, port).to_string();
                for side in ["proxy", "upstream"] {
                    let labels = [("side", side), ("upstream", upstream.as_str()), ("state", "established")];
                    let have = scrape.sum("finwatch_sockets", &labels);
                    assert_count(&format!("{arguments:?}: {side} of {upstream}"), have, 2 * pairs);
                }
            }
            drop((old, new));
        });
    }
}
