//! Watches on etcd that go on over broken connections without a gap and without a repetition.
//!
//! Invariant: the position moves past a revision only when all of its events have come. A new stream begins one
//! revision early, and what it repeats is left out. A history that is gone ends the watch with an error and never
//! silently.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use etcd_client::{WatchResponse, proto::PbEvent};
use futures::{StreamExt, stream};
use storage_core::{
    Backoff, Deadline, Error, Result, Revision, WatchEvent, WatchStream,
    servers::{Failure, Server},
};
use tokio::time::{timeout, timeout_at};

use crate::{
    error::{failure, watch_failure},
    pool::Pool,
    range::{Range, entry, key_of},
};

/// How long one server may take to establish a watch before another one is asked.
const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// The waits between attempts to establish a watch again: as those of a call.
const RETRY_FLOOR: Duration = Duration::from_millis(10);
const RETRY_CEILING: Duration = Duration::from_millis(500);

/// The changes of the keys in `range` by every commit after `after`, established within `limit`.
///
/// The stream asks the server for more when its reader does, so a slow reader costs no memory here: HTTP/2 holds the
/// server back, and etcd reads the backlog from its history.
pub(crate) async fn stream(pool: Arc<Pool>, range: Range, after: Revision, limit: Duration) -> Result<WatchStream> {
    let position = Position { after, ..Position::default() };
    let mut watch = Watch { pool, range, position, source: None, pending: VecDeque::new() };
    watch.establish_within(limit).await?;
    let events = stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        match watch.next().await {
            Ok(event) => Some((Ok(event), Some(watch))),
            // The handle was closed: that is the end, and no error.
            Err(Error::Closed) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(events.boxed())
}

struct Watch {
    pool: Arc<Pool>,
    range: Range,
    position: Position,
    source: Option<etcd_client::WatchStream>,
    /// The rest of one message, which etcd keeps under 2 MiB unless one event is larger.
    pending: VecDeque<WatchEvent>,
}

/// How far the events have been received.
///
/// A commit may come in several messages (fragments), and the connection may break between them: then the rest of
/// that commit is still to come, and the part that came must not come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// Every event up to here.
    after: Revision,
    /// And so many of the revision after it,
    delivered: usize,
    /// of which the present stream has repeated so many.
    repeated: usize,
}

impl Default for Position {
    fn default() -> Self {
        Self { after: Revision(0), delivered: 0, repeated: 0 }
    }
}

impl Position {
    /// Where a stream has to start, to have every event after the position.
    ///
    /// One revision early: etcd accepts a start at the very revision that it has compacted to, although deletions made by
    /// that commit may be gone (etcd issues 18089 and 19179). So a stream that is accepted here is complete.
    fn start(&self) -> i64 {
        // 0 would mean "now"; revision 1 is the empty store.
        self.after.0.cast_signed().max(1)
    }

    /// A new stream repeats what came since `after`.
    fn begin_stream(&mut self) {
        self.repeated = 0;
    }

    /// Moves past an event of this revision; tells whether it is new.
    fn advance(&mut self, revision: Revision) -> bool {
        if revision <= self.after {
            return false;
        }
        if revision.0 > self.after.0 + 1 {
            // Revisions come in order, so those before this one are complete.
            *self = Self { after: Revision(revision.0 - 1), delivered: 1, repeated: 1 };
            return true;
        }
        self.repeated += 1;
        let new = self.repeated > self.delivered;
        self.delivered = self.delivered.max(self.repeated);
        new
    }

    /// Everything up to this revision has been received.
    fn complete(&mut self, revision: Revision) {
        if revision > self.after {
            *self = Self { after: revision, ..Self::default() };
        }
    }
}

impl Watch {
    /// The next event. Connects again as often as it takes: a watch has no deadline, and ends with its reader or handle.
    async fn next(&mut self) -> Result<WatchEvent> {
        let mut backoff = Backoff::new(RETRY_FLOOR, RETRY_CEILING);
        loop {
            self.pool.check_open()?;
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            match self.receive().await {
                Ok(()) => {}
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(error)) => {
                    tracing::debug!(%error, "a watch of etcd begins again where it was");
                    self.source = None;
                    self.pool.while_open(backoff.wait()).await?;
                }
            }
        }
    }

    async fn establish_within(&mut self, limit: Duration) -> Result<()> {
        let deadline = Deadline::after(limit).at();
        let mut backoff = Backoff::new(RETRY_FLOOR, RETRY_CEILING);
        let mut last = Error::deadline(limit);
        loop {
            match timeout_at(deadline, self.establish()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(Trouble::Final(error))) => return Err(error),
                Ok(Err(Trouble::Passing(error))) => last = error,
                Err(_) => return Err(last),
            }
            if timeout_at(deadline, self.pool.while_open(backoff.wait())).await.is_err() {
                return Err(last);
            }
        }
    }

    /// Takes the next message, on a new stream if there is none.
    async fn receive(&mut self) -> Result<(), Trouble> {
        let Some(source) = &mut self.source else { return self.establish().await };
        match self.pool.while_open(source.message()).await.map_err(Trouble::Final)? {
            Ok(Some(message)) => self.take(message),
            Ok(None) => Err(Trouble::Passing(Error::unavailable("the server ended the watch"))),
            Err(error) => Err(Trouble::of(failure(error).failure)),
        }
    }

    /// Opens a stream at the position, and returns when the server has confirmed it.
    async fn establish(&mut self) -> Result<(), Trouble> {
        let pool = Arc::clone(&self.pool);
        let chosen = pool.choose().map_err(Trouble::Final)?;
        let ready = match pool.while_open(Arc::clone(&chosen.server).ready()).await.map_err(Trouble::Final)? {
            Ok(ready) => ready,
            Err(error) => {
                pool.avoid(&chosen);
                return Err(Trouble::of_connecting(error));
            }
        };
        let options = etcd_client::WatchOptions::new()
            .with_range(self.range.end.as_slice())
            .with_start_revision(self.position.start())
            // Without it, a watch of keys that nobody writes would fall behind the compactions.
            .with_progress_notify()
            .with_fragment();
        let mut client = ready.watch();
        let opened = pool.while_open(timeout(ESTABLISH_TIMEOUT, async {
            let mut source = client.watch(self.range.start.as_slice(), Some(options)).await?;
            Ok((source.message().await?, source))
        }));
        let trouble = match opened.await.map_err(Trouble::Final)? {
            Ok(Ok((Some(message), source))) => {
                self.source = Some(source);
                self.position.begin_stream();
                match self.take(message) {
                    Ok(()) => return Ok(()),
                    Err(trouble) => trouble,
                }
            }
            Ok(Ok((None, _))) => Trouble::Passing(Error::unavailable("the server ended the watch at once")),
            Ok(Err(error)) => {
                let failed = failure(error);
                if failed.broken {
                    ready.discard();
                }
                Trouble::of(failed.failure)
            }
            Err(_) => Trouble::Passing(Error::deadline(ESTABLISH_TIMEOUT)),
        };
        pool.avoid(&chosen);
        Err(trouble)
    }

    fn take(&mut self, message: WatchResponse) -> Result<(), Trouble> {
        let message = message.0;
        // Looked at first: such a message is also `canceled`, with words that say less.
        if message.compact_revision > 0 {
            let oldest = Revision(message.compact_revision.cast_unsigned());
            return Err(Trouble::Final(Error::Compacted { oldest }));
        }
        if message.canceled {
            return Err(Trouble::of(watch_failure(&message.cancel_reason).failure));
        }
        let mut last = None;
        let progress = message.events.is_empty() && !message.created;
        for event in message.events {
            let (event, revision) = watch_event(event).map_err(Trouble::Final)?;
            if self.position.advance(revision) {
                self.pending.push_back(event);
            }
            last = Some(revision);
        }
        if progress {
            last = message.header.map(|header| Revision(header.revision.cast_unsigned()));
        }
        // Only whole messages move the position: the rest of a fragmented commit is still to come.
        if let (Some(revision), false) = (last, message.fragment) {
            self.position.complete(revision);
        }
        Ok(())
    }
}

/// Why a stream of events does not go on.
enum Trouble {
    /// Another stream may.
    Passing(Error),
    /// No stream will.
    Final(Error),
}

impl Trouble {
    fn of(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => Self::Final(error),
            failure => Self::Passing(failure.of_read()),
        }
    }

    fn of_connecting(error: Error) -> Self {
        if error.is_retryable() { Self::Passing(error) } else { Self::Final(error) }
    }
}

fn watch_event(event: PbEvent) -> Result<(WatchEvent, Revision)> {
    let corrupt = || Error::corrupt("etcd sent an event without a key");
    let kv = event.kv.ok_or_else(corrupt)?;
    let revision = Revision(kv.mod_revision.cast_unsigned());
    let event = if event.r#type == DELETE {
        WatchEvent::Delete { key: key_of(kv.key)?, revision: Some(revision) }
    } else {
        WatchEvent::Put { entry: entry(kv)?, revision: Some(revision) }
    };
    Ok((event, revision))
}

/// `Event.EventType.DELETE` of etcd's `kv.proto`.
const DELETE: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn position(after: u64, delivered: usize) -> Position {
        Position { after: Revision(after), delivered, repeated: 0 }
    }

    fn new_ones(position: &mut Position, revisions: &[u64]) -> Vec<bool> {
        revisions.iter().map(|revision| position.advance(Revision(*revision))).collect()
    }

    #[test]
    fn a_stream_begins_one_revision_early_and_skips_what_came() {
        let mut position = position(5, 0);
        assert_eq!(position.start(), 5);
        assert_eq!(new_ones(&mut position, &[5, 5, 6, 7, 7]), [false, false, true, true, true]);
    }

    #[test]
    fn the_rest_of_a_commit_that_came_in_part_comes_once() {
        let mut position = position(5, 0);
        assert_eq!(new_ones(&mut position, &[6, 8, 8, 8]), [true; 4]);
        assert_eq!((position.start(), position.delivered), (7, 3));
        position.begin_stream();
        assert_eq!(new_ones(&mut position, &[7, 8, 8, 8, 8, 9]), [false, false, false, false, true, true]);
    }

    #[test]
    fn a_commit_that_breaks_twice_still_comes_once() {
        let mut position = position(5, 0);
        assert_eq!(new_ones(&mut position, &[6, 6]), [true; 2]);
        position.begin_stream();
        assert_eq!(new_ones(&mut position, &[6]), [false]);
        position.begin_stream();
        assert_eq!(new_ones(&mut position, &[6, 6, 6]), [false, false, true]);
    }

    #[test]
    fn progress_moves_the_start_and_never_back() {
        let mut position = position(5, 2);
        position.complete(Revision(9));
        assert_eq!((position.start(), position.delivered), (9, 0));
        position.complete(Revision(7));
        assert_eq!(position.start(), 9);
    }

    #[test]
    fn a_watch_from_the_beginning_does_not_ask_for_now() {
        assert_eq!(position(0, 0).start(), 1);
    }
}
