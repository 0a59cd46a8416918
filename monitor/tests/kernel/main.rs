//! finwatch on the real kernel: sequences of real and crafted connections, and exactly what must be counted for each.

mod adoption;
mod adoption_nginx;
mod busy;
mod confined;
mod conntrack;
mod docs;
mod exposed;
mod fallbacks;
mod faults;
mod filters;
mod harness;
mod incidents;
mod levels;
mod levels_filters;
mod levels_netlink;
mod lifecycle;
mod limits;
mod machine;
#[cfg(target_arch = "x86_64")]
mod missed_ends;
mod missed_resets;
mod names;
mod namespaces;
mod observe;
mod pods;
mod ports;
mod quiet_namespaces;
mod reload;
mod requests;
mod requests_nginx;
mod sequence;
mod sequences;
mod time_wait;
mod top;
mod volume;
