//! Renewing a lock's lease, in a task that belongs to the lock and ends with it.
//!
//! Invariant: the lease counts from the start of the call that renewed it, never from its answer. So the holder thinks
//! it lost before anybody else may take it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{FencingToken, passes, record::Fence, record::heartbeat, retries};
use crate::{Guard, Key, Outcome, Store, Txn, WriteOptions};

/// The task that renews a lease: it belongs to the lock and ends with it.
pub(super) struct Renewal {
    task: JoinHandle<()>,
    /// Closed when the task has ended: the lease was lost.
    running: watch::Receiver<()>,
    /// When the lease runs out, as the task last knew.
    until: Arc<Mutex<Instant>>,
}

impl Renewal {
    /// Renews the lease of `fence` as long as `guard` holds. `since`: the start of the call that acquired it.
    pub(super) fn start<S: Store>(store: S, guard: Guard, lease: Key, fence: &Fence, since: Instant) -> Self {
        let txn = Txn { guards: vec![guard], ..Txn::new().put(lease, heartbeat(fence.token)) };
        let until = Arc::new(Mutex::new(since + fence.ttl));
        let lease = Lease { store, token: fence.token, txn, ttl: fence.ttl, since, until: Arc::clone(&until) };
        // Closed when the task ends, however it ends: also a panic in it is a loss.
        let (alive, running) = watch::channel(());
        let task = tokio::spawn(async move {
            let (token, reason) = (lease.token, lease.renew().await);
            tracing::warn!(%token, reason, "a lock was lost");
            drop(alive);
        });
        Self { task, running, until }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.has_changed().is_ok()
            // The task may be late on a busy runtime, and the lease over meanwhile.
            && Instant::now() < *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn ended(&self) {
        let mut running = self.running.clone();
        while running.changed().await.is_ok() {}
    }

    /// Ends the task and waits until it is gone.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        // An error says that the task was aborted, which is what was asked for.
        (&mut self.task).await.ok();
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const EXPIRED: &str = "it could not be renewed for its TTL";

struct Lease<S> {
    store: S,
    token: FencingToken,
    txn: Txn,
    ttl: Duration,
    /// The start of the last call that renewed the lease for certain.
    since: Instant,
    until: Arc<Mutex<Instant>>,
}

impl<S: Store> Lease<S> {
    /// Returns when the lease is lost, and why.
    async fn renew(mut self) -> &'static str {
        // Two renewals may fail in a row before the lease is lost.
        let interval = self.ttl / 3;
        let mut backoff = retries();
        let mut next = self.since + interval;
        loop {
            let end = self.since + self.ttl;
            tokio::time::sleep_until(next.min(end)).await;
            let start = Instant::now();
            if start >= end {
                return EXPIRED;
            }
            // Shorter than what is left, so that a call which gets no answer leaves time for another.
            let timeout = interval.min(end - start);
            let call = self.store.commit(self.txn.clone(), WriteOptions::default().timeout(timeout));
            // The end is kept even if the store is late.
            match tokio::time::timeout_at(end, call).await {
                Ok(Ok(Outcome::Committed(_))) => {
                    // From the start of the call, not from its answer: a waiter may have seen this heartbeat as early as that.
                    self.since = start;
                    *self.until.lock().unwrap_or_else(PoisonError::into_inner) = start + self.ttl;
                    next = start + interval;
                    backoff = retries();
                }
                Ok(Err(error)) if passes(&error) => next = Instant::now() + backoff.next_wait(),
                Ok(Ok(Outcome::Conflict(_))) => return "somebody else has it",
                Ok(Err(error)) => return error.kind(),
                Err(_) => return EXPIRED,
            }
        }
    }
}
