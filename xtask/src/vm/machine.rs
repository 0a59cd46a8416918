//! A virtual machine: QEMU emulates the processor, so it runs wherever QEMU does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::report::Report;
use crate::{host, process::Running};

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// Without what guards a real processor, or memory, against others: emulated, it takes a third of the time. What follows the
/// dashes is the first process's.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 panic=-1 quiet mitigations=off init_on_alloc=0 tsc=reliable clearcpuid=112 -- guest";
const MEMORY_MIB: &str = "2048";
/// Without cx16: QEMU 7.2 emulates that instruction wrongly now and then. Without erms: the kernel would copy and clear by an
/// instruction that QEMU carries out byte for byte.
const PROCESSOR: &str = "max,cx16=off,erms=off";
/// How many lines of the kernel's are shown where a guest says nothing.
const CONSOLE_LINES: usize = 20;

/// Two network cards on one wire.
fn cards() -> impl Iterator<Item = String> {
    ["a", "b"].into_iter().flat_map(|card| {
        let device = format!("virtio-net-pci,netdev={card},romfile=");
        ["-netdev".to_owned(), format!("hubport,id={card},hubid=0"), "-device".to_owned(), device]
    })
}

/// How many processors of four that are possible, and by which clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processors {
    /// The clock follows the instructions that were carried out, a thousand million a second, and skips whatever time nothing
    /// is to be done in: waiting costs nothing, and a busy host makes nothing late.
    One,
    /// By the host's clock, with two network cards: with the other clock QEMU 7.2 lets a busy processor starve the next.
    Two,
}

impl Processors {
    /// Also the name of their machine's directory.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::One => "one-processor",
            Self::Two => "two-processors",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::One => &[
                "-smp",
                "1,maxcpus=4",
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=0,sleep=off",
                "-rtc",
                "clock=vm",
            ],
            Self::Two => &["-smp", "2,maxcpus=4", "-accel", "tcg,thread=multi"],
        }
    }
}

/// Where a machine writes.
pub(super) struct Machine {
    directory: PathBuf,
}

impl Machine {
    /// A machine with a directory for what it writes.
    pub(super) fn new(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// Where its file system is to be written.
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("image")
    }

    /// What its kernel has written.
    pub(super) fn console(&self) -> PathBuf {
        self.directory.join("console")
    }

    /// What its guest has told.
    pub(super) fn results(&self) -> PathBuf {
        self.directory.join("results")
    }

    /// Boots it and waits until it is off.
    pub(super) fn run(&self, kernel: &Path, processors: Processors, limit: Duration) -> Result<Report> {
        for file in [self.console(), self.results()] {
            fs::write(&file, "").with_context(|| format!("writing {}", file.display()))?;
        }
        let mut qemu = host::command(QEMU);
        qemu.args(processors.arguments())
            .args(["-cpu", PROCESSOR, "-M", "q35", "-m", MEMORY_MIB])
            .args(cards().filter(|_| processors == Processors::Two))
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-append"])
            .arg(KERNEL_ARGUMENTS)
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(self.image())
            .args(["-serial", &format!("file:{}", self.console().display())])
            .args(["-serial", &format!("file:{}", self.results().display())])
            .stdout(Stdio::null());
        Running::spawn(QEMU, &mut qemu)?.wait(limit)?;
        let text = fs::read(self.results()).context("reading what the guest told")?;
        Ok(Report::read(&String::from_utf8_lossy(&text)))
    }

    /// The last that the kernel has said.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read(self.console()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
    }
}
