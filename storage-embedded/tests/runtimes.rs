//! Handles are used from any runtime, and outlive those that they were used on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{sync::Arc, time::Duration};

use storage_core::{Key, Outcome, Store, StoreExt, Txn, WriteOptions};
use storage_embedded::{LocalCluster, NodeConfig};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_the_leader_may_end_with_the_runtime_that_opened_it() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let store = Arc::new(cluster.follower().unwrap().store());
    let key = Key::try_from("a").unwrap();
    for round in 0..3 {
        let (shared, there) = (store.clone(), key.clone());
        let elsewhere = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(shared.put(&there, "elsewhere")).unwrap();
            // A call is under way when the runtime ends.
            runtime.spawn(async move { shared.put(&there, "cut off").await });
            runtime.block_on(tokio::task::yield_now());
        };
        tokio::task::spawn_blocking(elsewhere).await.unwrap();
        // On a connection that has ended, it waits until its deadline in vain.
        let txn = Txn::new().put(key.clone(), round.to_string());
        let written = store.commit(txn, WriteOptions::default().timeout(Duration::from_secs(60))).await;
        assert!(matches!(written, Ok(Outcome::Committed(_))), "{written:?}");
    }
    store.close().await.unwrap();
}
