//! Why the kernel's side could not be brought up, in one sentence each with its remedy.

use std::io;

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use finwatch_ebpf::offsets::Field;

use super::{btf::BtfError, loader::BTF_PATH, rights};

/// Why the kernel's side could not be brought up; each sentence has its remedy.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process may not load eBPF.
    #[error("{0}")]
    Rights(String),
    /// Fewer files may be open than it takes.
    #[error(
        "no more than {0} files may be open, and finwatch needs {needed}; raise the limit (LimitNOFILE= of its unit, or \
         `ulimit -n {needed}`)",
        needed = rights::OPEN_FILES
    )]
    OpenFiles(u64),
    /// The kernel publishes no types.
    #[error(
        "cannot read {BTF_PATH}: {0}; finwatch needs a kernel from 5.10 on built with CONFIG_DEBUG_INFO_BTF=y (the \
         distributions' kernels are)"
    )]
    NoBtf(io::Error),
    /// The types cannot be read.
    #[error("cannot understand {BTF_PATH}: {0}; please report this with the kernel's version")]
    Btf(#[from] BtfError),
    /// The types cannot be read by aya.
    #[error("cannot understand {BTF_PATH}: {0}; please report this with the kernel's version")]
    AyaBtf(#[from] aya::BtfError),
    /// A field that the programs read does not exist.
    #[error("this kernel has no {}; please report this with the kernel's version", list(.0))]
    MissingFields(Vec<&'static Field>),
    /// A tracepoint without which nothing works does not exist.
    #[error("this kernel has no tracepoint {0}: finwatch needs a kernel from 5.10 on")]
    MissingHook(&'static str),
    /// The object could not be loaded.
    #[error("cannot load the eBPF programs: {}; `finwatch check` shows what this kernel lacks", chain(.0))]
    Load(#[from] EbpfError),
    /// A program could not be loaded or attached.
    #[error("cannot attach to {hook}: {}; `finwatch check` shows what this kernel lacks", chain(.error))]
    Attach {
        /// The tracepoint.
        hook: &'static str,
        /// What the kernel said.
        error: ProgramError,
    },
    /// A map could not be filled.
    #[error("cannot prepare the eBPF maps: {}", chain(.0))]
    Map(#[from] MapError),
    /// A map could not be mapped into memory.
    #[error("cannot map the records into memory: {0}; is memory short?")]
    Mapping(io::Error),
    /// The walk over the sockets cannot be set up.
    #[error("cannot walk over the kernel's sockets: {0}; `finwatch check` shows what this kernel lacks")]
    Walk(io::Error),
    /// The sockets cannot be listed either.
    #[error("cannot list the kernel's sockets by netlink: {0}; is the module tcp_diag missing?")]
    List(io::Error),
    /// The object and the agent were not built together.
    #[error("the eBPF object has no {0}: it does not belong to this agent; rebuild finwatch")]
    Foreign(&'static str),
}

/// Causes are part of the sentence: the outermost message alone says too little. Of the verifier's log, only the line
/// that says what it refused.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    let Some((message, log)) = text.split_once("Verifier output:") else { return one_line(&text) };
    let refused = log.lines().rev().map(str::trim).find(|line| !line.is_empty() && !is_statistics(line));
    format!("{} The verifier says: {}", one_line(message), refused.unwrap_or("nothing"))
}

/// The verifier ends its log with figures about itself.
fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time", "stack depth"].iter().any(|start| line.starts_with(start))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn list(fields: &[&Field]) -> String {
    let names: Vec<String> =
        fields.iter().map(|field| format!("{}.{}", field.kernel_type, field.path)).collect();
    names.join(", ")
}
