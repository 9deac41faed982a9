//! Clusters of real server processes, started from plain data.
//!
//! A [`ServerSpec`] says how one kind of server is started; a [`Cluster`] starts 1 to [`MAX_NODES`] of them on loopback
//! ports of their own, in folders of their own, and kills, pauses, restarts and wipes them. Whatever happens to the test
//! process, its servers die with it.

mod cluster;
mod error;
mod http;
mod image;
mod network;
mod node;
mod ports;
mod probe;
mod process;
mod spec;

pub use cluster::{Cluster, ClusterOptions, Node};
pub use error::ServerError;
pub use http::{HttpAnswer, http_get, http_send, tcp_word};
pub use image::Image;
pub use network::{Network, Unavailable};
pub use ports::Reservation;

pub use node::{Launch, MAX_NODES, NodeContext};
pub use probe::Probe;
pub use spec::ServerSpec;
