//! Watches of the reference store: each a place in the shared history, without a queue of its own.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::watch::Receiver;

use super::Shared;
use crate::{Result, Revision, WatchEvent, WatchStream};

/// The changes of keys with `prefix` by every commit after `after`.
///
/// A watch holds a place in the shared history and no queue of its own, so a slow reader costs no memory: the history
/// is bounded, and a reader whose place is forgotten is told so.
pub(super) fn stream(shared: Arc<Shared>, closed: Receiver<bool>, prefix: &[u8], after: Revision) -> WatchStream {
    let revision = shared.revision.subscribe();
    let prefix = Bytes::copy_from_slice(prefix);
    let watch = Watch { shared, closed, revision, prefix, position: after, pending: VecDeque::new() };
    stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        match watch.next().await {
            Ok(Some(event)) => Some((Ok(event), Some(watch))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Watch {
    shared: Arc<Shared>,
    closed: Receiver<bool>,
    revision: Receiver<Revision>,
    prefix: Bytes,
    /// Every commit up to here was delivered or is in `pending`.
    position: Revision,
    /// The rest of one commit: bounded by the operations of a transaction.
    pending: VecDeque<WatchEvent>,
}

impl Watch {
    /// The next event, or `None` when the handle was closed.
    async fn next(&mut self) -> Result<Option<WatchEvent>> {
        loop {
            if *self.closed.borrow() {
                return Ok(None);
            }
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if self.take_commit()? {
                continue;
            }
            let position = self.position;
            tokio::select! {
                () = closing(&mut self.closed) => return Ok(None),
                // Not `changed()`: a commit between the look at the history and this wait would be missed.
                _ = self.revision.wait_for(|revision| *revision > position) => {}
            }
        }
    }

    /// Takes the next commit from the history, if there is one.
    fn take_commit(&mut self) -> Result<bool> {
        // The lock is held for one commit of the history, so a watch far behind does not hold up writers.
        let state = self.shared.lock();
        let Some(events) = state.commit_after(self.position)? else { return Ok(false) };
        self.pending.extend(events.iter().filter(|event| event.key().starts_with(&self.prefix)).cloned());
        self.position = Revision(self.position.0 + 1);
        Ok(true)
    }
}

/// Waits until the handle is closed. One that is dropped instead leaves its watches alone.
async fn closing(closed: &mut Receiver<bool>) {
    if closed.wait_for(|closed| *closed).await.is_err() {
        std::future::pending().await
    }
}
