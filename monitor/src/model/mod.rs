//! What the records mean, without I/O.

pub mod source;
