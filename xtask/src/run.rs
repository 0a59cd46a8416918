//! `cargo xtask run`: builds finwatch, starts it on this host and shows what it finds.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    daemon::{DEFAULT_ADDRESS, Daemon, metrics},
    demo,
    host::{self, Profile},
    interrupt,
    process::Running,
    setup::{self, Purpose},
};

/// How long `finwatch check` may take.
const CHECK_LIMIT: Duration = Duration::from_mins(1);

/// Flags of `cargo xtask run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Play the demo: the default, and with a daemon that is running already, that one sees it
    #[arg(long, conflicts_with = "no_demo")]
    demo: bool,
    /// Only run the daemon
    #[arg(long)]
    no_demo: bool,
    /// End after the demo's report, as without a terminal
    #[arg(long, conflicts_with = "no_demo")]
    demo_only: bool,
    /// Flags for `finwatch run`
    #[arg(last = true)]
    flags: Vec<String>,
}

/// `cargo xtask run`.
pub(crate) fn command(args: &Args) -> Result<()> {
    host::require_rights("run")?;
    let with_demo = !args.no_demo;
    setup::ensure(if with_demo { Purpose::Demo } else { Purpose::Build })?;
    let binary = host::build_finwatch(Profile::Release)?;
    check(&binary)?;
    let address = address(&args.flags)?;
    if metrics::get(&format!("http://{address}/healthz")).is_ok() {
        if args.demo {
            return demo::play(&format!("http://{address}/metrics"));
        }
        bail!(
            "a daemon already answers at http://{address}/metrics, so no second one was started and no demo played; \
             `cargo xtask run --demo` plays it in front of that one"
        );
    }
    let mut daemon = Daemon::foreground(&binary, address, &args.flags)?;
    println!("finwatch runs: {}", daemon.metrics_url());
    if with_demo {
        demo::play(&daemon.metrics_url())?;
    }
    if with_demo && (args.demo_only || !io::stdin().is_terminal()) {
        println!("the daemon ends with the demo; `cargo xtask run --no-demo` keeps it running");
        return Ok(());
    }
    println!("finwatch goes on at {}; Ctrl-C ends it", daemon.metrics_url());
    match daemon.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("finwatch run ended ({status})"),
        // Ctrl-C is how this command is meant to end.
        Err(_) if interrupt::seen() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Where the daemon will listen, as its flags say.
fn address(flags: &[String]) -> Result<&str> {
    let value = |name: &str| {
        let mut flags = flags.iter();
        flags
            .by_ref()
            .find_map(|flag| {
                let rest = flag.strip_prefix(name)?;
                if rest.is_empty() { Some(None) } else { rest.strip_prefix('=').map(Some) }
            })
            .and_then(|inline| inline.or_else(|| flags.next().map(String::as_str)))
    };
    match (value("--listen"), value("--config")) {
        (Some(address), _) => Ok(address),
        (None, None) => Ok(DEFAULT_ADDRESS),
        (None, Some(file)) => {
            bail!("with --config {file} say --listen too: this command has to know the address")
        }
    }
}

/// Lets finwatch judge this host; what it says is shown when it cannot run.
fn check(binary: &Path) -> Result<()> {
    let log = tempfile::NamedTempFile::new().context("a file for finwatch check")?;
    let (out, err) = (log.as_file().try_clone(), log.as_file().try_clone());
    let mut command = host::command(binary);
    command.arg("check").stdout(out.context("its output")?).stderr(err.context("its output")?);
    let status = Running::spawn("finwatch check", &mut command)?.wait(CHECK_LIMIT)?;
    if status.success() {
        return Ok(());
    }
    eprint!("{}", std::fs::read_to_string(log.path()).unwrap_or_default());
    bail!(
        "finwatch cannot run on this host ({status}): the table above says what is missing and how to get it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_follows_the_flags() {
        let of = |flags: &[&str]| {
            let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
            address(&flags).map(str::to_owned).map_err(|error| error.to_string())
        };
        assert_eq!(of(&[]).as_deref(), Ok(DEFAULT_ADDRESS));
        assert_eq!(of(&["--max-pairs", "9", "--listen", "127.0.0.1:1"]).as_deref(), Ok("127.0.0.1:1"));
        assert_eq!(of(&["--config=a", "--listen=127.0.0.1:2"]).as_deref(), Ok("127.0.0.1:2"));
        assert!(of(&["--config", "a"]).is_err_and(|error| error.contains("--listen")));
    }
}
