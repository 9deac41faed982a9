//! The writes that wait to be appended, bounded in number and in bytes.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{request_numbers::Numbered, waiter::Waiter};
use crate::network::{calls::Awaits, message::Reply};

/// How many writes may wait to be appended. More writers than this wait their turn, each within its deadline.
const WRITES: usize = 16 * 1024;

/// How many bytes the writes may have that wait or are being appended: four times the largest, and as much as the log takes before it
/// makes its callers wait. Without this bound, 16 Ki writes of 1.5 MiB would be 24 GiB.
const BYTES: u32 = 64 << 20;

/// A write that waits.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) command: Bytes,
    pub(super) handover: Handover,
    pub(super) waiter: Waiter,
    /// What it takes of the bound until it is answered.
    pub(super) room: OwnedSemaphorePermit,
}

/// The handover of a write from the caller that waits to the task that appends. One of the two gets it: either the task appends it, or the
/// caller, whose deadline has passed, knows that it never will be. The number of the write goes with it, to end when the answer is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handover(Arc<Handed>);

#[derive(Debug, Default)]
struct Handed {
    state: AtomicU8,
    numbered: Option<Arc<Numbered>>,
}

const WAITING: u8 = 0;
const APPENDED: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Handover {
    /// That of a write with this number, if it has one that this node gave it.
    pub(crate) fn of(numbered: Option<Arc<Numbered>>) -> Self {
        Self(Arc::new(Handed { numbered, ..Handed::default() }))
    }

    /// The write has this answer, whether its caller looks at it or not.
    pub(super) fn answered(&self, reply: &Reply) {
        if let Some(numbered) = &self.0.numbered {
            numbered.answered(reply);
        }
    }

    /// The appending task takes the write up, unless the caller has given up.
    pub(super) fn take_up(&self) -> bool {
        self.0.state.compare_exchange(WAITING, APPENDED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The caller gives up. True: the write was not taken up and never will be.
    pub(crate) fn give_up(&self) -> bool {
        self.0.state.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Where writes are put. Clones are the same queue.
#[derive(Clone, Debug)]
pub(super) struct WriteQueue {
    writes: mpsc::Sender<Write>,
    room: Arc<Semaphore>,
    bytes: u32,
}

impl WriteQueue {
    /// A queue, and its end.
    pub(super) fn new() -> (Self, mpsc::Receiver<Write>) {
        Self::bounded(WRITES, BYTES)
    }

    fn bounded(writes: usize, bytes: u32) -> (Self, mpsc::Receiver<Write>) {
        let (writes, queued) = mpsc::channel(writes);
        (Self { writes, room: Arc::new(Semaphore::new(bytes as usize)), bytes }, queued)
    }

    /// How many writes wait.
    pub(super) fn len(&self) -> usize {
        self.writes.max_capacity() - self.writes.capacity()
    }

    /// Puts a write into the queue when there is room. The answer ends without a reply when the node stops.
    pub(super) fn put(&self, command: Bytes, handover: Handover) -> oneshot::Receiver<Reply> {
        let (waiter, answer) = Waiter::new();
        // One that is larger than all the room has it for itself.
        let bytes = u32::try_from(command.len()).map_or(self.bytes, |bytes| bytes.min(self.bytes));
        let room = Arc::clone(&self.room);
        let (place, room) = match (self.writes.clone().try_reserve_owned(), room.clone().try_acquire_many_owned(bytes))
        {
            (Ok(place), Ok(room)) => (place, room),
            _ => {
                let writes = self.writes.clone();
                // In a task: a caller that is kept and not polled would be given room and hold up all behind it.
                tokio::spawn(async move {
                    let (Ok(room), Ok(place)) = (room.acquire_many_owned(bytes).await, writes.reserve_owned().await)
                    else {
                        return;
                    };
                    place.send(Write { command, handover, waiter, room });
                });
                return answer;
            }
        };
        place.send(Write { command, handover, waiter, room });
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(queue: &WriteQueue, bytes: usize) -> oneshot::Receiver<Reply> {
        queue.put(vec![0; bytes].into(), Handover::default())
    }

    /// The lengths of the writes that are there once everyone had a chance to put theirs.
    async fn arrived(queued: &mut mpsc::Receiver<Write>) -> Vec<Write> {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        std::iter::from_fn(|| queued.try_recv().ok()).collect()
    }

    #[tokio::test]
    async fn what_waits_and_is_not_answered_is_bounded_in_bytes() {
        let (queue, mut queued) = WriteQueue::bounded(100, 64);
        let _answers: Vec<_> = (0..5).map(|_| put(&queue, 30)).collect();
        for expected in [2, 2, 1] {
            let held = arrived(&mut queued).await;
            assert_eq!(held.len(), expected);
            assert!(arrived(&mut queued).await.is_empty(), "no more before these are answered");
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_number() {
        let (queue, mut queued) = WriteQueue::bounded(2, 1 << 20);
        let _answers: Vec<_> = (0..5).map(|_| put(&queue, 30)).collect();
        for expected in [2, 2, 1] {
            assert_eq!(arrived(&mut queued).await.len(), expected);
        }
    }

    #[tokio::test]
    async fn a_write_larger_than_the_bound_is_alone() {
        let (queue, mut queued) = WriteQueue::bounded(100, 64);
        let _answers = [put(&queue, 1000), put(&queue, 1)];
        let first = arrived(&mut queued).await;
        assert_eq!(first.iter().map(|write| write.command.len()).collect::<Vec<_>>(), [1000]);
        drop(first);
        assert_eq!(arrived(&mut queued).await.len(), 1);
    }

    #[tokio::test]
    async fn callers_that_do_not_look_hold_up_nobody() {
        let (queue, mut queued) = WriteQueue::bounded(100, 64);
        let _never_polled: Vec<_> = (0..4).map(|_| put(&queue, 60)).collect();
        let answer = put(&queue, 1);
        for _ in 0..5 {
            for write in arrived(&mut queued).await {
                crate::node::waiter::answer_all(vec![(write.waiter, Reply::ReadIndex(7))]);
            }
        }
        assert_eq!(answer.await, Ok(Reply::ReadIndex(7)));
    }
}
