//! A processor goes offline and comes back: nothing that it has counted goes with it.

use std::{fs, thread};

use super::is_here;
use crate::harness::{
    daemon::Daemon,
    netns,
    reference::assert_count,
    traffic::{listen, local, open_and_close, pair},
    until,
};

const PORT: u16 = 30_000;
const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";
const STATES: [&str; 4] = ["0", "1", "0", "1"];
const HELD: usize = 5;
const BRIEF: usize = 50;

#[test]
fn a_processor_goes_and_comes_back() {
    if !is_here("a_processor_goes_and_comes_back") {
        return;
    }
    let list = |which: &str| {
        let path = format!("/sys/devices/system/cpu/{which}");
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let listener = listen(local(1, PORT));
        for state in STATES {
            let held: Vec<_> = (0..HELD).map(|_| pair(&listener)).collect();
            thread::scope(|scope| {
                scope.spawn(|| fs::write(ONLINE, state).expect("a second processor"));
                (0..BRIEF).for_each(|_| open_and_close(&listener));
            });
            // 6.12 counts no slot without a processor among the possible ones; 6.1 does.
            if state == "0" {
                assert_ne!(list("possible"), list("online"), "more are possible than are online");
            }
            drop(held);
        }
        let scrape = until("nothing is open", || {
            let scrape = daemon.scrape();
            (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
        });
        let all = STATES.len() * (HELD + BRIEF);
        for side in ["proxy", "upstream"] {
            let of = |name: &str| scrape.sum(name, &[("side", side)]);
            assert_count("opened", of("finwatch_connections_opened_total"), all);
            assert_count("closed", of("finwatch_connections_closed_total"), all);
            assert_count("lived", of("finwatch_connection_duration_seconds_count"), all);
        }
        assert_count("missed", scrape.sum("finwatch_connections_missed_end_total", &[]), 0);
    });
}
