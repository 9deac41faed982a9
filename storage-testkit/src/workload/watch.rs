//! Some clients write, and others watch them and resume when their watch breaks.
//!
//! Invariants that it checks, where watches are in order: no gap, no repetition, no going back, and the last write
//! arrives. Elsewhere: what comes of one key never goes back, but for writes whose outcome was unknown.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::StreamExt;
use storage_core::{
    Entry, Error, Key, Outcome, Revision, Store, Txn, WatchEvent, WatchOptions, WatchStream, WatchSupport,
};

use super::{Breach, Client, Handle, Workload, client::key, report::Breaches};

/// Some clients write, and others watch them and resume when their watch breaks.
///
/// Of a store whose watches are in order, every acknowledged write has to come once and in its place. Of a store that tells
/// the latest state only, what comes of one key never goes back.
#[derive(Debug, Default)]
pub struct Watching {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// By revision: what was acknowledged there.
    acknowledged: BTreeMap<u64, (Key, String)>,
    /// Writes without an answer, which may have taken effect after later ones of the same client.
    unknown: HashSet<(Key, u64)>,
    segments: Vec<Segment>,
    /// Of which it is not known yet whether their writes were answered.
    steps_back: Vec<StepBack>,
    breaches: Breaches,
}

/// A number of a key that came after a greater one.
#[derive(Debug)]
struct StepBack {
    watcher: usize,
    key: Key,
    before: u64,
    number: u64,
}

/// What a watch saw from its beginning on, over all its resumptions.
#[derive(Debug, Default)]
struct Segment {
    watcher: usize,
    events: Vec<(u64, Key, String)>,
}

/// What a watching client has.
#[derive(Default)]
struct Watcher {
    stream: Option<WatchStream>,
    /// Whether the store tells every change in order; otherwise revisions say nothing here.
    ordered: bool,
    segment: Segment,
    /// The greatest number that was seen of each key since the stream began.
    latest: HashMap<Key, u64>,
}

/// Of so many clients, one watches.
const ONE_IN: usize = 3;

/// So long does a watcher wait for an event in one step.
const LISTEN: Duration = Duration::from_millis(50);

/// What was acknowledged last is seen within this time, when all faults are over.
const ARRIVES: Duration = Duration::from_secs(60);

/// A watch sees every acknowledged write between its first and its last event.
const GAP: &str = "no gap";

/// Revisions never go back, nor do the numbers of one key whose writes were answered.
const ORDER: &str = "no reorder";

/// A watch sees each revision of a key once, also when it resumes.
const TWICE: &str = "no duplicate";

/// What is written while nothing is struck is seen.
const COMES: &str = "arrives";

impl Watching {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breach(&self, invariant: &'static str, what: String) {
        self.book().breaches.note(invariant, what);
    }

    /// Writes a number of this client to a key of its own; returns whether it was acknowledged.
    async fn write(&self, client: &Client, key: Key) -> bool {
        let value = (client.steps + 1).to_string();
        let committed = match client.commit(Txn::new().put(key.clone(), value.clone())).await {
            Ok(Outcome::Committed(committed)) => committed,
            Err(error) if error.may_be_applied() => {
                self.book().unknown.insert((key, client.steps + 1));
                return false;
            }
            Ok(_) | Err(_) => return false,
        };
        if let Some(Revision(revision)) = committed.revision {
            self.book().acknowledged.insert(revision, (key, value));
        }
        true
    }

    /// Takes what comes for a while. Returns the keys that changed.
    async fn listen(&self, client: &mut Client) -> Vec<Key> {
        let (store, timeout, number) = (client.store.clone(), client.timeout, client.number);
        let Some(watcher) = client.memory::<Watcher>() else { return Vec::new() };
        watcher.segment.watcher = number;
        if watcher.stream.is_none() && !self.begin(watcher, &store, timeout).await {
            tokio::time::sleep(LISTEN).await;
            return Vec::new();
        }
        let mut seen = Vec::new();
        let until = tokio::time::Instant::now() + LISTEN;
        while let Some(stream) = &mut watcher.stream {
            match tokio::time::timeout_at(until, stream.next()).await {
                Err(_) => break,
                Ok(Some(Ok(event))) => {
                    seen.push(event.key().clone());
                    self.note(watcher, event);
                }
                Ok(Some(Err(Error::Compacted { .. }))) => {
                    watcher.stream = None;
                    self.end_segment(watcher);
                }
                Ok(Some(Err(_)) | None) => watcher.stream = None,
            }
        }
        seen
    }

    /// Begins a watch, after what was seen last where that is possible.
    async fn begin(&self, watcher: &mut Watcher, store: &Handle, timeout: Duration) -> bool {
        let resumes = store.capabilities().watch == WatchSupport::Ordered;
        watcher.ordered = resumes;
        let last = watcher.segment.events.last().map(|(revision, ..)| Revision(*revision)).filter(|_| resumes);
        if last.is_none() {
            self.end_segment(watcher);
        }
        match store.watch(b"watch/", WatchOptions { after: last, timeout }).await {
            Ok(stream) => {
                // A stream that does not resume may begin before the end of the last one: each is held against itself
                // alone.
                watcher.latest.clear();
                watcher.stream = Some(stream);
                true
            }
            Err(error) => {
                if matches!(error, Error::Compacted { .. }) {
                    self.end_segment(watcher);
                }
                false
            }
        }
    }

    fn note(&self, watcher: &mut Watcher, event: WatchEvent) {
        let WatchEvent::Put { entry, revision } = event else { return };
        let value = String::from_utf8_lossy(&entry.value).into_owned();
        let number: u64 = value.parse().unwrap_or(0);
        let before = watcher.latest.insert(entry.key.clone(), number).unwrap_or(0);
        if before > number {
            let (watcher, key) = (watcher.segment.watcher, entry.key.clone());
            self.book().steps_back.push(StepBack { watcher, key, before, number });
        }
        let Some(Revision(revision)) = revision.filter(|_| watcher.ordered) else { return };
        if let Some((last, last_key, _)) = watcher.segment.events.last() {
            let who = watcher.segment.watcher;
            if *last > revision {
                self.breach(ORDER, format!("watcher {who}: revision {revision} came after {last}"));
            } else if *last == revision && *last_key == entry.key {
                self.breach(TWICE, format!("watcher {who}: revision {revision} of {last_key} came twice"));
            }
        }
        watcher.segment.events.push((revision, entry.key, value));
    }

    fn end_segment(&self, watcher: &mut Watcher) {
        let next = Segment { watcher: watcher.segment.watcher, events: Vec::new() };
        let segment = std::mem::replace(&mut watcher.segment, next);
        if !segment.events.is_empty() {
            self.book().segments.push(segment);
        }
    }
}

fn watches(client: &Client) -> bool {
    client.number % ONE_IN == ONE_IN - 1
}

#[async_trait]
impl Workload for Watching {
    fn name(&self) -> &'static str {
        "watch"
    }

    async fn step(&self, client: &mut Client) {
        if watches(client) {
            self.listen(client).await;
        } else {
            let part = client.rng.u32(..3);
            self.write(client, key(format!("watch/{}/{part}", client.number))).await;
        }
    }

    /// A watcher writes something itself and waits for it: what was acknowledged before has come by then, if the order is kept.
    async fn last_step(&self, client: &mut Client) {
        if !watches(client) {
            return;
        }
        let own = key(format!("watch/{}/mark", client.number));
        let deadline = Instant::now() + ARRIVES;
        loop {
            // Again if the watch began after the write.
            client.steps += 1;
            let fresh = client.memory::<Watcher>().is_some_and(|watcher| watcher.stream.is_some());
            if fresh {
                self.write(client, own.clone()).await;
            }
            if self.listen(client).await.contains(&own) {
                break;
            }
            if Instant::now() >= deadline {
                self.breach(COMES, format!("watcher {} saw nothing of {own} within {ARRIVES:?}", client.number));
                break;
            }
        }
        if let Some(watcher) = client.memory::<Watcher>() {
            watcher.stream = None;
            self.end_segment(watcher);
        }
    }

    fn judge(&self, _: &[Option<Entry>]) -> Vec<Breach> {
        let mut book = self.book();
        let Book { acknowledged, unknown, segments, steps_back, breaches } = &mut *book;
        for StepBack { watcher, key, before, number } in &*steps_back {
            if !unknown.contains(&(key.clone(), *number)) {
                breaches.note(ORDER, format!("watcher {watcher}: {key} went from {before} back to {number}"));
            }
        }
        for Segment { watcher, events } in &*segments {
            let (Some((first, ..)), Some((last, ..))) = (events.first(), events.last()) else { continue };
            let seen: HashMap<u64, &(u64, Key, String)> = events.iter().map(|event| (event.0, event)).collect();
            for (revision, (key, value)) in acknowledged.range(first..=last) {
                let arrived = seen.get(revision).is_some_and(|(_, seen, told)| seen == key && told == value);
                if !arrived {
                    let what = format!("watcher {watcher} saw {first} to {last}, not {key} = {value} at {revision}");
                    breaches.note(GAP, what);
                }
            }
        }
        breaches.found()
    }
}
