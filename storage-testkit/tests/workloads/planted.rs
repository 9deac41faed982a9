//! Each planted bug is found, by which workload, and how fast.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use storage_core::Store;
use storage_testkit::workload::{self, Faults, Open, RunReport, Settings, WORKLOADS};

use crate::bugs::{Bug, Planted};

/// So long may a workload look for a bug.
const PATIENCE: Duration = Duration::from_secs(30);

/// One run of a workload: short, since a bug that is found ends the search.
const RUN: Duration = Duration::from_millis(300);

/// Each bug with the workload that is made for it, and what it says.
const BUGS: &[(Bug, &str, &str)] = &[
    (Bug::IgnoresGuards, "counter", "adds up"),
    (Bug::StaleRead, "register", "not linearizable"),
    (Bug::AcknowledgedBeforeSync, "counter", "adds up"),
    (Bug::UnknownRetriedAsNew, "counter", "adds up"),
    (Bug::LostEvent, "watch", "no gap"),
    (Bug::EventTwice, "watch", "no duplicate"),
    (Bug::NoFence, "lock", "stale holder never commits"),
    (Bug::DroppedAtLeaderChange, "counter", "adds up"),
    (Bug::TornTransaction, "bank", "total constant"),
    (Bug::RefusedAndApplied, "register", "not linearizable"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_bug_is_found() {
    println!("{:<24}{:<10}{:>8}  what it says", "bug", "workload", "seconds");
    for (bug, name, says) in BUGS {
        let (_, workload) = WORKLOADS.iter().find(|(known, _)| known == name).unwrap();
        let began = Instant::now();
        let mut runs = 0;
        let report = loop {
            runs += 1;
            let report = run(*bug, workload(), runs).await;
            if report.is_violated() {
                break report;
            }
            assert!(began.elapsed() < PATIENCE, "{bug:?} was not found by {name}, in {runs} runs");
        };
        let text = report.to_string();
        assert!(text.contains(says), "{bug:?}: {text}");
        println!("{:<24}{name:<10}{:>8.2}  {says}", format!("{bug:?}"), began.elapsed().as_secs_f64());
    }
}

async fn run(bug: Bug, workload: Arc<dyn workload::Workload>, seed: u64) -> RunReport {
    let planted = Planted::new(bug);
    let store = planted.clone();
    let open: Open = Arc::new(move |_| {
        let handle = Arc::new(store.clone()) as Arc<dyn Store>;
        async move { Ok(handle) }.boxed()
    });
    let faults = async |_| {
        for _ in 0..3 {
            tokio::time::sleep(RUN / 3).await;
            if bug == Bug::AcknowledgedBeforeSync {
                planted.power_loss().await;
            }
        }
        Faults::default()
    };
    workload::run(workload, &open, &Settings::default().seed(seed), faults).await.unwrap()
}
