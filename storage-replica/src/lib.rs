//! How a service's replica takes part in the storage. [`Replica`] is on top: one call starts what a replica needs.
//!
//! The rooms, from the ground: `config` reads what each replica does; `admin` asks nodes what operators ask; `node` starts a node and stops it,
//! embedded or an etcd that this process keeps; `growing` lets a replica take part in a cluster that grows by itself, whose rules are the crate
//! `storage-membership`; `monitor` serves metrics and health; `snapshot` makes a cluster of a saved one.
//!
//! Nothing here decides what a write does, or who votes.

pub mod admin;
pub mod config;
mod exposition;
pub mod growing;
pub mod monitor;
pub mod node;
mod replica;
pub mod snapshot;

pub use replica::Replica;
pub use storage_embedded::disk;
pub use storage_embedded::{Removed, connections::raise_descriptor_limit};
