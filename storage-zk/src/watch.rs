//! Watches: the latest state of each key that changed.
//!
//! A persistent recursive watch on the root says which node changed, not to what, and is silent about what happened while the
//! session was down (ZOOKEEPER-4698). So a watch knows the version of every key below its prefix; an event, or a new session,
//! only tells it where to look, and what differs from what it knew is told to the caller.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use futures::StreamExt;
use storage_core::{
    Backoff, Consistency, DEFAULT_TIMEOUT, Deadline, Entry, Error, Key, Result, ScanOptions, Version, WatchEvent,
    WatchStream,
};
use tokio::sync::mpsc;
use zookeeper_client::{AddWatchMode, EventType, PersistentWatcher, SessionState, WatchedEvent};

use crate::{error, handle::Handle, node::gone};

/// Events that wait for a slow reader; what changes meanwhile is kept as the set of keys that changed.
const BUFFER: usize = 64;

/// How many changed keys are read at once: as many as a transaction may have.
const READ_AT_ONCE: usize = 64;

/// While the store cannot be reached, a watch tries again at most so far apart.
const MAX_RETRY_WAIT: Duration = Duration::from_millis(500);

/// Establishes a watch: every commit that begins after this has returned is seen.
pub(crate) async fn start(handle: &Arc<Handle>, prefix: &[u8], deadline: Deadline) -> Result<WatchStream> {
    let mut follower = Follower { prefix: prefix.to_vec(), known: BTreeMap::new(), changed: BTreeSet::new() };
    let watcher = follower.establish(handle, deadline).await?;
    // What is there already is not news.
    follower.compare_all(handle, deadline).await?;
    let (send, receive) = mpsc::channel(BUFFER);
    tokio::spawn(follow(Arc::downgrade(handle), follower, watcher, send));
    let events = futures::stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) });
    Ok(events.boxed())
}

/// Follows the keys until the handle is closed or the stream dropped.
async fn follow(
    store: Weak<Handle>,
    mut follower: Follower,
    watcher: PersistentWatcher,
    send: mpsc::Sender<Result<WatchEvent>>,
) {
    let Some(closed) = store.upgrade().map(|handle| handle.session.closed()) else { return };
    tokio::select! {
        () = closed => {}
        () = send.closed() => {}
        () = follower.run(&store, watcher, &send) => {}
    }
}

/// What one watch knows.
struct Follower {
    prefix: Vec<u8>,
    /// The version of every key below the prefix, as the caller was told it, or could see it before the watch began.
    known: BTreeMap<Key, Version>,
    /// Keys to look at.
    changed: BTreeSet<Key>,
}

impl Follower {
    /// Returns when the handle or the caller is gone.
    async fn run(
        &mut self,
        store: &Weak<Handle>,
        mut watcher: PersistentWatcher,
        send: &mpsc::Sender<Result<WatchEvent>>,
    ) {
        let mut news = VecDeque::new();
        loop {
            let connected = tokio::select! {
                event = watcher.changed() => self.note(store, &event),
                room = send.reserve(), if !news.is_empty() => match (room, news.pop_front()) {
                    (Ok(room), Some(event)) => {
                        room.send(Ok(event));
                        true
                    }
                    _ => return,
                },
                // Looks only when nothing waits to be told: so what a slow reader misses is in `changed`, once a key.
                () = std::future::ready(()), if news.is_empty() && !self.changed.is_empty() => {
                    let Some(handle) = store.upgrade() else { return };
                    match self.compare_changed(&handle).await {
                        Ok(found) => {
                            news.extend(found);
                            true
                        }
                        Err(error) => {
                            tracing::debug!(%error, "a watch cannot read what changed");
                            false
                        }
                    }
                }
            };
            if !connected {
                drop(watcher);
                let Some((again, found)) = self.resume(store).await else { return };
                watcher = again;
                news.extend(found);
            }
        }
    }

    /// Notes which key an event is about; `false`: the session is gone, and with it the watch.
    fn note(&mut self, store: &Weak<Handle>, event: &WatchedEvent) -> bool {
        if event.event_type == EventType::Session {
            return event.session_state == SessionState::SyncConnected;
        }
        let key = store.upgrade().and_then(|handle| handle.layout.parse_path(&event.path)).map(|(key, _)| key);
        // A set: however often a key changes while its reader is slow, it takes room once.
        self.changed.extend(key.filter(|key| key.starts_with(&self.prefix)));
        true
    }

    /// Watches again on a new session, and finds what was missed.
    async fn resume(&mut self, store: &Weak<Handle>) -> Option<(PersistentWatcher, Vec<WatchEvent>)> {
        let mut backoff = Backoff::new(MAX_RETRY_WAIT / 16, MAX_RETRY_WAIT);
        loop {
            let handle = store.upgrade()?;
            if handle.session.is_closed() {
                return None;
            }
            let deadline = Deadline::after(DEFAULT_TIMEOUT);
            let resumed = async {
                let watcher = self.establish(&handle, deadline).await?;
                Ok::<_, Error>((watcher, self.compare_all(&handle, deadline).await?))
            };
            match resumed.await {
                Ok(resumed) => return Some(resumed),
                Err(error) => tracing::debug!(%error, "a watch cannot resume yet"),
            }
            // Not held while it waits: a watch must not keep a handle alive that everybody else has dropped.
            drop(handle);
            backoff.wait().await;
        }
    }

    async fn establish(&mut self, handle: &Handle, deadline: Deadline) -> Result<PersistentWatcher> {
        let client = handle.session.client(deadline).await?;
        let root = handle.layout.root();
        let watcher = deadline.reading(client.watch(root, AddWatchMode::PersistentRecursive)).await?;
        error::read(watcher)?.map_err(|_| gone(root))
    }

    /// Looks at all keys, and returns what differs from what was known.
    async fn compare_all(&mut self, handle: &Handle, deadline: Deadline) -> Result<Vec<WatchEvent>> {
        let mut now = BTreeMap::new();
        let mut news = Vec::new();
        let mut options = ScanOptions::default();
        loop {
            deadline.check()?;
            options.read.timeout = deadline.left();
            let page = handle.page(&self.prefix, &options).await?;
            for entry in page.entries {
                now.insert(entry.key.clone(), entry.version);
                if self.known.get(&entry.key) != Some(&entry.version) {
                    news.push(put(entry));
                }
            }
            match page.next {
                Some(after) => options.after = Some(after),
                None => break,
            }
        }
        let known = std::mem::replace(&mut self.known, now);
        let gone = known.into_keys().filter(|key| !self.known.contains_key(key));
        news.extend(gone.map(|key| WatchEvent::Delete { key, revision: None }));
        Ok(news)
    }

    /// Looks at the keys of which there were events.
    async fn compare_changed(&mut self, handle: &Handle) -> Result<Vec<WatchEvent>> {
        let keys: Vec<Key> = self.changed.iter().take(READ_AT_ONCE).cloned().collect();
        let deadline = Deadline::after(DEFAULT_TIMEOUT);
        let snapshot = handle.snapshot(&keys, Consistency::Linearizable, deadline).await?;
        let mut news = Vec::new();
        for (key, entry) in keys.into_iter().zip(snapshot.into_entries()) {
            // Only now that it was read: after an error it is looked at again.
            self.changed.remove(&key);
            match entry {
                Some(entry) if self.known.insert(key.clone(), entry.version) != Some(entry.version) => {
                    news.push(put(entry))
                }
                Some(_) => {}
                None if self.known.remove(&key).is_some() => news.push(WatchEvent::Delete { key, revision: None }),
                None => {}
            }
        }
        Ok(news)
    }
}

fn put(entry: Entry) -> WatchEvent {
    WatchEvent::Put { entry, revision: None }
}
