//! Packages through apt-get, as root or through sudo.

use std::{process::Command, time::Duration};

use anyhow::{Result, bail};

use crate::{host, process};

/// Downloading some hundred MiB over a slow line.
const LIMIT: Duration = Duration::from_mins(30);

/// Installs its arguments. While it does, a policy keeps packages from starting services, unless the host has a policy of
/// its own; the units of nginx, HAProxy, Prometheus, PHP-FPM, Docker and containerd, which their packages also enable, are
/// disabled where they were not there before.
const SCRIPT: &str = r#"policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
new=
for unit in nginx.service haproxy.service prometheus.service docker.socket docker.service containerd.service; do
    [ -e "/lib/systemd/system/$unit" ] || new="$new $unit"
done
ls /usr/sbin/php-fpm* >/dev/null 2>&1 && php=old || php=new
apt-get update -q
apt-get install -q -y --no-install-recommends "$@"
for unit in $new; do
    if [ -e "/lib/systemd/system/$unit" ] && command -v systemctl >/dev/null; then
        systemctl disable --quiet "$unit" || true
    fi
done
for unit in /lib/systemd/system/php*-fpm.service; do
    if [ "$php" = new ] && [ -e "$unit" ] && command -v systemctl >/dev/null; then
        systemctl disable --quiet "${unit##*/}" || true
    fi
done"#;

/// A package and what it is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
}

impl Package {
    pub(crate) fn new(name: &'static str, why: &'static str) -> Self {
        Self { name, why }
    }
}

/// Whether this system has apt.
pub(crate) fn available() -> bool {
    host::find_program("apt-get").is_some()
}

/// Installs them; without the right to, says what to type.
pub(crate) fn install(packages: &[Package]) -> Result<()> {
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    let list = names.join(" ");
    let mut command = if host::is_root() {
        host::command("sh")
    } else if process::output(Command::new("sudo").args(["-n", "true"])).is_some() {
        let mut sudo = host::command("sudo");
        sudo.args(["-n", "sh"]);
        sudo
    } else {
        bail!(
            "installing takes root: run\n  sudo apt-get update\n  sudo apt-get install --no-install-recommends {list}\n\
             and then this command again{}",
            if names.contains(&"nginx-light") {
                "\n(where no nginx of yours runs, `sudo systemctl disable --now nginx` afterwards: only the program is \
                 needed)"
            } else {
                ""
            }
        );
    };
    println!("apt-get install --no-install-recommends {list}");
    command.args(["-euc", SCRIPT, "sh"]).args(names);
    match process::run("apt-get", &mut command, LIMIT) {
        Ok(()) => Ok(()),
        Err(error) if list.contains("rustc-web") => bail!(
            "{error:#}; where the distribution has no rustc-web and libstd-rust-web-dev-bpf, use a rustup nightly: \
             rustup toolchain install nightly --component rust-src"
        ),
        Err(error) => Err(error),
    }
}
