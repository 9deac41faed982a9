//! A node that is down costs the others next to nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use storage_core::{Key, StoreExt};
use storage_embedded::{LocalCluster, NodeConfig, Role};
use tokio::time::{Instant, timeout_at};

/// A leader tried a follower that was down thousands of times a second: raft holds its next request back after an error, and
/// connections were made without waiting for that. The simulation found it.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_pauses_before_it_tries_a_node_that_is_down_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let down = (0..3).find(|place| cluster.node(*place).unwrap().status().role != Role::Leader).unwrap();
    let address = cluster.node(down).unwrap().address().unwrap();
    cluster.stop(down).await;
    // In its place somebody who hangs up on every call, and counts them.
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let store = cluster.running().next().unwrap().store();
    for number in 0..10 {
        store.put(&Key::new(format!("k{number}")).unwrap(), "v").await.unwrap();
    }
    let (mut calls, end) = (0, Instant::now() + Duration::from_secs(2));
    while let Ok(call) = timeout_at(end, listener.accept()).await {
        drop(call.unwrap());
        calls += 1;
    }
    // Heartbeats, of which there are twenty a second, and elections take the most of them.
    assert!(calls < 200, "{calls} calls within two seconds");
}
