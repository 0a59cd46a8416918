//! The command line.

pub mod args;
pub mod check;
pub mod logging;
pub mod run;
