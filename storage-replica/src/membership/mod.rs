//! Clusters that grow by themselves: the number of voters follows the number of live replicas.
//!
//! The rooms: `decide` says what is to be done for the members, as a pure function; `lead` looks, asks it and carries out what it says, on the leader.
//! `participant` is a replica that takes part: it finds the cluster by `locate`, or founds it by `founding`, which speaks the protocol of `bootstrap`
//! by `ask`; `reading` is how it reads the table, and `identity` is who it is, on disk. `recover` makes a new cluster of what one survivor holds, in a directory that `moved` puts in the place of
//! the old one. `table` is what all know of each other, kept in the cluster, and `report` what the leader
//! says of it. docs/decisions/0010-growing-clusters.md tells why.

#[cfg(feature = "etcd")]
mod ask;
pub mod bootstrap;
mod cluster_id;
pub mod decide;
#[cfg(test)]
mod exhaustive;
#[cfg(feature = "etcd")]
mod founding;
#[cfg(feature = "etcd")]
mod identity;
#[cfg(feature = "etcd")]
mod lead;
#[cfg(feature = "etcd")]
mod liveness;
#[cfg(feature = "etcd")]
mod locate;
#[cfg(feature = "etcd")]
mod moved;
#[cfg(feature = "etcd")]
mod overview;
#[cfg(feature = "etcd")]
mod participant;
#[cfg(feature = "etcd")]
mod reading;
#[cfg(feature = "etcd")]
mod recover;
#[cfg(feature = "etcd")]
mod report;
#[cfg(feature = "etcd")]
mod seal;
#[cfg(feature = "etcd")]
mod switching;
#[cfg(feature = "etcd")]
mod table;

pub use cluster_id::ClusterId;
#[cfg(feature = "etcd")]
pub use overview::{Overview, ReplicaOverview, open_table, overview};
#[cfg(feature = "etcd")]
pub(crate) use participant::Participant;
#[cfg(feature = "etcd")]
pub use recover::{AnsweringNode, Recovered, Survivor, Voter};
#[cfg(feature = "etcd")]
pub use report::{Heard, Report};
#[cfg(feature = "etcd")]
pub use table::{ChangeRow, Contents, NodeRow, PREFIX, ReplicaRow, Table};
