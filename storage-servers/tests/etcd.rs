//! The launcher on a real server: etcd, whose health endpoint and JSON gateway need no client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io;
use std::time::{Duration, Instant};

use storage_testkit::server::{Cluster, ClusterOptions, http_get};

async fn health(cluster: &Cluster, node: usize) -> io::Result<u16> {
    let port = cluster.node(node).unwrap().port("client").unwrap();
    let health = tokio::time::timeout(Duration::from_secs(1), http_get(port, "/health")).await;
    Ok(health.map_err(|_| io::ErrorKind::TimedOut)??.status)
}

async fn eventually_unhealthy(cluster: &Cluster, node: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while matches!(health(cluster, node).await, Ok(200)) {
        assert!(Instant::now() < deadline, "node {node} is still healthy");
    }
}

#[tokio::test]
async fn three_nodes_of_etcd_survive_what_a_majority_survives() {
    let mut cluster = Cluster::start(storage_servers::etcd().spec, 3, ClusterOptions::default()).await.unwrap();
    for node in 0..3 {
        assert_eq!(health(&cluster, node).await.unwrap(), 200);
    }

    // The leader may have been this one: the other two elect another.
    cluster.kill(0).unwrap();
    assert!(health(&cluster, 0).await.is_err());
    for node in 1..3 {
        cluster.ready(node).await.unwrap();
    }

    // One of three serves nobody.
    cluster.pause(1).unwrap();
    assert_eq!(health(&cluster, 1).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    eventually_unhealthy(&cluster, 2).await;

    cluster.resume(1).unwrap();
    cluster.restart(0).unwrap();
    for node in 0..3 {
        cluster.ready(node).await.unwrap();
    }

    cluster.kill_all();
    cluster.restart_all().await.unwrap();
}
