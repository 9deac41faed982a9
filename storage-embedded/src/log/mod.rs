//! The log of a replica: append-only segments with checksums, group commit, and nothing acknowledged before it is durable.
//!
//! - `record`: the format; `segment`: one file; `recovery`: what is found in a directory.
//! - `queue`, `writer`, `directory`: how records get to the disk.
//! - `data_dir`: whose a directory is, and that only one node uses it.
//! - `index`: what is in memory; `plan`: what is read of it. `store`: the log itself. `raft`: the log as openraft sees it. `stopped`: that of a node
//!   which does not run.
//!
//! # Invariants
//! - Whoever is told that a record is durable can rely on it: it was written and synced, and the sync did not fail.
//! - A batch is begun when the one before it is durable.
//! - After a failure nothing more is written, ever. A node that goes on is a new one that has read the directory anew.
//! - A segment for which there is no descriptor or no space is no failure: nothing depends on it yet. What is to be written waits, in order.
//!
//! # What it withstands, and what not
//! A loss of power at any moment, writes torn at any byte, names lost that were not synced, a disk that fails or is full.
//! Damage to anything that was durable is reported as [`LogError::Corrupt`], except damage to nothing but the very last batch when
//! the node died within [`LogOptions::confirm_after`] of writing it: that looks like a write that was cut short. The data directory remembers the newest
//! segment, so its loss is reported as [`LogError::Missing`].

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
mod stopped;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use std::time::Duration;

pub(crate) use data_dir::{DataDir, IdentityFile, LOCK, Phase};
pub(crate) use error::LogError;
pub use metrics::{LogMetrics, SYNC_BUCKETS};
pub(crate) use record::MAX_ENTRY_BYTES;
pub(crate) use stopped::StoppedLog;
pub(crate) use store::Log;
#[cfg(simulated)]
pub(crate) use store::hash;

/// How a log is kept.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    /// The length of a segment in bytes. A larger batch gets a segment of its own size. 16 MiB.
    pub(crate) segment_bytes: u64,
    /// How many bytes of the latest entries are kept in memory. Entries that are not yet on disk are kept beyond it. 64 MiB.
    pub(crate) cache_bytes: usize,
    /// Whether threads of the log write in the background, prepare segments, and write confirmations. Without, everything happens
    /// in the calls, and the same calls do the same on every run. True.
    pub(crate) background: bool,
    /// After how long without a write the log confirms itself, which makes damage to the last batch detectable. 1 s.
    pub(crate) confirm_after: Duration,
    /// The seed of the segments' nonces: none, for every purpose except a simulation.
    pub(crate) seed: Option<u64>,
    /// The machine, for a simulation: then a task writes in the background.
    #[cfg(simulated)]
    pub(crate) machine: Option<crate::simulated::Machine>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            cache_bytes: 64 << 20,
            background: true,
            confirm_after: Duration::from_secs(1),
            seed: None,
            #[cfg(simulated)]
            machine: None,
        }
    }
}
