//! The one way to start a backend's servers on this machine.
//!
//! Each backend's crate says with which arguments a server of it is started, as plain data, and the test kit starts processes from
//! plain data and knows no backend. Here both meet: [`Servers`] is one kind of server, [`Running`] a cluster of it with a store on
//! each server. Every server syncs before it acknowledges, as it does unless it is told otherwise.
//!
//! Nothing here measures, strikes or checks anything.

#[cfg(feature = "consul")]
mod consul;
#[cfg(feature = "etcd")]
mod etcd;
mod named;
mod servers;
#[cfg(feature = "zk")]
mod zk;

#[cfg(feature = "consul")]
pub use consul::consul;
#[cfg(feature = "etcd")]
pub use etcd::etcd;
pub use named::named;
pub use servers::{Error, Running, Servers, Told};
#[cfg(feature = "zk")]
pub use zk::zk;
