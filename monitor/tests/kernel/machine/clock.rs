//! Steps of the clock.

use super::is_here;
use crate::harness::{
    daemon::Daemon,
    netns,
    reference::assert_count,
    traffic::{listen, local, open_and_close, pair},
};

const PORT: u16 = 30_000;
const DAY: i64 = 24 * 60 * 60;

/// Steps of the clock, a day ahead and two back, change neither counts nor how long connections lived.
#[test]
fn the_clock_is_set_meanwhile() {
    if !is_here("the_clock_is_set_meanwhile") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--snapshot-age", "1s"]);
        let upstream = local(1, PORT);
        let listener = listen(upstream);
        let begin = || (0..5).map(|_| pair(&listener)).collect::<Vec<_>>();
        let old = begin();
        step_clock(DAY);
        drop(old);
        let old = begin();
        step_clock(-2 * DAY);
        drop(old);
        open_and_close(&listener);
        step_clock(DAY);
        let scrape = daemon.scrape();
        let of = |name: &str| scrape.sum(name, &[("upstream", &upstream.to_string())]);
        assert_count("opened", of("finwatch_connections_opened_total"), 2 * 11);
        assert_count("closed", of("finwatch_connections_closed_total"), 2 * 11);
        assert_count("lived", of("finwatch_connection_duration_seconds_count"), 2 * 11);
        assert!(of("finwatch_connection_duration_seconds_sum") < DAY as f64 / 24.0);
        let window = daemon.observe().window.seconds;
        assert!((0.0..DAY as f64 / 24.0).contains(&window), "it has watched for {window} s");
    });
}

fn step_clock(seconds: i64) {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    now.tv_sec += seconds;
    // SAFETY: as above.
    let set = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const now) };
    assert_eq!((read, set), (0, 0), "{}", std::io::Error::last_os_error());
}
