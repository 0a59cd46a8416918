//! The kernel's own statistics of programs, switched on and off under the daemon: what they tell is what the kernel tells,
//! and nothing else changes.

use std::{collections::BTreeMap, fs};

use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};

use crate::harness::{
    can_run,
    daemon::Daemon,
    netns,
    reference::{assert_count, untraced_port},
    traffic::{listen, local, open_and_close},
    until,
};

const CONNECTIONS: usize = 40;
/// `set_state` runs more often than that for each connection: at least when its ends open and when they close.
const RUNS_PER_CONNECTION: f64 = 4.0;
const PROGRAMS: [&str; 2] = ["set_state", "missed"];

/// How often the kernel says that the daemon's programs have run.
fn runs(daemon: &Daemon) -> BTreeMap<String, u64> {
    let files = fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid)).expect("it runs").flatten();
    let infos = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let ids: Vec<u32> = infos
        .filter_map(|info| info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()))
        .collect();
    let own = loaded_programs().flatten().filter(|program| ids.contains(&program.id()));
    own.filter_map(|program| Some((program.name_as_str()?.to_owned(), program.run_count()))).collect()
}

#[test]
fn the_kernels_statistics_may_come_and_go() {
    if !can_run("the_kernels_statistics_may_come_and_go") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let listener = listen(local(1, untraced_port()));
        let upstream = listener.local_addr().expect("bound").to_string();
        let mut connections = 0;
        // Others on this host may have them on, too: the reference is the kernel's own count, before and after.
        let mut load = || {
            let before = runs(&daemon);
            (0..CONNECTIONS).for_each(|_| open_and_close(&listener));
            connections += CONNECTIONS;
            let scrape = until("every end is counted", || {
                let scrape = daemon.scrape();
                (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
            });
            for side in ["proxy", "upstream"] {
                for family in ["opened", "closed"] {
                    let name = format!("finwatch_connections_{family}_total");
                    let count = scrape.sum(&name, &[("side", side), ("upstream", &upstream)]);
                    assert_count(&format!("{family} side={side}"), count, connections);
                }
            }
            let after = runs(&daemon);
            PROGRAMS.map(|program| {
                let shown = scrape.sum("finwatch_bpf_runs_total", &[("program", program)]);
                let [before, after] = [&before, &after].map(|runs| runs[program] as f64);
                assert!((before..=after).contains(&shown), "{program}: {before}, shown {shown}, {after}");
                let time = scrape.sum("finwatch_bpf_run_seconds_total", &[("program", program)]);
                assert_eq!(shown > 0.0, time > 0.0, "{program}: {shown} runs, {time} s");
                (before, shown)
            })
        };
        load();
        let statistics = enable_stats(Stats::RunTime).expect("root may switch them on");
        for (before, shown) in load() {
            let least = CONNECTIONS as f64 * RUNS_PER_CONNECTION;
            assert!(shown - before >= least, "{before} before, {shown} after {CONNECTIONS} connections");
        }
        drop(statistics);
        load();
    });
}
