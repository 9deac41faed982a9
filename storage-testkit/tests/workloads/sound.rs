//! A sound store passes, also when replies get lost; runs that prove nothing are told from runs that do.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use storage_core::{FaultInjecting, MemoryStore, Store};
use storage_testkit::{
    history::{History, Recorder, Struck},
    workload::{self, Faults, Invalid, Open, Settings, WORKLOADS},
};

type Faulty = FaultInjecting<Arc<MemoryStore>>;

fn faulty() -> (Faulty, Open) {
    let store = FaultInjecting::new(Arc::new(MemoryStore::new()));
    let faults = store.clone();
    let open: Open = Arc::new(move |_| {
        let handle = Arc::new(Lossy(store.clone())) as Arc<dyn Store>;
        async move { Ok(handle) }.boxed()
    });
    (faults, open)
}

/// The memory store with lost replies cannot be closed by one client for all.
#[derive(Debug)]
struct Lossy(Faulty);

#[async_trait::async_trait]
impl Store for Lossy {
    fn capabilities(&self) -> &storage_core::Capabilities {
        self.0.capabilities()
    }
    async fn get(
        &self,
        key: &storage_core::Key,
        options: storage_core::ReadOptions,
    ) -> storage_core::Result<Option<storage_core::Entry>> {
        self.0.get(key, options).await
    }
    async fn get_many(
        &self,
        keys: &[storage_core::Key],
        options: storage_core::ReadOptions,
    ) -> storage_core::Result<Vec<Option<storage_core::Entry>>> {
        self.0.get_many(keys, options).await
    }
    async fn scan(
        &self,
        prefix: &[u8],
        options: storage_core::ScanOptions,
    ) -> storage_core::Result<storage_core::Page> {
        self.0.scan(prefix, options).await
    }
    async fn commit(
        &self,
        txn: storage_core::Txn,
        options: storage_core::WriteOptions,
    ) -> storage_core::Result<storage_core::Outcome> {
        self.0.commit(txn, options).await
    }
    async fn watch(
        &self,
        prefix: &[u8],
        options: storage_core::WatchOptions,
    ) -> storage_core::Result<storage_core::WatchStream> {
        self.0.watch(prefix, options).await
    }
    async fn ping(&self, options: storage_core::ReadOptions) -> storage_core::Result<()> {
        self.0.ping(options).await
    }
    async fn close(&self) -> storage_core::Result<()> {
        Ok(())
    }
}

/// So many operations there are between two losses at the least, so that what is lost is a small part on the slowest machine too.
const BETWEEN: usize = 50;

/// Loses replies now and then, for a second or more.
async fn losses(recorder: Recorder, faults: Faulty) -> Faults {
    let mut struck = Vec::new();
    let made = || recorder.history().operations().len();
    for round in 0..20 {
        let (start, before, deadline) = (recorder.now(), made(), Instant::now() + Duration::from_secs(60));
        if round % 2 == 0 {
            faults.lose_replies(5);
        } else {
            faults.fail_before_send(5);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        while made() < before + BETWEEN && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (fault, target) = ("lost replies".to_owned(), "all".to_owned());
        struck.push(Struck { fault, target, start, end: recorder.now() });
    }
    Faults { struck, ..Faults::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_store_passes_every_workload_although_replies_are_lost() {
    for (name, workload) in WORKLOADS {
        let (faults, open) = faulty();
        let settings = Settings::default().seed(fastrand::u64(..));
        let run = workload::run(workload(), &open, &settings, |recorder| losses(recorder, faults));
        let report = run.await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(report.is_passed(), "seed {}: {report}", settings.seed);
        assert!(report.unknown > 0 && report.faults == 20, "{report}");
        println!("{report}");
        let mut lines = Vec::new();
        report.history.write(&mut lines).unwrap();
        assert_eq!(History::read(&lines[..]).unwrap(), report.history, "with its faults, as lines and back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_proves_nothing_is_invalid() {
    let (faults, open) = faulty();
    let guard = faults.losing_replies();
    let register = || workload::WORKLOADS[0].1();
    let nothing = async |_| {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(guard);
        Faults { did_not_bite: vec!["kill of n1".to_owned()], ..Faults::default() }
    };
    let mut settings = Settings::default();
    settings.least = 1_000_000;
    let report = workload::run(register(), &open, &settings, nothing).await.unwrap();
    assert!(!report.is_passed() && !report.is_violated() && report.verdict() == "invalid", "{report}");
    let [bite, few, unknown] = &report.invalid[..] else { panic!("{report}") };
    assert_eq!(*bite, Invalid::DidNotBite("kill of n1".to_owned()));
    assert!(matches!(few, Invalid::TooFew { least: 1_000_000, .. }), "{few}");
    assert!(matches!(unknown, Invalid::TooManyUnknown { .. }), "{unknown}");
}
