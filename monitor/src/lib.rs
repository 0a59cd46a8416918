//! finwatch: tells why a proxy's upstream connections die.
//!
//! Data flows one way: hook, evidence, cause, record (the kernel half, `finwatch-ebpf`), reader (this crate).

pub mod api;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod containers;
pub mod export;
pub mod files;
pub mod kernel;
pub mod memory;
pub mod model;
pub mod naming;
pub mod recorder;
pub mod top;
pub mod triage;
pub mod web;
