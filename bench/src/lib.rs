//! Measures stores through the public `Store` trait, and checks while it measures that they kept what they promised.
//!
//! A [`Target`] is a running cluster of one of the [`BACKENDS`]; [`Clients`] put a [`Workload`] on it in a closed or an open loop and
//! give a [`Measurement`]; [`compare`] does so for many clusters in interleaved rounds and gives a [`Report`], with the
//! [`Physics`] of the machine beside the figures; [`changes`] says what differs between two of them. The criterion
//! benches in `benches/` and the command `snet bench` stand on these.
//!
//! What makes the figures honest: the clients run on threads of their own; a failed or conflicted operation is counted as
//! such; and every run verifies at its end that the counters in the store add up to the writes that were acknowledged.

mod client;
mod clients;
mod compare;
mod disk;
mod error;
mod failover;
mod format;
mod load;
mod machine;
mod measure;
mod payer;
#[cfg(feature = "embedded")]
mod preload;
mod probe;
mod render;
mod report;
mod resources;
mod schedule;
mod spread;
mod target;
mod verdict;
mod wallet;
mod workload;

pub use clients::{Clients, Session};
pub use compare::{Comparison, compare};
pub use disk::{default_directory, on_tmpfs};
pub use error::{Error, Result};
pub use failover::{Failover, Timeline};
pub use format::{millis, thousands};
pub use load::{Amount, Load};
pub use machine::Machine;
pub use measure::{Latencies, Measurement, Percentiles};
#[cfg(feature = "embedded")]
pub use preload::{Preload, PreloadReport, preload};
pub use probe::Physics;
pub use render::{html, markdown};
pub use report::{BackendFigures, Cell, ClusterFigures, Report, Resources, Round};
pub use spread::Spread;
pub use target::{BACKENDS, Backend, Placement, Target, backend, to_bench};
pub use verdict::{Changes, FigureChange, LEAST_CHANGE, LEAST_ROUNDS, Verdict, changes};
pub use wallet::{DEPOSIT, PRICE, Wallet, terms};
pub use workload::Workload;
