//! Clients that take a fenced lock, write once under it, and sometimes try again when it is no longer theirs.
//!
//! Invariants that it checks: tokens rise, one write a tenure, writes in the order of tokens, and a stale guard never
//! lets one through.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use storage_core::{Entry, Expected, Guard, Key, Lock, LockOptions, Txn};

use super::{
    Breach, Client, Workload,
    client::{Ended, Tally, key},
    report::Breaches,
};

/// Clients that take a fenced lock, write once under it, and give it back or are gone; some try to write with a guard that
/// is no longer theirs.
#[derive(Debug, Default)]
pub struct Locks {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// Token and the interval in which it was acquired, for each lock.
    tenures: BTreeMap<u64, Vec<(u64, Duration, Duration)>>,
    /// Writes under each lock.
    writes: BTreeMap<u64, Tally>,
    breaches: Breaches,
}

/// A guard that was good once, with what has to be true for it to be stale for certain.
#[derive(Default)]
struct Memory(Option<(u64, u64, Guard)>);

/// How many locks there are: fewer than clients, so that they are waited for.
const LOCKS: u64 = 3;

/// The lease: longer than a stall of a busy machine.
const TTL: Duration = Duration::from_secs(1);

/// One of so many holders is slow.
const SLOW: u32 = 20;

/// How long a client waits for a lock: longer than a dead holder keeps it.
const WAIT: Duration = Duration::from_secs(3);

/// A lock that is acquired after another acquisition has the greater token.
const RISES: &str = "tokens rise";

/// The guard of a lock that was given back lets no write through.
const FENCED: &str = "stale holder never commits";

/// No holder writes after the holder of a greater token has.
const IN_ORDER: &str = "writes in order of tokens";

/// Of one tenure, which writes once, one write is there at the most.
const ONCE: &str = "one write a tenure";

impl Locks {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breach(&self, invariant: &'static str, what: String) {
        self.book().breaches.note(invariant, what);
    }

    /// A lock was acquired: its token is greater than that of every tenure that was acquired before this call began.
    fn acquired(&self, place: u64, token: u64, from: Duration, to: Duration) {
        let mut book = self.book();
        let tenures = book.tenures.entry(place).or_default();
        let greater = tenures.iter().find(|(other, _, ended)| *other >= token && (*ended < from || *other == token));
        let greater = greater.map(|(other, ..)| *other);
        tenures.push((token, from, to));
        drop(book);
        if let Some(other) = greater {
            self.breach(RISES, format!("lock {place}: token {token} came after {other}"));
        }
    }

    /// One write under the lock. The record counts the writes, and has the token of the last.
    async fn write(&self, client: &mut Client, place: u64, token: u64, guard: &Guard) {
        let resource = key(format!("locked/{place}"));
        let Some(entry) = client.get(&resource).await else { return };
        if client.rng.u32(..SLOW) == 0 {
            // Until it may not be the holder any more, and does not know.
            let pause = TTL.mul_f64(2.0 * client.rng.f64());
            tokio::time::sleep(pause).await;
        }
        let (writes, last) = record(entry.as_ref());
        let expected = entry.map_or(Expected::Absent, |entry| Expected::Version(entry.version));
        let txn = Txn { guards: vec![guard.clone()], ops: Vec::new() };
        let txn = txn.guard(resource.clone(), expected).put(resource.clone(), format!("{} {token}", writes + 1));
        self.book().writes.entry(place).or_default().sent();
        let ended = Ended::from(&client.commit(txn).await);
        self.book().writes.entry(place).or_default().ended(ended);
        if ended != Ended::Applied {
            return;
        }
        match last.cmp(&token) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => self.breach(ONCE, format!("lock {place}: two writes under token {token}")),
            std::cmp::Ordering::Greater => {
                self.breach(IN_ORDER, format!("lock {place}: a write under token {token} came after {last}"));
            }
        }
    }

    /// A write with a guard of before the lock was given back. It must conflict.
    async fn attack(&self, client: &mut Client) {
        let Some((place, token, guard)) = client.memory::<Memory>().and_then(|memory| memory.0.take()) else { return };
        let attacked = key(format!("attacked/{place}"));
        let txn = Txn { guards: vec![guard], ops: Vec::new() }.put(attacked, client.unique());
        if Ended::from(&client.commit(txn).await) == Ended::Applied {
            self.breach(
                FENCED,
                format!("lock {place}: token {token} was given back, and its guard let a write through"),
            );
        }
    }
}

/// How often a record was written, and under which token last.
fn record(entry: Option<&Entry>) -> (u64, u64) {
    let parsed = entry.and_then(|entry| {
        let (writes, token) = str::from_utf8(&entry.value).ok()?.split_once(' ')?;
        Some((writes.parse().ok()?, token.parse().ok()?))
    });
    parsed.unwrap_or_default()
}

#[async_trait]
impl Workload for Locks {
    fn name(&self) -> &'static str {
        "lock"
    }

    async fn step(&self, client: &mut Client) {
        if client.rng.u32(..3) == 0 {
            self.attack(client).await;
        }
        let place = client.rng.u64(..LOCKS);
        let options = LockOptions::new(format!("client {}", client.number)).ttl(TTL).wait(WAIT);
        let from = client.now();
        let Ok(lock) = Lock::acquire(client.store.clone(), key(format!("lock/{place}")), options).await else {
            // Without servers it fails at once.
            tokio::time::sleep(Duration::from_millis(client.rng.u64(5..50))).await;
            return;
        };
        let (token, guard) = (lock.token().0, lock.guard());
        self.acquired(place, token, from, client.now());
        self.write(client, place, token, &guard).await;
        match client.rng.u32(..20) {
            // Gone without a word: the lease has to run out. Its guard may be good for long.
            0 => drop(lock),
            _ => {
                if lock.release().await.is_ok()
                    && let Some(memory) = client.memory::<Memory>()
                {
                    memory.0 = Some((place, token, guard));
                }
            }
        }
    }

    async fn last_step(&self, client: &mut Client) {
        self.attack(client).await;
    }

    fn keys(&self) -> Vec<Key> {
        (0..LOCKS).map(|place| key(format!("locked/{place}"))).collect()
    }

    fn judge(&self, last: &[Option<Entry>]) -> Vec<Breach> {
        for (place, entry) in (0..).zip(last) {
            let ((found, _), tally) =
                (record(entry.as_ref()), self.book().writes.get(&place).copied().unwrap_or_default());
            if !tally.explains(found) {
                self.breach(ONCE, format!("lock {place}: {found} writes of {tally}"));
            }
        }
        self.book().breaches.found()
    }
}
