//! Tombstones are collected while everybody goes on: no version repeats, none changes, nothing is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use storage_core::{Entry, Error, Expected, Key, ReadOptions, Store, StoreExt, WatchOptions};
use storage_zk::ZkStore;
use zookeeper_client::Client;

use common::{Backend, ZooKeeper};

fn key(text: impl Into<String>) -> Key {
    Key::new(text.into()).unwrap()
}

async fn all(store: &ZkStore) -> BTreeMap<Key, Entry> {
    store.scan_all(b"").map_ok(|entry| (entry.key.clone(), entry)).try_collect().await.unwrap()
}

/// Counts, however often another worker or the collection comes in between.
async fn add_one(store: &ZkStore, counter: &Key) {
    loop {
        let entry = store.get(counter, ReadOptions::default()).await.unwrap();
        let old = entry.as_ref().map_or(0, |entry| std::str::from_utf8(&entry.value).unwrap().parse().unwrap());
        let expected = entry.map_or(Expected::Absent, |entry| Expected::Version(entry.version));
        if store.put_expecting(counter, expected, (old + 1_u64).to_string()).await.unwrap().is_ok() {
            return;
        }
    }
}

/// How many nodes the servers keep for entries.
async fn nodes(servers: &ZooKeeper) -> usize {
    let client = Client::connect(&servers.endpoints()[0]).await.unwrap();
    let mut count = 0;
    for bucket in client.list_children("/storage").await.unwrap() {
        count += client.list_children(&format!("/storage/{bucket}")).await.unwrap().len();
    }
    count
}

/// Makes a write that may be made twice until it is answered: a busy machine may leave so many at once without an answer.
async fn insist<T>(write: impl AsyncFn() -> storage_core::Result<T>) -> T {
    for _ in 0..10 {
        match write().await {
            Ok(answer) => return answer,
            Err(error) => println!("once more: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("no answer to any of ten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_removes_tombstones_and_keeps_values_with_their_versions() {
    let servers = ZooKeeper::start(1).await;
    let (store, other) = (servers.open().await, servers.open().await);
    let mut deleted = Vec::new();
    for number in 0..200 {
        let key = key(format!("k{number:03}"));
        let version = store.put(&key, number.to_string()).await.unwrap();
        if number % 2 == 0 {
            store.delete(&key).await.unwrap();
            deleted.push((key, version));
        }
    }
    let before = all(&store).await;
    let mut watch = other.watch(b"", WatchOptions::default()).await.unwrap();
    assert_eq!(nodes(&servers).await, 200);
    for _ in 0..2 {
        store.collect_tombstones().await.unwrap();
        assert_eq!(nodes(&servers).await, 100, "only values are left");
        assert_eq!(all(&store).await, before);
        assert_eq!(all(&other).await, before, "read by a handle that did not collect");
    }
    for (key, old) in deleted {
        let new = other.put(&key, "again").await.unwrap();
        assert_ne!(old, new);
        assert!(store.compare_and_swap(&key, old, "stale").await.unwrap().is_err(), "{key}");
        assert!(store.compare_and_swap(&key, new, "fresh").await.unwrap().is_ok(), "{key}");
    }
    for (key, entry) in before {
        assert!(other.compare_and_swap(&key, entry.version, "swapped").await.unwrap().is_ok(), "{key}");
        assert!(store.compare_and_swap(&key, entry.version, "twice").await.unwrap().is_err(), "{key}");
    }
    // That values moved is nobody's news: the first event is of the first write afterwards.
    let first = watch.next().await.unwrap().unwrap();
    assert!(deleted_key(first.key()), "{first:?}");
    while let Some(Some(event)) = watch.next().now_or_never() {
        event.unwrap();
    }
}

fn deleted_key(key: &Key) -> bool {
    let number: u32 = std::str::from_utf8(&key.as_bytes()[1..]).unwrap().parse().unwrap();
    number.is_multiple_of(2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collecting_all_the_time_disturbs_nobody() {
    const COUNTERS: u64 = 4;
    const ADDS: u64 = 60;
    let servers = ZooKeeper::start(1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let collecting: Vec<_> = (0..2)
        .map(|_| {
            let (servers, stop) = (Arc::clone(&servers), Arc::clone(&stop));
            tokio::spawn(async move {
                let store = servers.open().await;
                let mut rounds = 0;
                while !stop.load(Ordering::SeqCst) {
                    match store.collect_tombstones().await {
                        Ok(()) => rounds += 1,
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    }
                }
                rounds
            })
        })
        .collect();
    let mut working = Vec::new();
    for worker in 0..3 {
        let store = servers.open().await;
        working.push(tokio::spawn(async move {
            let mut versions = HashSet::new();
            for round in 0..ADDS {
                let counter = key(format!("counter{}", round % COUNTERS));
                add_one(&store, &counter).await;
                // A key of its own, created and deleted over and over.
                let own = key(format!("own{worker}"));
                let version = store.put_if_absent(&own, "1").await.unwrap().unwrap();
                assert!(versions.insert(version), "a version came back: {version}");
                assert_eq!(store.get(&own, ReadOptions::default()).await.unwrap().unwrap().version, version);
                store.delete_expecting(&own, Expected::Version(version)).await.unwrap().unwrap();
                assert_eq!(store.get(&own, ReadOptions::default()).await.unwrap(), None);
            }
        }));
    }
    for worker in working {
        worker.await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    for collector in collecting {
        assert!(collector.await.unwrap() > 2, "too few collections to show anything");
    }
    let store = servers.open().await;
    let counted: u64 = all(&store)
        .await
        .values()
        .map(|entry| std::str::from_utf8(&entry.value).unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(counted, 3 * ADDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_that_deletes_much_collects_by_itself() {
    let servers = ZooKeeper::start(1).await;
    let store = servers.open().await;
    let mut written = 0;
    while written < 64 * 600 {
        let batch: Vec<_> = (written..written + 640).map(|number| key(format!("k{number}"))).collect();
        let work = batch.iter().map(|key| async {
            insist(async || store.put(key, "").await).await;
            insist(async || store.delete(key).await).await;
        });
        futures::future::join_all(work).await;
        written += 640;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while nodes(&servers).await > written / 2 {
        assert!(tokio::time::Instant::now() < deadline, "{} nodes are left of {written}", nodes(&servers).await);
    }
    assert!(all(&store).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_password_the_store_is_for_its_user_alone() {
    let servers = ZooKeeper::start(1).await;
    let config = servers.config().with_root("/private").unwrap();
    let store = ZkStore::open(&config.clone().with_credentials("alice", "secret")).await.unwrap();
    store.put(&key("a"), "1").await.unwrap();
    for stranger in [config.clone(), config.clone().with_credentials("alice", "guess")] {
        let error = ZkStore::open(&stranger).await.unwrap_err();
        assert!(matches!(error, Error::PermissionDenied { .. }), "{error}");
    }
}
