//! The standard `process_*` families, under their standard names.

use std::io::{self, Write};

use procfs::{
    ProcResult,
    process::{LimitValue, Process, Stat},
};
use prometheus::proto::{Metric, MetricType};

use super::family::{self, set_counter, set_gauge};

/// Writes what `/proc` tells about this process; what it does not tell is left out.
pub(super) fn write(out: &mut impl Write) -> io::Result<()> {
    let Ok(process) = Process::myself() else { return Ok(()) };
    if let Ok(stat) = process.stat() {
        write_stat(out, &stat)?;
    }
    if let Ok(count) = process.fd_count() {
        write_gauge(out, "process_open_fds", "Number of open file descriptors.", count as f64)?;
    }
    if let Ok(limit) = open_files_limit(&process) {
        write_gauge(out, "process_max_fds", "Maximum number of open file descriptors.", limit)?;
    }
    Ok(())
}

fn write_stat(out: &mut impl Write, stat: &Stat) -> io::Result<()> {
    let ticks = procfs::ticks_per_second() as f64;
    let mut cpu = Metric::default();
    set_counter(&mut cpu, (stat.utime + stat.stime) as f64 / ticks);
    let help = "Total user and system CPU time spent in seconds.";
    family::write(out, "process_cpu_seconds_total".into(), help, MetricType::COUNTER, vec![cpu])?;
    let resident = stat.rss.saturating_mul(procfs::page_size()) as f64;
    write_gauge(out, "process_resident_memory_bytes", "Resident memory size in bytes.", resident)?;
    write_gauge(out, "process_virtual_memory_bytes", "Virtual memory size in bytes.", stat.vsize as f64)?;
    write_gauge(out, "process_threads", "Number of OS threads in the process.", stat.num_threads as f64)?;
    let Ok(boot) = procfs::boot_time_secs() else { return Ok(()) };
    let started = boot as f64 + stat.starttime as f64 / ticks;
    write_gauge(out, "process_start_time_seconds", "Start time since the Unix epoch in seconds.", started)
}

fn open_files_limit(process: &Process) -> ProcResult<f64> {
    Ok(match process.limits()?.max_open_files.soft_limit {
        LimitValue::Value(limit) => limit as f64,
        LimitValue::Unlimited => f64::INFINITY,
    })
}

fn write_gauge(out: &mut impl Write, name: &str, help: &str, value: f64) -> io::Result<()> {
    let mut sample = Metric::default();
    set_gauge(&mut sample, value);
    family::write(out, name.to_owned(), help, MetricType::GAUGE, vec![sample])
}
