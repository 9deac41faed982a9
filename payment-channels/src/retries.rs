//! The bounds of one operation that reads, decides and commits until it knows how that ended.
//!
//! Invariant: an operation never ends with "not applied" while one of its transactions may yet be applied. Attempts and
//! time are bounded both.

use std::time::Duration;

use storage_core::{Backoff, DEFAULT_TIMEOUT, Error, ReadOptions, WriteOptions};
use tokio::time::Instant;

/// The bounds of one operation that reads, decides and commits until it knows how that ended: a number of attempts, a
/// deadline, and waits with jitter between them.
///
/// Every transaction of this crate is guarded by the versions that were read, and a version never comes back. So a copy of
/// a transaction that is sent again, after a reply was lost, is applied once at the most, and once a guarded version has changed the
/// transaction will never be applied. What was applied tells the record, by the id that is in it.
#[derive(Debug)]
pub(crate) struct Retries {
    deadline: Instant,
    left: u32,
    backoff: Backoff,
    /// A commit without an answer that may yet be applied.
    doubt: Option<Error>,
}

impl Retries {
    /// The most attempts at one operation: enough for dozens of replicas that want the same channel.
    const MAX: u32 = 64;
    /// For all attempts together: a call that hangs until its deadline, one that shows what became of it, and one more.
    pub(crate) const TIMEOUT: Duration = DEFAULT_TIMEOUT.saturating_mul(3);
    /// From the time of a round trip to that of an election.
    const BACKOFF: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));

    /// Begins now.
    pub(crate) fn begin() -> Self {
        let (floor, ceiling) = Self::BACKOFF;
        Self {
            deadline: Instant::now() + Self::TIMEOUT,
            left: Self::MAX,
            backoff: Backoff::new(floor, ceiling),
            doubt: None,
        }
    }

    /// Begins anew after a wait that was asked for; a doubt stays.
    pub(crate) fn begin_again(&mut self) {
        *self = Self { doubt: self.doubt.take(), ..Self::begin() };
    }

    pub(crate) fn read(&self) -> ReadOptions {
        ReadOptions::default().timeout(self.call_timeout())
    }

    pub(crate) fn write(&self) -> WriteOptions {
        WriteOptions::default().timeout(self.call_timeout())
    }

    /// Waits before the next attempt after this error, if it may pass.
    ///
    /// # Errors
    /// The one to end with. A doubt matters more than any other.
    pub(crate) async fn after(&mut self, error: Error) -> Result<(), Error> {
        if error.may_be_applied() {
            // Kept until a read shows that the guarded version is gone: an error that says "not applied" would be a lie as long as a copy may arrive.
            self.doubt = Some(error);
            return self.again("the outcome of a write stayed unknown").await;
        }
        if error.is_retryable() && self.is_in_time() {
            self.left -= 1;
            self.backoff.wait().await;
            return Ok(());
        }
        Err(self.end(error))
    }

    /// Waits before the next attempt after another writer was faster.
    pub(crate) async fn after_conflict(&mut self) -> Result<(), Error> {
        self.again("other writers were faster each time").await
    }

    /// A guarded version has changed: what was in doubt will never be applied.
    pub(crate) fn settle_doubt(&mut self) {
        self.doubt = None;
    }

    /// What to end with instead of this error.
    pub(crate) fn end(&mut self, error: Error) -> Error {
        self.doubt.take().unwrap_or(error)
    }

    async fn again(&mut self, why: &str) -> Result<(), Error> {
        if !self.is_in_time() {
            return Err(
                self.end(Error::unavailable(format!("gave up after {} attempts: {why}", Self::MAX - self.left)))
            );
        }
        self.left -= 1;
        self.backoff.wait().await;
        Ok(())
    }

    fn is_in_time(&self) -> bool {
        self.left > 0 && Instant::now() < self.deadline
    }

    fn call_timeout(&self) -> Duration {
        // No single call may use up the time in which its outcome could be looked up.
        self.deadline.saturating_duration_since(Instant::now()).min(DEFAULT_TIMEOUT)
    }
}
