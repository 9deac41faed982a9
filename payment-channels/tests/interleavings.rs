//! Ten thousand interleavings on the store in memory, and some hundred on the embedded engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use model::{Counts, Pace, REPLICAS};
use storage_core::{MemoryStore, Store};
use storage_embedded::LocalCluster;

/// The least that is run, in one test on the memory store.
const RUNS: u64 = 10_000;

/// Time is simulated: waits cost nothing, and a seed gives the same run again.
#[test]
fn ten_thousand_interleavings_in_memory() {
    let (first, count) = (model::first_seed(), model::runs(RUNS));
    let next = AtomicU64::new(0);
    // What the product draws by lot is the thread's own, as is its time, so runs may be shared out.
    let runs = || {
        let mut total = Counts::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return total;
            }
            total.add(in_memory(first.wrapping_add(number)));
        }
    };
    let mut total = Counts::default();
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..thread::available_parallelism().map_or(1, usize::from)).map(|_| scope.spawn(runs)).collect();
        for thread in threads {
            total.add(thread.join().unwrap());
        }
    });
    println!("{count} runs: {total:?}");
    let Counts {
        accepted, refused, busy, released, lost_leases, left_in_doubt, claims, unlocked, fenced, prepaid, ..
    } = total;
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
        ("prepaid", prepaid),
        ("crashes before a write", total.crashes_before),
        ("crashes after a write", total.crashes_after),
        ("lost replies", total.lost_replies),
        ("late writes", total.late_writes),
        ("failures", total.failures),
    ] {
        assert!(happened > 100, "{what}: {happened} times in {count} runs: {total:?}");
    }
}

/// One run, in a simulated time of its own.
fn in_memory(seed: u64) -> Counts {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let pace = Pace { call: Duration::from_millis(10), lease: Duration::from_millis(60) };
    // The ids and waits of the product come from here.
    fastrand::seed(seed);
    let store = MemoryStore::new();
    let stores: [Arc<dyn Store>; REPLICAS] = std::array::from_fn(|_| Arc::new(store.handle()) as Arc<dyn Store>);
    let run = runtime.block_on(model::run(seed, &stores, pace));
    run.unwrap_or_else(|why| panic!("MODEL_SEED={seed}: {why}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn interleavings_on_the_embedded_engine() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start(dir.path(), REPLICAS as u64, |config| config).await.unwrap();
    let handles = std::array::from_fn(|place| Arc::new(cluster.node(place).unwrap().store()) as Arc<dyn Store>);
    model::run_on(handles).await;
    cluster.stop_all().await;
}
