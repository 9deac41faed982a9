//! A store over a bad network, for one replica that may crash at any step.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use storage_core::{
    Capabilities, Entry, Error, Key, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn, WatchOptions,
    WatchStream, WriteOptions,
};
use tokio::{sync::Notify, task::JoinSet};

/// What happens to the calls of all replicas of one run.
#[derive(Debug)]
pub(crate) struct Weather {
    rng: Mutex<fastrand::Rng>,
    /// The longest wait before and after a call.
    pace: Duration,
    /// Writes that are on their way although their callers were told that the outcome is unknown.
    late: Mutex<JoinSet<()>>,
    pub(crate) struck: Struck,
}

/// How often each fault has struck.
#[derive(Debug, Default)]
pub(crate) struct Struck {
    pub(crate) lost_replies: AtomicUsize,
    pub(crate) late_writes: AtomicUsize,
    pub(crate) failures: AtomicUsize,
    pub(crate) crashes_before: AtomicUsize,
    pub(crate) crashes_after: AtomicUsize,
}

/// One of so many commits.
const LOST: u32 = 12;
const LATE: u32 = 25;
const FAILED: u32 = 25;
const CRASH: u32 = 30;

impl Weather {
    pub(crate) fn new(seed: u64, pace: Duration) -> Arc<Self> {
        let rng = Mutex::new(fastrand::Rng::with_seed(seed));
        Arc::new(Self { rng, pace, late: Mutex::default(), struck: Struck::default() })
    }

    /// One chance in `odds`.
    fn strikes(&self, odds: u32, counter: &AtomicUsize) -> bool {
        let strikes = self.rng.lock().u32(..odds) == 0;
        counter.fetch_add(usize::from(strikes), Ordering::Relaxed);
        strikes
    }

    async fn pause(&self) {
        let wait = self.pace.mul_f64(self.rng.lock().f64());
        tokio::time::sleep(wait).await;
    }

    /// Waits until nothing is on its way any more.
    pub(crate) async fn clears(&self) {
        loop {
            let mut late = std::mem::take(&mut *self.late.lock());
            if late.is_empty() {
                return;
            }
            while late.join_next().await.is_some() {}
        }
    }
}

/// The way of one replica to the store.
#[derive(Clone, Debug)]
pub(crate) struct Lossy {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) weather: Arc<Weather>,
    /// Notified when the replica crashes; its call never returns.
    pub(crate) crash: Arc<Notify>,
}

impl Lossy {
    async fn crash(&self) -> ! {
        self.crash.notify_one();
        loop {
            std::future::pending::<()>().await;
        }
    }

    async fn before(&self) -> Result<()> {
        self.weather.pause().await;
        if self.weather.strikes(FAILED, &self.weather.struck.failures) {
            return Err(Error::unavailable("injected: the call failed before it was sent"));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Lossy {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        self.before().await?;
        self.store.get(key, options).await
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.before().await?;
        let entries = self.store.get_many(keys, options).await;
        self.weather.pause().await;
        entries
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.before().await?;
        self.store.scan(prefix, options).await
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let struck = &self.weather.struck;
        if self.weather.strikes(CRASH, &struck.crashes_before) {
            self.crash().await;
        }
        self.before().await?;
        if self.weather.strikes(LATE, &struck.late_writes) {
            let (store, weather) = (Arc::clone(&self.store), Arc::clone(&self.weather));
            let arrives = async move {
                let pauses = weather.rng.lock().u32(1..8);
                for _ in 0..pauses {
                    weather.pause().await;
                }
                // Whatever comes of it, nobody hears of it.
                drop(store.commit(txn, options).await);
            };
            self.weather.late.lock().spawn(arrives);
            return Err(Error::unknown_outcome("injected: the write is on its way"));
        }
        let outcome = self.store.commit(txn, options).await;
        if self.weather.strikes(CRASH, &struck.crashes_after) {
            self.crash().await;
        }
        if self.weather.strikes(LOST, &struck.lost_replies) {
            return Err(Error::unknown_outcome("injected: the reply was lost"));
        }
        self.weather.pause().await;
        outcome
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        self.store.watch(prefix, options).await
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.store.ping(options).await
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}
