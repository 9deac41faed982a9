//! The keys of the users with their revisions, their leases and their latest changes: what the contract and etcd's API both work on.
//!
//! # Invariants
//! - A transaction makes one revision if it changes something, and none if it does not; revisions have no gap.
//! - A lease knows exactly the keys whose records name it.
//! - The digest is the sum over what the tables hold, whatever the way there.
//!
//! # What it must not do
//! Nothing here may look at a clock, draw a random number or do I/O: every replica comes to the same state.

mod digest;
mod history;
mod leases;
mod record;
mod space;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use digest::{Digest, Table, begin, hash_bytes, hash_numbers, mix};
pub(crate) use history::{Change, Changes, Compacted, History, Piece};
pub(crate) use leases::{Lease, Leases};
pub(crate) use record::{ITEM_BYTES, Record, own, own_key};
pub(crate) use space::KeySpace;
pub(crate) use write::Write;

/// A revision of the engine as etcd counts: there, the empty store has revision 1.
pub(crate) const fn etcd_revision(engine: u64) -> u64 {
    engine + 1
}

/// The reverse of [`etcd_revision`]; what was before the empty store is the empty store.
pub(crate) const fn engine_revision(etcd: u64) -> u64 {
    etcd.saturating_sub(1)
}
