use std::time::Duration;

use futures::{FutureExt, StreamExt};

use super::*;
use crate::{Committed, Conflict, Expected, Observed, OperationId, StoreExt, Version, WatchEvent};

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

async fn committed(store: &MemoryStore, txn: Txn) -> Committed {
    store.commit(txn, WriteOptions::default()).await.unwrap().committed().unwrap()
}

/// The events that are there already, as text.
fn ready(stream: &mut WatchStream) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(Some(event)) = stream.next().now_or_never() {
        seen.push(match event {
            Ok(WatchEvent::Put { entry, revision }) => {
                format!("{}={} @{}", entry.key, entry.value.escape_ascii(), revision.unwrap())
            }
            Ok(WatchEvent::Delete { key, revision }) => format!("-{key} @{}", revision.unwrap()),
            Err(error) => error.kind().to_owned(),
        });
    }
    seen
}

#[tokio::test]
async fn a_revision_counts_the_commits_that_changed_something() {
    let store = MemoryStore::new();
    let first = committed(&store, Txn::new().put(key("a"), "1").put(key("b"), "1")).await;
    assert_eq!(first.revision, Some(Revision(1)));
    assert_eq!(first.versions, [Some(Version::from_u64(1)), Some(Version::from_u64(1))]);
    let nothing = committed(&store, Txn::new().delete(key("absent"))).await;
    assert_eq!(nothing, Committed { versions: vec![None], revision: None });
    let guard_only = committed(&store, Txn::new().guard(key("a"), Expected::Exists)).await;
    assert_eq!(guard_only, Committed { versions: vec![], revision: None });
    let second = committed(&store, Txn::new().delete(key("absent")).delete(key("a"))).await;
    assert_eq!(second, Committed { versions: vec![None, None], revision: Some(Revision(2)) });
}

#[tokio::test]
async fn a_conflict_names_the_first_guard_that_fails_and_changes_nothing() {
    let store = MemoryStore::new();
    store.put(&key("a"), "1").await.unwrap();
    let txn = Txn::new()
        .guard(key("b"), Expected::Absent)
        .guard(key("a"), Expected::Value("2".into()))
        .guard(key("c"), Expected::Exists)
        .put(key("b"), "x");
    let conflict = store.commit(txn, WriteOptions::default()).await.unwrap().conflict().unwrap();
    assert_eq!(conflict.guard, 1);
    assert!(matches!(conflict.current, Observed::Present(entry) if entry.value == "1"));
    assert_eq!(store.get(&key("b"), ReadOptions::default()).await.unwrap(), None);
}

#[tokio::test]
async fn an_operation_id_is_applied_once_until_it_is_forgotten() {
    let store = MemoryStore::new();
    let put =
        |id: u128| store.commit(Txn::new().put(key("a"), "1"), WriteOptions::default().operation_id(OperationId(id)));
    let first = put(0).await.unwrap();
    for id in 1..=MemoryStore::DEDUPLICATED_OPERATIONS as u128 {
        assert!(put(id).await.unwrap().is_committed());
    }
    assert_eq!(put(0).await.unwrap(), first, "remembered behind as many others as the capability says");
    assert!(put(u128::MAX).await.unwrap().is_committed());
    assert_ne!(put(0).await.unwrap(), first, "bounded");
}

#[tokio::test]
async fn an_operation_id_stands_for_one_decision_also_if_that_was_a_conflict() {
    let store = MemoryStore::new();
    let options = WriteOptions::default().operation_id(OperationId(7));
    let txn = Txn::new().guard(key("b"), Expected::Any).guard(key("a"), Expected::Exists).put(key("a"), "2");
    let conflict = store.commit(txn.clone(), options).await.unwrap().conflict().unwrap();
    assert_eq!(conflict, Conflict { guard: 1, current: Observed::Absent });
    store.put(&key("a"), "1").await.unwrap();
    let repeated = store.commit(txn, options).await.unwrap().conflict().unwrap();
    assert!(matches!(repeated, Conflict { guard: 1, current: Observed::Present(_) }), "{repeated:?}");
}

#[tokio::test]
async fn pages_cover_a_prefix_and_nothing_else() {
    let store = MemoryStore::new();
    for name in ["a", "b", "b1", "b2", "b\u{7f}", "c"] {
        store.put(&key(name), "").await.unwrap();
    }
    let page = |after: Option<Key>| store.scan(b"b", ScanOptions { after, ..ScanOptions::default() }.limit(2));
    let first = page(None).await.unwrap();
    assert_eq!(first.entries.iter().map(|e| e.key.clone()).collect::<Vec<_>>(), [key("b"), key("b1")]);
    assert_eq!((first.next.clone(), first.revision), (Some(key("b1")), Some(Revision(6))));
    let second = page(first.next).await.unwrap();
    assert_eq!(second.entries.len(), 2);
    assert_eq!(second.next, None, "an exactly full last page is known to be the last");
    assert_eq!(page(Some(key("a"))).await.unwrap().entries.first().unwrap().key, key("b"), "a start before the prefix");
    assert!(page(Some(key("c"))).await.unwrap().entries.is_empty(), "a start behind the prefix");
    for limit in [0, ScanOptions::MAX_LIMIT + 1] {
        let error = store.scan(b"", ScanOptions::default().limit(limit)).await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. }));
    }
}

#[tokio::test]
async fn a_watch_sees_each_commit_in_order_and_can_resume_after_any() {
    let store = MemoryStore::new();
    store.put(&key("p/a"), "0").await.unwrap();
    let mut watch = store.watch(b"p/", WatchOptions::default()).await.unwrap();
    committed(&store, Txn::new().put(key("p/b"), "1").put(key("q"), "1").delete(key("p/a"))).await;
    store.put(&key("q"), "2").await.unwrap();
    store.delete(&key("p/b")).await.unwrap();
    let expected = ["p/b=1 @2", "-p/a @2", "-p/b @4"];
    assert_eq!(ready(&mut watch), expected);
    let mut resumed = store.handle().watch(b"p/", WatchOptions::default().after(Revision(1))).await.unwrap();
    assert_eq!(ready(&mut resumed), expected);
    let mut later = store.watch(b"p/", WatchOptions::default().after(Revision(2))).await.unwrap();
    assert_eq!(ready(&mut later), expected[2..]);
}

#[tokio::test]
async fn a_waiting_watch_wakes() {
    let store = MemoryStore::new();
    let mut watch = store.watch(b"", WatchOptions::default()).await.unwrap();
    let waiting = tokio::spawn(async move { watch.next().await });
    tokio::task::yield_now().await;
    store.put(&key("a"), "1").await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(event.key(), &key("a"));
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told() {
    let store = MemoryStore::new();
    let mut slow = store.watch(b"", WatchOptions::default()).await.unwrap();
    for _ in 0..=MemoryStore::HISTORY_COMMITS {
        store.put(&key("a"), "").await.unwrap();
    }
    assert_eq!(ready(&mut slow), ["compacted"], "one error, then the end");
    let error = store.watch(b"", WatchOptions::default().after(Revision(0))).await.err().unwrap();
    assert!(matches!(error, Error::Compacted { oldest: Revision(1) }));
    assert!(store.watch(b"", WatchOptions::default().after(Revision(1))).await.is_ok());
}

#[tokio::test]
async fn the_history_is_bounded_in_bytes_too() {
    let store = MemoryStore::new();
    let value = bytes::Bytes::from(vec![0; MemoryStore::MAX_VALUE_BYTES]);
    let fit = MemoryStore::HISTORY_BYTES / MemoryStore::MAX_VALUE_BYTES;
    for _ in 0..fit {
        store.put(&key("a"), value.clone()).await.unwrap();
    }
    let error = store.watch(b"", WatchOptions::default().after(Revision(0))).await.err().unwrap();
    assert!(matches!(error, Error::Compacted { oldest: Revision(1) }), "the keys put it over the limit");
}

#[tokio::test]
async fn compaction_forgets_the_past_only() {
    let store = MemoryStore::new();
    let mut behind = store.watch(b"", WatchOptions::default()).await.unwrap();
    store.put(&key("a"), "1").await.unwrap();
    let mut level = store.watch(b"", WatchOptions::default()).await.unwrap();
    store.compact();
    assert_eq!(ready(&mut behind), ["compacted"]);
    store.put(&key("a"), "2").await.unwrap();
    assert_eq!(ready(&mut level), ["a=2 @2"]);
}

#[tokio::test]
async fn closing_a_handle_ends_its_watches_and_no_others() {
    let store = MemoryStore::new();
    let other = store.handle();
    let mut own = store.watch(b"", WatchOptions::default()).await.unwrap();
    let mut foreign = other.watch(b"", WatchOptions::default()).await.unwrap();
    store.put(&key("a"), "1").await.unwrap();
    store.close().await.unwrap();
    store.close().await.unwrap();
    assert!(own.next().await.is_none());
    assert_eq!(ready(&mut foreign), ["a=1 @1"]);
    assert!(matches!(store.ping(ReadOptions::default()).await, Err(Error::Closed)));
    assert!(matches!(store.put(&key("a"), "1").await, Err(Error::Closed)));
    assert!(matches!(store.watch(b"", WatchOptions::default()).await.err(), Some(Error::Closed)));
    assert!(other.ping(ReadOptions::default()).await.is_ok());
}

#[tokio::test]
async fn a_watch_outlives_a_dropped_handle() {
    let store = MemoryStore::new();
    let mut watch = store.handle().watch(b"", WatchOptions::default()).await.unwrap();
    store.put(&key("a"), "1").await.unwrap();
    assert_eq!(ready(&mut watch), ["a=1 @1"]);
    assert!(watch.next().now_or_never().is_none(), "it waits on");
}

#[tokio::test]
async fn limits_are_checked_before_anything_is_applied() {
    let store = MemoryStore::new();
    let large = vec![0; MemoryStore::MAX_VALUE_BYTES + 1];
    assert!(matches!(store.put(&key("a"), large).await, Err(Error::TooLarge { .. })));
    let keys = vec![key("a"); MemoryStore::MAX_TXN_OPS + 1];
    let error = store.get_many(&keys, ReadOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }));
    assert_eq!(store.get_many(&keys[1..], ReadOptions::default()).await.unwrap(), vec![None; MemoryStore::MAX_TXN_OPS]);
}
