//! The launcher on a real server: etcd, whose health endpoint and JSON gateway need no client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io;
use std::time::{Duration, Instant};

use storage_testkit::programs;
use storage_testkit::server::{Cluster, ClusterOptions, Launch, Probe, ServerSpec, http_get};

fn etcd() -> ServerSpec {
    ServerSpec::new("etcd", |node| {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = (url(node.port("client")?), url(node.port("peer")?));
        let members = node.nodes().map(|node| Ok(format!("{}={}", node.name(), url(node.port("peer")?))));
        let members = members.collect::<Result<Vec<_>, storage_testkit::server::ServerError>>()?.join(",");
        Ok(Launch::new(programs::find("etcd")?)
            .args(["--name".to_owned(), node.name()])
            .args(["--data-dir".to_owned(), node.data_dir().join("member").display().to_string()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &members, "--initial-cluster-state", "new"])
            .args(["--initial-cluster-token", node.token(), "--log-level", "error"]))
    })
    .port("client")
    .port("peer")
    .ready_when(Probe::http("client", "/health", |answer, _| answer.body.contains("\"true\"")))
    .client_url("http://127.0.0.1:{client}")
}

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
    let mut cluster = Cluster::start(etcd(), 3, ClusterOptions::default()).await.unwrap();
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
