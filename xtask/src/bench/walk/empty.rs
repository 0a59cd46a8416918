//! The least that a walk over the kernel's sockets can cost: an iterator program that returns at once.

use std::{
    ffi::c_void,
    fs::File,
    io::{self, ErrorKind, Read as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya_obj::{
    btf::{Btf, BtfKind},
    generated::{
        bpf_attach_type::BPF_TRACE_ITER, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type::BPF_PROG_TYPE_TRACING,
    },
};

/// The function of the kernel that the iterator's programs stand for.
const TARGET: &str = "bpf_iter_tcp";
/// `mov64 r0, 0` and `exit`.
const MOV64_IMMEDIATE: u8 = 0xb7;
const EXIT: u8 = 0x95;

/// The program, attached.
pub(crate) struct Empty {
    link: OwnedFd,
}

impl Empty {
    /// Loads and attaches it.
    pub(crate) fn load() -> Result<Self> {
        let btf = Btf::from_sys_fs().context("the kernel's types")?;
        let target = btf.id_by_type_name_kind(TARGET, BtfKind::Func).context(TARGET)?;
        let program = load(target).context("loading an empty iterator")?;
        // SAFETY: all zeroes is a valid attribute of every command.
        let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
        attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
        attributes.link_create.attach_type = BPF_TRACE_ITER as u32;
        let link = bpf(bpf_cmd::BPF_LINK_CREATE, &attributes).context("attaching an empty iterator")?;
        Ok(Self { link })
    }

    /// How long one walk in the calling thread's namespace takes.
    pub(crate) fn walk(&self) -> Result<Duration> {
        // SAFETY: all zeroes is a valid attribute of every command.
        let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
        attributes.iter_create.link_fd = self.link.as_raw_fd().cast_unsigned();
        let begun = Instant::now();
        let mut iterator = File::from(bpf(bpf_cmd::BPF_ITER_CREATE, &attributes)?);
        loop {
            match iterator.read(&mut [0; 64]) {
                Ok(0) => return Ok(begun.elapsed()),
                Ok(_) => {}
                // The kernel pauses after a million sockets.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn load(target: u32) -> io::Result<OwnedFd> {
    let instruction = |code| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    };
    let instructions = [instruction(MOV64_IMMEDIATE), instruction(EXIT)];
    // SAFETY: all zeroes is a valid attribute of every command.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the part of the union for this command; zeroed above.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = BPF_PROG_TYPE_TRACING as u32;
    load.expected_attach_type = BPF_TRACE_ITER as u32;
    load.insn_cnt = 2;
    load.insns = instructions.as_ptr() as u64;
    load.license = c"GPL".as_ptr() as u64;
    load.attach_btf_id = target;
    bpf(bpf_cmd::BPF_PROG_LOAD, &attributes)
}

fn bpf(command: bpf_cmd, attributes: &bpf_attr) -> io::Result<OwnedFd> {
    let pointer: *const c_void = std::ptr::from_ref(attributes).cast();
    // SAFETY: the kernel reads as many bytes as it is told; what the attributes point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u32, pointer, size_of::<bpf_attr>()) };
    let descriptor = i32::try_from(result).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
