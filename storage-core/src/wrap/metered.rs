//! A store whose calls are counted, timed and traced.
//!
//! Invariant: every call is recorded once, also one whose caller gives up. Neither keys nor values are told: they are
//! other people's.

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::{Instrument, Span, field::Empty};

use super::metrics::{Metrics, Operation, RequestOutcome};
use crate::{
    Capabilities, Entry, Key, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn, WatchOptions, WatchStream,
    WriteOptions,
};

/// Counts and times every call, and gives each a tracing span `storage` with the fields `backend`, `operation`,
/// `outcome`, and `error`: the [kind](crate::Error::kind) of an error. No key and no value is told.
#[derive(Clone, Debug)]
pub struct Metered<S> {
    store: S,
    metrics: Arc<dyn Metrics>,
}

impl<S: Store> Metered<S> {
    /// Tells `metrics` of every call of `store`.
    pub fn new(store: S, metrics: Arc<dyn Metrics>) -> Self {
        Self { store, metrics }
    }

    async fn read<T>(&self, operation: Operation, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.call(operation, RequestOutcome::Failed, call, |answer| match answer {
            Ok(_) => RequestOutcome::Ok,
            Err(_) => RequestOutcome::Failed,
        })
        .await
    }

    async fn call<T>(
        &self,
        operation: Operation,
        if_dropped: RequestOutcome,
        call: impl Future<Output = Result<T>> + Send,
        outcome_of: impl Fn(&Result<T>) -> RequestOutcome,
    ) -> Result<T> {
        let span = tracing::debug_span!(
            "storage",
            backend = self.capabilities().backend,
            operation = operation.label(),
            outcome = Empty,
            error = Empty,
        );
        let mut request = Request {
            metrics: self.metrics.as_ref(),
            span: span.clone(),
            operation,
            start: Instant::now(),
            outcome: if_dropped,
        };
        // If the caller drops this future here, `request` is dropped with the outcome that it was made with: unknown, for a write.
        let answer = call.instrument(span).await;
        request.outcome = outcome_of(&answer);
        if let Err(error) = &answer {
            request.span.record("error", error.kind());
        }
        answer
    }
}

/// A call under way. Recorded when dropped, so that one whose caller gives up is counted too.
struct Request<'a> {
    metrics: &'a dyn Metrics,
    span: Span,
    operation: Operation,
    start: Instant,
    outcome: RequestOutcome,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.span.record("outcome", self.outcome.label());
        self.metrics.record(self.operation, self.outcome, self.start.elapsed());
    }
}

#[async_trait]
impl<S: Store> Store for Metered<S> {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        self.read(Operation::Get, self.store.get(key, options)).await
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.read(Operation::GetMany, self.store.get_many(keys, options)).await
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.read(Operation::Scan, self.store.scan(prefix, options)).await
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let call = self.store.commit(txn, options);
        self.call(Operation::Commit, RequestOutcome::Unknown, call, |answer| match answer {
            Ok(Outcome::Committed(_)) => RequestOutcome::Applied,
            Ok(Outcome::Conflict(_)) => RequestOutcome::Conflict,
            Err(error) if error.may_be_applied() => RequestOutcome::Unknown,
            Err(_) => RequestOutcome::NotApplied,
        })
        .await
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        self.read(Operation::Watch, self.store.watch(prefix, options)).await
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.read(Operation::Ping, self.store.ping(options)).await
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}
