//! The command line.

pub mod args;
pub mod ask;
pub mod attach;
pub mod check;
pub mod generate;
pub mod incidents;
pub mod logging;
pub mod run;
pub mod top;
pub mod triage;
pub mod upkeep;
