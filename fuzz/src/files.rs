//! The files that somebody writes for finwatch.

use std::path::Path;

use finwatch::{
    cli::args::{LogArgs, Options},
    config::Config,
    web::Web,
};

use crate::printed::check_error;

/// The configuration file: a whole configuration, or one line that says what is wrong where.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let load =
        || Config::from_text(LogArgs::default(), Options::default(), Path::new("/etc/finwatch.toml"), text);
    match load() {
        Ok(config) => assert!(!config.needs_restart(&load().expect("as before")), "the same file"),
        Err(error) => check_error(&error),
    }
}

/// The web config file, with which no other files lie.
pub fn web_config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Web::from_text(Path::new("/nowhere/web.yml"), text) {
        Ok(web) => drop(web),
        Err(error) => check_error(&error),
    }
}
