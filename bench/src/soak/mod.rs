//! Long runs of every workload under every class of faults, on any backend: real servers, real faults, every answer checked.
//!
//! `backend` starts the servers; `node` is one node of the embedded engine as a process, so that it can be killed; `members` lets
//! nodes join and leave; `round` runs one workload under one class; `run` strings rounds together and `summary` tells of them.

mod backend;
#[cfg(feature = "embedded")]
mod members;
#[cfg(feature = "embedded")]
mod node;
mod round;
mod run;
mod summary;
mod usage;

#[cfg(feature = "embedded")]
pub use node::node;
pub use round::{PAYMENTS, Round, workloads};
pub use run::{Soak, soak};
pub use summary::{Row, Summary};
pub use usage::Usage;
