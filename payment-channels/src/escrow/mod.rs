//! The MultiPartyEscrow contract as a node tells of it by JSON-RPC (<https://ethereum.org/developers/docs/apis/json-rpc/>).

mod http;
mod source;

pub use http::HttpNode;
pub use source::{EscrowOptions, EscrowSource, JsonRpc, NodeError};
