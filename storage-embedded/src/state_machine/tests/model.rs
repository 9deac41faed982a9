//! The same transactions on the state and on the reference store have the same outcomes and the same events.

use futures::{FutureExt, StreamExt};
use storage_core::{MemoryStore, ReadOptions, ScanOptions, Store, WatchEvent, WatchOptions, WriteOptions};

use super::*;
use crate::tables::MAX_OPERATIONS;

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the reference store never waits")
}

proptest! {
    #[test]
    fn outcomes_pages_and_events_are_those_of_the_reference_store(
        txns in vec((txn(), option::weighted(0.3, 0_u128..6)), 0..60)
    ) {
        let store = MemoryStore::new();
        let mut applier = Applier::default();
        for (txn, operation) in txns {
            let operation = operation.map(OperationId);
            let expected = now(store.commit(txn.clone(), WriteOptions { operation_id: operation, ..WriteOptions::default() }));
            let applied = applier.apply(Command::Txn { txn, operation, request: None });
            prop_assert_eq!(outcome(applied), expected.unwrap());
        }
        let (shared, _sender) = SharedState::new(Replica { state: applier.state, ..Replica::default() });
        for (prefix, after, limit) in
            [("", None, 1000), ("b", None, 1), ("b", Some("b/1"), 1000), ("b", Some("a"), 2), ("b", Some("c"), 2), ("d", None, 1)]
        {
            let after = after.map(key);
            let options = ScanOptions { after: after.clone(), ..ScanOptions::default() }.limit(limit);
            let expected = now(store.scan(prefix.as_bytes(), options)).unwrap();
            prop_assert_eq!(shared.scan(prefix.as_bytes(), after.as_ref(), limit, usize::MAX), expected);
        }
        for name in ["a", "b", "b/1", "d"] {
            prop_assert_eq!(shared.get(&key(name)), now(store.get(&key(name), ReadOptions::default())).unwrap());
        }
        for after in 0..=shared.revision().0 {
            let after = Revision(after);
            let mut watch = now(store.watch(b"b", WatchOptions::default().after(after))).unwrap();
            let mut expected: Vec<WatchEvent> = Vec::new();
            while let Some(Some(event)) = watch.next().now_or_never() {
                expected.push(event.unwrap());
            }
            let (events, upto) = shared.events_after(after, b"b", 1000).unwrap();
            prop_assert_eq!(&events, &expected);
            prop_assert!(events.is_empty() || upto == shared.revision());
        }
    }

    #[test]
    fn answers_survive(commands in commands()) {
        let mut applier = Applier::default();
        for command in commands {
            let applied = applier.apply(command);
            let mut out = Vec::new();
            applied.encode(&mut out);
            for cut in 0..out.len() {
                prop_assert!(Applied::decode(Bytes::copy_from_slice(&out[..cut])).is_err(), "cut at {}", cut);
            }
            prop_assert_eq!(Applied::decode(out.into()).unwrap(), applied);
        }
    }

    #[test]
    fn random_bytes_are_no_answer_or_a_canonical_one(bytes in vec(0_u8..9, 0..60)) {
        if let Ok(applied) = Applied::decode(bytes.clone().into()) {
            let mut out = Vec::new();
            applied.encode(&mut out);
            prop_assert_eq!(out, bytes);
        }
    }
}

#[test]
fn a_scan_ends_with_the_value_that_brings_it_to_the_bytes() {
    let mut applier = Applier::default();
    for name in ["a", "b", "c"] {
        applier.put(name, "four");
    }
    let (shared, _sender) = SharedState::new(Replica { state: applier.state, ..Replica::default() });
    let page = shared.scan(b"", None, 100, 5);
    assert_eq!((page.entries.len(), page.next), (2, Some(key("b"))));
    let last = shared.scan(b"", Some(&key("b")), 100, 5);
    assert_eq!((last.entries.len(), last.next), (1, None));
    let beyond = shared.scan(&[b'a'; Key::MAX_BYTES + 1], None, 100, 100);
    assert_eq!(beyond.entries, []);
}

#[test]
fn a_write_keeps_nothing_of_the_proposal_alive() {
    let mut applier = Applier::default();
    let txn = Txn::new().put(key("a"), "1").guard(key("b"), Expected::Absent);
    let encoded = Command::encode_txn(&txn, Some(OperationId(1)), None);
    for _ in 0..2 {
        applier.apply(Command::decode(encoded.clone()).unwrap());
    }
    applier.apply(Command::decode(Command::encode_txn(&Txn::new().put(key("a"), "2"), None, None)).unwrap());
    assert!(encoded.is_unique());
}

#[test]
fn what_is_no_command_is_refused_and_changes_nothing() {
    let mut applier = Applier::default();
    applier.put("a", "1");
    let before = applier.state.tables().digest();
    for bytes in [&b""[..], b"\x01", b"\x02\x01", b"\xff\xff"] {
        let applied = applier.state.apply_proposal(9, &crate::raft::Proposal(Bytes::from_static(bytes)));
        assert_eq!(applied, Applied::Rejected(Rejection::Malformed));
    }
    assert_eq!(applier.state.tables().digest(), before);
}

#[test]
fn an_operation_id_is_applied_once_until_it_is_forgotten() {
    let mut applier = Applier::default();
    let mut put = |id: u128| {
        let txn = Txn::new().put(key("a"), "1");
        outcome(applier.apply(Command::Txn { txn, operation: Some(OperationId(id)), request: None }))
    };
    let first = put(0);
    for id in 1..=MAX_OPERATIONS as u128 {
        assert!(put(id).is_committed());
    }
    assert_eq!(put(0), first, "remembered behind as many others as is promised");
    assert!(put(u128::MAX).is_committed());
    assert_ne!(put(0), first, "bounded");
}

#[test]
fn rows_are_bounded_and_apart_from_the_keys() {
    let mut applier = Applier::default();
    let put = |name: &str, bytes| Command::RowPut { name: name.to_owned().into(), value: vec![0; bytes].into() };
    assert_eq!(applier.apply(put("r", 64 << 10)), Applied::Nothing);
    assert_eq!(applier.apply(put("s", (64 << 10) + 1)), Applied::Rejected(Rejection::TooManyRows));
    assert_eq!(applier.apply(put(&"r".repeat(257), 1)), Applied::Rejected(Rejection::TooManyRows));
    for number in 1..4096 {
        assert_eq!(applier.apply(put(&number.to_string(), 1)), Applied::Nothing);
    }
    assert_eq!(applier.apply(put("one more", 1)), Applied::Rejected(Rejection::TooManyRows));
    assert_eq!(applier.apply(put("r", 2)), Applied::Nothing, "a row that is there may change");
    assert_eq!(applier.state.tables().row(b"r").unwrap().len(), 2);
    assert_eq!(applier.apply(Command::RowDelete { name: "r".into() }), Applied::Nothing);
    assert_eq!(applier.state.tables().row(b"r"), None);
    assert_eq!((applier.state.tables().keys.revision, applier.value("1")), (0, None));
}

#[test]
fn rows_change_together_if_they_are_what_is_expected() {
    let mut applier = Applier::default();
    let row = |name: &'static str, content: Option<&'static str>| (Bytes::from(name), content.map(Bytes::from));
    let mut change = |expected: &[(Bytes, Option<Bytes>)], next: &[(Bytes, Option<Bytes>)]| {
        let rows = |rows: &[(Bytes, Option<Bytes>)]| rows.iter().cloned().collect();
        let applied = applier.apply(Command::Rows(RowChange { expected: rows(expected), next: rows(next) }));
        let there = applier.state.tables().rows().map(|(name, content)| (name.clone(), Some(content.clone())));
        (applied, there.collect::<Vec<_>>(), applier.state.tables().digest())
    };
    let (differs, too_many) = (Applied::Rejected(Rejection::RowsDiffer), Applied::Rejected(Rejection::TooManyRows));
    let (a, b) = (row("a", Some("1")), row("b", Some("2")));
    let (first, both, digest) = change(&[row("a", None)], &[a.clone(), b.clone()]);
    assert_eq!((first, &both), (Applied::Nothing, &vec![a.clone(), b.clone()]));
    // One that is another, one that is missing and one that is there, each beside one that is as expected: nothing is changed.
    for wrong in [row("a", Some("2")), row("c", Some("")), row("b", None)] {
        let refused = change(&[a.clone(), wrong.clone()], &[row("a", None), row("c", Some("3"))]);
        assert_eq!(refused, (differs.clone(), both.clone(), digest), "{wrong:?}");
    }
    let large = (Bytes::from("c"), Some(Bytes::from(vec![0; (64 << 10) + 1])));
    assert_eq!(change(&[], &[row("a", None), large]), (too_many, both, digest), "all or nothing");
    let (moved, there, _) = change(&[a, b], &[row("a", None), row("c", Some("3"))]);
    assert_eq!((moved, there), (Applied::Nothing, vec![row("b", Some("2")), row("c", Some("3"))]));
}
