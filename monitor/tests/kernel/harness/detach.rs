//! Takes programs away from a running daemon: it is made to close its own links, so that the kernel detaches them and what
//! happens from then on is missed, as it is when the kernel skips a program.

use std::{
    collections::HashMap,
    env, fs,
    process::{Command, Stdio},
};

use finwatch::kernel::{
    btf::Btf,
    hooks::{HOOKS, preemptible},
    loader::BTF_PATH,
};
use nix::{
    sys::{ptrace, wait::waitpid},
    unistd::Pid,
};

use super::until;

const HELPER_TARGET: &str = "FINWATCH_HELPER_TARGET";
const HELPER_LINK: &str = "FINWATCH_HELPER_LINK";

/// Whether this kernel lets other tasks run in the midst of programs.
pub(crate) fn is_preemptible() -> bool {
    let types = fs::read(BTF_PATH).expect("the kernel's types");
    preemptible(&Btf::parse(&types).expect("types"))
}

/// The programs on a hook on this kernel, in the order in which they run.
pub(crate) fn programs_on(hook: &str) -> Vec<&'static str> {
    let hook = HOOKS.iter().find(|one| one.name == hook).expect("there is one");
    hook.programs(is_preemptible()).collect()
}

/// Those that look at transitions.
pub(crate) fn on_transitions() -> Vec<&'static str> {
    programs_on("inet_sock_set_state")
}

/// Detaches these programs of the daemon `pid`.
pub(crate) fn detach(pid: Pid, programs: &[&str]) {
    let names: HashMap<u32, String> = aya::programs::loaded_programs()
        .flatten()
        .filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())))
        .collect();
    let wanted = |id: u32| names.get(&id).is_some_and(|name| programs.contains(&name.as_str()));
    let links: Vec<u32> =
        links(pid).into_iter().filter(|(_, program)| wanted(*program)).map(|(link, _)| link).collect();
    assert_eq!(links.len(), programs.len(), "a link each: {links:?}");
    for link in &links {
        // A process of its own: the daemon's parent would take its stops for its end.
        let status = Command::new("/proc/self/exe")
            .args(["--exact", "harness::detach::helper", "--test-threads", "1"])
            .env(HELPER_TARGET, pid.to_string())
            .env(HELPER_LINK, link.to_string())
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("the test binary starts again").success(), "link {link} is closed");
    }
    until("the links are gone", || {
        (!self::links(pid).iter().any(|(_, program)| wanted(*program))).then_some(())
    });
}

/// The links that a process has open: descriptor and program.
fn links(pid: Pid) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs").flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let program = text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
        let descriptor = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (true, Some(program), Some(descriptor)) = (text.contains("link_type:"), program, descriptor) {
            found.push((descriptor, program));
        }
    }
    found
}

/// Not a test: what [`detach`] runs in another process.
#[test]
fn helper() {
    let Ok(target) = env::var(HELPER_TARGET) else { return };
    let link = env::var(HELPER_LINK).expect("set together").parse().expect("a descriptor");
    close_in(Pid::from_raw(target.parse().expect("a process")), link);
}

/// Stops a process, has it call close() where it stands, and lets it go on as if nothing had been.
fn close_in(target: Pid, descriptor: u64) {
    /// `syscall`.
    const SYSCALL: i64 = 0x050f;
    ptrace::attach(target).expect("a process that may be traced");
    waitpid(target, None).expect("it stops");
    let registers = ptrace::getregs(target).expect("it has stopped");
    let here = registers.rip as ptrace::AddressType;
    let code = ptrace::read(target, here).expect("its code");
    ptrace::write(target, here, code & !0xffff | SYSCALL).expect("its code");
    let mut call = registers;
    call.rax = libc::SYS_close.cast_unsigned();
    call.rdi = descriptor;
    // What it was doing in the kernel is not begun anew yet.
    call.orig_rax = u64::MAX;
    ptrace::setregs(target, call).expect("it has stopped");
    ptrace::step(target, None).expect("one instruction");
    waitpid(target, None).expect("it stops again");
    let result = ptrace::getregs(target).expect("it has stopped").rax;
    ptrace::write(target, here, code).expect("its code");
    ptrace::setregs(target, registers).expect("it has stopped");
    ptrace::detach(target, None).expect("it has stopped");
    assert_eq!(result, 0, "close() succeeds");
}
