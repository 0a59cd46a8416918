//! What is exposed, and how it is served, over made-up sources.

mod containers;
#[path = "../support/document.rs"]
mod document;
mod documented;
mod exposition;
mod http;
mod names;
mod parsed;
mod secured;
mod secured_limits;
mod secured_prometheus;
#[path = "../support/mod.rs"]
mod support;
