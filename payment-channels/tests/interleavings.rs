//! Ten thousand interleavings on the store in memory, and some hundred on the embedded engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use std::{sync::Arc, time::Duration};

use model::{Counts, Pace, REPLICAS};
use storage_core::{MemoryStore, Store};
use storage_embedded::LocalCluster;

/// The least that is run, in one test on the memory store.
const RUNS: u64 = 10_000;

/// Time is simulated: waits cost nothing, and a seed gives the same run again.
#[tokio::test(start_paused = true)]
async fn ten_thousand_interleavings_in_memory() {
    let pace = Pace { call: Duration::from_millis(10), lease: Duration::from_millis(60) };
    let (first, count) = (model::first_seed(), model::runs(RUNS));
    let mut total = Counts::default();
    for number in 0..count {
        let seed = first.wrapping_add(number);
        // The ids and waits of the product come from here.
        fastrand::seed(seed);
        let store = MemoryStore::new();
        let stores: [Arc<dyn Store>; REPLICAS] = std::array::from_fn(|_| Arc::new(store.handle()) as Arc<dyn Store>);
        total.add(model::run(seed, &stores, pace).await.unwrap_or_else(|why| panic!("MODEL_SEED={seed}: {why}")));
    }
    println!("{count} runs: {total:?}");
    let Counts { accepted, refused, busy, released, lost_leases, left_in_doubt, claims, unlocked, fenced, .. } = total;
    for (what, happened) in [
        ("accepted", accepted),
        ("refused", refused),
        ("busy", busy),
        ("released", released),
        ("lost leases", lost_leases),
        ("left in doubt", left_in_doubt),
        ("claims", claims),
        ("unlocked", unlocked),
        ("fenced", fenced),
        ("crashes before a write", total.crashes_before),
        ("crashes after a write", total.crashes_after),
        ("lost replies", total.lost_replies),
        ("late writes", total.late_writes),
        ("failures", total.failures),
    ] {
        assert!(happened > 100, "{what}: {happened} times in {count} runs: {total:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interleavings_on_the_embedded_engine() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start(dir.path(), REPLICAS as u64, |config| config).await.unwrap();
    let handles = std::array::from_fn(|place| Arc::new(cluster.node(place).unwrap().store()) as Arc<dyn Store>);
    model::run_on(handles).await;
    cluster.stop_all().await;
}
