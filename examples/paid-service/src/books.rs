//! What the replicas of this service know of its channels.

use std::sync::Arc;

use payment_channels::{EscrowSource, HttpNode, Payments};
use storage::Store;

/// The books of this service: in any store, with the contract as a node tells of it.
pub(crate) type Books = Payments<Arc<dyn Store>, EscrowSource<HttpNode>>;
