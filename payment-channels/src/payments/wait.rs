//! The wait for a channel at which another payment is in flight, within the options' bound.

use std::time::Duration;

use storage_core::Backoff;
use tokio::time::Instant;

use super::{Options, busy, snapshot::ChannelSnapshot};
use crate::{Result, retries::Retries};

/// The wait for a channel at which another payment is in flight: until it is free, or its holder's lease has ended, or as long as the
/// options allow.
#[derive(Debug)]
pub(super) struct ChannelWait {
    deadline: Instant,
    /// The read that comes now is the last: the deadline had passed before it began.
    last: bool,
    poll: Backoff,
}

impl ChannelWait {
    /// How long to wait before looking again at a channel that is held: at first, and at most.
    const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

    pub(super) fn begin(options: &Options) -> Self {
        let (floor, ceiling) = Self::POLL;
        let deadline = Instant::now() + options.wait.min(Options::MAX_LEASE);
        Self { deadline, last: false, poll: Backoff::new(floor, ceiling) }
    }

    /// To be called before each read of the channel, so that a wait of zero reads once.
    pub(super) fn before_read(&mut self) {
        self.last = Instant::now() >= self.deadline;
    }

    /// Whether the channel may be taken, with its reservation as it was seen. If not, sleeps until it is worth to read again.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy) when the wait is over.
    pub(super) async fn is_over(&mut self, snapshot: &ChannelSnapshot, retries: &mut Retries) -> Result<bool> {
        let (Some(free_at), Some(hold)) = (snapshot.free_at(), snapshot.record.hold()) else { return Ok(true) };
        if free_at <= Instant::now() {
            return Ok(true);
        }
        if self.last {
            return Err(busy(hold));
        }
        tokio::time::sleep_until((Instant::now() + self.poll.next_wait()).min(free_at).min(self.deadline)).await;
        // The wait was asked for, so it uses up no attempts.
        retries.begin_again();
        Ok(false)
    }
}
