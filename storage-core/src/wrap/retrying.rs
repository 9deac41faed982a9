use std::{future::Future, time::Duration};

use async_trait::async_trait;

use crate::{
    Backoff, Capabilities, Deadline, Entry, Error, Key, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn,
    WatchOptions, WatchStream, WriteOptions,
};

/// Sends again what may be sent again, within the deadline of the call.
///
/// Reads: if the store was unavailable or throttled. Writes: if they were certainly not applied; and if their outcome is
/// unknown only when they carry an operation id and the store deduplicates, so that the repetition cannot be applied twice.
/// A write of which one attempt had an unknown outcome ends with a later answer of the store or with that
/// [`Error::UnknownOutcome`], never with an error that says that nothing was applied.
#[derive(Clone, Debug)]
pub struct Retrying<S> {
    store: S,
    options: RetryOptions,
}

/// The bounds of [`Retrying`]; the deadline of the call is another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryOptions {
    /// How often to send at the most, the first time included. The default, 10, with the default waits outlasts an election.
    pub attempts: u32,
    /// The longest first wait; each further one doubles it.
    pub backoff_floor: Duration,
    /// The longest wait of all. A store that throttles may ask for more.
    pub backoff_ceiling: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self { attempts: 10, backoff_floor: Duration::from_millis(10), backoff_ceiling: Duration::from_secs(1) }
    }
}

impl<S: Store> Retrying<S> {
    /// Retries the calls of `store`.
    pub fn new(store: S, options: RetryOptions) -> Self {
        Self { store, options }
    }

    async fn read<T, F: Future<Output = Result<T>>>(
        &self,
        timeout: Duration,
        call: impl FnMut(Duration) -> F,
    ) -> Result<T> {
        self.retry(timeout, Error::is_retryable, call).await
    }

    /// Calls until there is an answer, an error that does not pass, or no attempt or time left.
    async fn retry<T, F: Future<Output = Result<T>>>(
        &self,
        timeout: Duration,
        passes: impl Fn(&Error) -> bool,
        mut call: impl FnMut(Duration) -> F,
    ) -> Result<T> {
        let deadline = Deadline::after(timeout);
        let mut backoff = Backoff::new(self.options.backoff_floor, self.options.backoff_ceiling);
        let mut unknown = None;
        let mut attempt = 1;
        loop {
            let error = match call(deadline.left()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = match &error {
                Error::Throttled { retry_after: Some(wait), .. } => backoff.next_wait().max(*wait),
                _ => backoff.next_wait(),
            };
            let in_time = wait < deadline.left();
            let again = passes(&error) && attempt < self.options.attempts && in_time;
            if !again {
                return Err(unknown.unwrap_or(error));
            }
            if error.may_be_applied() {
                unknown = Some(error);
            }
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }
}

#[async_trait]
impl<S: Store> Store for Retrying<S> {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        self.read(options.timeout, |left| self.store.get(key, options.timeout(left))).await
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.read(options.timeout, |left| self.store.get_many(keys, options.timeout(left))).await
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        let call = |left| {
            let read = options.read.timeout(left);
            self.store.scan(prefix, ScanOptions { read, ..options.clone() })
        };
        self.read(options.read.timeout, call).await
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let repeatable = options.operation_id.is_some() && self.capabilities().deduplicates.is_some();
        let passes = |error: &Error| error.is_retryable() || repeatable && error.may_be_applied();
        self.retry(options.timeout, passes, |left| self.store.commit(txn.clone(), options.timeout(left))).await
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let call = |timeout| self.store.watch(prefix, WatchOptions { timeout, ..options });
        self.read(options.timeout, call).await
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.read(options.timeout, |left| self.store.ping(options.timeout(left))).await
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}
