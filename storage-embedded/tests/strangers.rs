//! Whoever connects to the peer port and does not prove that it is of the cluster keeps no member away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use storage_core::{Key, Outcome, ReadOptions, Store, Txn, WriteOptions};
use storage_embedded::{LocalCluster, NodeConfig, Refusal, connections::Budget};
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinSet};

const SOON: Duration = Duration::from_secs(60);

/// From the very address of the members: connects, says nothing, and comes back as soon as it is sent away.
async fn flood(address: std::net::SocketAddr, strangers: usize) -> JoinSet<()> {
    let mut flood = JoinSet::new();
    for _ in 0..strangers {
        flood.spawn(async move {
            loop {
                if let Ok(mut stream) = TcpStream::connect(address).await {
                    let _ = stream.read(&mut [0; 16]).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    flood
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_strangers_is_bounded_and_members_come_through() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let leader = cluster.leader().unwrap().clone();
    let away = (0..3).find(|place| cluster.node(*place).unwrap().id() != leader.id()).unwrap();
    // More than there are places for them, and few enough for a process that may have 1024 files open.
    let strangers = (2 * Budget::of_this_process().strangers).min(200);
    let _flood = flood(leader.address().unwrap(), strangers).await;
    let deadline = Instant::now() + SOON;
    while leader.refusals().count(Refusal::TooMany) == 0 {
        assert!(Instant::now() < deadline, "nobody is sent away");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.stop(away).await;
    let key = Key::new("while it was away").unwrap();
    // A busy machine may take longer than the usual deadline: the flood does what it can in the same process.
    let patient = WriteOptions::default().timeout(SOON);
    let put = leader.store().commit(Txn::new().put(key.clone(), "1"), patient).await.unwrap();
    assert!(matches!(put, Outcome::Committed(_)), "{put:?}");
    cluster.restart(away).await.unwrap();
    let back = cluster.node(away).unwrap();
    // Its calls go to the node that is flooded.
    back.wait_for_leader(SOON).await.unwrap();
    let read = back.store().get(&key, ReadOptions::default().timeout(SOON)).await;
    assert_eq!(read.expect("it comes through").unwrap().value, "1");
}
