//! `cargo xtask lab`: every failure the field describes, reproduced with real servers and explained by finwatch; docs/lab.md is
//! made of the results.

mod balancer;
mod closers;
mod exhausted;
mod goodbyes;
mod headers;
mod losses;
mod mistakes;
mod page;
mod race;
mod record;
mod recycled;
mod scenario;
mod scenarios;
mod software;
mod unkept;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

pub(crate) use self::scenario::Times;
use self::{
    page::Entry,
    record::Record,
    scenario::{Run, Scenario},
    scenarios::all,
};
use crate::{
    account::Account,
    host::{self, Profile},
    interrupt,
    setup::{self, Purpose, newer_nginx},
    test::Tally,
    traffic::nginx::Chosen,
};

/// Scenarios that the test command plays at a time: they mostly wait.
const AT_A_TIME: usize = 10;

/// Flags of `cargo xtask lab`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of scenarios, or numbers of cases; without any, all
    scenarios: Vec<String>,
    /// Play those that have them with the timeouts of the field, which takes minutes for each
    #[arg(long)]
    true_times: bool,
    /// Play those of nginx that have it with the newest one that Debian has, which is not installed
    #[arg(long, conflicts_with = "true_times")]
    newer_nginx: bool,
    /// Only name the scenarios
    #[arg(long)]
    list: bool,
}

/// `cargo xtask lab`.
pub(crate) fn command(args: &Args) -> Result<()> {
    let wanted = wanted(&args.scenarios)?;
    if args.list {
        for scenario in wanted {
            println!("{:>2}  {:<24} {}", scenario.case, scenario.name, scenario.title);
            for (run, flag) in [(Run::Real, "--true-times"), (Run::NewerNginx, "--newer-nginx")] {
                if scenario.has(run) {
                    println!("{:28} also with {flag}", "");
                }
            }
            if let Some(name) = scenario.tested_as() {
                println!("{:28} tested as \"{name}\"", "");
            }
        }
        return Ok(());
    }
    host::require_rights("lab")?;
    setup::ensure(Purpose::Lab)?;
    let binary = host::build_finwatch(Profile::Debug)?;
    let run = match args {
        Args { true_times: true, .. } => Run::Real,
        Args { newer_nginx: true, .. } => Run::NewerNginx,
        _ => Run::Scaled,
    };
    let _nginx = (run == Run::NewerNginx).then(newer_nginx::get).transpose()?.map(Chosen::instead);
    let mut failed = Vec::new();
    for scenario in wanted.into_iter().filter(|scenario| scenario.has(run)) {
        if let Err(error) = record(&binary, scenario, run) {
            interrupt::check()?;
            eprintln!("FAILED: {}: {error:#}", scenario.name);
            failed.push(scenario.name);
        }
        fs::write(page_path(), page()?).context("writing docs/lab.md")?;
    }
    ensure!(failed.is_empty(), "failed, or finwatch disagrees with the ground truth: {}", failed.join(", "));
    Ok(())
}

/// Those of these names or cases.
fn wanted(names: &[String]) -> Result<Vec<&'static Scenario>> {
    let is_called =
        |scenario: &Scenario, name: &String| scenario.name == name || scenario.case.to_string() == *name;
    for name in names {
        ensure!(
            all().iter().any(|scenario| is_called(scenario, name)),
            "there is no scenario \"{name}\": `cargo xtask lab --list` names them"
        );
    }
    let is_wanted =
        |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| is_called(scenario, name));
    Ok(all().into_iter().filter(is_wanted).collect())
}

/// Plays one and keeps what came of it, a disagreement as well.
fn record(binary: &Path, scenario: &Scenario, run: Run) -> Result<()> {
    println!("\n=== {}: {}", scenario.name, scenario.title);
    let start = Instant::now();
    let mut account = Account::default();
    let outcome = scenario.play(binary, run.times(), &mut account);
    let agrees = account.agrees(scenario.expected);
    if outcome.is_err() && !account.differs() {
        return outcome;
    }
    let disagreement = format!("{account:#?}");
    Record::new(scenario, start.elapsed().as_secs(), account)?.write(scenario, run)?;
    outcome?;
    ensure!(agrees, "finwatch and the ground truth disagree: {disagreement}");
    Ok(())
}

/// A time with two digits.
fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// The page as the records have it.
fn page() -> Result<String> {
    let entry = |scenario: &'static Scenario| {
        let read = |run| Ok(Record::read(scenario, run)?.map(|record| (run, record)));
        let runs = Run::ALL.into_iter().filter_map(|run| read(run).transpose());
        Ok(Entry { scenario, runs: runs.collect::<Result<_>>()? })
    };
    let entries = all().into_iter().map(entry).collect::<Result<Vec<_>>>()?;
    Ok(page::page(&entries))
}

fn page_path() -> PathBuf {
    host::root().join("docs/lab.md")
}

/// What the test command plays of the lab: what none of its other steps plays already.
pub(crate) fn tested() -> Vec<&'static str> {
    all()
        .into_iter()
        .filter(|scenario| scenario.has(Run::Scaled) && scenario.tested_as().is_none())
        .map(|scenario| scenario.name)
        .collect()
}

/// What is played with a newer nginx, too.
pub(crate) fn with_newer_nginx() -> Vec<&'static str> {
    let all = all().into_iter();
    all.filter(|scenario| scenario.has(Run::NewerNginx)).map(|scenario| scenario.name).collect()
}

/// Plays those of them that are wanted, one after the other: some have a daemon that sees the others' nginx as well.
pub(crate) fn run_with_newer_nginx(binary: &Path, wanted: &[&str]) -> Result<Tally> {
    let _nginx = Chosen::instead(newer_nginx::get()?);
    play(binary, wanted, 1)
}

/// Plays those that are wanted, some at a time.
pub(crate) fn run(binary: &Path, wanted: &[&str]) -> Result<Tally> {
    play(binary, wanted, AT_A_TIME)
}

fn play(binary: &Path, wanted: &[&str], at_a_time: usize) -> Result<Tally> {
    let mut queue: Vec<_> = all().into_iter().filter(|scenario| wanted.contains(&scenario.name)).collect();
    queue.reverse();
    let queue = Mutex::new(queue);
    let next = || queue.lock().ok()?.pop();
    let tally = thread::scope(|scope| {
        let worker = || {
            let mut tally = Tally::default();
            while let Some(scenario) = next() {
                tally = tally + Tally::of(scenario.name, || test(binary, scenario));
            }
            tally
        };
        let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(Tally::ONE_FAILED)).sum()
    });
    interrupt::check()?;
    Ok(tally)
}

fn test(binary: &Path, scenario: &Scenario) -> Result<()> {
    let mut account = Account::default();
    scenario.play(binary, Times::Scaled, &mut account)?;
    ensure!(account.agrees(scenario.expected), "expected {:?} of {account:#?}", scenario.expected);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env};

    use super::*;
    use crate::test::{findings, software};

    #[test]
    fn the_page_is_what_the_records_say() {
        let page = page().expect("records that can be read");
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::write(page_path(), &page).expect("docs/lab.md can be written");
        }
        let written = fs::read_to_string(page_path()).expect("docs/lab.md");
        assert!(written == page, "docs/lab.md is not what docs/lab holds: run with UPDATE_DOCS=1");
        assert!(!page.contains("**no**"), "finwatch disagrees with a ground truth: see docs/lab.md");
    }

    #[test]
    fn every_scenario_was_played() {
        for scenario in all() {
            for run in Run::ALL {
                let played = Record::read(scenario, run).expect("a record").is_some();
                assert_eq!(played, scenario.has(run), "{}: {run:?}", scenario.name);
            }
        }
    }

    #[test]
    fn scenarios_are_told_by_name_and_by_case() {
        let names: BTreeSet<_> = all().iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().len());
        let first = all()[0];
        assert!(wanted(&[first.name.to_owned()]).expect("one").iter().all(|one| one.name == first.name));
        let of_case = wanted(&["1".to_owned()]).expect("some");
        assert!(!of_case.is_empty() && of_case.iter().all(|one| one.case == 1));
        assert!(wanted(&["no such one".to_owned()]).is_err());
    }

    #[test]
    fn what_other_steps_play_exists() {
        for scenario in all() {
            match scenario.play {
                scenario::Play::Findings(name) => drop(findings::named(name).expect("a test")),
                scenario::Play::Long(_, name) => {
                    let names = [findings::scenarios(), software::scenarios()].concat();
                    assert!(names.contains(&name), "{name}");
                }
                scenario::Play::Software(name) => drop(software::named(name).expect("a test")),
                scenario::Play::Lab(_) | scenario::Play::NewerNginx(_) => {}
            }
        }
    }
}
