//! A transaction of the contract as a call of etcd, and its answer as an outcome. Pure.

use etcd_client::{
    Compare, CompareOp, DeleteResponse, PutResponse, TxnOp, TxnResponse,
    proto::{PbRangeResponse, PbResponseOp, PbTxnOpResponse},
};
use storage_core::{Committed, Conflict, Entry, Error, Expected, Guard, Observed, Op, Outcome, Result, Txn};

use crate::range::{entry, revision, version};

/// A revision that no key has: a guard that names it never holds.
const NO_REVISION: i64 = -1;

/// What is sent for a transaction: the cheapest call that does it.
#[derive(Debug)]
pub(crate) enum Request {
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8> },
    Txn(etcd_client::Txn),
}

impl Request {
    /// A transaction as it is sent. Its `else` branch reads the guards' keys, at the same moment at which they are compared,
    /// so that a conflict can tell which guard failed and on what.
    pub(crate) fn of(txn: &Txn) -> Self {
        let compares: Vec<_> = txn.guards.iter().filter_map(compare).collect();
        // A lone put or delete has a call of its own. Guards that always hold do not count.
        if let ([op], true) = (txn.ops.as_slice(), compares.is_empty()) {
            return match op {
                Op::Put { key, value } => Self::Put { key: key.as_bytes().to_vec(), value: value.to_vec() },
                Op::Delete { key } => Self::Delete { key: key.as_bytes().to_vec() },
            };
        }
        let ops: Vec<_> = txn.ops.iter().map(write).collect();
        // Keys of guards that always hold are read too. Without a read that wants to be linearizable, etcd would take a
        // transaction of such guards alone for one that may be stale.
        let reads: Vec<_> = txn.guards.iter().map(|guard| TxnOp::get(guard.key.as_bytes(), None)).collect();
        Self::Txn(etcd_client::Txn::new().when(compares).and_then(ops).or_else(reads))
    }
}

/// The outcome of a [`Request::Put`].
pub(crate) fn after_put(answer: &PutResponse) -> Result<Outcome> {
    let revision = revision(answer.header())?;
    let version = version(revision.0.cast_signed());
    Ok(Outcome::Committed(Committed { versions: vec![Some(version)], revision: Some(revision) }))
}

/// The outcome of a [`Request::Delete`].
pub(crate) fn after_delete(answer: &DeleteResponse) -> Result<Outcome> {
    let revision = revision(answer.header())?;
    let changed = answer.deleted() > 0;
    Ok(Outcome::Committed(Committed { versions: vec![None], revision: changed.then_some(revision) }))
}

/// The outcome of a [`Request::Txn`].
pub(crate) fn after_txn(txn: &Txn, answer: TxnResponse) -> Result<Outcome> {
    if !answer.succeeded() {
        return conflict(&txn.guards, answer.0.responses).map(Outcome::Conflict);
    }
    let revision = revision(answer.header())?;
    let version = version(revision.0.cast_signed());
    let put = |op: &Op| matches!(op, Op::Put { .. });
    let versions: Vec<_> = txn.ops.iter().map(|op| put(op).then_some(version)).collect();
    // Deleting what is absent changes nothing, and does not make a revision.
    let changed = txn.ops.iter().any(put) || answer.0.responses.iter().any(deleted);
    Ok(Outcome::Committed(Committed { versions, revision: changed.then_some(revision) }))
}

/// The one entry of a read of one key.
pub(crate) fn only_entry(mut answer: PbRangeResponse) -> Result<Option<Entry>> {
    answer.kvs.pop().map(entry).transpose()
}

/// The entries of reads of one key each.
pub(crate) fn entries(answers: Vec<PbResponseOp>) -> impl Iterator<Item = Result<Option<Entry>>> {
    answers.into_iter().map(|answer| match answer.response {
        Some(PbTxnOpResponse::ResponseRange(answer)) => only_entry(answer),
        _ => Err(Error::corrupt("etcd answered a read with something else")),
    })
}

/// `None` for what always holds.
fn compare(guard: &Guard) -> Option<Compare> {
    let key = guard.key.as_bytes();
    match &guard.expected {
        Expected::Any => None,
        Expected::Absent => Some(Compare::create_revision(key, CompareOp::Equal, 0)),
        Expected::Exists => Some(Compare::create_revision(key, CompareOp::Greater, 0)),
        Expected::Version(version) => {
            // Zero stands for an absent key in etcd, and a version of another store may be any number.
            let revision = version.to_u64().and_then(|number| i64::try_from(number).ok()).filter(|number| *number > 0);
            Some(Compare::mod_revision(key, CompareOp::Equal, revision.unwrap_or(NO_REVISION)))
        }
        // etcd lets a comparison with the value of an absent key fail, also with an empty value.
        Expected::Value(value) => Some(Compare::value(key, CompareOp::Equal, value.to_vec())),
    }
}

fn write(op: &Op) -> TxnOp {
    match op {
        Op::Put { key, value } => TxnOp::put(key.as_bytes(), value.to_vec(), None),
        Op::Delete { key } => TxnOp::delete(key.as_bytes(), None),
    }
}

fn deleted(answer: &PbResponseOp) -> bool {
    matches!(&answer.response, Some(PbTxnOpResponse::ResponseDeleteRange(answer)) if answer.deleted > 0)
}

fn conflict(guards: &[Guard], answers: Vec<PbResponseOp>) -> Result<Conflict> {
    for (place, (guard, current)) in guards.iter().zip(entries(answers)).enumerate() {
        let current = current?;
        if !guard.expected.holds(current.as_ref().map(|entry| (entry.value.as_ref(), entry.version))) {
            return Ok(Conflict { guard: place, current: Observed::from(current) });
        }
    }
    Err(Error::corrupt("etcd refused a transaction of which all guards hold"))
}

#[cfg(test)]
mod tests {
    use storage_core::{Key, Version};

    use super::*;

    fn key() -> Key {
        Key::new("k").unwrap()
    }

    #[test]
    fn one_write_without_a_guard_needs_no_transaction() {
        assert!(matches!(Request::of(&Txn::new().put(key(), "v")), Request::Put { .. }));
        assert!(matches!(Request::of(&Txn::new().delete(key())), Request::Delete { .. }));
        assert!(matches!(Request::of(&Txn::new().guard(key(), Expected::Any).put(key(), "v")), Request::Put { .. }));
        assert!(matches!(Request::of(&Txn::new().guard(key(), Expected::Exists).put(key(), "v")), Request::Txn(_)));
        assert!(matches!(Request::of(&Txn::new().guard(key(), Expected::Any)), Request::Txn(_)));
    }

    #[test]
    fn a_version_that_is_no_revision_never_holds() {
        let never = format!("{:?}", Compare::mod_revision("k", CompareOp::Equal, NO_REVISION));
        for version in [Version::from_u64(0), Version::from_u64(u64::MAX), Version::from_bytes([0xff; 16])] {
            let compare = compare(&Guard { key: key(), expected: Expected::Version(version) });
            assert_eq!(format!("{:?}", compare.unwrap()), never, "{version:?}");
        }
    }
}
