//! Programs that return at once: the least that any program on a hook can cost.

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
        bpf_attach_type::{self, BPF_TRACE_ITER, BPF_TRACE_RAW_TP},
        bpf_attr, bpf_cmd, bpf_insn,
        bpf_prog_type::BPF_PROG_TYPE_TRACING,
    },
};

/// The function of the kernel that the iterator's programs stand for.
const ITERATOR: &str = "bpf_iter_tcp";
/// The tracepoints that finwatch has programs on, as often as it has.
const TRACEPOINTS: [&str; 4] =
    ["tcp_receive_reset", "tcp_send_reset", "inet_sock_set_state", "inet_sock_set_state"];
/// `mov64 r0, 0` and `exit`.
const MOV64_IMMEDIATE: u8 = 0xb7;
const EXIT: u8 = 0x95;

/// Programs on the tracepoints, attached.
pub(crate) struct Tracepoints {
    // Named for its drop: detaches them.
    _links: Vec<OwnedFd>,
}

impl Tracepoints {
    /// Loads and attaches them.
    pub(crate) fn attach() -> Result<Self> {
        let btf = kernel_types()?;
        let links = TRACEPOINTS.iter().map(|name| {
            let target = btf.id_by_type_name_kind(&format!("btf_trace_{name}"), BtfKind::Typedef);
            let program =
                load(target.context(*name)?, BPF_TRACE_RAW_TP).context("loading an empty program")?;
            let mut attributes = nothing();
            attributes.raw_tracepoint.prog_fd = program.as_raw_fd().cast_unsigned();
            bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &attributes)
                .with_context(|| format!("attaching an empty program to {name}"))
        });
        Ok(Self { _links: links.collect::<Result<_>>()? })
    }
}

/// The iterator, attached.
pub(crate) struct Iterator {
    link: OwnedFd,
}

impl Iterator {
    /// Loads and attaches it.
    pub(crate) fn attach() -> Result<Self> {
        let target = kernel_types()?.id_by_type_name_kind(ITERATOR, BtfKind::Func).context(ITERATOR)?;
        let program = load(target, BPF_TRACE_ITER).context("loading an empty iterator")?;
        let mut attributes = nothing();
        attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
        attributes.link_create.attach_type = BPF_TRACE_ITER as u32;
        let link = bpf(bpf_cmd::BPF_LINK_CREATE, &attributes).context("attaching an empty iterator")?;
        Ok(Self { link })
    }

    /// How long one walk in the calling thread's namespace takes.
    pub(crate) fn walk(&self) -> Result<Duration> {
        let mut attributes = nothing();
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

fn kernel_types() -> Result<Btf> {
    Btf::from_sys_fs().context("the kernel's types")
}

fn load(target: u32, attach_type: bpf_attach_type) -> io::Result<OwnedFd> {
    let instruction = |code| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    };
    let instructions = [instruction(MOV64_IMMEDIATE), instruction(EXIT)];
    let mut attributes = nothing();
    // SAFETY: the part of the union for this command; zeroed.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = BPF_PROG_TYPE_TRACING as u32;
    load.expected_attach_type = attach_type as u32;
    load.insn_cnt = 2;
    load.insns = instructions.as_ptr() as u64;
    load.license = c"GPL".as_ptr() as u64;
    load.attach_btf_id = target;
    bpf(bpf_cmd::BPF_PROG_LOAD, &attributes)
}

/// Attributes of no command yet.
fn nothing() -> bpf_attr {
    // SAFETY: all zeroes is a valid attribute of every command.
    unsafe { std::mem::zeroed() }
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
