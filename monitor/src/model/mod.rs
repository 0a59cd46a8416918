//! What the records mean, without I/O.

pub mod families;
pub mod forecast;
pub mod labels;
pub mod levels;
pub mod port_range;
pub mod protocol_counters;
pub mod selection;
pub mod source;
pub mod tally;
pub mod workload;
