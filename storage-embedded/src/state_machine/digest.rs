//! The running hash of the replicated state.

use bytes::BufMut;
use storage_core::{Committed, OperationId, Outcome, Revision};

use super::{Applied, Record};

/// A hash of a set of items, which does not depend on the order in which they came: the sum of the hashes of the items.
///
/// So it is kept up to date in constant time, replicas can compare it at the same applied index, and it can be computed
/// anew from a snapshot. It finds bugs and damage, not forgery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) u64);

impl Digest {
    pub(super) fn add(&mut self, item: u64) {
        self.0 = self.0.wrapping_add(item);
    }

    pub(super) fn remove(&mut self, item: u64) {
        self.0 = self.0.wrapping_sub(item);
    }
}

/// What an item is, so that items of different tables do not stand for each other.
mod table {
    pub(super) const RECORD: u64 = 1;
    pub(super) const LEASE: u64 = 2;
    pub(super) const ROW: u64 = 3;
    pub(super) const OPERATION: u64 = 4;
    pub(super) const SESSION: u64 = 5;
    pub(super) const ANSWER: u64 = 6;
}

pub(super) fn record(key: &[u8], record: &Record) -> u64 {
    let Record { value, create_revision, mod_revision, version, lease } = record;
    let bytes = hash_bytes(hash_bytes(mix(table::RECORD), key), value);
    hash_numbers(bytes, [*create_revision, *mod_revision, *version, *lease])
}

pub(super) fn lease(id: u64, ttl_seconds: u64) -> u64 {
    hash_numbers(mix(table::LEASE), [id, ttl_seconds])
}

pub(super) fn row(name: &[u8], value: &[u8]) -> u64 {
    hash_bytes(hash_bytes(mix(table::ROW), name), value)
}

pub(super) fn operation(id: OperationId, outcome: &Outcome) -> u64 {
    let hash = hash_bytes(mix(table::OPERATION), &id.0.to_le_bytes());
    match outcome {
        Outcome::Committed(outcome) => committed(hash, outcome),
        Outcome::Conflict(conflict) => hash_numbers(hash, [u64::MAX, conflict.guard as u64]),
    }
}

pub(super) fn session(id: u64, nonce: u64, last_used: u64, acknowledged_below: u64) -> u64 {
    hash_numbers(mix(table::SESSION), [id, nonce, last_used, acknowledged_below])
}

pub(super) fn answer(session: u64, sequence: u64, answer: &Applied) -> u64 {
    let hash = hash_numbers(mix(table::ANSWER), [session, sequence]);
    match answer {
        Applied::Outcome(Outcome::Committed(outcome)) => committed(hash, outcome),
        // What it read and wrote follows from what was there.
        Applied::Mvcc(answer) => {
            hash_numbers(hash, [u64::MAX, answer.succeeded.into(), answer.revision, answer.answers.len() as u64])
        }
        other => {
            let mut bytes = Vec::new();
            bytes.put_u8(u8::MAX);
            other.encode(&mut bytes);
            hash_bytes(hash, &bytes)
        }
    }
}

/// Every version in a commit is its revision, so it is enough to know where there is one.
fn committed(hash: u64, outcome: &Committed) -> u64 {
    let revision = outcome.revision.map_or(0, |Revision(revision)| revision);
    let hash = hash_numbers(hash, [revision, outcome.versions.len() as u64]);
    outcome.versions.iter().fold(hash, |hash, version| mix(hash ^ u64::from(version.is_some())))
}

fn hash_numbers<const N: usize>(hash: u64, numbers: [u64; N]) -> u64 {
    numbers.into_iter().fold(hash, |hash, number| mix(hash ^ number))
}

fn hash_bytes(hash: u64, bytes: &[u8]) -> u64 {
    mix(mix(hash ^ u64::from(crc32c::crc32c(bytes))) ^ bytes.len() as u64)
}

/// The step of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input reaches every bit of the output.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
