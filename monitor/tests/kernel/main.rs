//! finwatch on the real kernel: sequences of real and crafted connections, and exactly what must be counted for each.

mod docs;
mod filters;
mod harness;
mod lifecycle;
mod limits;
mod sequence;
mod sequences;
mod volume;
