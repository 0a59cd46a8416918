//! The first process of a virtual machine: makes it a Linux as tests know it, runs what the plan says, and switches it
//! off.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::{
    mount::{MountFlags, mount},
    process::{WaitOptions, wait},
    system::{RebootCommand, finit_module, reboot},
};

use super::report::{PLAN, Plan, RESULTS, Step};

/// Where modules are, named in the order in which they load.
pub(super) const MODULES: &str = "/modules";

/// Does it all, and never returns: the kernel does not let its first process end.
pub(crate) fn main() -> ! {
    if let Err(error) = prepare().and_then(|()| carry_out()) {
        eprintln!("the guest cannot go on: {error:#}");
    }
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("the guest cannot be switched off: {error}");
    }
    loop {
        std::thread::park();
    }
}

fn prepare() -> Result<()> {
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
        ("bpf", "/sys/fs/bpf"),
        ("tracefs", "/sys/kernel/tracing"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        if place.starts_with("/dev/") {
            fs::create_dir_all(place).with_context(|| format!("making {place}"))?;
        }
        mount(kind, place, kind, MountFlags::empty(), None).with_context(|| format!("mounting {kind}"))?;
    }
    let mut modules: Vec<_> =
        fs::read_dir(MODULES).context("reading modules")?.flatten().map(|entry| entry.path()).collect();
    modules.sort();
    for module in modules {
        let file = File::open(&module).context("opening a module")?;
        finit_module(&file, c"", 0).with_context(|| format!("loading {}", module.display()))?;
    }
    Ok(())
}

fn carry_out() -> Result<()> {
    let plan = fs::read_to_string(PLAN).context("reading the plan")?;
    let plan: Plan = serde_json::from_str(&plan).context("reading the plan")?;
    let mut results = File::options().write(true).open(RESULTS).context("opening the line to the host")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the release")?;
    writeln!(results, "{}", Step::kernel(release.trim())).context("telling the host")?;
    for step in &plan.steps {
        writeln!(results, "{}", step.begin()).context("telling the host")?;
        let status = run(step, &plan, &results)?;
        writeln!(results, "\n{}", step.end(status.code().unwrap_or(-1))).context("telling the host")?;
    }
    Ok(())
}

/// Runs one step to its end, and takes in meanwhile whatever has lost its parent.
fn run(step: &Step, plan: &Plan, results: &File) -> Result<ExitStatus> {
    let line = || results.try_clone().context("the line to the host once more");
    let child = Command::new(&step.program)
        .args(&step.arguments)
        .envs(plan.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(Path::new(&plan.directory))
        .stdin(Stdio::null())
        .stdout(line()?)
        .stderr(line()?)
        .spawn()
        .with_context(|| format!("starting {}", step.program))?;
    loop {
        let Some((ended, status)) = wait(WaitOptions::empty()).context("waiting")? else { continue };
        if u32::try_from(ended.as_raw_nonzero().get()).is_ok_and(|ended| ended == child.id()) {
            return Ok(ExitStatus::from_raw(status.as_raw()));
        }
    }
}
