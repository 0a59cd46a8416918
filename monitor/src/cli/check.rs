//! `finwatch check`: has this host all it takes? Loads and attaches everything, and ends.

mod held;

use std::{fmt, io::Write as _, path::Path, process::ExitCode};

use anyhow::Result;
use caps::Capability;
use serde::Serialize;

use super::args::{CheckArgs, LogArgs, Netns, Options as Flags};
use crate::{
    config::Config,
    kernel::btf::Btf,
    kernel::{
        conntrack::Conntrack,
        hooks::{Precision, following, is_required, locate},
        loader::{BTF_PATH, Kernel, Options},
        rights,
    },
    model::source::HookMode,
    web::Web,
};

const DEGRADED: u8 = 1;
const CANNOT_RUN: u8 = 2;

/// How one prerequisite stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Degraded,
    Failed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "FAILED",
        })
    }
}

/// One row.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    status: Status,
    detail: String,
}

impl Finding {
    fn new(what: impl Into<String>, status: Status, detail: impl Into<String>) -> Self {
        Self { what: what.into(), status, detail: detail.into() }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    version: &'static str,
    status: Status,
    checks: &'a [Finding],
}

/// Prints the table or JSON; the exit status is 0, 1 (degraded, with `--strict`) or 2 (cannot run).
///
/// # Errors
/// When standard output cannot be written.
pub fn run(log: LogArgs, args: &CheckArgs) -> Result<ExitCode> {
    let findings = examine(log, args);
    let worst = findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok);
    let mut out = std::io::stdout().lock();
    let printed = if args.json {
        let report = Report { version: env!("CARGO_PKG_VERSION"), status: worst, checks: &findings };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)
    } else {
        table(&mut out, &findings, worst)
    };
    match printed {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    Ok(match worst {
        Status::Failed => ExitCode::from(CANNOT_RUN),
        Status::Degraded if args.strict => ExitCode::from(DEGRADED),
        Status::Ok | Status::Degraded => ExitCode::SUCCESS,
    })
}

fn table(out: &mut impl std::io::Write, findings: &[Finding], worst: Status) -> std::io::Result<()> {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    for Finding { what, status, detail } in findings {
        writeln!(out, "{status:<9} {what:<width$}  {detail}")?;
    }
    let verdict = match worst {
        Status::Ok => "finwatch can run here, and sees everything.",
        Status::Degraded => "finwatch can run here, with the limits above.",
        Status::Failed => "finwatch cannot run here until what FAILED is mended.",
    };
    writeln!(out, "\n{verdict}")
}

fn examine(log: LogArgs, args: &CheckArgs) -> Vec<Finding> {
    let mut findings = vec![kernel(), capabilities()];
    let config = Config::load(log, Flags::default(), args.config.as_deref());
    let btf = types(&mut findings);
    match config {
        Err(error) => findings.push(Finding::new("configuration", Status::Failed, error.to_string())),
        Ok(config) => {
            if let Some(path) = &args.config {
                findings.push(Finding::new("configuration", Status::Ok, path.display().to_string()));
            }
            findings.extend(config.web_config.as_deref().map(web_config));
            findings.push(namespaces(config.netns));
            findings.push(processes());
            findings.push(conntrack(config.conntrack));
            if btf {
                findings.extend(hooks(&Options::from(&config)));
                findings.extend(held::findings(&config));
            }
        }
    }
    findings
}

fn web_config(path: &Path) -> Finding {
    match Web::load(Some(path)) {
        Ok(web) => Finding::new("web config", Status::Ok, format!("{}: {}", path.display(), web.scheme())),
        Err(error) => Finding::new("web config", Status::Failed, error.to_string()),
    }
}

fn kernel() -> Finding {
    let release = procfs::sys::kernel::Version::current();
    match release {
        Ok(version) if (version.major, version.minor) < (5, 10) => Finding::new(
            "kernel",
            Status::Failed,
            format!("{}.{}: finwatch needs 5.10 or newer", version.major, version.minor),
        ),
        Ok(version) => Finding::new(
            "kernel",
            Status::Ok,
            format!("{}.{}.{}", version.major, version.minor, version.patch),
        ),
        Err(error) => Finding::new("kernel", Status::Degraded, format!("version unknown: {error}")),
    }
}

fn capabilities() -> Finding {
    let missing = rights::missing();
    if missing.is_empty() {
        let needed = rights::NEEDED.map(|(capability, what)| format!("{capability} {what}"));
        Finding::new("capabilities", Status::Ok, needed.join(", "))
    } else {
        Finding::new("capabilities", Status::Failed, rights::remedy(&missing))
    }
}

/// Whether the sockets of other network namespaces can be shown.
fn namespaces(wanted: Netns) -> Finding {
    let name = "other namespaces";
    if wanted == Netns::Host {
        return Finding::new(name, Status::Ok, "not wanted (netns = host)");
    }
    extra(name, &rights::FOR_NAMESPACES, |missing| {
        format!(
            "their connections are counted, but sockets, accept queues and ephemeral ports are not shown: {missing} \
             missing; give the capabilities, or leave other namespaces out with --netns host"
        )
    })
}

/// Whether older connections can be told by their process.
fn processes() -> Finding {
    extra("older connections", &rights::FOR_PROCESSES, |missing| {
        format!(
            "those of other users' processes are counted as \"unknown\" until they are opened anew: {missing} missing"
        )
    })
}

/// Whether it can be told who answers behind services' addresses.
fn conntrack(wanted: bool) -> Finding {
    let name = "connection tracking";
    if !wanted {
        return Finding::new(name, Status::Ok, "not wanted (conntrack = false)");
    }
    match Conntrack::default().probe() {
        Ok(()) => {
            Finding::new(name, Status::Ok, "answers: incidents tell the addresses behind those of services")
        }
        Err(error) => Finding::new(
            name,
            Status::Degraded,
            format!(
                "incidents do not tell the addresses behind those of services: {error}, or set conntrack = false"
            ),
        ),
    }
}

/// What can be done with these; `without` says what cannot where some are missing.
fn extra(
    name: &'static str,
    wanted: &[(Capability, &'static str)],
    without: impl FnOnce(&str) -> String,
) -> Finding {
    let told = |rights: &[(Capability, &str)], between: &str| {
        let each: Vec<String> = rights.iter().map(|(right, what)| format!("{right} {what}")).collect();
        each.join(between)
    };
    let missing = rights::missing_of(wanted);
    if missing.is_empty() {
        return Finding::new(name, Status::Ok, told(wanted, ", "));
    }
    Finding::new(name, Status::Degraded, without(&told(&missing, ", and ")))
}

/// Whether the kernel's types can be read; a row for them and one for each field that is missing.
fn types(findings: &mut Vec<Finding>) -> bool {
    let data = match std::fs::read(BTF_PATH) {
        Ok(data) => data,
        Err(error) => {
            let detail =
                format!("{BTF_PATH}: {error}; the kernel must be built with CONFIG_DEBUG_INFO_BTF=y");
            findings.push(Finding::new("BTF", Status::Failed, detail));
            return false;
        }
    };
    let btf = match Btf::parse(&data) {
        Ok(btf) => btf,
        Err(error) => {
            findings.push(Finding::new("BTF", Status::Failed, format!("{BTF_PATH}: {error}")));
            return false;
        }
    };
    findings.push(Finding::new("BTF", Status::Ok, BTF_PATH));
    let located = locate(&btf);
    let found = located.iter().filter(|(_, offset)| offset.is_some()).count();
    let fields = format!("{found} of {} found", located.len());
    let missing: Vec<_> =
        located.iter().filter(|(_, offset)| offset.is_none()).map(|(field, _)| *field).collect();
    findings.push(Finding::new("fields", Status::Ok, fields));
    for field in &missing {
        let name = format!("field {}.{}", field.kernel_type, field.path);
        findings.push(if is_required(field) {
            Finding::new(name, Status::Failed, "not in this kernel; please report this with its version")
        } else {
            Finding::new(
                name,
                Status::Degraded,
                "not in this kernel: workloads or generic process names stay unknown",
            )
        });
    }
    findings.push(Finding::new("requests", Status::Ok, requests(&btf)));
    true
}

/// What `--requests` would do here.
fn requests(btf: &Btf<'_>) -> String {
    let hooks = following(btf, Precision::Finest);
    let names: Vec<_> = hooks.iter().map(|(hook, _)| hook.name).collect();
    let names = names.join(", ");
    if hooks.iter().any(|(_, mode)| *mode == HookMode::Off) {
        format!("cannot be followed: this kernel has no {names}")
    } else if hooks.iter().any(|(_, mode)| *mode == HookMode::Partial) {
        format!("can be followed (requests = \"on\"), their times to a jiffy: {names}")
    } else {
        format!("can be followed (requests = \"on\"): {names}")
    }
}

/// Loads and attaches everything, and says how each hook fared.
fn hooks(options: &Options) -> Vec<Finding> {
    let kernel = match Kernel::start(options) {
        Ok(kernel) => kernel,
        Err(error) => return vec![Finding::new("eBPF programs", Status::Failed, error.to_string())],
    };
    let row = |attached: &crate::kernel::attaching::Attached| {
        let hook = attached.hook;
        let name = format!("hook {}", hook.name);
        match attached.mode {
            HookMode::Full => Finding::new(name, Status::Ok, hook.purpose),
            HookMode::Partial | HookMode::Off => Finding::new(name, Status::Degraded, attached.lacking()),
        }
    };
    kernel.hooks.iter().map(row).collect()
}
