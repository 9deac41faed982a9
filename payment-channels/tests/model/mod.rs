//! Payments against a pure model: random interleavings of replicas, with lost replies, late writes and crashes at every step.
//!
//! What has to hold: what is authorized never goes down within a nonce; a payment is accepted at most once over all
//! replicas; the claims are never more than the deposits; no acknowledged commit is lost.

mod history;
mod lossy;
mod run;
#[path = "../support/mod.rs"]
pub(crate) mod support;

pub(crate) use run::{Counts, Pace, run};
use std::{env, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use storage_core::{Key, Prefixed, Store};

/// How many replicas take part in a run.
pub(crate) const REPLICAS: usize = 3;

/// How many interleavings to run on a real backend; the environment variable `MODEL_RUNS` can ask for more.
const RUNS: u64 = 300;

/// So many runs are under way at a time: each waits most of the time.
const AT_ONCE: usize = 16;

/// The first seed, which is printed: `MODEL_SEED` repeats it.
pub(crate) fn first_seed() -> u64 {
    let seed = env::var("MODEL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("MODEL_SEED={seed}");
    seed
}

/// How many runs were asked for, at least `least`.
pub(crate) fn runs(least: u64) -> u64 {
    env::var("MODEL_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(0).max(least)
}

/// Runs the model on a real backend, on handles that belong to different servers where there are several.
#[allow(dead_code, reason = "not every program has a real backend")]
pub(crate) async fn run_on(handles: [Arc<dyn Store>; REPLICAS]) {
    let pace = Pace { call: Duration::from_millis(3), lease: Duration::from_millis(150) };
    let (first, count) = (first_seed(), runs(RUNS));
    let running = (0..count).map(|number| {
        let seed = first.wrapping_add(number);
        let stores = handles.clone().map(|store| {
            let prefix = Key::new(format!("run-{first:x}-{number}/")).unwrap();
            Arc::new(Prefixed::new(store, prefix)) as Arc<dyn Store>
        });
        async move { run(seed, &stores, pace).await.unwrap_or_else(|why| panic!("MODEL_SEED={seed}: {why}")) }
    });
    let mut total = Counts::default();
    let mut running = stream::iter(running).buffer_unordered(AT_ONCE);
    while let Some(counts) = running.next().await {
        total.add(counts);
    }
    println!("{count} runs: {total:?}");
    assert!(total.accepted > 300 && total.claims > 50 && total.lost_leases > 5, "{total:?}");
}
