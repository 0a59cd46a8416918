//! What readers on this host ask for: one observation, over a Unix socket or in the same process.

pub mod client;
pub mod observer;
pub mod routes;
pub mod socket;
