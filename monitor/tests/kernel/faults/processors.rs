//! Processors: how many are possible and how many are online has no bearing on what is counted.

use std::{collections::BTreeSet, fs, thread};

use aya::maps::{MapInfo, MapType};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::harness::{
    can_run,
    daemon::Daemon,
    netns,
    reference::{assert_count, untraced_port},
    traffic::{listen, local, open_and_close},
    until,
};

const EACH: usize = 50;

/// A list of processors as the kernel prints it: `0-3,8`.
fn processors(which: &str) -> BTreeSet<usize> {
    let path = format!("/sys/devices/system/cpu/{which}");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let number = |text: &str| text.parse::<usize>().unwrap_or_else(|error| panic!("{path}: {text}: {error}"));
    text.trim()
        .split(',')
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            number(first)..=number(last)
        })
        .collect()
}

/// The kinds of the maps that the daemon has open.
fn map_types(daemon: &Daemon) -> Vec<MapType> {
    let files = fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid)).expect("it runs").flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let ids: BTreeSet<u32> = texts
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok()))
        .collect();
    let kind = |id| MapInfo::from_id(id).and_then(|info| info.map_type()).expect("a map of the daemon");
    ids.into_iter().map(kind).collect()
}

/// A table per processor has a value for each possible one, also for those that are not there; whoever takes the number
/// of those online for it reads too little. There is none such: one record holds what all processors add to it.
#[test]
fn no_table_is_per_processor() {
    use MapType as T;
    if !can_run("no_table_is_per_processor") {
        return;
    }
    let (possible, online) = (processors("possible"), processors("online"));
    assert!(online.is_subset(&possible), "{online:?} of {possible:?}");
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--requests"]);
        let kinds = map_types(&daemon);
        assert!(kinds.len() > 10, "its maps show in /proc: {kinds:?}");
        let per_processor =
            [T::PerCpuHash, T::PerCpuArray, T::LruPerCpuHash, T::PerCpuCgroupStorage, T::PerfEventArray];
        assert!(!kinds.iter().any(|kind| per_processor.contains(kind)), "{kinds:?}");

        // Each processor that is there adds to the same record.
        let listener = listen(local(1, untraced_port()));
        let upstream = listener.local_addr().expect("bound").to_string();
        for &processor in &online {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut only = CpuSet::new();
                    only.set(processor).expect("a processor's number");
                    sched_setaffinity(Pid::from_raw(0), &only).expect("a processor that is online");
                    (0..EACH).for_each(|_| open_and_close(&listener));
                });
            });
        }
        let all = online.len() * EACH;
        let scrape = until("every end is counted", || {
            let scrape = daemon.scrape();
            (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
        });
        for side in ["proxy", "upstream"] {
            for family in ["opened", "closed"] {
                let name = format!("finwatch_connections_{family}_total");
                let count = scrape.sum(&name, &[("side", side), ("upstream", &upstream)]);
                assert_count(&format!("{family} side={side}"), count, all);
            }
        }
    });
}
