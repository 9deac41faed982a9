use std::{future::Future, time::Duration};

use storage_core::{Error, Result};
use tokio::time::{Instant, timeout_at};

/// When a call has to have answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// So long from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }

    /// Whether nothing can be sent any more.
    pub(crate) fn check(&self) -> Result<()> {
        if Instant::now() < self.at { Ok(()) } else { Err(Error::deadline(self.timeout)) }
    }

    /// How much time is left.
    pub(crate) fn left(&self) -> Result<Duration> {
        self.check().map(|()| self.at.saturating_duration_since(Instant::now()))
    }

    /// The result of something that changes nothing, unless the deadline comes first.
    pub(crate) async fn reading<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        timeout_at(self.at, future).await.map_err(|_| Error::deadline(self.timeout))
    }

    /// The result of a write that was sent, unless the deadline comes first: then nobody knows.
    pub(crate) async fn writing<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        timeout_at(self.at, future).await.map_err(|_| Error::deadline_after_send(self.timeout))
    }
}
