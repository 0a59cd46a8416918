//! What everything that reads input from outside must stand, whatever it is given: one function for each kind of input,
//! which panics where something is wrong. libFuzzer calls them with what it makes up, `cargo test` with the corpus.

mod files;
mod input;
mod kernel;
mod names;
mod printed;
mod requests;
mod sockets;

#[path = "../../monitor/tests/export/parsed.rs"]
#[expect(dead_code, reason = "the tests of the exporter use the rest")]
mod parsed;
#[path = "../../monitor/tests/support/mod.rs"]
mod support;

pub use self::{
    files::{config, web_config},
    kernel::{btf, incidents},
    names::labels,
    requests::{api, http},
    sockets::{netlink, snapshots},
};

/// What is tried with one input.
pub type Target = fn(&[u8]);

/// All of them; `corpus` has a directory for each.
pub const TARGETS: [(&str, Target); 9] = [
    ("api", api),
    ("btf", btf),
    ("config", config),
    ("http", http),
    ("incidents", incidents),
    ("labels", labels),
    ("netlink", netlink),
    ("snapshots", snapshots),
    ("web_config", web_config),
];
