//! A store of this process for others, and the store that they see: so that a node which is a library can be killed.
//!
//! [`serve`] puts any store behind a socket, and [`Remote`] is a store that calls those of several processes, one after the
//! other if they fail, as a service's users do with its replicas. What is spoken is JSON lines, for tests on one machine.

mod client;
mod serve;
mod wire;

pub use client::Remote;
pub use serve::{Ask, serve};
