//! The embedded engine on simulated machines: the same code, with turmoil's network, tokio's paused clock and a disk in memory. A seed
//! decides everything, so a run that fails is repeated with its seed, byte for byte.
//!
//! `run` is one seed: a cluster, its clients, what strikes them (`nemesis`), what has to hold at every tick
//! (`invariants`), and whether the cluster serves again when everything is healed. docs/reliability.md has the figures.
//!
//! It needs `--cfg simulated --cfg tokio_unstable`, which `cargo xtask simulate` gives; without, this crate is empty.

#![cfg(simulated)]

mod clients;
mod event_log;
mod hostile;
pub mod invariants;
mod leases;
mod locks;
pub mod nemesis;
mod outside;
mod plan;
pub mod run;
mod shared;
mod site;
mod tickets;
