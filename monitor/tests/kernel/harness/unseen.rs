//! Transitions that nobody can see: those of softirqs that land in the init process. The kernels of some virtual machines
//! run no tracing program there, and count no skipped run either.

use std::{fs, sync::OnceLock};

use super::tracefs::Instance;

static LANDED: OnceLock<Option<Instance>> = OnceLock::new();

/// Looks out for them from now on; must come before the first socket. Without tracefs none are known of.
pub(crate) fn watch() {
    LANDED.get_or_init(|| {
        let instance = Instance::new("unseen")?;
        let threads = fs::read_dir("/proc/1/task").ok()?.flatten();
        let ids: Vec<String> =
            threads.map(|thread| thread.file_name().to_string_lossy().into_owned()).collect();
        // Threads that it starts later, too; what processes it starts is told apart by their numbers.
        instance.set("trace_options", "event-fork")?;
        instance.set("trace_options", "record-tgid")?;
        instance.set("set_event_pid", &ids.join(" "))?;
        instance.set("events/sock/inet_sock_set_state/enable", "1")?;
        Some(instance)
    });
}

/// Those so far, as the kernel traces them.
pub(crate) fn transitions() -> Vec<String> {
    let text = LANDED.get().and_then(|instance| instance.as_ref()?.text()).unwrap_or_default();
    text.lines().filter(|line| is_of_init(line)).map(str::to_owned).collect()
}

/// A line begins with `name-5 (      1) [000]`: a thread, its process, or dashes where that is not known.
fn is_of_init(line: &str) -> bool {
    let process = line.split_once(") [").and_then(|(start, _)| Some(start.rsplit_once('(')?.1.trim()));
    process.is_some_and(|process| process == "1" || process.starts_with('-'))
        && line.contains(" inet_sock_set_state: ")
}
