//! A right store passes the audit, with replicas killed in the middle of payments; a wrong one is found out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bench::{Amount, Error};
use futures::FutureExt;
use soak::{Open, Rehearsal, RehearsalReport, Traffic, in_turn, rehearse};
use storage::{
    Capabilities, Entry, FaultInjecting, Key, MemoryStore, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn,
    WatchOptions, WatchStream, WriteOptions,
};

fn rehearsal() -> Rehearsal {
    Rehearsal {
        replicas: 5,
        clients: 16,
        hot_share: 0.25,
        amount: Amount::Time(Duration::from_secs(2)),
        traffic: Traffic::Everything,
        kill_replicas: true,
        lease: Duration::from_millis(200),
        seed: fastrand::u64(..),
    }
}

fn opening<S: Store>(handle: impl Fn(usize) -> S + Send + Sync + 'static) -> Open {
    Arc::new(move |replica| {
        let store = Arc::new(handle(replica)) as Arc<dyn Store>;
        ready(Ok(store)).boxed()
    })
}

async fn run(rehearsal: &Rehearsal, open: Open) -> bench::Result<RehearsalReport> {
    rehearse(rehearsal, open, pending(), |_| {}).await
}

#[track_caller]
fn assert_passed(report: &RehearsalReport) {
    assert_eq!(report.audit.violations, [], "{report:#?}");
    assert_eq!(report.audit.evidence, None);
    assert_eq!(report.audit.channels, 13, "twelve and the hot one");
    // What was claimed is what was taken, to the unit.
    assert!(report.audit.acknowledged >= report.payments, "{report:#?}");
    assert!(report.audit.claimed >= report.audit.acknowledged, "{report:#?}");
    let in_doubt = report.audit.claimed - report.audit.acknowledged;
    assert!(in_doubt <= report.audit.in_doubt, "{report:#?}");
    // A run in which nothing happened proves nothing.
    let happened = [
        report.payments,
        report.kills,
        report.double_spends,
        report.prepaid,
        report.stale,
        report.busy,
        report.conflicts,
    ];
    assert!(happened.iter().all(|count| *count > 0), "{report:#?}");
    assert!(report.own.p50_us > 0.0 && report.hot.p50_us > 0.0, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_kept_in_memory_when_replicas_are_killed() {
    let store = MemoryStore::new();
    let left = store.handle();
    let report = run(&rehearsal(), opening(move |_| store.handle())).await.unwrap();
    assert_passed(&report);
    let page = left.scan(b"", ScanOptions::default()).await.unwrap();
    assert_eq!(page.entries, [], "nothing is left in the store");
}

#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread")]
async fn money_is_kept_on_the_embedded_engine_when_replicas_are_killed() {
    use storage::embedded::LocalCluster;

    let directory = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start(directory.path(), 3, |config| config).await.unwrap();
    let stores = cluster.running().map(|node| Arc::new(node.store()) as Arc<dyn Store>).collect();
    let report = run(&rehearsal(), in_turn(stores)).await.unwrap();
    cluster.stop_all().await;
    assert_passed(&report);
    assert!(report.unknown > 0, "some were killed in the middle of a payment: {report:#?}");
}

/// Replies are lost besides, so that replicas themselves do not know what they did.
#[tokio::test(flavor = "multi_thread")]
async fn money_is_kept_when_replies_are_lost() {
    let store = FaultInjecting::new(Arc::new(MemoryStore::new()));
    let faults = store.clone();
    let rehearsal = rehearsal();
    let Amount::Time(time) = rehearsal.amount else { unreachable!("it runs for a time") };
    let began = std::time::Instant::now();
    // In the first half only: the rest uses up what was still to be lost, since the audit has to get its answers.
    let lose = move |_| {
        if began.elapsed() < time / 2 {
            faults.lose_replies(10);
        }
    };
    let report = rehearse(&rehearsal, opening(move |_| store.clone()), pending(), lose).await.unwrap();
    assert_passed(&report);
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_alone_are_counted_and_end_at_their_number() {
    let store = MemoryStore::new();
    let rehearsal = Rehearsal {
        amount: Amount::Iterations(500),
        traffic: Traffic::Payments,
        kill_replicas: false,
        hot_share: 0.0,
        ..rehearsal()
    };
    let report = run(&rehearsal, opening(move |_| store.handle())).await.unwrap();
    assert_eq!((report.payments, report.audit.acknowledged, report.audit.claimed), (500, 500, 500));
    assert_eq!((report.kills, report.double_spends, report.prepaid, report.unknown), (0, 0, 0, 0));
    assert_eq!((report.own_clients, report.hot_clients), (16, 0));
    // Clients stay with their replica: after the first one, a payment is one commit to reserve and one to pay.
    assert_eq!((report.commits, report.reads), (1000, 16));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_it_early_and_the_audit_is_made_all_the_same() {
    let store = MemoryStore::new();
    let rehearsal = Rehearsal { amount: Amount::Time(Duration::from_secs(3600)), ..rehearsal() };
    let paid = tokio::sync::Notify::new();
    let tick = |payments| {
        if payments > 0 {
            paid.notify_one();
        }
    };
    let report = rehearse(&rehearsal, opening(move |_| store.handle()), paid.notified(), tick).await.unwrap();
    assert!(report.seconds < 60.0 && report.payments > 0, "{report:#?}");
    assert_eq!(report.audit.violations, []);
}

#[tokio::test]
async fn what_cannot_be_rehearsed_is_refused() {
    let good = rehearsal();
    for bad in [
        Rehearsal { clients: 0, ..good.clone() },
        Rehearsal { replicas: 0, ..good.clone() },
        Rehearsal { hot_share: 1.5, ..good.clone() },
        Rehearsal { lease: Duration::ZERO, ..good.clone() },
    ] {
        let result = run(&bad, opening(|_| MemoryStore::new())).await;
        assert!(matches!(result, Err(Error::Usage(_))), "{bad:?}: {result:?}");
    }
}

/// How a store breaks its contract, at one of seven commits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    /// It applies the write whatever the guards say.
    IgnoresGuards,
    /// It acknowledges the write and forgets it.
    Loses,
    /// It applies the write and says that it certainly did not.
    DeniesWhatItDid,
}

#[derive(Debug)]
struct Flawed {
    inner: MemoryStore,
    flaw: Flaw,
    commits: Arc<AtomicU64>,
}

#[async_trait]
impl Store for Flawed {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }
    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        self.inner.get(key, options).await
    }
    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.inner.get_many(keys, options).await
    }
    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.inner.scan(prefix, options).await
    }
    async fn commit(&self, mut txn: Txn, options: WriteOptions) -> Result<Outcome> {
        // Lets others come in between, as a network would.
        tokio::task::yield_now().await;
        if !self.commits.fetch_add(1, Ordering::Relaxed).is_multiple_of(7) {
            return self.inner.commit(txn, options).await;
        }
        match self.flaw {
            Flaw::IgnoresGuards => {
                txn.guards.clear();
                self.inner.commit(txn, options).await
            }
            Flaw::Loses => {
                // Committed elsewhere: the versions are those of another store.
                let elsewhere = MemoryStore::new();
                txn.guards.clear();
                elsewhere.commit(txn, options).await
            }
            Flaw::DeniesWhatItDid => {
                let _ = self.inner.commit(txn, options).await?;
                Err(storage::Error::PermissionDenied { source: "not you".into() })
            }
        }
    }
    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        self.inner.watch(prefix, options).await
    }
    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.inner.ping(options).await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// On a machine that is busy with other things a run may end before two replicas have met at the flaw.
const RUNS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_breaks_its_contract_is_found_out() {
    for (flaw, expected) in [
        (Flaw::IgnoresGuards, &["was spent 2 times", "is lost", "were claimed at nonce"][..]),
        (Flaw::Loses, &["is lost"]),
        (Flaw::DeniesWhatItDid, &["was refused each time, and was charged"]),
    ] {
        let mut runs = Vec::new();
        let report = loop {
            let (store, commits) = (MemoryStore::new(), Arc::new(AtomicU64::new(0)));
            let open = opening(move |_| Flawed { inner: store.handle(), flaw, commits: Arc::clone(&commits) });
            let report = run(&Rehearsal { hot_share: 0.5, ..rehearsal() }, open).await;
            let report = report.unwrap_or_else(|error| panic!("{flaw:?}: {error}"));
            let found: Vec<_> = report.audit.violations.iter().map(ToString::to_string).collect();
            if found.iter().any(|what| expected.iter().any(|expected| what.contains(expected))) {
                break report;
            }
            runs.push(found);
            assert!(runs.len() < RUNS, "{flaw:?}: {runs:#?} and at last {report:#?}");
        };
        assert!(report.audit.evidence.is_some(), "the records are left for somebody to look at");
    }
}
