//! What the kernel half and the agent share: wire types, evidence, cause and histogram buckets.
//!
//! Everything here is `no_std`, free of I/O and of unsafe code, compiled once for eBPF and once for the host, where
//! the tests run.
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod cause;
pub mod closed;
pub mod comm;
pub mod connection;
pub mod evidence;
pub mod histogram;
pub mod incident;
pub mod levels;
pub mod live;
pub mod offsets;
#[cfg(feature = "agent")]
mod pod;
pub mod requests;
pub mod state;
pub mod wire;
