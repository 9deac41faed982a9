//! How many bytes wait for clients that watch and do not read, in total and for each stream.
//!
//! An answer takes its share before the history is read for it, and gives it back when the transport asks for the next one: when most of it
//! has left. A stream that is not read from keeps its share and is further and further behind in the history, as in etcd, at no cost. Only if
//! such streams have all the room and another needs some, the one that has stood still for longest is ended.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::connection::Life;

/// How many bytes of events one answer has, and the rest of the last revision. Large enough that the network, not the call, is what costs.
pub(crate) const ANSWER_BYTES: u32 = 512 << 10;

/// How many bytes of answers may be on their way to one stream: while one travels, the next is made.
const STREAM_BYTES: u32 = 2 * ANSWER_BYTES;

/// How many bytes of answers may be on their way to all streams (64 MiB): as much as 128 streams can take at once.
const ALL_BYTES: u32 = 64 << 20;

/// How long an answer may be on its way while others want its room. With [`ANSWER_BYTES`] that is 100 KiB/s.
const STANDS_STILL: Duration = Duration::from_secs(5);

/// The room of all streams.
#[derive(Debug)]
pub(crate) struct Room {
    all: Arc<Semaphore>,
    bytes: u32,
    next: AtomicU64,
    /// Who has a share, in the order in which they got it.
    holders: Mutex<BTreeMap<u64, Holder>>,
}

#[derive(Debug)]
struct Holder {
    since: Instant,
    /// How the connection of the stream is ended, if it can be.
    life: Option<Life>,
}

/// What one stream has of the room.
#[derive(Debug)]
pub(crate) struct StreamRoom {
    room: Arc<Room>,
    own: Arc<Semaphore>,
    life: Option<Life>,
}

/// Room for an answer. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    room: Arc<Room>,
    number: u64,
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Room {
    pub(crate) fn new() -> Arc<Self> {
        Self::of(ALL_BYTES)
    }

    fn of(bytes: u32) -> Arc<Self> {
        let (next, holders) = Default::default();
        Arc::new(Self { all: Arc::new(Semaphore::new(bytes as usize)), bytes, next, holders })
    }

    /// That of a stream.
    pub(crate) fn stream(self: &Arc<Self>, life: Option<Life>) -> StreamRoom {
        StreamRoom { room: Arc::clone(self), own: Arc::new(Semaphore::new(STREAM_BYTES as usize)), life }
    }

    /// Ends the connection of whoever has stood still for longest, if that is long.
    fn make_room(&self) {
        let holders = self.holders.lock();
        let Some(holder) = holders.values().find(|holder| holder.life.as_ref().is_some_and(|life| !life.has_ended()))
        else {
            return;
        };
        if holder.since.elapsed() >= STANDS_STILL
            && let Some(life) = &holder.life
        {
            tracing::warn!("ended a connection whose watches are not read from, since others have no room");
            life.end();
        }
    }
}

impl StreamRoom {
    /// Waits for room for an answer of so many bytes; one that is larger than all the room has that for itself.
    #[expect(clippy::expect_used, reason = "nobody closes the semaphores")]
    pub(crate) async fn share(&self, bytes: u32) -> Share {
        const OPEN: &str = "the room is never closed";
        let (of_own, of_all) = (bytes.min(STREAM_BYTES), bytes.min(self.room.bytes));
        // Behind what this stream has not read.
        let mut own = Arc::clone(&self.own).acquire_many_owned(of_own).await.expect(OPEN);
        let all = loop {
            if let Ok(all) = Arc::clone(&self.room.all).try_acquire_many_owned(of_all) {
                break all;
            }
            // One that has something on its way stands in nobody's way: first that has to go.
            if self.own.available_permits() + (of_own as usize) < STREAM_BYTES as usize {
                drop(own);
                let nothing = Arc::clone(&self.own).acquire_many_owned(STREAM_BYTES).await.expect(OPEN);
                drop(nothing);
                own = Arc::clone(&self.own).acquire_many_owned(of_own).await.expect(OPEN);
                continue;
            }
            match timeout(STANDS_STILL, Arc::clone(&self.room.all).acquire_many_owned(of_all)).await {
                Ok(all) => break all.expect(OPEN),
                Err(_) => self.room.make_room(),
            }
        };
        let number = self.room.next.fetch_add(1, Relaxed);
        self.room.holders.lock().insert(number, Holder { since: Instant::now(), life: self.life.clone() });
        Share { room: Arc::clone(&self.room), number, own, all }
    }
}

impl Share {
    /// Whether it is enough for an answer of so many bytes: or as much as there is.
    pub(crate) fn holds(&self, bytes: u32) -> bool {
        self.all.num_permits() >= bytes.min(self.room.bytes) as usize
    }

    /// Gives back what an answer of so many bytes does not need.
    pub(crate) fn shrink(&mut self, bytes: u32) {
        for permit in [&mut self.own, &mut self.all] {
            drop(permit.split(permit.num_permits().saturating_sub(bytes as usize)));
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.holders.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn at_once(stream: &StreamRoom, bytes: u32) -> Option<Share> {
        stream.share(bytes).now_or_never()
    }

    #[tokio::test]
    async fn a_stream_has_two_answers_on_their_way_at_the_most() {
        let room = Room::of(ALL_BYTES);
        let stream = room.stream(None);
        let (first, second) = (at_once(&stream, ANSWER_BYTES).unwrap(), at_once(&stream, ANSWER_BYTES).unwrap());
        assert!(at_once(&stream, 1).is_none());
        assert!(at_once(&room.stream(None), ANSWER_BYTES).is_some(), "another has its own");
        drop(first);
        let mut third = at_once(&stream, ANSWER_BYTES).unwrap();
        third.shrink(10);
        assert!(at_once(&stream, ANSWER_BYTES - 10).is_some(), "what is not needed is there for the next");
        drop(second);
    }

    #[tokio::test]
    async fn all_streams_together_have_no_more_than_all_the_room() {
        let room = Room::of(3 * ANSWER_BYTES);
        let streams: Vec<_> = (0..5).map(|_| room.stream(None)).collect();
        let mut shares: Vec<_> = streams.iter().filter_map(|stream| at_once(stream, ANSWER_BYTES)).collect();
        assert_eq!(shares.len(), 3);
        shares.pop();
        assert!(at_once(&streams[4], ANSWER_BYTES).is_some());
        drop(shares);
        let large = at_once(&streams[0], u32::MAX).unwrap();
        assert!(large.holds(u32::MAX) && at_once(&streams[1], 1).is_none(), "it has all for itself");
    }

    /// On the real clock: there are five seconds in which the others may still be read.
    #[tokio::test]
    async fn a_stream_that_needs_room_gets_it_from_the_one_that_stands_still_for_longest() {
        let room = Room::of(2 * ANSWER_BYTES);
        let lives: Vec<_> = (0..2).map(|_| Life::default()).collect();
        let streams: Vec<_> = lives.iter().map(|life| room.stream(Some(life.clone()))).collect();
        let mut shares = Vec::new();
        for stream in &streams {
            shares.push(at_once(stream, ANSWER_BYTES).unwrap());
        }
        let other = room.stream(Some(Life::default()));
        let waiting = other.share(ANSWER_BYTES);
        let given = async {
            while !lives[0].has_ended() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(!lives[1].has_ended(), "one is enough");
            shares.remove(0)
        };
        let (share, ended) = tokio::join!(
            async {
                let share = timeout(Duration::from_secs(60), waiting).await;
                share.expect("it gets room")
            },
            async { drop(given.await) },
        );
        let () = ended;
        assert!(share.holds(ANSWER_BYTES));
    }

    /// Streams that all stand still must not end one another.
    #[tokio::test]
    async fn a_stream_that_has_something_on_its_way_ends_nobody() {
        let room = Room::of(2 * ANSWER_BYTES);
        let life = Life::default();
        let (still, other) = (room.stream(Some(life.clone())), room.stream(None));
        let (_share, _other) = (at_once(&still, ANSWER_BYTES).unwrap(), at_once(&other, ANSWER_BYTES).unwrap());
        let wants = timeout(STANDS_STILL + Duration::from_secs(1), other.share(ANSWER_BYTES));
        assert!(wants.await.is_err() && !life.has_ended());
    }
}
