//! The daemon that all sequences share, and looks at all that it shows: one look serves every test that waits for one.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use finwatch::model::incident::IncidentRecord;

use super::{
    daemon::{self, Daemon},
    trace,
};

/// The one that all sequences share.
pub(crate) fn shared() -> &'static Daemon {
    static SHARED: OnceLock<Daemon> = OnceLock::new();
    SHARED.get_or_init(|| {
        let daemon = Daemon::start(&["--incidents-per-second", "1000000"]);
        remove_in_the_end(daemon.directory.path());
        daemon
    })
}

/// Removes the directory when this process has ended: nothing static is dropped, so another process waits for that.
fn remove_in_the_end(directory: &Path) {
    let mut command = Command::new("sh");
    command.args(["-c", "tail --pid=\"$1\" --follow /dev/null; exec rm -r \"$0\""]);
    command.arg(directory).arg(std::process::id().to_string());
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Nobody waits for it: it outlives this process.
    drop(quiet.spawn().expect("a shell starts"));
}

/// What the shared daemon shows, and what the kernel's trace says.
pub(crate) struct Look {
    began: Instant,
    text: String,
    /// Where the lines of each upstream are in the text.
    by_upstream: BTreeMap<String, Vec<Range<usize>>>,
    incidents: String,
    trace: Option<String>,
}

impl Look {
    /// One that began after this call did.
    pub(crate) fn fresh() -> Arc<Self> {
        static LAST: Mutex<Option<Arc<Look>>> = Mutex::new(None);
        let asked = Instant::now();
        // Whoever waits here is served by the next look.
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(look) if look.began >= asked => Arc::clone(look),
            _ => Arc::clone(last.insert(Arc::new(Self::new()))),
        }
    }

    fn new() -> Self {
        let began = Instant::now();
        let text = shared().text();
        let by_upstream = by_upstream(&text);
        Self { began, text, by_upstream, incidents: shared().incident_lines(), trace: trace::text() }
    }

    /// Every upstream that shows.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &str> {
        self.by_upstream.keys().map(String::as_str)
    }

    /// The exposition's lines of one upstream.
    pub(crate) fn lines(&self, upstream: &str) -> Vec<&str> {
        let lines = self.by_upstream.get(upstream).into_iter().flatten();
        lines.map(|line| &self.text[line.clone()]).collect()
    }

    /// The incidents of one upstream.
    pub(crate) fn incidents(&self, upstream: &str) -> Vec<IncidentRecord> {
        daemon::records(self.incidents.lines().filter(|line| line.contains(upstream)))
    }

    /// The kernel's own account; `None` where there is none.
    pub(crate) fn trace(&self) -> Option<&str> {
        self.trace.as_deref()
    }
}

fn by_upstream(text: &str) -> BTreeMap<String, Vec<Range<usize>>> {
    const LABEL: &str = "upstream=\"";
    let mut found: BTreeMap<String, Vec<Range<usize>>> = BTreeMap::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let range = start..start + line.trim_end().len();
        start += line.len();
        let Some(at) = line.find(LABEL).map(|at| at + LABEL.len()) else { continue };
        let upstream = line[at..].split('"').next().unwrap_or_default();
        match found.get_mut(upstream) {
            Some(lines) => lines.push(range),
            None => drop(found.insert(upstream.to_owned(), vec![range])),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_upstream() {
        let text =
            "# HELP a b\na{upstream=\"x:1\"} 1\nb 2\nc{upstream=\"y:1\",l=\"2\"} 3\nd{upstream=\"x:1\"} 4";
        let found = by_upstream(text);
        let of = |upstream: &str| found[upstream].iter().map(|line| &text[line.clone()]).collect::<Vec<_>>();
        assert_eq!(of("x:1"), ["a{upstream=\"x:1\"} 1", "d{upstream=\"x:1\"} 4"]);
        assert_eq!(of("y:1"), ["c{upstream=\"y:1\",l=\"2\"} 3"]);
        assert_eq!(found.len(), 2);
    }
}
