//! The contract on a replicated log inside your own process: no other server to run.
//!
//! A [`Node`] is one member of a cluster. Its [`Node::store`] is a [`storage_core::Store`] that any number of tasks may use;
//! whichever node they use, a write ends when a majority of the members has it on stable storage.
//!
//! The rooms: `command` is what the log carries, `log` keeps it on disk, `network` carries it to the other nodes,
//! `state_machine` applies it, `snapshot` makes the log's past needless; they meet in `node`. `store` is the contract on top.

mod codec;
mod command;
#[doc(hidden)]
pub mod disk;
mod error;
mod host;
mod local;
mod log;
pub mod mvcc;
mod network;
mod node;
mod raft;
mod refusals;
mod restore;
mod salvage;
mod snapshot;
mod state_machine;
mod store;
pub mod tls;
mod url;

#[cfg(simulated)]
pub use host::simulated;
pub use local::LocalCluster;
pub use log::{LogMetrics, SYNC_BUCKETS};
pub use network::{message::MembershipChange, token::ClusterToken};
pub use node::{ConditionalChange, NOT_IN_SYNC, Node, NodeConfig, NodeStatus, ObservedMembers, Role, SnapshotReader};
pub use raft::Member;
pub use refusals::{Refusal, Refusals};
pub use restore::{Restored, restore};
pub use salvage::{Salvage, Salvaged, salvage};
pub use snapshot::{SnapshotMetrics, SnapshotSeal};
pub use store::EmbeddedStore;
pub use url::{PARAMETERS, SCHEMES, open};
