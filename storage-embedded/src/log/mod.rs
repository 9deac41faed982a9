//! The log of a replica: append-only segments with checksums, group commit, and nothing acknowledged before it is durable.
//!
//! - `record`: the format; `segment`: one file; `recovery`: what is found in a directory.
//! - `queue`, `writer`, `directory`: how records get to the disk.
//! - `data_dir`: whose a directory is, and that only one node uses it.
//! - `index`: what is in memory; `plan`: what is read of it. `store`: the log itself. `raft`: the log as openraft sees it. `stopped`: that of a node
//!   which does not run.
//!
//! # What it withstands, and what not
//! A loss of power at any moment, writes torn at any byte, names lost that were not synced, a disk that fails or is full.
//! Damage to anything that was durable is reported as [`LogError::Corrupt`], except damage to nothing but the very last batch when
//! the node died within [`LogOptions::idle_mark`] of writing it, to the header of a segment together with all of its batches,
//! and the loss of the newest file: these look like a write that was cut short.

mod data_dir;
mod directory;
mod error;
mod index;
mod metrics;
mod plan;
mod queue;
mod raft;
mod record;
mod recovery;
mod segment;
#[cfg(simulated)]
mod simulated;
mod stopped;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::time::Duration;

pub(crate) use data_dir::DataDir;
pub(crate) use error::LogError;
pub use metrics::{LogMetrics, SYNC_BUCKETS};
#[cfg(simulated)]
pub(crate) use simulated::hash;
pub(crate) use stopped::StoppedLog;
pub(crate) use store::Log;

/// How a log is kept.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    /// The length of a segment in bytes. A larger batch gets a segment of its own size. 16 MiB.
    pub(crate) segment_bytes: u64,
    /// How many bytes of the latest entries are kept in memory. Entries that are not yet on disk are kept beyond it. 64 MiB.
    pub(crate) cache_bytes: usize,
    /// Whether threads of the log write in the background, prepare segments, and set marks. Without, everything happens
    /// in the calls, and the same calls do the same on every run. True.
    pub(crate) background: bool,
    /// After how long without a write the log sets a mark, which makes damage to the last batch detectable. 1 s.
    pub(crate) idle_mark: Duration,
    /// The seed of the segments' nonces: none, for every purpose except a simulation.
    pub(crate) seed: Option<u64>,
    /// The machine, for a simulation: then a task writes in the background.
    #[cfg(simulated)]
    pub(crate) machine: Option<crate::host::Machine>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            cache_bytes: 64 << 20,
            background: true,
            idle_mark: Duration::from_secs(1),
            seed: None,
            #[cfg(simulated)]
            machine: None,
        }
    }
}
