//! A follower that hangs: its process is stopped, or its machine swaps, and its connections stay open. The leader takes it for lost, and keeps no
//! more for it than for one that is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod freezer;

use std::time::{Duration, Instant};

use storage_core::{Key, StoreExt};

const SOON: Duration = Duration::from_secs(90);
const KIB: u64 = 1 << 10;

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_hangs_stops_neither_snapshots_nor_the_end_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (nodes, frozen) = freezer::start(dir.path(), |config| {
        let mut config = config.fast();
        config.bounds.snapshot_bytes = 256 * KIB;
        config.bounds.log_kept_bytes = 256 * KIB;
        config
    })
    .await;
    let (leader, follower) = (&nodes[0], &nodes[2]);
    leader.store().put(&Key::new("before").unwrap(), "1").await.unwrap();
    until("all have the first write", || follower.status().last_applied >= leader.status().committed).await;

    frozen.send_replace(true);
    let has = follower.status().last_log_index;
    let store = leader.store();
    for number in 0..64_u8 {
        store.put(&Key::new(format!("k{}", number % 4)).unwrap(), vec![number; 64 << 10]).await.unwrap();
    }
    until("a snapshot has what the follower has not", || leader.status().snapshot > has).await;
    until("the log is given up that the follower has not", || leader.status().purged > has).await;

    frozen.send_replace(false);
    until("the follower has caught up", || follower.status().last_applied >= leader.status().committed).await;
    assert_eq!(follower.status().snapshots.received, 1, "the log that it lacked was gone");
}
