//! Nodes compare their states. One whose state is not that of the others stops, whatever it was that changed it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use storage_core::{Error, Key, ReadOptions, Store, StoreExt};
use storage_embedded::{LocalCluster, NodeConfig, Role, Stopped};

const SOON: Duration = Duration::from_secs(30);

/// The cluster is idle in one round and busy in the other: the nodes have applied the same, or one is a little ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_state_differs_stops_and_the_others_go_on() {
    let key = Key::new("a").unwrap();
    for (role, busy) in [(Role::Follower, false), (Role::Leader, false), (Role::Follower, true), (Role::Leader, true)] {
        let dir = tempfile::tempdir().unwrap();
        let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
        for node in cluster.running() {
            node.store().put(&key, "before").await.unwrap();
        }
        let damaged = cluster.running().find(|node| node.status().role == role).unwrap().clone();
        let others: Vec<_> = cluster.running().filter(|node| node.id() != damaged.id()).cloned().collect();
        let store = others[0].store();
        let writer = busy.then(|| {
            let (store, key) = (others[0].store(), key.clone());
            tokio::spawn(async move {
                loop {
                    // While the leadership changes some fail.
                    let _ = store.put(&key, "meanwhile").await;
                }
            })
        });
        damaged.damage_state();
        let stopped = tokio::time::timeout(SOON, damaged.stopped()).await.expect("it is found out");
        assert!(matches!(stopped, Err(Error::Corrupt { .. })), "{stopped:?}");
        assert!(matches!(damaged.why_stopped(), Some(Stopped::Differs(_))), "{:?}", damaged.why_stopped());
        if let Some(writer) = writer {
            writer.abort();
        }
        tokio::time::timeout(SOON, async { while store.put(&key, "after").await.is_err() {} })
            .await
            .expect("it goes on");
        let read = others[1].store().get(&key, ReadOptions::default().timeout(SOON)).await.unwrap();
        assert_eq!(read.unwrap().value, "after");
        // The first comparison of those that go on may still be under way.
        tokio::time::timeout(SOON, async {
            while others.iter().any(|node| node.last_compared().is_none()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("those that go on compare too");
        assert!(others.iter().all(|node| node.why_stopped().is_none()));
    }
}

/// Two of two differ, and nobody can tell who is right: one goes on alone, and so acknowledges nothing.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_differ_the_follower_stops() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 2, NodeConfig::fast).await.unwrap();
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower().unwrap());
    follower.store().put(&Key::new("a").unwrap(), "1").await.unwrap();
    leader.damage_state();
    let stopped = tokio::time::timeout(SOON, follower.stopped()).await.expect("it is found out");
    assert!(stopped.is_err());
    assert_eq!(leader.why_stopped(), None);
}
