//! `cargo xtask vm`: the kernel tests on other kernels than this host's, each in a virtual machine.

pub(crate) mod chosen;
mod document;
pub(crate) mod guest;
mod image;
pub(crate) mod machine;
mod report;
mod stock;
mod suites;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{
    chosen::{ALONE, Boot, Built, CHECK, Extent, OTHERS, SEQUENCES_STEP, TWO},
    image::Image,
    machine::{Machine, Processors},
    report::{PLAN, Report},
    stock::Stock,
    suites::{Offer, Suites, missing, series_and_newest},
};
use crate::{
    host, interrupt,
    setup::{self, Purpose},
    test::{Tally, result, tell_failure},
};

/// How many machines run at once.
const AT_ONCE: usize = 2;
/// Every test, emulated, on a busy host.
const LIMIT: Duration = Duration::from_hours(2);
/// How often a machine is booted whose kernel does not reach its first process: emulated by QEMU 7.2, 6.12 was seen to die
/// within two seconds. No test has begun by then.
const BOOTS: u32 = 3;

/// Flags of `cargo xtask vm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this kernel: a series (6.1), a version, or a Debian suite; may be given several times
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,
    /// Every kernel and every test that can run in a virtual machine, not the short form
    #[arg(long)]
    all: bool,
    /// Only tests whose names hold this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    test: Vec<String>,
    /// Writes docs/kernels.md from what `finwatch check` finds on every kernel; with --all, also which tests have passed there
    #[arg(long, conflicts_with_all = ["kernel", "test"])]
    document: bool,
    /// Lists the kernels that there are, and runs nothing
    #[arg(long)]
    list: bool,
}

/// What became of one kernel.
struct Outcome {
    suite: &'static str,
    version: String,
    tally: Tally,
    report: Report,
    /// What there is to say about it, beside the figures.
    told: String,
}

impl Outcome {
    fn name(&self) -> String {
        format!("{} ({})", self.version, self.suite)
    }

    fn failed(suite: &'static str, version: &str, told: String) -> Self {
        Self { suite, version: version.to_owned(), tally: Tally::ONE_FAILED, report: Report::default(), told }
    }

    /// Takes in what a machine told of these steps.
    fn judge<'a>(&mut self, steps: impl Iterator<Item = &'a str>, report: Report, machine: &Machine) {
        if report.release.is_none() {
            self.told = format!("{}it has not come up:\n{}", self.told, machine.last_words());
        }
        for name in steps {
            let (status, output) = report.step(name);
            if status.is_none() {
                let words = machine.last_words();
                self.told = format!("{}{name} has not come to its end:\n{output}{words}", self.told);
            } else if name == CHECK {
                self.tally = self.tally + Tally::ONE_PASSED;
            } else if [SEQUENCES_STEP, OTHERS, ALONE, TWO].contains(&name) {
                // The last: a test may have printed that of another.
                let counted = output.lines().filter_map(result).next_back();
                self.tally = self.tally + counted.unwrap_or_default();
                if status != Some(0) || counted.is_none() {
                    self.told = format!("{}{output}", self.told);
                }
            }
        }
        self.report.add(report);
    }
}

/// `cargo xtask vm`.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Test)?;
    let suites = Suites::read(directory().join("apt"))?;
    let (offers, lost) = offers(&suites);
    let chosen = match (args.kernel.as_slice(), args.all || args.document) {
        ([], true) => offers.clone(),
        ([], false) => series_and_newest(&offers),
        (names, _) => chosen(&offers, names)?,
    };
    if args.list {
        for offer in &offers {
            println!("{:<20} {}", offer.version, offer.suite);
        }
        return Ok(if lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let extent = if args.all { Extent::All } else { Extent::Short };
    let lost = if args.kernel.is_empty() { lost } else { Vec::new() };
    let boots = |built: &Built| {
        let tests = match args.test.as_slice() {
            [] if args.all || !args.document => built.tests(extent),
            [] => Vec::new(),
            texts => built.only(texts)?,
        };
        Ok(args.document.then(|| built.look()).into_iter().chain(tests).collect())
    };
    let outcomes = run_on(&suites, &chosen, boots, lost)?;
    let total = outcomes.iter().fold(Tally::default(), |sum, outcome| sum + outcome.tally);
    if args.document {
        ensure!(total.failed == 0, "docs/kernels.md is written only where every test has passed");
        document::write(&outcomes)?;
    }
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The step of `cargo xtask test`: the short form, or every kernel and every test.
pub(crate) fn step(full: bool) -> Result<Tally> {
    let suites = Suites::read(directory().join("apt"))?;
    let (offers, lost) = offers(&suites);
    let (chosen, lost, extent) = if full {
        (offers, lost, Extent::All)
    } else {
        let missing = missing(&offers).into_iter();
        let lost = missing.map(|series| Outcome::failed(series, "none", "no suite offers it".to_owned()));
        (series_and_newest(&offers), lost.collect(), Extent::Short)
    };
    let outcomes = run_on(&suites, &chosen, |built| Ok(built.tests(extent)), lost)?;
    Ok(outcomes.iter().fold(Tally::default(), |sum, outcome| sum + outcome.tally))
}

fn directory() -> PathBuf {
    host::target().join("vm")
}

/// What the suites offer, and which of them offer nothing.
fn offers(suites: &Suites) -> (Vec<Offer>, Vec<Outcome>) {
    let mut offers = Vec::new();
    let mut lost = Vec::new();
    for (suite, offer) in suites.offers() {
        match offer {
            Ok(offer) => offers.push(offer),
            Err(error) => lost.push(Outcome::failed(suite, "none", format!("cannot be fetched: {error:#}"))),
        }
    }
    (offers, lost)
}

fn chosen(offers: &[Offer], names: &[String]) -> Result<Vec<Offer>> {
    let mut chosen = Vec::new();
    for name in names {
        let is_called = |offer: &&Offer| offer.suite == name || offer.version == *name || offer.is_of(name);
        match offers.iter().find(is_called) {
            Some(offer) => chosen.push(offer.clone()),
            None => bail!("no suite offers the kernel {name}: `cargo xtask vm --list` shows what there is"),
        }
    }
    Ok(chosen)
}

/// Runs the tests on each kernel, and tells what became of them; `lost` are those that there are not.
fn run_on(
    suites: &Suites,
    offers: &[Offer],
    boots: impl FnOnce(&Built) -> Result<Vec<Boot>>,
    lost: Vec<Outcome>,
) -> Result<Vec<Outcome>> {
    let programs = directory().join("programs");
    fs::create_dir_all(&programs).context("making a directory for programs")?;
    let built = Built::new()?;
    let (boots, image) = (boots(&built)?, built.image(&programs)?);
    for outcome in &lost {
        tell(outcome, Duration::ZERO);
    }
    let outcomes = Mutex::new(lost);
    let waiting = Mutex::new(offers.iter());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
                while let Some(offer) = next() {
                    let since = Instant::now();
                    let outcome = one(suites, offer, &image, &boots).unwrap_or_else(|error| {
                        Outcome::failed(offer.suite, &offer.version, format!("{error:#}"))
                    });
                    tell(&outcome, since.elapsed());
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(outcome);
                    }
                }
            });
        }
    });
    interrupt::check()?;
    let mut outcomes = outcomes.into_inner().ok().context("a machine's thread has panicked")?;
    outcomes.sort_by_key(|outcome| offers.iter().position(|offer| offer.suite == outcome.suite));
    Ok(outcomes)
}

/// Boots one kernel as often as there are plans, and runs them on it.
fn one(suites: &Suites, offer: &Offer, image: &Image, boots: &[Boot]) -> Result<Outcome> {
    let stock = Stock::get(suites, offer, &directory().join("kernels"))
        .with_context(|| format!("the kernel {} of {} cannot be fetched", offer.version, offer.suite))?;
    let mut outcome = Outcome {
        suite: offer.suite,
        version: offer.version.clone(),
        tally: Tally::default(),
        report: Report::default(),
        told: String::new(),
    };
    for Boot { processors, plan } in boots {
        let mut image = image.clone();
        for module in &stock.modules {
            let name = module.file_name().context("a module's name")?;
            image.copy(&PathBuf::from(guest::MODULES).join(name), module);
        }
        image.text(PLAN.as_ref(), serde_json::to_string(plan).context("writing the plan")?);
        let place = directory().join("machines").join(offer.suite).join(processors.name());
        let machine = Machine::new(place)?;
        image.write(&machine.image())?;
        let report = booted(&machine, &stock.kernel, *processors, &outcome.name())?;
        fs::remove_file(machine.image()).context("removing what was booted")?;
        let names = plan.steps.iter().map(|step| step.name.as_str());
        outcome.judge(names, report, &machine);
    }
    // What did not come to its end, and tests none of which ran, count as one failure.
    if outcome.tally.failed == 0 && (!outcome.told.is_empty() || outcome.tally.passed == 0) {
        outcome.tally.failed = 1;
    }
    Ok(outcome)
}

/// Boots a machine, and again where its kernel has not come up.
fn booted(machine: &Machine, kernel: &Path, processors: Processors, name: &str) -> Result<Report> {
    for _ in 1..BOOTS {
        let report = machine.run(kernel, processors, LIMIT)?;
        if report.release.is_some() {
            return Ok(report);
        }
        println!("kernel {name} has not come up and is booted again:\n{}", machine.last_words());
    }
    machine.run(kernel, processors, LIMIT)
}

fn tell(outcome: &Outcome, took: Duration) {
    let Tally { passed, failed, skipped } = outcome.tally;
    let release = outcome.report.release.as_deref().unwrap_or("?");
    if !outcome.told.is_empty() {
        tell_failure(format!("kernel {}: {}", outcome.name(), outcome.told));
    }
    println!(
        "kernel {}, {release}: {passed} passed, {failed} failed, {skipped} skipped in {} s",
        outcome.name(),
        took.as_secs()
    );
}
