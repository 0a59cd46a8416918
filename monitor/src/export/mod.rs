//! Shows what the records hold: the Prometheus text format over HTTP.

mod agent;
pub mod exposition;
mod family;
pub mod http;
mod landing;
mod levels;
mod lines;
mod places;
mod process;
mod render;
pub mod server;
