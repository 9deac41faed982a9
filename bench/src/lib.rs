//! Measures stores through the public `Store` trait, and checks while it measures that they kept what they promised.
//!
//! A [`Target`] is a running cluster of one of the [`BACKENDS`]; [`Clients`] put a [`Workload`] on it in a closed or an open loop and
//! give a [`Measurement`]; [`compare`] does so for many clusters in interleaved rounds and gives a [`Report`], with the
//! [`Physics`] of the machine beside the figures; [`changes`] says what differs between two of them. The criterion
//! benches in `benches/` and the command `snet bench` stand on these.
//!
//! [`simulate`] runs a whole service on a store, replicas and clients that try to spend payments twice, and audits what became of the
//! money; the command `snet channel simulate` stands on it.
//!
//! [`soak`](mod@soak) strikes a cluster of any backend while clients work on it, and checks every answer; `cargo xtask soak` stands on it.
//!
//! What makes the figures honest: the clients run on threads of their own; a failed or conflicted operation is counted as
//! such; and every run verifies at its end that the counters in the store add up to the writes that were acknowledged.

mod clients;
mod compare;
mod disk;
mod error;
mod failover;
mod load;
mod machine;
mod measure;
mod payments;
#[cfg(feature = "embedded")]
mod preload;
mod probe;
mod render;
mod report;
mod resources;
mod schedule;
pub mod soak;
mod target;
mod verdict;
mod workload;

pub use clients::{Clients, Session};
pub use compare::{Comparison, compare};
pub use disk::{default_directory, on_tmpfs};
pub use error::{Error, Result};
pub use failover::{Failover, Timeline};
pub use load::{Amount, Load};
pub use machine::Machine;
pub use measure::{Measurement, Percentiles};
pub use payments::{Audit, Open, Simulation, SimulationReport, Traffic, Violation, simulate};
#[cfg(feature = "embedded")]
pub use preload::{Preload, PreloadReport, preload};
pub use probe::Physics;
pub use render::{bytes, html, markdown, millis, seconds, shared_syncs, thousands};
pub use report::{BackendFigures, Cell, ClusterFigures, Report, Resources, Round, Spread};
pub use target::{BACKENDS, Backend, Placement, Target, backend, to_bench};
pub use verdict::{Change, Changes, LEAST_CHANGE, LEAST_ROUNDS, Verdict, changes};
pub use workload::Workload;
