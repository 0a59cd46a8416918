//! A web config that the unit's user reads by a group, as docs/install.md tells, read again by `systemctl reload`.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{READY, URL, guest::Guest};
use crate::{
    daemon::metrics::{Samples, get},
    interrupt,
};

const WEB_CONFIG: &str = "/etc/finwatch/web.yml";
/// From docs/web-config.md.
const PASSWORD: &str =
    "basic_auth_users:\n  prometheus: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze\n";
const NO_PASSWORD: &str = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n";
/// What docs/install.md has its reader do, but for the files' contents and the drop-in's editor.
const SET_UP: &str = "groupadd --system finwatch-web
    install -d -m 750 -g finwatch-web /etc/finwatch
    install -m 640 -g finwatch-web /dev/null /etc/finwatch/web.yml
    mkdir --parents /etc/systemd/system/finwatch.service.d
    printf '[Service]\\nSupplementaryGroups=finwatch-web\\n' > /etc/systemd/system/finwatch.service.d/override.conf
    systemctl daemon-reload";

/// Names a web config in the configuration file, and changes it under the running daemon.
pub(super) fn run(guest: &Guest, config: &str) -> Result<()> {
    guest.run("sh", &["-euc", SET_UP])?;
    let config = guest.path(config);
    let changed = fs::read_to_string(&config)? + &format!("web-config = \"{WEB_CONFIG}\"\n");
    fs::write(&config, changed).context("the configuration is not ours to change")?;
    fs::write(guest.path(WEB_CONFIG), PASSWORD)?;
    guest.run("systemctl", &["restart", "finwatch"])?;
    let refused = guest.namespace.within(|| Ok(get(&format!("{URL}/metrics")).err()))?;
    let refused = refused.map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("401"), "without a password: {refused:?}, not 401");

    let pid = super::installed::pid(guest)?;
    fs::write(guest.path(WEB_CONFIG), NO_PASSWORD)?;
    guest.run("systemctl", &["reload", "finwatch"])?;
    let samples = guest
        .namespace
        .within(|| interrupt::poll(READY, || Ok(Samples::scrape(&format!("{URL}/metrics")).ok())))?;
    let samples = samples.context("the reload did not take the password away")?;
    let good = samples.sum("finwatch_config_last_reload_successful", &[])?;
    ensure!(good == 1, "the metric tells a reload that failed");

    guest.run("chmod", &["o+r", WEB_CONFIG])?;
    guest.run("systemctl", &["reload", "finwatch"])?;
    let told = guest.namespace.within(|| {
        interrupt::poll(READY, || {
            let samples = Samples::scrape(&format!("{URL}/metrics"))?;
            Ok((samples.sum("finwatch_config_last_reload_successful", &[])? == 0).then_some(()))
        })
    })?;
    ensure!(told.is_some(), "a web config that everybody may read was taken");
    guest.run("chmod", &["o-r", WEB_CONFIG])?;
    ensure!(super::installed::pid(guest)? == pid, "a reload started it anew");
    Ok(())
}
