//! Long runs under faults, with every answer checked.
//!
//! [`soak`](fn@soak) strikes a cluster of any backend, real servers with real faults, while the clients of the test kit's workloads work
//! on it; `cargo xtask soak` stands on it. [`rehearse`] runs a whole service on a store, replicas that are killed and clients that try to
//! spend payments twice, and audits what became of the money; `snet channel rehearse` stands on it, and a soak has it as one workload.
//!
//! What the servers are told to do is in `cluster` (how they start, and how clients reach them), `node` (one node of the embedded engine
//! as a process, so that it can be killed), `members` (nodes that join and leave) `operator` (commands, right and wrong, and what has to
//! come of them) and `growing` (clusters that grow by themselves). `round` runs one workload under one class of
//! faults, `run` strings rounds together, `summary` and `usage` tell of them.
//!
//! A round in which too little happened proves nothing, and is told apart from one that passed. Nothing here measures: that is `bench`.

mod cluster;
#[cfg(all(feature = "embedded", feature = "etcd"))]
mod growing;
#[cfg(feature = "embedded")]
mod members;
#[cfg(feature = "embedded")]
mod node;
#[cfg(feature = "embedded")]
mod operator;
mod rehearsal;
mod round;
mod run;
mod summary;
mod usage;
mod wanted;

#[cfg(all(feature = "embedded", feature = "etcd"))]
pub use growing::{ReplicaArguments, replica};
#[cfg(feature = "embedded")]
pub use node::{NodeArguments, node};
pub use rehearsal::{Audit, Open, Rehearsal, RehearsalReport, Traffic, Violation, in_turn, rehearse};
pub use round::{PAYMENTS, Round, workloads};
pub use run::{Soak, soak};
pub use summary::{Row, Summary};
pub use usage::Usage;
