//! What the records mean, without I/O.

pub mod behind;
pub mod counts;
pub mod families;
pub mod forecast;
pub mod history;
pub mod incident;
pub mod labels;
pub mod levels;
pub mod names;
pub mod observation;
pub mod pods;
pub mod port_range;
pub mod protocol_counters;
pub mod selection;
pub mod source;
pub mod sums;
pub mod tally;
pub mod workload;
