//! What the servers of a soak use of memory, files and threads: a leak shows in a long run.

use std::{fmt, fs};

use storage_testkit::nemesis::Victims;

/// What the servers use, the most of any one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Open files and sockets.
    pub files: usize,
    /// Threads.
    pub threads: usize,
}

impl Usage {
    /// Of the servers that run now. Linux only: it reads `/proc`.
    #[must_use]
    pub fn of(victims: &Victims) -> Self {
        let each = victims.processes().into_iter().map(|(_, pid)| Self::of_process(pid));
        each.fold(Self::default(), |most, one| Self {
            memory: most.memory.max(one.memory),
            files: most.files.max(one.files),
            threads: most.threads.max(one.threads),
        })
    }

    /// Of one process; zeros if it is gone.
    fn of_process(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        Self {
            memory: resident.and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) * 1024,
            files: count("fd"),
            threads: count("task"),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB, {} files, {} threads", self.memory >> 20, self.files, self.threads)
    }
}
