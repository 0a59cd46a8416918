//! Faults: whatever happens to the daemon or around it, what it counts is right, and what it cannot see is counted too.

mod control_groups;
mod descriptors;
mod disk;
mod processors;
mod restarts;
#[cfg(target_arch = "x86_64")]
mod reused;
mod stalled;
mod statistics;
mod storm;
