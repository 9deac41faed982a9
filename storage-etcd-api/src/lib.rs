//! The etcd v3 gRPC API on an embedded node, so that clients of etcd in any language can use it.
//!
//! Served are KV, Watch, Lease, Cluster, Maintenance, Auth, Lock, Election, gRPC's health service and reflection; everything else answers
//! `UNIMPLEMENTED`. Any node answers: writes and linearizable reads go through the leader. Answers, codes and messages are those of etcd 3.5, since
//! clients match on them. On the same port, plain HTTP/1.1 and HTTP/2 get the same calls as JSON, and `/health`, `/version`, `/livez`, `/readyz`
//! and `/metrics`, with TLS too.
//!
//! Nothing here decides what a write does: `check` refuses what etcd refuses whatever the store holds, `translate` turns the rest into a call of the
//! engine and its answer back, and each service is one file between the two.
//!
//! # What differs from etcd
//! - A key has at most 512 bytes, as in the contract of the store: [`storage_core::Key::MAX_BYTES`].
//! - The past is bounded: revisions older than the latest [`MAX_CHANGES`](storage_embedded::mvcc::MAX_CHANGES) changes count as compacted.
//! - A member is always added as a learner and has to be promoted: one that is not running yet can then not stop the cluster.
//! - A node whose state is not a majority's stops by itself, so there is no alarm `CORRUPT`. A put in a transaction within a transaction counts for
//!   the alarm `NOSPACE`, which etcd overlooks.
//! - A snapshot has the format of the embedded engine.
//! - What needs a user, or `root`, is as of etcd 3.5.33, which asks more often than earlier ones. A watch ends when its user may not watch its keys
//!   any more.

mod auth;
mod authority;
mod check;
mod cluster;
mod codec;
mod common_name;
mod connection;
mod contest;
mod context;
mod election;
mod error;
mod fields;
mod gateway;
mod health;
mod hpack;
mod http;
mod incoming;
mod kv;
mod lease;
mod limits;
mod lock;
mod maintenance;
mod metrics;
mod passwords;
mod places;
mod probes;
pub mod proto;
mod requests;
mod server;
pub mod tls;
mod tokens;
mod translate;
mod watch;
mod watch_room;
mod who;

pub use cluster::forget_member;
pub use connection::{Connection, Life as ConnectionLife, note_request, server};
pub use context::cluster_id;
pub use incoming::{Port, connections};
pub use limits::{ETCD_VERSION, MAX_REQUEST_BYTES, MAX_TXN_OPS, REQUEST_TIMEOUT};
pub use requests::Requests;
pub use server::{Options, Server};
