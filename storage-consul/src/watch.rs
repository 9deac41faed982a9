//! A watch: the state of a prefix, asked for again each time that it has changed, and what is different from the last time.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use storage_core::{
    Backoff, Entry, Error, Key, Result, Revision, WatchEvent, WatchStream,
    servers::{Chosen, Effect, Failure, Server as _},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    client::{Found, Pair, Server, Wait},
    encoding::Folder,
    pool::Pool,
};

/// Consul answers after so long also if nothing has changed: a server that hangs is noticed soon after, and an idle
/// watch costs one answer in this time.
const WAIT_SECONDS: u64 = 10;
/// Consul lengthens the wait by up to a sixteenth; the rest is for the way.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(WAIT_SECONDS + WAIT_SECONDS / 16 + 3);

/// Between two answers. Each holds the whole state of the prefix, so a busy one is not asked for more often.
const PACE: Duration = Duration::from_millis(50);

/// The waits after servers that failed: as those of a call.
const RETRY_FLOOR: Duration = Duration::from_millis(10);
const RETRY_CEILING: Duration = Duration::from_millis(500);

/// What one answer has changed.
type Changes = VecDeque<WatchEvent>;

/// The changes of the keys with this prefix after now, which is established within `limit`.
///
/// A task of the handle asks, so that closing it ends the connection also if nobody reads. It does not ask before the reader has
/// taken the answer before, so a slow reader costs the memory of two answers.
pub(crate) async fn stream(pool: Arc<Pool>, folder: Folder, prefix: &[u8], limit: Duration) -> Result<WatchStream> {
    let prefix = folder.prefix(prefix);
    let first = pool.call(Effect::Reads, limit, |server| {
        let prefix = prefix.clone();
        async move { server.tree(&prefix, None).await }
    });
    let first = first.await?;
    let mut state = SeenVersions { folder, versions: HashMap::new() };
    state.take(first.data.unwrap_or_default())?;
    let (sender, receiver) = mpsc::channel(1);
    let watch = Watch { pool: Arc::clone(&pool), prefix, state, index: first.index, next_at: Instant::now() };
    pool.spawn(watch.run(sender));
    let changes = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    Ok(changes.flat_map(|changes| stream::iter(events(changes))).boxed())
}

/// One question of a watch.
async fn asked(chosen: &Chosen<Server>, prefix: &str, wait: Option<Wait>) -> Result<Found<Vec<Pair>>, Failure> {
    let call = Arc::clone(&chosen.server).call_of_watch().await;
    let call = call.map_err(|error| match error {
        Error::Unavailable { .. } => Failure::NotApplied(error),
        error => Failure::Refused(error),
    })?;
    call.tree(prefix, wait).await
}

fn events(changes: Result<Changes>) -> impl Iterator<Item = Result<WatchEvent>> {
    let (changes, error) = match changes {
        Ok(changes) => (changes, None),
        Err(error) => (Changes::new(), Some(Err(error))),
    };
    changes.into_iter().map(Ok).chain(error)
}

struct Watch {
    pool: Arc<Pool>,
    prefix: String,
    state: SeenVersions,
    /// Up to which the changes are known.
    index: u64,
    next_at: Instant,
}

impl Watch {
    /// Goes on until the stream is dropped, the handle is closed or an error is final.
    async fn run(mut self, reader: mpsc::Sender<Result<Changes>>) {
        while let Ok(place) = reader.reserve().await {
            let changes = tokio::select! {
                changes = self.changes() => changes,
                () = reader.closed() => return,
            };
            let ended = changes.is_err();
            place.send(changes);
            if ended {
                return;
            }
        }
    }

    /// The next changes. Asks as often as it takes: a watch has no deadline.
    async fn changes(&mut self) -> Result<Changes> {
        let mut backoff = Backoff::new(RETRY_FLOOR, RETRY_CEILING);
        loop {
            sleep_until(self.next_at).await;
            self.next_at = Instant::now() + PACE;
            let chosen = self.pool.choose()?;
            // Index 0 would make Consul answer at once each time.
            let wait = (self.index > 0).then_some(Wait { index: self.index, seconds: WAIT_SECONDS });
            let trouble = match timeout(ANSWER_TIMEOUT, asked(&chosen, &self.prefix, wait)).await {
                Ok(Ok(found)) => {
                    let changes = self.take(found)?;
                    if changes.is_empty() {
                        continue;
                    }
                    return Ok(changes);
                }
                Ok(Err(Failure::Refused(error))) => return Err(error),
                Ok(Err(failure)) => failure.of_read(),
                Err(_) => Error::deadline(ANSWER_TIMEOUT),
            };
            tracing::debug!(server = chosen.server.name(), error = %trouble, "a watch of Consul asks another server");
            self.pool.avoid(&chosen);
            backoff.wait().await;
        }
    }

    fn take(&mut self, found: Found<Vec<Pair>>) -> Result<Changes> {
        // The index may go back, above all when Consul forgets what was deleted long ago. Then a wait for a change after it
        // would miss some: the next question does not wait, and tells an index to go on from.
        self.index = if found.index < self.index { 0 } else { found.index };
        self.state.take(found.data.unwrap_or_default())
    }
}

/// What was there at the last answer. Versions alone, since values would be all the data of the prefix.
struct SeenVersions {
    folder: Folder,
    versions: HashMap<Key, u64>,
}

impl SeenVersions {
    /// What is different from the answer before.
    fn take(&mut self, pairs: Vec<Pair>) -> Result<Changes> {
        let mut before = std::mem::take(&mut self.versions);
        let mut changes = Changes::new();
        for pair in pairs {
            let version = pair.modify_index;
            let entry = match self.folder.entry(pair) {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                // Written by hand: what was there before still is the last that a store has written.
                Err(foreign) => {
                    tracing::warn!("a watch passes it over: {foreign}");
                    if let Some(version) = before.remove(&foreign.key) {
                        self.versions.insert(foreign.key, version);
                    }
                    continue;
                }
            };
            // Equal values have different versions, thanks to the nonce, so no write of the same value is passed over.
            if before.remove(&entry.key) != Some(version) {
                changes.push_back(put(entry.clone(), version));
            }
            self.versions.insert(entry.key, version);
        }
        // Consul does not tell which commit deleted them.
        changes.extend(before.into_keys().map(|key| WatchEvent::Delete { key, revision: None }));
        Ok(changes)
    }
}

fn put(entry: Entry, index: u64) -> WatchEvent {
    WatchEvent::Put { entry, revision: Some(Revision(index)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::encoding::Nonce;

    fn pair(name: &str, index: u64) -> Pair {
        let key = Folder::new("s").key(&Key::try_from(name).unwrap());
        let value = Nonce { handle: 1, write: index }.stamped(name.as_bytes());
        let pair = json!({
            "Key": key, "Value": value, "Flags": 0, "LockIndex": 0, "CreateIndex": 1, "ModifyIndex": index
        });
        serde_json::from_value(pair).unwrap()
    }

    fn taken(state: &mut SeenVersions, pairs: &[(&str, u64)]) -> Vec<String> {
        let changes = state.take(pairs.iter().map(|(name, index)| pair(name, *index)).collect()).unwrap();
        let shown = changes.into_iter().map(|event| match event {
            WatchEvent::Put { entry, revision } => format!("{} @{}", entry.key, revision.unwrap()),
            event => format!("-{}", event.key()),
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort();
        shown
    }

    #[test]
    fn what_is_different_is_told_once() {
        let mut state = SeenVersions { folder: Folder::new("s"), versions: HashMap::new() };
        assert_eq!(taken(&mut state, &[("a", 1), ("b", 2)]), ["a @1", "b @2"]);
        assert_eq!(taken(&mut state, &[("a", 1), ("b", 2)]), [""; 0]);
        assert_eq!(taken(&mut state, &[("a", 3), ("c", 4)]), ["-b", "a @3", "c @4"]);
        assert_eq!(taken(&mut state, &[]), ["-a", "-c"]);
    }
}
