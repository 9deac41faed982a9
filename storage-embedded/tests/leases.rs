//! Leases of a cluster that has lost its majority for longer than they live.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use storage_core::{ReadOptions, Store};
use storage_embedded::{
    LocalCluster, NodeConfig,
    mvcc::{self, MvccError},
};

const SOON: Duration = Duration::from_secs(60);
const LEASE: u64 = 7;
const TTL_SECONDS: u64 = 4;

/// Nobody could keep it alive meanwhile. So the leader ends nothing, and says neither that it lives nor that it has ended; whoever leads next gives it
/// its whole time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_a_loss_of_the_majority_and_has_its_whole_time_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let place = (0..3).find(|place| cluster.node(*place).unwrap().id() == cluster.leader().unwrap().id()).unwrap();
    let (leader, others) = (cluster.node(place).unwrap().clone(), [(place + 1) % 3, (place + 2) % 3]);
    let (keys, key) = (leader.mvcc(), storage_core::Key::new("leased").unwrap());
    keys.grant_lease(LEASE, TTL_SECONDS, SOON).await.unwrap();
    let put = mvcc::Put { key: key.clone(), value: Some("1".into()), lease: Some(LEASE), previous: false };
    keys.txn(mvcc::Txn::of(mvcc::Op::Put(put)), SOON).await.unwrap();

    for other in others {
        cluster.stop(other).await;
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2 * TTL_SECONDS) {
        for asked in [keys.lease(LEASE, SOON / 100).await, keys.keep_lease(LEASE, SOON / 100).await] {
            // Until it finds out that it is alone, it answers what it knows.
            let is_known = matches!(&asked, Ok(Some(_)));
            let is_refused = matches!(&asked, Err(MvccError::Store(_)));
            assert!(is_refused || is_known && began.elapsed() < Duration::from_secs(TTL_SECONDS), "{asked:?}");
        }
    }

    let led = Instant::now();
    for other in others {
        cluster.restart(other).await.unwrap();
    }
    let life = loop {
        if let Ok(life) = keys.lease(LEASE, SOON).await {
            break life.expect("it is alive");
        }
        assert!(led.elapsed() < SOON, "nobody leads");
    };
    assert!(life.left_millis + u64::try_from(led.elapsed().as_millis()).unwrap() >= TTL_SECONDS * 1000, "{life:?}");
    let store = leader.store();
    assert!(store.get(&key, ReadOptions::default()).await.unwrap().is_some());
    // And then it ends, since nobody keeps it alive.
    while store.get(&key, ReadOptions::default()).await.unwrap().is_some() {
        assert!(led.elapsed() < SOON, "it never ends");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(keys.lease(LEASE, SOON).await.unwrap(), None);
}
