//! Who is calling: only in the context of connect() and listen().

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_probe_read_kernel_str_bytes,
    generated::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel,
    },
};
use finwatch_ebpf::{
    comm::trimmed,
    wire::{COMM_LEN, FEATURE_TYPED_TASK},
};

use crate::{
    maps::{offset, setting},
    socket::load,
};

/// What newer Node.js calls its main thread, whatever the program: a name that says nothing, in words.
const GENERIC: [u64; 2] = [u64::from_le_bytes(*b"MainThre"), u64::from_le_bytes(*b"ad\0\0\0\0\0\0")];

/// The process of the current task.
#[inline(always)]
pub fn pid() -> u32 {
    // SAFETY: no arguments, no side effects.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// The name of the current task's thread group leader; the executable's where that name says nothing. In words, as bytes
/// would be copied one by one.
#[inline(always)]
pub fn name() -> [u64; 2] {
    if setting!(features) & FEATURE_TYPED_TASK != 0 {
        // SAFETY: no arguments, no side effects; always a valid task.
        let task: *const c_void = unsafe { bpf_get_current_task_btf() }.cast_const().cast();
        let leader: *const c_void = load(task, offset!(group_leader));
        telling([load(leader, offset!(comm)), load(leader, offset!(comm) + 8)], leader as u64)
    } else {
        // SAFETY: no arguments, no side effects.
        let task = unsafe { bpf_get_current_task() };
        let leader: u64 = follow(task, offset!(group_leader));
        telling(read(leader, offset!(comm), [0; 2]), leader)
    }
}

/// A name that says something.
#[inline(always)]
fn telling(comm: [u64; 2], leader: u64) -> [u64; 2] {
    let comm = trimmed(comm);
    if comm == GENERIC { executable(comm, leader) } else { comm }
}

/// The name of the executable, or `comm` where that cannot be told.
#[inline(always)]
fn executable(comm: [u64; 2], leader: u64) -> [u64; 2] {
    let mut name = [0; 2];
    if read_executable(&mut name, leader) == 0 { comm } else { name }
}

/// Reads the name of the executable and returns its length, 0 where it cannot be told.
#[inline(never)]
fn read_executable(name: &mut [u64; 2], leader: u64) -> u64 {
    if offset!(exe_file) == 0 {
        return 0;
    }
    let file = follow(follow(leader, offset!(mm)), offset!(exe_file));
    let text = follow(follow(file, offset!(file_dentry)), offset!(dentry_name));
    // SAFETY: the same sixteen bytes.
    let bytes = unsafe { &mut *(&raw mut *name).cast::<[u8; COMM_LEN]>() };
    // SAFETY: the helper checks the address; what lies there is copied up to the buffer's length.
    match unsafe { bpf_probe_read_kernel_str_bytes(text as *const u8, bytes) } {
        Ok(text) => text.len() as u64,
        Err(_) => 0,
    }
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
