//! The eBPF programs: one file per hook, and what they share.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unstable_features, reason = "inline assembly for BPF is not stable yet; `count` needs it")]
#![expect(unreachable_pub, reason = "programs and maps are found by their symbols, not through Rust paths")]

mod connections;
mod count;
mod incidents;
mod live;
mod maps;
mod missed;
mod pairs;
mod process;
mod receive_reset;
mod requests;
mod send_reset;
mod set_state;
mod socket;
mod walk;
mod walk_tables;

/// The kernel's own licence check: GPL helpers are used.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
