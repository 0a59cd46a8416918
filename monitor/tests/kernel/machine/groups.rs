//! A host whose processes are in control groups of version 2 alone: the group names the workload.

use std::{fs, path::Path, process::Command};

use super::is_here;
use crate::harness::{daemon::Daemon, reference::assert_count, until};

const GROUPS: &str = "/sys/fs/cgroup";
const UNIT: &str = "finwatch-test.service";

#[test]
fn a_unit_of_version_2_is_named() {
    if !is_here("a_unit_of_version_2_is_named") {
        return;
    }
    let daemon = Daemon::start(&[]);
    let group = Path::new(GROUPS).join("system.slice").join(UNIT);
    fs::create_dir_all(&group).expect("root may make control groups");
    let procs = group.join("cgroup.procs");
    let mut curl = Command::new("sh");
    curl.args(["-c", "echo $$ > \"$1\" && exec curl --silent --output /dev/null \"$2\"", "sh"]);
    curl.arg(&procs).arg(format!("http://{}/healthz", daemon.address));
    assert!(curl.status().expect("sh starts").success(), "curl was answered");
    let scrape = until("its workload", || {
        let scrape = daemon.scrape();
        (scrape.sum("finwatch_connections_closed_total", &[("workload", UNIT)]) > 0.5).then_some(scrape)
    });
    let labels = [("side", "proxy"), ("proxy", "curl"), ("workload", UNIT)];
    assert_count("opened", scrape.sum("finwatch_connections_opened_total", &labels), 1);
    assert_count("closed", scrape.sum("finwatch_connections_closed_total", &labels), 1);
    fs::remove_dir(group).expect("nothing is in it any more");
}
