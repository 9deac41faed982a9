//! The etcd v3 gRPC API on an embedded node, so that clients of etcd in any language can use it.
//!
//! Served are KV, Watch, Lease, Cluster, Maintenance and gRPC's health service; everything else answers `UNIMPLEMENTED`. Any node
//! answers: writes and linearizable reads go through the leader. Answers, codes and messages are those of etcd 3.5, since clients
//! match on them. On the same port, plain HTTP/1.1 and HTTP/2 get `/health` and `/version`, with TLS too.
//!
//! # What differs from etcd
//! - A key has at most 512 bytes, as in the contract of the store: [`storage_core::Key::MAX_BYTES`].
//! - The past is bounded: revisions older than the latest [`MAX_CHANGES`](storage_embedded::mvcc::MAX_CHANGES) changes count as compacted.
//! - A member is always added as a learner and has to be promoted: one that is not running yet can then not stop the cluster.
//! - A snapshot has the format of the embedded engine.

mod check;
pub(crate) mod cluster;
mod context;
mod error;
mod health;
mod http;
mod kv;
mod lease;
mod maintenance;
pub mod proto;
pub(crate) mod requests;
mod server;
pub(crate) mod tls;
mod translate;
mod watch;

pub use requests::Requests;
pub use server::{Options, Place, Server};

/// The release of etcd whose API this is, as answered to whoever asks for the version.
pub const ETCD_VERSION: &str = "3.5.16";

/// The longest request, in bytes (1.5 MiB): etcd's default.
pub const MAX_REQUEST_BYTES: usize = 1536 << 10;

/// The most comparisons, and the most operations of a branch, of a transaction with those within it: etcd's default.
pub const MAX_TXN_OPS: usize = 128;

/// How long a request may take: etcd's, with its default timing.
pub const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(7);
