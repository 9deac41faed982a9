//! Real server clusters, links that break, workloads, certificates, histories and a linearizability checker for tests.
//! [`history`] records what clients were told, [`checker`] looks for an order that explains it.

#[cfg(feature = "certificates")]
pub mod certificates;
pub mod checker;
pub mod fuzz;
pub mod history;
pub mod hostile;
pub mod nemesis;
#[cfg(feature = "conformance")]
pub mod outages;
pub mod programs;
pub mod proxy;
pub mod remote;
pub mod server;
pub mod sockets;
#[cfg(feature = "conformance")]
pub mod suite;
pub mod workload;
