//! The kernel's side of the agent: what the running kernel offers, loading, the records, and their upkeep.

pub mod agent;
mod array;
pub mod attaching;
pub mod btf;
pub mod conntrack;
pub mod dumper;
pub mod error;
pub mod expiry;
pub mod hooks;
mod known;
pub mod listeners;
pub mod loader;
pub mod lock;
pub mod mapped;
pub mod missed;
pub mod namespaces;
pub mod processes;
pub mod programs;
pub mod reader;
pub mod rights;
pub mod rounds;
pub mod snapshots;
pub mod sock_diag;
#[cfg(test)]
mod stack;
mod visit;
pub mod walker;
