//! The command line.

pub mod args;
pub mod ask;
pub mod attach;
pub mod check;
pub mod generate;
pub mod incidents;
pub mod logging;
mod reload;
pub mod run;
pub mod top;
pub mod triage;
pub mod upkeep;
