//! How rows, operations and sessions count in the hash of the state.

use bytes::BufMut;
use storage_core::{Committed, OperationId, Outcome, Revision};

use crate::{
    command::Applied,
    keys::{Table, begin, hash_bytes, hash_numbers, mix},
};

pub(super) fn row(name: &[u8], value: &[u8]) -> u64 {
    hash_bytes(hash_bytes(begin(Table::Row), name), value)
}

pub(super) fn alarm(member: u64) -> u64 {
    hash_numbers(begin(Table::Alarm), [member])
}

pub(super) fn operation(id: OperationId, outcome: &Outcome) -> u64 {
    let hash = hash_bytes(begin(Table::Operation), &id.0.to_le_bytes());
    match outcome {
        Outcome::Committed(outcome) => committed(hash, outcome),
        Outcome::Conflict(conflict) => hash_numbers(hash, [u64::MAX, conflict.guard as u64]),
    }
}

pub(super) fn session(id: u64, nonce: u64, last_used: u64, acknowledged_below: u64) -> u64 {
    hash_numbers(begin(Table::Session), [id, nonce, last_used, acknowledged_below])
}

pub(super) fn answer(session: u64, sequence: u64, answer: &Applied) -> u64 {
    let hash = hash_numbers(begin(Table::Answer), [session, sequence]);
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
