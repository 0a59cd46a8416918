//! What is exposed, and how it is served, over made-up sources.

#[path = "../support/document.rs"]
mod document;
mod documented;
mod exposition;
mod http;
mod parsed;
#[path = "../support/mod.rs"]
mod support;
