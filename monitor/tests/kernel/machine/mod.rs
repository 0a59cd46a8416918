//! What only a kernel of the tests' own can be put through, in a virtual machine of `cargo xtask vm`.

mod clock;
mod groups;
mod interrupts;
mod network;
mod processors;

use std::env;

/// Whether this kernel is the tests' own.
fn is_here(test: &str) -> bool {
    let here = env::var_os("FINWATCH_TEST_VM").is_some();
    if !here {
        eprintln!("SKIPPED {test}: needs a kernel of its own; `cargo xtask vm` boots some");
    }
    here
}
