//! Invariants of the state, broken on purpose: a replica that finds one broken applies nothing more.

use openraft::{EntryPayload, alias::CommittedLeaderIdOf};

use super::{super::Replica, *};
use crate::raft::{Entry, LogId, TypeConfig};

fn blank(term: u64, index: u64) -> Entry {
    let log_id = LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(term), index);
    Entry { log_id, payload: EntryPayload::Blank }
}

fn replica(entries: &[Entry]) -> Replica {
    let mut replica = Replica::default();
    entries.iter().for_each(|entry| drop(replica.apply(entry)));
    replica
}

#[test]
#[should_panic(expected = "an entry is applied out of order")]
fn no_entry_is_passed_over() {
    replica(&[blank(1, 7), blank(1, 9)]);
}

#[test]
#[should_panic(expected = "an entry is applied out of order")]
fn no_entry_is_applied_twice() {
    replica(&[blank(1, 7), blank(1, 7)]);
}

#[test]
#[should_panic(expected = "an entry is applied out of order")]
fn terms_do_not_fall() {
    replica(&[blank(2, 7), blank(1, 8)]);
}

#[test]
#[should_panic(expected = "a snapshot takes the state back to what it was")]
fn a_snapshot_does_not_take_the_state_back() {
    replica(&[blank(1, 7), blank(1, 8)]).install(&mut replica(&[blank(1, 7)]));
}

/// A put that keeps the value of a key that the same transaction deletes: it was stored with an empty one.
#[test]
fn a_put_that_keeps_what_an_operation_before_it_deletes_is_refused() {
    let mut applier = Applier::default();
    applier.put("a", "1");
    let put = |value: Option<&'static str>| {
        mvcc::Op::Put(mvcc::Put { key: key("a"), value: value.map(Bytes::from), lease: Some(0), previous: false })
    };
    let delete = || mvcc::Op::Delete(mvcc::Delete { keys: KeyRange::From("a".into()), previous: false });
    let nested = mvcc::Op::Txn(mvcc::Txn::of(delete()));
    for gone in [vec![delete(), put(None)], vec![nested, put(None)], vec![put(Some("2")), delete(), put(None)]] {
        let txn = mvcc::Txn { success: gone, ..mvcc::Txn::default() };
        assert_eq!(applier.apply(Command::mvcc(txn)), Applied::Rejected(Rejection::KeyNotFound));
        assert_eq!(applier.value("a").unwrap(), "1", "nothing of it was done");
    }
    let txn = mvcc::Txn { success: vec![delete(), put(Some("3")), put(None)], ..mvcc::Txn::default() };
    assert!(matches!(applier.apply(Command::mvcc(txn)), Applied::Mvcc(_)));
    assert_eq!(applier.value("a").unwrap(), "3");
}
