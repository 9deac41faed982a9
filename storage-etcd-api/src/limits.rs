//! Which etcd this is, to those who ask, and what it takes of a request.

use std::time::Duration;

/// The release of etcd whose API this is, as answered to whoever asks for the version: clients of 3.7 refuse what is older than 3.6.
pub const ETCD_VERSION: &str = "3.6.16";

/// The version that the members of a cluster have in common: of what came with 3.6, only what clients see is here.
pub(crate) const CLUSTER_VERSION: &str = "3.5.0";

/// The longest request, in bytes (1.5 MiB): etcd's default.
pub const MAX_REQUEST_BYTES: usize = 1536 << 10;

/// The most comparisons, and the most operations of a branch, of a transaction with those within it: etcd's default.
pub const MAX_TXN_OPS: usize = 128;

/// How many streams of HTTP/2 a connection may have, which are calls under way and streams of watches and leases: a client waits with one more. Each
/// takes some KiB, and clients that multiplex over one connection seldom have a hundred.
pub(crate) const STREAMS_OF_A_CONNECTION: u32 = 1000;

/// How many streams of watches a node serves: each has a task, which looks at the history whenever something was applied.
pub(crate) const WATCH_STREAMS: usize = 16_384;

/// How many watches a connection may have, and all of a node together: each takes some hundred bytes, and a look at each change.
pub(crate) const WATCHES_OF_A_CONNECTION: usize = 65_536;
pub(crate) const WATCHES: usize = 262_144;

/// How many snapshots a node sends to clients at a time: each reads the disk that the log is on, on a thread of its own.
pub(crate) const SNAPSHOTS: usize = 4;

/// How long the download of a snapshot may take: a minute, and a second for each MiB. A client that is slower keeps the file of a snapshot on the disk.
pub(crate) const SNAPSHOT_WITHIN: Duration = Duration::from_secs(60);
pub(crate) const SNAPSHOT_BYTES_A_SECOND: u64 = 1 << 20;

/// How long a request may take: etcd's, with its default timing.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);
