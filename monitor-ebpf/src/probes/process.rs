//! Who is calling: only in the context of connect() and listen().

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_probe_read_kernel_str_bytes,
    generated::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel,
    },
};
use finwatch_ebpf::wire::{COMM_LEN, FEATURE_TYPED_TASK};

use crate::{
    maps::{offset, setting},
    socket::load,
};

/// What newer Node.js calls its main thread, whatever the program.
const GENERIC: &[u8; 11] = b"MainThread\0";

/// The process of the current task.
#[inline(always)]
pub fn pid() -> u32 {
    // SAFETY: no arguments, no side effects.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// The name of the current task's thread group leader; the executable's where that name says nothing.
#[inline(always)]
pub fn name() -> [u8; COMM_LEN] {
    if setting!(features) & FEATURE_TYPED_TASK != 0 {
        // SAFETY: no arguments, no side effects; always a valid task.
        let task: *const c_void = unsafe { bpf_get_current_task_btf() }.cast_const().cast();
        let leader: *const c_void = load(task, offset!(group_leader));
        let comm: [u64; 2] = [load(leader, offset!(comm)), load(leader, offset!(comm) + 8)];
        // SAFETY: the same sixteen bytes.
        telling(unsafe { core::mem::transmute(comm) }, leader as u64)
    } else {
        // SAFETY: no arguments, no side effects.
        let task = unsafe { bpf_get_current_task() };
        let leader: u64 = follow(task, offset!(group_leader));
        telling(read(leader, offset!(comm), [0; COMM_LEN]), leader)
    }
}

/// A name that says something.
#[inline(always)]
fn telling(comm: [u8; COMM_LEN], leader: u64) -> [u8; COMM_LEN] {
    if comm.starts_with(GENERIC) { executable(leader).unwrap_or(comm) } else { comm }
}

#[inline(never)]
fn executable(leader: u64) -> Option<[u8; COMM_LEN]> {
    if offset!(exe_file) == 0 {
        return None;
    }
    let file = follow(follow(leader, offset!(mm)), offset!(exe_file));
    let text = follow(follow(file, offset!(file_dentry)), offset!(dentry_name));
    let mut name = [0; COMM_LEN];
    // SAFETY: the helper checks the address; what lies there is copied up to the buffer's length.
    let length = unsafe { bpf_probe_read_kernel_str_bytes(text as *const u8, &mut name) }.ok()?.len();
    (length > 0).then_some(name)
}

/// The pointer at `base + offset`, 0 when it cannot be read.
#[inline(always)]
pub fn follow(base: u64, offset: u32) -> u64 {
    read(base, offset, 0)
}

/// The value at `base + offset`, `zero` when it cannot be read, as the helper leaves it then. (Not an `Option`: the
/// compiler may leave the value of a `None` unset, which the verifier does not accept.)
#[inline(always)]
pub fn read<T>(base: u64, offset: u32, zero: T) -> T {
    let mut value = zero;
    let size = size_of::<T>() as u32;
    let address = (base + u64::from(offset)) as *const c_void;
    // SAFETY: the helper checks the address and writes as many bytes as the value has; T is integers only.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size, address) };
    value
}
