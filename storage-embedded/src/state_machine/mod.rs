//! The replicated state and how commands change it. [`State`] is pure; [`StateMachine`] joins it to raft, and
//! [`SharedState`] lets the rest of the node read it.

mod adapter;
mod applied;
mod digest;
mod history;
mod leases;
mod mvcc;
mod operations;
mod sessions;
mod shared;
mod state;
mod tables;

pub(crate) use adapter::StateMachine;
pub(crate) use applied::{Applied, Refusal};
pub(crate) use applied::{outcome, put_outcome};
pub(crate) use digest::Digest;
pub(crate) use history::{Change, History};
pub(crate) use leases::{Lease, Leases};
pub(crate) use mvcc::{event, range, read};
pub(crate) use sessions::Session;
pub(crate) use shared::{Replica, SharedState};
pub(crate) use state::State;
pub(crate) use tables::{Counts, Record, Tables, own_key};

/// How many operations are remembered by their ids, behind the newest: minutes of retries of a busy service, in some 10 MiB.
pub(crate) const MAX_OPERATIONS: usize = 65_536;

#[cfg(test)]
mod tests;
