//! Counters that all clients increment by compare-and-swap.
//!
//! Invariants that it checks: no increment is lost, none is applied twice, and no two clients are told the same value.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use storage_core::{Entry, Expected, Key, Txn};

use super::{
    Breach, Client, Workload,
    client::{Ended, Tally, key, number},
};

/// Counters that all clients increment by compare-and-swap: a lost update is one less than was acknowledged, a write that was
/// applied twice one more than was sent.
#[derive(Debug, Default)]
pub struct Counter {
    counted: Mutex<BTreeMap<u64, Counted>>,
}

#[derive(Debug, Default)]
struct Counted {
    increments: Tally,
    /// Which value was acknowledged to how many clients.
    reached: BTreeMap<u64, u32>,
}

/// How many counters there are: few, so that they are contended.
const COUNTERS: u64 = 4;

/// A client whose increment met a conflict tries again so often.
const ATTEMPTS: usize = 5;

/// A counter ends at no less than its acknowledged increments, and no more than those and the unknown ones.
const ADDS_UP: &str = "adds up";

/// No two clients are told that they brought a counter to the same value.
const ONCE: &str = "each value once";

impl Counter {
    fn note(&self, place: u64, note: impl FnOnce(&mut Counted)) {
        note(self.counted.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_default());
    }
}

fn counter(place: u64) -> Key {
    key(format!("counter/{place}"))
}

#[async_trait]
impl Workload for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    async fn step(&self, client: &mut Client) {
        let place = client.rng.u64(..COUNTERS);
        let key = counter(place);
        for _ in 0..ATTEMPTS {
            let Some(entry) = client.get(&key).await else { return };
            let next = number(entry.as_ref()).unwrap_or(0) + 1;
            let expected = entry.map_or(Expected::Absent, |entry| Expected::Version(entry.version));
            let txn = Txn::new().guard(key.clone(), expected).put(key.clone(), next.to_string());
            self.note(place, |counted| counted.increments.sent());
            let answer = client.commit(txn).await;
            let ended = Ended::from(&answer);
            self.note(place, |counted| {
                counted.increments.ended(ended);
                if ended == Ended::Applied {
                    *counted.reached.entry(next).or_default() += 1;
                }
            });
            if ended != Ended::NotApplied || answer.is_err() {
                return;
            }
        }
    }

    fn keys(&self) -> Vec<Key> {
        (0..COUNTERS).map(counter).collect()
    }

    fn judge(&self, last: &[Option<Entry>]) -> Vec<Breach> {
        let mut breaches = Vec::new();
        for (place, entry) in (0..).zip(last) {
            let value = number(entry.as_ref()).unwrap_or(0);
            self.note(place, |Counted { increments, reached }| {
                if !increments.explains(value) {
                    breaches.push(Breach::new(
                        ADDS_UP,
                        format!("counter {place} is {value} after {increments} increments"),
                    ));
                }
                for (value, times) in reached.iter().filter(|(_, times)| **times > 1) {
                    let what = format!("counter {place} was brought to {value} by {times} clients");
                    breaches.push(Breach::new(ONCE, what));
                }
            });
        }
        breaches
    }
}
