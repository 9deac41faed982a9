//! The deadline of one call, for those who implement a store: what is left of it, and which error it ends with.
//!
//! A write that was sent ends with another error than one that was not. That difference is the contract.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{Error, Result};

/// When a call has to have answered, and what it was given: for those who implement [`Store`](crate::Store).
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// So long from now. A timeout beyond what the clock can tell, such as [`Duration::MAX`], ends in thirty years.
    pub fn after(timeout: Duration) -> Self {
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        // The timeout itself is kept as it was given, since errors tell it.
        Self { at: Instant::now() + timeout.min(FAR), timeout }
    }

    /// The instant.
    pub fn at(self) -> Instant {
        self.at
    }

    /// How much time is left.
    pub fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn is_over(self) -> bool {
        Instant::now() >= self.at
    }

    /// Whether something may still be sent.
    ///
    /// # Errors
    /// [`Deadline::passed`].
    pub fn check(self) -> Result<()> {
        if self.is_over() { Err(self.passed()) } else { Ok(()) }
    }

    /// The error of a read, or of a write that was not sent: [`Error::deadline`].
    pub fn passed(self) -> Error {
        Error::deadline(self.timeout)
    }

    /// The error of a write that was sent: [`Error::deadline_after_send`].
    pub fn passed_after_send(self) -> Error {
        Error::deadline_after_send(self.timeout)
    }

    /// The result of something that changes nothing, unless the deadline comes first.
    ///
    /// # Errors
    /// [`Deadline::passed`].
    pub async fn reading<T>(self, future: impl Future<Output = T>) -> Result<T> {
        timeout_at(self.at, future).await.map_err(|_| self.passed())
    }

    /// The result of a write that was sent, unless the deadline comes first: then nobody knows.
    ///
    /// # Errors
    /// [`Deadline::passed_after_send`].
    pub async fn writing<T>(self, future: impl Future<Output = T>) -> Result<T> {
        timeout_at(self.at, future).await.map_err(|_| self.passed_after_send())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_is_unknown_and_what_was_not_is_unavailable() {
        let deadline = Deadline::after(Duration::from_secs(1));
        assert!(deadline.check().is_ok() && deadline.left() == Duration::from_secs(1));
        assert!(matches!(deadline.reading(pending::<()>()).await, Err(Error::Unavailable { .. })));
        assert!(matches!(deadline.writing(pending::<()>()).await, Err(Error::UnknownOutcome { .. })));
        assert!(matches!(deadline.check(), Err(Error::Unavailable { .. })));
        assert_eq!(deadline.left(), Duration::ZERO);
        // What is there counts, however late.
        assert!(deadline.writing(ready(())).await.is_ok());
    }

    #[tokio::test]
    async fn a_timeout_that_no_clock_can_tell_is_a_long_one() {
        let deadline = Deadline::after(Duration::MAX);
        assert!(!deadline.is_over() && deadline.left() > Duration::from_secs(1_000_000));
        deadline.reading(ready(())).await.unwrap();
    }
}
