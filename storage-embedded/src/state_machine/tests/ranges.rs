//! Transactions with ranges, and reads in the past.

use super::*;
use crate::mvcc::OpAnswer;

#[test]
fn a_transaction_reads_the_revision_before_it_without_its_own_writes() {
    let mut applier = Applier::default();
    applier.put("a", "old");
    let read = |revision| {
        let mut range = mvcc::Range::new(KeyRange::One("a".into()));
        range.revision = revision;
        mvcc::Op::Range(range)
    };
    let put = mvcc::Put { key: key("a"), value: Some("new".into()), lease: Some(0), previous: false };
    let before = etcd_revision(applier.state.tables().keys.revision);
    let txn = mvcc::Txn { success: vec![mvcc::Op::Put(put), read(0), read(before)], ..mvcc::Txn::default() };
    let Applied::Mvcc(answer) = applier.apply(Command::mvcc(txn)) else { panic!("a transaction is answered") };
    let values = answer.answers.iter().filter_map(|answer| match answer {
        OpAnswer::Range(ranged) => Some(ranged.entries[0].value.clone()),
        _ => None,
    });
    assert_eq!(values.collect::<Vec<_>>(), ["new", "old"]);
}
