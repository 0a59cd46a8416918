//! What the records mean, without I/O.

pub mod families;
pub mod forecast;
pub mod incident;
pub mod labels;
pub mod levels;
pub mod port_range;
pub mod protocol_counters;
pub mod source;
pub mod workload;
