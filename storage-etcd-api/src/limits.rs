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

/// How long a request may take: etcd's, with its default timing.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);
