//! Has the kernel verify the programs, all at once, and attaches them in the table's order.

use std::{collections::HashMap, thread};

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, Iter, Program, ProgramError},
};

use super::{
    error::KernelError,
    hooks::{Hook, HookKind, ITERATOR_PREFIX},
};
use crate::model::source::HookMode;

/// A hook and what became of it.
#[derive(Debug)]
pub struct Attached {
    /// The hook.
    pub hook: &'static Hook,
    /// How much of it is there.
    pub mode: HookMode,
    /// Why it is not all there.
    pub error: Option<KernelError>,
}

impl Attached {
    /// What is not seen, and why; empty where everything is.
    pub fn lacking(&self) -> String {
        let lacking = match self.mode {
            HookMode::Full => return String::new(),
            HookMode::Partial => self.hook.partial,
            HookMode::Off => self.hook.without,
        };
        match &self.error {
            Some(error) => format!("{lacking} ({error})"),
            None => lacking.to_owned(),
        }
    }
}

/// Attaches what this kernel offers, in the table's order; `preemptible` is what [`super::hooks::preemptible`] says of it.
///
/// # Errors
/// When a required hook cannot be attached.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    hooks: Vec<(&'static Hook, HookMode)>,
    preemptible: bool,
) -> Result<Vec<Attached>, KernelError> {
    let offered = hooks.iter().filter(|(_, mode)| *mode != HookMode::Off);
    let programs = offered.flat_map(|(hook, _)| hook.programs(preemptible).map(|name| (name, *hook)));
    let mut refused = verify(ebpf, btf, &programs.collect());
    let mut attached = Vec::new();
    for (hook, offered) in hooks {
        let result = if offered == HookMode::Off {
            Err(KernelError::MissingHook(hook.name))
        } else {
            attach_one(ebpf, hook, preemptible, &mut refused)
        };
        attached.push(match result {
            Ok(()) => Attached { hook, mode: offered, error: None },
            Err(error) if hook.required => return Err(error),
            Err(error) => Attached { hook, mode: HookMode::Off, error: Some(error) },
        });
    }
    Ok(attached)
}

/// Verifying is most of what starting takes, and each program's is its own: a thread for each. Returns those that the
/// kernel refuses.
fn verify(
    ebpf: &mut Ebpf,
    btf: &Btf,
    wanted: &HashMap<&'static str, &'static Hook>,
) -> HashMap<&'static str, ProgramError> {
    thread::scope(|scope| {
        let programs = ebpf.programs_mut().filter_map(|(name, program)| {
            wanted.get_key_value(name).map(|(name, hook)| (*name, *hook, program))
        });
        let threads: Vec<_> = programs
            .map(|(name, hook, program)| (name, scope.spawn(move || load(program, hook, btf))))
            .collect();
        let ended = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().filter_map(|(name, thread)| Some((name, ended(thread).err()?))).collect()
    })
}

fn load(program: &mut Program, hook: &Hook, btf: &Btf) -> Result<(), ProgramError> {
    match hook.kind {
        HookKind::Tracepoint(_) => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(hook.name, btf)
        }
        HookKind::Iterator => {
            let program: &mut Iter = program.try_into()?;
            program.load(hook.name.trim_start_matches(ITERATOR_PREFIX), btf)
        }
    }
}

fn attach_one(
    ebpf: &mut Ebpf,
    hook: &'static Hook,
    preemptible: bool,
    refused: &mut HashMap<&'static str, ProgramError>,
) -> Result<(), KernelError> {
    let failed = |error| KernelError::Attach { hook: hook.name, error };
    for name in hook.programs(preemptible) {
        if let Some(error) = refused.remove(name) {
            return Err(failed(error));
        }
        let program = ebpf.program_mut(name).ok_or(KernelError::Foreign(name))?;
        match hook.kind {
            HookKind::Tracepoint(_) => {
                let program: &mut BtfTracePoint = program.try_into().map_err(failed)?;
                program.attach().map_err(failed)?;
            }
            // It is attached anew in every namespace (see `walker`).
            HookKind::Iterator => {}
        }
    }
    Ok(())
}
