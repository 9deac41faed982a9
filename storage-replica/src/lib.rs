//! How a service's replica takes part in the storage.
//!
//! The rooms: `config` reads what each replica does, `node` starts its node, `etcd_api` serves the etcd v3 gRPC API on an embedded
//! node, so that clients of etcd in any language can use it, `admin` asks nodes what operators ask, and `monitor` serves metrics and health, and
//! `snapshot` makes a cluster of a saved one. [`Replica`] is on top: one
//! call starts what a replica needs.

pub mod admin;
pub mod config;
pub mod etcd_api;
pub mod membership;
pub mod monitor;
pub mod node;
mod replica;
pub mod snapshot;

pub use replica::Replica;
