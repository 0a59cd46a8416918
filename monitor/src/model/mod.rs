//! What the records mean, without I/O.

pub mod families;
pub mod labels;
pub mod source;
pub mod workload;
