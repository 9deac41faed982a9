//! The contract on a replicated log inside your own process: no other server to run.
//!
//! A [`Node`] is one member of a cluster. Its [`Node::store`] is a [`storage_core::Store`] that any number of tasks may use;
//! whichever node they use, a write ends when a majority of the members has it on stable storage.
//!
//! The rooms, from the ground: `keys` and `tables` are the state, with the users of `auth`; `command` and `raft` the words about it; `log` keeps them on disk and
//! `snapshot` makes the log's past needless; `state_machine` applies them, `network` carries them to the other nodes, and all meet in
//! `node`. `store` is the contract on top, and `mvcc` what etcd's API needs besides. No room uses one above it.

mod auth;
mod auth_handle;
mod codec;
mod command;
pub mod connections;
#[doc(hidden)]
pub mod disk;
mod error;
#[cfg(test)]
mod fuzz;
mod host;
mod keys;
mod local;
mod log;
pub mod mvcc;
mod mvcc_store;
mod network;
mod node;
mod panics;
mod raft;
mod refusals;
mod restore;
mod salvage;
#[cfg(any(test, simulated))]
pub mod simulated;
mod snapshot;
mod state_machine;
mod store;
mod tables;
pub mod tls;
mod url;

pub use auth::{
    Access, AuthChange, Identity, MAX_LEASE_CHECKS, MAX_MERGED, MAX_NAME_BYTES, MAX_PERMISSIONS, MAX_ROLES, MAX_USERS,
    PasswordHash, Permission, TokenSecret,
};
pub use auth_handle::{Auth, AuthStatus, Login};
pub use command::RowChange;
pub use local::LocalCluster;
pub use log::{LogMetrics, SYNC_BUCKETS};
pub use mvcc_store::Mvcc;
pub use network::{
    message::MembershipChange,
    token::{ClusterToken, HOW_TO_HAVE_A_TOKEN, secret_in},
};
pub use node::{
    Bounds, ConditionalChange, NOT_IN_SYNC, Node, NodeConfig, NodeStatus, ObservedMembers, Removed, Role,
    SnapshotReader, Stopped, UNHEALTHY,
};
#[cfg(simulated)]
pub use node::{Probe, ProbedEntry};
pub use raft::Member;
pub use refusals::{Refusal, Refusals};
pub use restore::{Restored, restore};
pub use salvage::{Salvage, Salvaged, salvage};
pub use snapshot::{SnapshotFooter, SnapshotMetrics};
pub use store::EmbeddedStore;
pub use url::{PARAMETERS, SCHEMES, open};
