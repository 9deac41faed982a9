//! Callers that keep the future of a call and do not poll it any more hold back nobody else: not those who write, not those who read, and not
//! what the cluster has to remember for them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, poll, stream};
use storage_core::{Key, Outcome, Store, StoreExt, Txn, WriteOptions};
use storage_embedded::{EmbeddedStore, LocalCluster, Node, NodeConfig};

/// More than a session may have unanswered.
const WRITES: usize = 17_000;

const AT_ONCE: usize = 256;

/// No deadline that would end what is kept within the test.
const KEPT_FOR: Duration = Duration::from_secs(3600);

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

/// A write that has been begun, and is never looked at again.
async fn begun(store: &EmbeddedStore, name: &str) -> impl Future<Output = storage_core::Result<Outcome>> + Unpin {
    let txn = Txn::new().put(key(name), "kept");
    let mut commit = store.commit(txn, WriteOptions::default().timeout(KEPT_FOR));
    assert!(poll!(&mut commit).is_pending());
    commit
}

async fn write_many(node: &Node) {
    let store = Arc::new(node.store());
    let writes = stream::iter(0..WRITES).map(|number| {
        let store = Arc::clone(&store);
        async move { store.put(&key(&format!("k{}", number % 100)), "v").await.map(drop) }
    });
    let failed: Vec<_> = writes.buffer_unordered(AT_ONCE).filter_map(|done| async { done.err() }).collect().await;
    assert!(failed.is_empty(), "{} of {WRITES} failed, first {:?}", failed.len(), failed[0]);
}

async fn nobody_is_held_back(node: &Node) {
    let store = node.store();
    // The first has a session to open, and those that follow it might wait for that.
    let first = begun(&store, "first").await;
    store.put(&key("other"), "1").await.unwrap();
    let second = begun(&store, "second").await;
    let other = key("other");
    let mut read = store.get(&other, Default::default());
    assert!(poll!(&mut read).is_pending());
    write_many(node).await;
    // Kept all the time, they have their answers as soon as somebody asks.
    for (name, kept) in [("first", first.boxed()), ("second", second.boxed())] {
        assert!(matches!(kept.await, Ok(Outcome::Committed(_))), "{name}");
        assert_eq!(store.get(&key(name), Default::default()).await.unwrap().unwrap().value, "kept");
    }
    assert_eq!(read.await.unwrap().unwrap().value, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_kept_and_not_polled_holds_back_nobody_at_the_leader() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 1, NodeConfig::fast).await.unwrap();
    nobody_is_held_back(cluster.node(0).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_kept_and_not_polled_holds_back_nobody_at_a_follower() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    nobody_is_held_back(cluster.follower().unwrap()).await;
}
