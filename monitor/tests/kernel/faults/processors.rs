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

/// The names of the daemon's maps, those of which there is one for each processor apart.
fn maps(daemon: &Daemon) -> [BTreeSet<String>; 2] {
    use MapType as T;
    let files = fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid)).expect("it runs").flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let ids: BTreeSet<u32> = texts
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok()))
        .collect();
    let mut names = [BTreeSet::new(), BTreeSet::new()];
    for id in ids {
        let info = MapInfo::from_id(id).expect("a map of the daemon");
        let per_processor = matches!(
            info.map_type().expect("a kind"),
            T::PerCpuHash | T::PerCpuArray | T::LruPerCpuHash | T::PerCpuCgroupStorage | T::PerfEventArray
        );
        let name = info.name_as_str().expect("its name").to_owned();
        names[usize::from(per_processor)].insert(name);
    }
    names
}

/// A table per processor has a value for each possible one, also for those that are not there; whoever takes the number
/// of those online for it reads too little. Nothing is counted in such a table: one record holds what all processors add
/// to it, and what each has noted for itself is for the programs alone.
#[test]
fn nothing_is_counted_per_processor() {
    if !can_run("nothing_is_counted_per_processor") {
        return;
    }
    let (possible, online) = (processors("possible"), processors("online"));
    assert!(online.is_subset(&possible), "{online:?} of {possible:?}");
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--requests"]);
        let [shared, per_processor] = maps(&daemon);
        assert!(shared.len() > 10, "its maps show in /proc: {shared:?}");
        assert_eq!(per_processor, BTreeSet::from(["LOOKED_AT", "VERDICTS"].map(str::to_owned)));

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
