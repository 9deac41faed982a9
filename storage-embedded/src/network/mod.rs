//! Nodes talk over TCP in frames that carry a length and a checksum. A connection serves one purpose, which its
//! handshake names, together with the cluster, the sender and the receiver; any mismatch is refused, and who cannot prove that it
//! knows the cluster's token. With TLS, certificates say who is who.
//!
//! - [`stream`] is in the clear or with TLS, as [`security`] demands; [`token`] proves the token.
//! - [`frame`] cuts the byte stream into frames; [`handshake`] opens a connection; [`message`] is what is said.
//! - [`peer`] is how raft reaches another node; [`calls`] is how a replica hands its callers' requests to the leader.
//! - [`server`] answers all of it.

pub(crate) mod calls;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod message;
pub(crate) mod peer;
pub(crate) mod security;
pub(crate) mod server;
pub(crate) mod stream;
#[cfg(feature = "tls")]
mod tls;
pub(crate) mod token;
