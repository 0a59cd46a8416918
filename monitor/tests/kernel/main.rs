//! finwatch on the real kernel: sequences of real and crafted connections, and exactly what must be counted for each.

mod docs;
mod harness;
mod sequence;
mod sequences;
