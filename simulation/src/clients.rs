//! What clients do: registers with compare-and-swap, pairs of keys that are written together, counters that are added to.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use storage_core::{Entry, Expected, Key, Outcome, ReadOptions, Store, Txn, WriteOptions};
use tokio::time::{Instant, sleep};

use crate::shared::Shared;

/// After so many ticks the clients go on with other keys, so that each key has a history that is checked at once.
const TICKS_ON_KEYS: u64 = 2500;

/// One write in so many is abandoned by its caller.
const ABANDONED: u8 = 12;

/// How many milliseconds a call is kept, at the most, that nobody asks for its answer.
const KEPT_FOR: u64 = 3000;

/// How many counters there are.
pub(crate) const COUNTERS: u64 = 2;

struct Client {
    store: Arc<dyn Store>,
    name: String,
    shared: Rc<Shared>,
    steps: u64,
    /// A text that no other client has.
    number: u64,
    seen: BTreeMap<Key, Option<Entry>>,
}

/// Works until the clients are told to end or the host crashes.
pub(crate) async fn work(store: Arc<dyn Store>, name: String, shared: Rc<Shared>) {
    let number = fastrand::u64(..);
    // Around everything, also what is abandoned: a write that nobody waits for stands in the history all the same.
    let store = Arc::new(shared.recorder.wrap(store));
    let mut client = Client { store, name, shared, steps: 0, number, seen: BTreeMap::new() };
    while !client.shared.ended.get() {
        client.step().await;
        client.steps += 1;
        sleep(Duration::from_millis(fastrand::u64(1..40))).await;
    }
}

#[expect(clippy::expect_used, reason = "the names made here are keys")]
pub(crate) fn key(text: String) -> Key {
    Key::new(text).expect("a short name is a key")
}

pub(crate) fn counter(place: u64) -> Key {
    key(format!("counter/{place}"))
}

pub(crate) fn count(entry: Option<&Entry>) -> u64 {
    entry.and_then(|entry| str::from_utf8(&entry.value).ok()?.parse().ok()).unwrap_or(0)
}

impl Client {
    async fn step(&mut self) {
        let timeout = Duration::from_millis(fastrand::u64(200..2500));
        match fastrand::u8(..10) {
            0 => self.pair(timeout).await,
            1 => self.add(timeout).await,
            _ => self.register(timeout).await,
        }
    }

    fn era(&self) -> u64 {
        self.shared.event_log.tick() / TICKS_ON_KEYS
    }

    fn unique(&self) -> String {
        format!("{:x}.{}", self.number, self.steps)
    }

    async fn get(&self, key: &Key, timeout: Duration) -> Option<Option<Entry>> {
        let answer = self.store.get(key, ReadOptions::default().timeout(timeout)).await;
        self.heard(answer.as_ref().map_err(storage_core::Error::may_be_applied).err());
        self.shared.event_log.record(format_args!("{} get {key:?} -> {:?}", self.name, answer.as_ref().map(brief)));
        answer.ok()
    }

    async fn commit(&self, txn: Txn, timeout: Duration) -> storage_core::Result<Outcome> {
        let asked = format!("{:?}", txn.ops.first().map(storage_core::Op::key));
        let began = Instant::now();
        let answer = self.abandon(self.store.commit(txn, WriteOptions::default().timeout(timeout))).await;
        self.check_deadline(answer.as_ref().err(), began, timeout);
        self.heard(answer.as_ref().map_err(storage_core::Error::may_be_applied).err());
        let told = match &answer {
            Ok(Outcome::Committed(committed)) => format!("{:?}", committed.revision),
            Ok(Outcome::Conflict(_)) => "conflict".to_owned(),
            Err(error) => error.kind().to_owned(),
        };
        self.shared.event_log.record(format_args!("{} write {asked} -> {told}", self.name));
        answer
    }

    /// Waits for a write, or begins it and does not: some are dropped, and some are kept as they are for a while and asked again.
    async fn abandon<F>(&self, mut call: F) -> storage_core::Result<Outcome>
    where
        F: Future<Output = storage_core::Result<Outcome>> + Unpin,
    {
        if fastrand::u8(..ABANDONED) > 0 {
            return call.await;
        }
        let begun = Duration::from_millis(fastrand::u64(..30));
        if let Ok(answer) = tokio::time::timeout(begun, &mut call).await {
            return answer;
        }
        if fastrand::bool() {
            drop(call);
            return Err(storage_core::Error::unknown_outcome("the caller has gone"));
        }
        sleep(Duration::from_millis(fastrand::u64(..KEPT_FOR))).await;
        call.await
    }

    /// Nobody is told that the time of a write has passed before it has: its number would have ended while it was under way.
    fn check_deadline(&self, error: Option<&storage_core::Error>, began: Instant, timeout: Duration) {
        let passed = storage_core::Error::deadline_after_send(timeout).to_string();
        if error.is_some_and(|error| error.to_string() == passed) && began.elapsed() < timeout {
            let after = began.elapsed();
            self.shared.violate(format!("{} was told after {after:?} that {timeout:?} had passed", self.name));
        }
    }

    /// `None`: answered; otherwise whether it may have been applied.
    fn heard(&self, failed: Option<bool>) {
        let mut books = self.shared.books.borrow_mut();
        match failed {
            None => books.answered += 1,
            Some(false) => books.refused += 1,
            Some(true) => books.unheard += 1,
        }
    }

    async fn register(&mut self, timeout: Duration) {
        let key = key(format!("r/{}/{}", self.era(), fastrand::u64(..self.shared.plan.keys)));
        let value = self.unique();
        let txn = match fastrand::u8(..100) {
            ..40 => {
                if let Some(seen) = self.get(&key, timeout).await {
                    self.seen.insert(key, seen);
                }
                return;
            }
            40..52 => Txn::new().put(key, value),
            52..57 => Txn::new().guard(key.clone(), Expected::Exists).delete(key),
            _ => match self.seen.remove(&key) {
                Some(Some(entry)) => Txn::new().guard(key.clone(), Expected::Version(entry.version)).put(key, value),
                Some(None) => Txn::new().guard(key.clone(), Expected::Absent).put(key, value),
                None => {
                    if let Some(seen) = self.get(&key, timeout).await {
                        self.seen.insert(key, seen);
                    }
                    return;
                }
            },
        };
        let _ = self.commit(txn, timeout).await;
    }

    /// Two keys that are always written together, and so are always equal.
    async fn pair(&mut self, timeout: Duration) {
        let keys = ["one", "other"].map(|side| key(format!("pair/{}/{side}", self.era())));
        if fastrand::bool() {
            let [one, other] = keys;
            let value = self.unique();
            let _ = self.commit(Txn::new().put(one, value.clone()).put(other, value), timeout).await;
            return;
        }
        let answer = self.store.get_many(&keys, ReadOptions::default().timeout(timeout)).await;
        self.heard(answer.as_ref().map_err(storage_core::Error::may_be_applied).err());
        if let Ok(entries) = answer
            && let [one, other] = entries.as_slice()
            && one.as_ref().map(|entry| &entry.value) != other.as_ref().map(|entry| &entry.value)
        {
            self.shared.violate(format!("a transaction was torn: {one:?} and {other:?}"));
        }
    }

    /// Adds one to a counter, guarded by its version.
    async fn add(&mut self, timeout: Duration) {
        let place = fastrand::u64(..COUNTERS);
        let key = counter(place);
        let Some(entry) = self.get(&key, timeout).await else { return };
        let next = count(entry.as_ref()) + 1;
        let expected = entry.map_or(Expected::Absent, |entry| Expected::Version(entry.version));
        // From now on it may be there, also if this client is not there to hear of it.
        *self.shared.books.borrow_mut().unknown.entry(place).or_default() += 1;
        let answer = self.commit(Txn::new().guard(key.clone(), expected).put(key, next.to_string()), timeout).await;
        let mut books = self.shared.books.borrow_mut();
        let may_be_there = answer.as_ref().is_err_and(storage_core::Error::may_be_applied);
        if !may_be_there {
            *books.unknown.entry(place).or_default() -= 1;
        }
        if answer.is_ok_and(|outcome| outcome.is_committed()) {
            *books.acknowledged.entry(place).or_default() += 1;
        }
    }
}

fn brief(entry: &Option<Entry>) -> String {
    entry.as_ref().map_or_else(|| "absent".to_owned(), |entry| String::from_utf8_lossy(&entry.value).into_owned())
}
