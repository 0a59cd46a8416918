//! Connections as fast as the machine makes them: none is missed, none counted twice, nothing is left behind.

use std::thread;

use crate::harness::{
    can_run,
    daemon::Daemon,
    netns,
    traffic::{listen, local, open_and_close},
    until,
};

const HOSTS: u8 = 8;
const PER_HOST: u32 = 2_500;
const PORT: u16 = 30_000;

#[test]
fn twenty_thousand_connections() {
    if !can_run("twenty_thousand_connections") {
        return;
    }
    netns::in_namespace(|| {
        netns::sysctl("ipv4/ip_local_port_range", "25000 65535");
        netns::sysctl("ipv4/ip_local_reserved_ports", &PORT.to_string());
        let daemon = Daemon::isolated(&[]);
        let before = daemon.scrape().sum("finwatch_tracked_connections", &[]);
        let listeners: Vec<_> = (1..=HOSTS).map(|host| listen(local(host, PORT))).collect();
        thread::scope(|scope| {
            for half in listeners.chunks(usize::from(HOSTS / 2)) {
                scope.spawn(move || {
                    for listener in half {
                        (0..PER_HOST).for_each(|_| open_and_close(listener));
                    }
                });
            }
        });
        until("the table of live connections is as before", || {
            let now = daemon.scrape().sum("finwatch_tracked_connections", &[]);
            ((now - before).abs() < 0.5).then_some(())
        });
        let scrape = daemon.scrape();
        let mut wrong = Vec::new();
        for (host, side) in (1..=HOSTS).flat_map(|host| ["proxy", "upstream"].map(|side| (host, side))) {
            let upstream = local(host, PORT).to_string();
            for family in
                ["connections_opened_total", "connections_closed_total", "connection_duration_seconds_count"]
            {
                let count =
                    scrape.sum(&format!("finwatch_{family}"), &[("side", side), ("upstream", &upstream)]);
                if (count - f64::from(PER_HOST)).abs() > 0.0 {
                    wrong.push(format!(
                        "{family} side={side} upstream={upstream}: {count}, should be {PER_HOST}"
                    ));
                }
            }
        }
        for total in ["untracked_connections_total", "pairs_folded_total", "bpf_missed_runs_total"] {
            let count = scrape.sum(&format!("finwatch_{total}"), &[]);
            if count > 0.0 {
                wrong.push(format!("{total}: {count}, should be 0"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
