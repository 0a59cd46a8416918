//! What it costs when every processor counts in the same pair, and what the maps take on hosts with many processors.

use std::{path::Path, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use super::{
    figure::{Figure, cell, mebibytes, table},
    network::{self, DESTINATIONS, Gate},
    programs::Spent,
    tables,
};
use crate::daemon::Daemon;

const ROUNDS: u32 = 5;
/// Hosts whose maps are reckoned.
const PROCESSORS: [u64; 3] = [2, 64, 256];

/// BPF time per state change.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Contention {
    processors: usize,
    /// One processor alone.
    alone: Option<Figure>,
    /// Each processor with a pair of its own, all at once.
    own: Option<Figure>,
    /// All at once in one pair.
    same: Option<Figure>,
    /// What all maps take with so many processors.
    table_bytes: Vec<(u64, u64)>,
}

/// Measures with so many connections of each processor at a time.
pub(crate) fn measure(binary: &Path, connections: u32) -> Result<Contention> {
    let processors = processors()?;
    network::alone(|| {
        let daemon = Daemon::private_with(binary, &["--netns", "host"])?;
        let spent = |sharers: &[usize], gates: usize| -> Result<f64> {
            let gates = (0..gates).map(|_| Gate::open()).collect::<Result<Vec<_>>>()?;
            let ((), spent) = Spent::during(daemon.pid(), || together(sharers, &gates, connections))?;
            Ok(spent.nanoseconds_per_state_change())
        };
        let (mut alone, mut own, mut same) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.push(spent(&processors[..1], 1)?);
            own.push(spent(&processors, processors.len())?);
            same.push(spent(&processors, 1)?);
        }
        let tables = tables::held(daemon.pid())?;
        let possible = possible_processors()?;
        let reckoned = |processors| (processors, tables::bytes_with(&tables, possible, processors));
        Ok(Contention {
            processors: processors.len(),
            alone: Figure::of(alone),
            own: Figure::of(own),
            same: Figure::of(same),
            table_bytes: PROCESSORS.map(reckoned).to_vec(),
        })
    })
}

/// Each processor opens and closes connections at its gate; where there is one, at that.
fn together(processors: &[usize], gates: &[Gate], connections: u32) -> Result<()> {
    thread::scope(|scope| {
        let threads = processors.iter().zip(gates.iter().cycle()).map(|(&processor, gate)| {
            scope.spawn(move || {
                let mut set = CpuSet::new();
                set.set(processor);
                sched_setaffinity(None, &set).context("staying on a processor")?;
                gate.churn(connections, DESTINATIONS.min(connections))
            })
        });
        let threads: Vec<_> = threads.collect();
        for thread in threads {
            thread.join().map_err(|_panic| anyhow!("a thread of a processor has ended"))??;
        }
        Ok(())
    })
}

/// Those that this process may run on.
fn processors() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("the processors there are")?;
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor)).collect();
    ensure!(!processors.is_empty(), "no processor to run on");
    Ok(processors)
}

/// Those that the kernel has per-CPU memory for.
fn possible_processors() -> Result<u64> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").context("possible processors")?;
    last_of(&text).map(|last| last + 1).with_context(|| format!("no processors in {text}"))
}

/// The last number of a list such as `0-3,8-11`.
fn last_of(list: &str) -> Option<u64> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

impl Contention {
    /// Fails where a figure is missing.
    pub(crate) fn complete(&self) -> Result<()> {
        let figures = [self.alone, self.own, self.same];
        let all = figures.iter().all(|figure| figure.is_some_and(|figure| figure.min > 0.0));
        ensure!(all, "contention was not measured: {self:?}");
        Ok(())
    }

    /// Markdown tables.
    pub(crate) fn tables(&self) -> String {
        let row = |what: String, figure| vec![what, cell(figure, 1.0, 0)];
        let times = table(
            &["", "BPF ns per state change"],
            [
                row("one processor alone".to_owned(), self.alone),
                row(format!("{} at once, each in its own pair", self.processors), self.own),
                row(format!("{} at once in the same pair", self.processors), self.same),
            ],
        );
        let memory =
            |(processors, bytes): &(u64, u64)| vec![processors.to_string(), mebibytes(*bytes as f64)];
        let memories = table(
            &["processors", "all maps, MiB, with the default options"],
            self.table_bytes.iter().map(memory),
        );
        format!("{times}\n{memories}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(last_of("0-3,8-11\n"), Some(11));
        assert_eq!(last_of("0\n"), Some(0));
        assert_eq!(last_of("\n"), None);
    }
}
