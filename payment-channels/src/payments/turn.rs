use std::time::Duration;

use storage_core::Backoff;
use tokio::time::Instant;

use super::{Options, busy, sight::Sight};
use crate::{Result, attempts::Attempts};

/// The wait for one's turn at a channel: until it is free, or its holder's lease has ended, or the wait is over.
#[derive(Debug)]
pub(super) struct Turn {
    deadline: Instant,
    last: bool,
    poll: Backoff,
}

impl Turn {
    /// How long to wait before looking again at a channel that is held: at first, and at most.
    const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

    pub(super) fn begin(options: &Options) -> Self {
        let (floor, ceiling) = Self::POLL;
        let deadline = Instant::now() + options.wait.min(Options::MAX_LEASE);
        Self { deadline, last: false, poll: Backoff::new(floor, ceiling) }
    }

    /// To be called before each look, so that a wait of zero looks once.
    pub(super) fn look(&mut self) {
        self.last = Instant::now() >= self.deadline;
    }

    /// Whether it is our turn, with the slot as it was seen. If not, waits until it is worth to look again.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy) when the wait is over.
    pub(super) async fn has_come(&mut self, sight: &Sight, attempts: &mut Attempts) -> Result<bool> {
        let (Some(free_at), Some(hold)) = (sight.free_at(), sight.slot.hold()) else { return Ok(true) };
        if free_at <= Instant::now() {
            return Ok(true);
        }
        if self.last {
            return Err(busy(hold));
        }
        tokio::time::sleep_until((Instant::now() + self.poll.next_wait()).min(free_at).min(self.deadline)).await;
        attempts.begin_again();
        Ok(false)
    }
}
