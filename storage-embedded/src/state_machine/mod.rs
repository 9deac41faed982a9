//! How the commands of the log change the replicated tables. [`State`] is pure; [`StateMachine`] joins it to raft, and
//! [`SharedState`] lets the rest of the node read it.
//!
//! # Invariants
//! - The same entries make the same state on every replica: no clock, no randomness, no I/O in [`State`].
//! - A command is applied at most once, however often it was proposed.
//! - Whoever has the answer to a write reads what it wrote: the index is told before the answers are sent.

mod adapter;
mod recent;
mod shared;
mod state;

pub(crate) use adapter::StateMachine;
pub(crate) use shared::{Replica, SharedState};
pub(crate) use state::State;

/// Raft with the types and the state machine of this engine: what the network serves and the node drives.
pub(crate) type Raft = openraft::Raft<crate::raft::TypeConfig, StateMachine>;

#[cfg(test)]
mod tests;
