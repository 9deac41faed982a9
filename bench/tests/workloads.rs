//! The workloads measure a right store, and find out a wrong one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bench::{Amount, Clients, Error, Load, Measurement, Workload};
use storage::{
    Capabilities, Entry, Key, MemoryStore, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn, WatchOptions,
    WatchStream, WriteOptions,
};

/// How a store breaks its contract at every seventh commit of something that was there before.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    /// It acknowledges the write and forgets it.
    Loses,
    /// It applies the write whatever the guards say.
    IgnoresGuards,
    /// It applies the first operation only.
    AppliesInPart,
    /// It applies the write and says that nobody knows.
    HidesOutcome,
    /// It refuses the write, as it may.
    Refuses,
    /// It stalls once, at the 49th commit, for this time.
    StallsOnce,
    /// It takes some milliseconds for each.
    IsSlow,
    /// It takes up the write and never gives an answer but an error.
    Fails,
}

const STALL: Duration = Duration::from_millis(400);

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
        let entry = self.inner.get(key, options).await;
        // Lets other clients come between a read and its swap, as a network would.
        tokio::task::yield_now().await;
        entry
    }
    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.inner.get_many(keys, options).await
    }
    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.inner.scan(prefix, options).await
    }
    async fn commit(&self, mut txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let number = self.commits.fetch_add(1, Ordering::Relaxed);
        let key = txn.ops[0].key().clone();
        let before = self.inner.get(&key, ReadOptions::default()).await?;
        if before.is_none() || !number.is_multiple_of(7) {
            return self.inner.commit(txn, options).await;
        }
        match self.flaw {
            Flaw::Loses => {
                let outcome = self.inner.commit(txn, options).await?;
                self.inner.commit(Txn::new().put(key, before.unwrap().value), options).await.map(|_| outcome)
            }
            Flaw::IgnoresGuards => {
                txn.guards.clear();
                self.inner.commit(txn, options).await
            }
            Flaw::AppliesInPart => {
                let versions = vec![Some(before.unwrap().version); txn.ops.len()];
                txn.ops.truncate(1);
                let mut outcome = self.inner.commit(txn, options).await?;
                if let Outcome::Committed(committed) = &mut outcome {
                    committed.versions = versions;
                }
                Ok(outcome)
            }
            Flaw::HidesOutcome => {
                let _ = self.inner.commit(txn, options).await?;
                Err(storage::Error::unknown_outcome("the answer was lost"))
            }
            Flaw::StallsOnce => {
                if number == 49 {
                    tokio::time::sleep(STALL).await;
                }
                self.inner.commit(txn, options).await
            }
            Flaw::IsSlow => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.inner.commit(txn, options).await
            }
            Flaw::Refuses => Err(storage::Error::unavailable("not now")),
            Flaw::Fails => {
                self.inner.close().await?;
                self.inner.commit(txn, options).await
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

const CLIENTS: usize = 4;

fn load(workload: Workload) -> Load {
    Load { workload, clients: CLIENTS, rate: None, value_bytes: 128 }
}

/// Runs a workload and its verification on handles of one store.
fn measure(stores: &[Arc<dyn Store>], workload: Workload, amount: Amount) -> bench::Result<Measurement> {
    let clients = Clients::new(2)?;
    let mut session = clients.prepare(stores, &load(workload))?;
    session.run(Amount::Iterations(10))?;
    let measured = session.run(amount)?;
    session.verify()?;
    Ok(measured)
}

fn flawed(flaw: Flaw) -> Vec<Arc<dyn Store>> {
    let (store, commits) = (MemoryStore::new(), Arc::new(AtomicU64::new(0)));
    let handle = || Arc::new(Flawed { inner: store.handle(), flaw, commits: Arc::clone(&commits) }) as Arc<dyn Store>;
    (0..3).map(|_| handle()).collect()
}

fn right() -> Vec<Arc<dyn Store>> {
    let store = MemoryStore::new();
    vec![Arc::new(store.handle()), Arc::new(store.handle())]
}

#[test]
fn every_workload_is_counted_in_full() {
    for workload in Workload::ALL {
        let measured = measure(&right(), workload, Amount::Iterations(1003)).unwrap();
        assert_eq!(measured.applied + measured.conflicts, 1003, "{workload}");
        assert_eq!(measured.requests, 1003 * u64::from(workload.requests()), "{workload}");
        assert_eq!(measured.failed(), 0, "{workload}");
        assert!(measured.throughput() > 0.0, "{workload}");
        assert!(measured.percentiles().p50_us > 0.0, "{workload}");
        if workload != Workload::HotCas {
            assert_eq!(measured.conflicts, 0, "{workload}: each client has keys of its own");
        }
    }
}

#[test]
fn a_run_for_a_time_takes_that_time() {
    let time = Duration::from_millis(50);
    let measured = measure(&right(), Workload::Put, Amount::Time(time)).unwrap();
    assert!(measured.elapsed >= time && measured.applied > 0, "{measured:?}");
}

#[test]
fn the_losers_of_a_hot_key_are_counted_as_conflicts() {
    let measured = measure(&flawed(Flaw::Refuses), Workload::HotCas, Amount::Iterations(2000)).unwrap();
    assert!(measured.conflicts > 0, "{measured:?}");
}

#[test]
fn a_store_that_breaks_its_contract_is_found_out() {
    let cases = [
        (Flaw::Loses, Workload::Put),
        (Flaw::Loses, Workload::Cas),
        (Flaw::Loses, Workload::HotCas),
        (Flaw::IgnoresGuards, Workload::HotCas),
        (Flaw::AppliesInPart, Workload::Txn),
    ];
    for (flaw, workload) in cases {
        let result = measure(&flawed(flaw), workload, Amount::Iterations(2000));
        assert!(matches!(result, Err(Error::Verification(_))), "{flaw:?} under {workload}: {result:?}");
    }
}

#[test]
fn an_unknown_outcome_is_counted_and_may_be_either() {
    for workload in [Workload::Put, Workload::Cas, Workload::HotCas, Workload::Txn] {
        let measured = measure(&flawed(Flaw::HidesOutcome), workload, Amount::Iterations(700)).unwrap();
        assert!(measured.failures["unknown_outcome"] > 0, "{workload}: {measured:?}");
        assert_eq!(measured.applied + measured.conflicts + measured.failed(), 700, "{workload}");
    }
}

#[test]
fn what_was_refused_is_counted_and_not_expected_in_the_store() {
    for workload in [Workload::Put, Workload::Cas, Workload::Txn] {
        let measured = measure(&flawed(Flaw::Refuses), workload, Amount::Iterations(700)).unwrap();
        assert!(measured.failures["unavailable"] > 0, "{workload}: {measured:?}");
        assert_eq!(measured.failures.len(), 1, "{workload}: {measured:?}");
    }
}

#[test]
fn a_store_that_is_gone_ends_the_run_with_its_error() {
    for amount in [Amount::Iterations(100_000), Amount::Time(Duration::from_secs(3600))] {
        let result = measure(&flawed(Flaw::Fails), Workload::Put, amount);
        assert!(matches!(result, Err(Error::Store(storage::Error::Closed))), "{result:?}");
    }
}

/// One client at a rate, or in a closed loop.
fn paced(flaw: Flaw, rate: Option<f64>, iterations: u64) -> Measurement {
    let clients = Clients::new(2).unwrap();
    let load = Load { clients: 1, rate, ..load(Workload::Put) };
    let mut session = clients.prepare(&flawed(flaw), &load).unwrap();
    let measured = session.run(Amount::Iterations(iterations)).unwrap();
    session.verify().unwrap();
    measured
}

#[test]
fn a_stall_counts_for_all_that_it_kept_from_beginning() {
    // 600 iterations in 600 ms, of which a stall of 400 ms holds up two thirds.
    let open = paced(Flaw::StallsOnce, Some(1000.0), 600);
    assert_eq!((open.applied + open.unserved, open.failed()), (600, 0), "{open:?}");
    assert!(
        open.percentiles().p50_us > 20_000.0,
        "a closed loop would show one slow iteration: {:?}",
        open.percentiles()
    );
    assert!(open.elapsed >= Duration::from_millis(599), "no iteration begins before its time: {open:?}");
    let closed = paced(Flaw::StallsOnce, None, 600);
    assert_eq!((closed.applied, closed.unserved), (600, 0), "{closed:?}");
    assert!(closed.percentiles().max_us >= 400_000.0, "{:?}", closed.percentiles());
}

#[test]
fn a_store_that_cannot_keep_up_is_told_by_what_is_left_over() {
    // In 7 commits one takes 20 ms: some 350 a second at the most. 1000 are wanted in 200 ms, and it is given 400.
    let measured = paced(Flaw::IsSlow, Some(5000.0), 1000);
    assert!(measured.unserved > 100, "{measured:?}");
    assert_eq!(measured.applied + measured.unserved, 1000, "{measured:?}");
    assert!(measured.percentiles().p99_us > 100_000.0, "who was not served has waited: {:?}", measured.percentiles());
}

#[test]
fn a_load_that_cannot_be_run_is_refused() {
    let clients = Clients::new(1).unwrap();
    for load in [
        Load { clients: 0, ..load(Workload::Put) },
        Load { value_bytes: 7, ..load(Workload::Put) },
        Load { clients: 5000, ..load(Workload::Put) },
        Load { rate: Some(0.0), ..load(Workload::Put) },
        Load { rate: Some(f64::NAN), ..load(Workload::Put) },
    ] {
        assert!(matches!(clients.prepare(&right(), &load), Err(Error::Usage(_))), "{load:?}");
    }
    assert!(matches!(clients.prepare(&[], &load(Workload::Put)), Err(Error::Usage(_))));
}
