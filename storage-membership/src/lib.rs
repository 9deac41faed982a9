//! Clusters that grow by themselves: the number of voters follows the number of live replicas.
//!
//! A [`Participant`] is a replica that takes part: it finds its cluster or founds it, tells that it lives, and has a node when the leader gives it one.
//!
//! - `decide` says what is to be done for the members, as a pure function; `lead` looks, asks it and carries out what it says, on the leader. `liveness` is
//!   who is heard of.
//! - `table` is what all know of each other, kept in the cluster itself: `contents` is what it says, `leader_report` what the leader says in it, and
//!   `take_over` reads that of an earlier release. Where its rows stand is behind `rows`.
//! - `table_access` is how a replica comes to it: by its own node, or by those of others that `locate` finds. Nodes that keep the rows apart from their
//!   keys are asked by `table_questions`.
//! - `protocol` is how replicas agree on who founds the cluster, as pure state machines; `founding` carries it out, and `ask` is how its questions travel.
//! - `identity` is who a replica is, on its disk; `replace` puts a directory in the place of another.
//! - `recover` makes a new cluster of what one survivor holds.
//!
//! # What holds
//! - At most one cluster is founded by a list of replicas, and a node id is never used for a second disk: `protocol` and `identity` see to it, and what they
//!   promise is on stable storage before the first message that depends on it.
//! - One change of members is under way at a time, and none begins that could leave the cluster without a majority: `decide` sees to it.
//! - A row of the table, or its absence, makes no node give up its data. It asks the others by which members the cluster is committed.
//! - Clocks are for liveness alone. No decision that safety depends on reads one.
//!
//! # What is not here
//! Configuration files, processes, certificates, gRPC and HTTP: what a node is stands behind the traits [`Engine`] and [`Node`].
//! docs/decisions/0010-growing-clusters.md tells why all this is as it is.

mod ask;
mod contents;
pub mod decide;
mod engine;
#[cfg(test)]
mod exhaustive;
mod founding;
mod identity;
mod ids;
mod lead;
mod leader_report;
mod liveness;
mod locate;
mod overview;
#[cfg(test)]
mod own_table_tests;
mod participant;
mod proof;
pub mod protocol;
mod recover;
mod replace;
mod rows;
mod settings;
mod shared;
mod switching;
mod table;
mod table_access;
mod table_questions;
mod take_over;
mod token;
mod url;

pub use contents::{ChangeRow, Contents, NodeRow, ReplicaRow};
pub use engine::{
    AnswerQuestion, Engine, Listener, MemberChange, MemberIds, Members, Node, NodeStart, NodeStatus, Proved,
};
pub use identity::node_dir;
pub use ids::{ClusterId, NodeId, ReplicaId};
pub use leader_report::{LeaderReport, ReplicaLiveness};
pub use overview::{Overview, ReplicaOverview, open_table, overview};
pub use participant::Participant;
pub use recover::{AnsweringNode, Recovered, Survivor, Voter};
pub use rows::{PREFIX, Rows, StoreRows};
pub use settings::{Bootstrap, Replica, Settings, Timing};
pub use table::Table;
pub use table_questions::{AnsweringTable, AskTable, AskedTable};
pub use token::Token;
pub use url::NodeUrl;
