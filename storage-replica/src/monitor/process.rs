//! What the system says of this process, by the names that Prometheus's own libraries use. Linux alone tells it here.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use crate::exposition::single;

/// Clock ticks a second in `/proc`: Linux shows 100 to programs, whatever the kernel's own rate.
const TICKS: f64 = 100.0;

/// The metrics `process_*`; those that the system does not tell are left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        if let Some(kib) = kib("VmRSS:") {
            single(encoder, "process_resident_memory_bytes", "Memory in use.", ConstGauge::new(kib * 1024))?;
        }
        if let Some(kib) = kib("VmSize:") {
            single(encoder, "process_virtual_memory_bytes", "Addresses in use.", ConstGauge::new(kib * 1024))?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is that of the folder itself.
            let open = open.count().saturating_sub(1) as u64;
            single(encoder, "process_open_fds", "Open files and connections.", ConstGauge::new(open))?;
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        if let Some(limit) = limit.and_then(|limit| limit.parse::<u64>().ok()) {
            let help = "How many files and connections may be open.";
            single(encoder, "process_max_fds", help, ConstGauge::new(limit))?;
        }
        // The name of the program, in brackets, may have blanks.
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<_> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok());
        if let (Some(user), Some(system)) = (ticks(11), ticks(12)) {
            let used = (user + system) / TICKS;
            single(encoder, "process_cpu_seconds", "Processor time used.", ConstCounter::new(used))?;
        }
        let system = fs::read_to_string("/proc/stat").unwrap_or_default();
        let booted = system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        if let (Some(booted), Some(started)) = (booted, ticks(19)) {
            let help = "When the process started, in seconds since 1970.";
            single(encoder, "process_start_time_seconds", help, ConstGauge::new(booted + started / TICKS))?;
        }
        Ok(())
    }
}
