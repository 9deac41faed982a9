//! Nodes talk over TCP in frames that carry a length and a checksum. A connection serves one purpose, which its
//! handshake names, together with the cluster, the sender and the receiver; any mismatch is refused, and who cannot prove that it
//! knows the cluster's token. With TLS, certificates say who is who.
//!
//! - [`admission`] says what a node may do by how far it has come, and finds out that it, or another, has lost its disk.
//! - [`belonging`] says whether a caller belongs to the cluster, or was removed from it.
//! - [`stream`] is in the clear or with TLS, as [`security`] demands; [`token`] proves the token.
//! - [`frame`] cuts the byte stream into frames; [`hello`] is what a connection begins with, and [`handshake`] opens it; [`message`] is what is said.
//! - [`peer`] is how raft reaches another node; [`calls`] is how a replica hands its callers' requests to the leader.
//! - [`server`] answers all of it; [`strangers`] bounds those that have not proved yet that they are of members.
//!
//! # Invariants
//! - Memory for what comes in is bounded by the limit of a frame and by what has really arrived, whoever sends it.
//! - Bytes that are not what they should be are an error that ends the connection, and never a panic.
//! - Nothing but the handshake is read from whoever has not proved the token, or is no member; who founds a cluster is told how far a node is.

pub(crate) mod admission;
pub(crate) mod belonging;
pub(crate) mod calls;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod hello;
pub(crate) mod message;
pub(crate) mod peer;
mod refused;
pub(crate) mod security;
pub(crate) mod server;
mod strangers;
pub(crate) mod stream;
#[cfg(feature = "tls")]
mod tls;
pub(crate) mod token;
