//! What the records mean, without I/O.

pub mod counts;
pub mod families;
pub mod forecast;
pub mod history;
pub mod incident;
pub mod labels;
pub mod levels;
pub mod observation;
pub mod port_range;
pub mod protocol_counters;
pub mod selection;
pub mod source;
pub mod tally;
pub mod workload;
