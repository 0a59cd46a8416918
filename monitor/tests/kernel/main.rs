//! finwatch on the real kernel: sequences of real and crafted connections, and exactly what must be counted for each.

mod adoption;
mod adoption_nginx;
mod docs;
mod filters;
mod harness;
mod incidents;
mod levels;
mod levels_filters;
mod lifecycle;
mod limits;
mod namespaces;
mod observe;
mod ports;
mod requests;
mod requests_nginx;
mod sequence;
mod sequences;
mod time_wait;
mod volume;
