//! A store whose network fails when a test says so, with the errors that a real client would see.
//!
//! Faults happen around the store and never in it: what it applied stays applied. Each call keeps its deadline,
//! whatever delays are added.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;
use tokio::{sync::watch::Sender, time::Instant};

use crate::{
    Capabilities, Deadline, Entry, Error, Key, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn,
    WatchOptions, WatchStream, WriteOptions,
};

/// A store whose network fails when a test says so. The errors are those that a real client would see.
///
/// Some faults strike the next calls, so many; others strike every call while a [`FaultGuard`] lives. Faults of a kind add up.
/// `close` is never struck. Clones share their faults.
#[derive(Clone, Debug)]
pub struct FaultInjecting<S> {
    store: S,
    faults: Arc<Sender<Faults>>,
}

#[derive(Debug, Default)]
struct Faults {
    /// How many more writes lose their reply.
    replies_to_lose: usize,
    /// How many more calls fail before they are sent.
    calls_to_fail: usize,
    /// How many guards are alive that lose every reply to a write.
    losing: usize,
    /// How many guards are alive that cut the network.
    partitions: usize,
    /// How much later a call reaches the store.
    delay: Duration,
    /// How much later the reply to a write comes.
    reply_delay: Duration,
}

/// Keeps a fault alive; dropping it mends the fault.
#[must_use = "the fault ends when this is dropped"]
pub struct FaultGuard {
    faults: Arc<Sender<Faults>>,
    mend: fn(&mut Faults, Duration),
    delay: Duration,
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        self.faults.send_modify(|faults| (self.mend)(faults, self.delay));
    }
}

impl fmt::Debug for FaultGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultGuard").finish_non_exhaustive()
    }
}

impl<S: Store> FaultInjecting<S> {
    /// A store without faults so far.
    pub fn new(store: S) -> Self {
        Self { store, faults: Arc::new(Sender::default()) }
    }

    /// The next `count` commits are decided by the store, but end with [`Error::UnknownOutcome`].
    pub fn lose_replies(&self, count: usize) {
        self.faults.send_modify(|faults| faults.replies_to_lose += count);
    }

    /// The next `count` calls of any kind end with [`Error::Unavailable`] and never reach the store.
    pub fn fail_before_send(&self, count: usize) {
        self.faults.send_modify(|faults| faults.calls_to_fail += count);
    }

    /// Every commit is decided by the store, but ends with [`Error::UnknownOutcome`].
    pub fn losing_replies(&self) -> FaultGuard {
        self.fault(|faults, _| faults.losing += 1, |faults, _| faults.losing -= 1, Duration::ZERO)
    }

    /// Every call reaches the store later by `delay`, or not at all if its deadline comes first: a commit then ends
    /// with [`Error::UnknownOutcome`], since a client cannot know, anything else with [`Error::Unavailable`].
    pub fn delay(&self, delay: Duration) -> FaultGuard {
        self.fault(|faults, delay| faults.delay += delay, |faults, delay| faults.delay -= delay, delay)
    }

    /// Every commit is decided at once, but its reply comes later by `delay`, or not before its deadline: it then ends
    /// with [`Error::UnknownOutcome`].
    pub fn delay_replies(&self, delay: Duration) -> FaultGuard {
        self.fault(|faults, delay| faults.reply_delay += delay, |faults, delay| faults.reply_delay -= delay, delay)
    }

    /// No call reaches the store: each waits, and goes on if the partition heals, or ends at its deadline like one that
    /// is [delayed](FaultInjecting::delay) too long. Watches stand still, and go on without a gap.
    pub fn partition(&self) -> FaultGuard {
        self.fault(|faults, _| faults.partitions += 1, |faults, _| faults.partitions -= 1, Duration::ZERO)
    }

    fn fault(&self, strike: fn(&mut Faults, Duration), mend: fn(&mut Faults, Duration), delay: Duration) -> FaultGuard {
        self.faults.send_modify(|faults| strike(faults, delay));
        FaultGuard { faults: Arc::clone(&self.faults), mend, delay }
    }

    /// Whether this call is one of those that `remaining` counts.
    fn strikes(&self, remaining: fn(&mut Faults) -> &mut usize) -> bool {
        self.faults.send_if_modified(|faults| {
            let remaining = remaining(faults);
            let strikes = *remaining > 0;
            *remaining = remaining.saturating_sub(1);
            strikes
        })
    }

    /// The way to the store: returns what is left of the deadline, or the error that `late` makes if nothing is.
    async fn send(&self, timeout: Duration, late: fn(Duration) -> Error) -> Result<Duration> {
        let start = Instant::now();
        // Before any delay: a call that fails so never touched the network.
        if self.strikes(|faults| &mut faults.calls_to_fail) {
            return Err(Error::unavailable("injected: the call failed before it was sent"));
        }
        let way = async {
            let delay = self.faults.borrow().delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            healed(&self.faults).await;
        };
        match tokio::time::timeout(timeout, way).await {
            // The way costs time, so less is left for the store: together they keep the deadline of the caller.
            Ok(()) => Ok(timeout.saturating_sub(start.elapsed())),
            Err(_) => Err(late(timeout)),
        }
    }

    async fn send_read(&self, options: ReadOptions) -> Result<ReadOptions> {
        Ok(options.timeout(self.send(options.timeout, Error::deadline).await?))
    }
}

async fn healed(faults: &Sender<Faults>) {
    // The sender is alive, so this cannot fail.
    faults.subscribe().wait_for(|faults| faults.partitions == 0).await.ok();
}

#[async_trait]
impl<S: Store> Store for FaultInjecting<S> {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        self.store.get(key, self.send_read(options).await?).await
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.store.get_many(keys, self.send_read(options).await?).await
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        let read = self.send_read(options.read).await?;
        self.store.scan(prefix, ScanOptions { read, ..options }).await
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let deadline = Deadline::after(options.timeout);
        let left = self.send(options.timeout, Error::deadline_after_send).await?;
        // Decided first and lost then: this is what makes an unknown outcome dangerous, and what tests are for.
        let decided = self.store.commit(txn, options.timeout(left)).await;
        if self.strikes(|faults| &mut faults.replies_to_lose) || self.faults.borrow().losing > 0 {
            return Err(Error::unknown_outcome("injected: the reply was lost"));
        }
        let arrival = Deadline::after(self.faults.borrow().reply_delay).at();
        tokio::time::sleep_until(arrival.min(deadline.at())).await;
        if arrival > deadline.at() { Err(deadline.passed_after_send()) } else { decided }
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let timeout = self.send(options.timeout, Error::deadline).await?;
        let events = self.store.watch(prefix, WatchOptions { timeout, ..options }).await?;
        let faults = Arc::clone(&self.faults);
        let arrives = move |event| {
            let faults = Arc::clone(&faults);
            async move {
                healed(&faults).await;
                event
            }
        };
        Ok(events.then(arrives).boxed())
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.store.ping(self.send_read(options).await?).await
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}
