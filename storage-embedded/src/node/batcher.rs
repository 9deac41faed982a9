//! How long the leader waits for more writes before it appends those it has.
//!
//! Callers that have just been answered mostly come back at once with their next write. If the leader does not wait for them, they
//! fall into two groups that take turns, each waiting for the other's sync: half the writes a second. If it waits for
//! callers who do not come, everybody loses. So it waits for as many writes as were under way when the last batch was answered,
//! no longer than it pays, and seldom after it has been in vain. See docs/decisions/0003-engine.md.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};

use crate::host;

/// How many writes are appended together at the most: what one append to a follower can carry.
const BATCH_WRITES: usize = 1024;

/// The longest wait. Callers that come back at all take a few wake-ups and round trips: one that reads before it writes asks the leader
/// once more in between. With 0.3 ms, three nodes made a quarter fewer compare-and-swaps for ten callers.
const MAX_WAIT: Duration = Duration::from_millis(1);

/// After so many waits in vain one after the other, `2^n` batches are appended at once before the next try.
const MAX_MISSES: u32 = 6;

#[derive(Debug, Default)]
pub(super) struct Batcher {
    /// How many writes are expected.
    expected: usize,
    /// How long the last batch took: what a write loses that has to wait for the next one.
    last_batch_took: Duration,
    misses: u32,
    /// How many batches are appended at once, as waiting was in vain.
    batches_without_wait: u32,
}

impl Batcher {
    /// Adds what is queued to a batch, and what comes up while it pays to wait.
    pub(super) async fn fill<T>(&mut self, batch: &mut Vec<T>, queue: &mut mpsc::Receiver<T>) {
        drain(batch, queue);
        // A lone writer, and whoever comes as expected, never waits.
        if batch.len() >= self.expected {
            self.misses = 0;
            return;
        }
        if self.batches_without_wait > 0 {
            self.batches_without_wait -= 1;
            return;
        }
        // A write that misses this batch waits as long as the batch takes: to wait longer than that for it cannot pay.
        let until = Instant::now() + self.last_batch_took.min(MAX_WAIT);
        while batch.len() < self.expected {
            if Instant::now() >= until {
                self.misses = (self.misses + 1).min(MAX_MISSES);
                self.batches_without_wait = 1 << self.misses;
                return;
            }
            // The timer of the runtime is too coarse. Others of the node's tasks run meanwhile, and the sockets are read.
            host::breathe().await;
            drain(batch, queue);
        }
        self.misses = 0;
    }

    /// The batch was answered: that many writes were in it or have come meanwhile.
    pub(super) fn answered(&mut self, under_way: usize, took: Duration) {
        self.expected = under_way.min(BATCH_WRITES);
        self.last_batch_took = took;
    }
}

fn drain<T>(batch: &mut Vec<T>, queue: &mut mpsc::Receiver<T>) {
    while batch.len() < BATCH_WRITES {
        let Ok(write) = queue.try_recv() else { return };
        batch.push(write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(waiting: usize) -> (mpsc::Sender<usize>, mpsc::Receiver<usize>) {
        let (sender, receiver) = mpsc::channel(2 * BATCH_WRITES);
        (0..waiting).for_each(|number| sender.try_send(number).unwrap());
        (sender, receiver)
    }

    #[tokio::test]
    async fn a_lone_writer_does_not_wait() {
        let (_sender, mut receiver) = queue(0);
        let mut batcher = Batcher::default();
        for _ in 0..3 {
            let mut batch = vec![0];
            batcher.fill(&mut batch, &mut receiver).await;
            assert_eq!((batch.len(), batcher.misses), (1, 0));
            batcher.answered(1, Duration::from_secs(60));
        }
    }

    #[tokio::test]
    async fn writers_that_come_back_at_once_are_waited_for() {
        let (sender, mut receiver) = queue(4);
        let mut batcher = Batcher::default();
        batcher.answered(10, MAX_WAIT);
        let mut batch = vec![0];
        let back = async {
            tokio::task::yield_now().await;
            (0..5).for_each(|number| sender.try_send(number).unwrap());
        };
        tokio::join!(batcher.fill(&mut batch, &mut receiver), back);
        assert_eq!((batch.len(), batcher.misses), (10, 0));
    }

    #[tokio::test]
    async fn the_wait_is_bounded_and_seldom_repeated_in_vain() {
        let (_sender, mut receiver) = queue(0);
        let mut batcher = Batcher::default();
        let mut waits = 0;
        for _ in 0..200 {
            batcher.answered(10, MAX_WAIT);
            let (mut batch, misses) = (vec![0], (batcher.misses, batcher.batches_without_wait));
            batcher.fill(&mut batch, &mut receiver).await;
            waits += u32::from(batcher.batches_without_wait > misses.1);
        }
        assert!((3..=8).contains(&waits), "waited {waits} times");
    }

    #[tokio::test]
    async fn a_batch_is_bounded() {
        let (_sender, mut receiver) = queue(2 * BATCH_WRITES);
        let mut batcher = Batcher::default();
        let mut batch = vec![0];
        batcher.fill(&mut batch, &mut receiver).await;
        assert_eq!(batch.len(), BATCH_WRITES);
        batcher.answered(3 * BATCH_WRITES, MAX_WAIT);
        assert_eq!(batcher.expected, BATCH_WRITES);
    }
}
