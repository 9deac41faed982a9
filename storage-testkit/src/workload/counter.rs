use std::{collections::BTreeMap, sync::Mutex};

use async_trait::async_trait;
use storage_core::{Expected, ReadOptions, Result, Store, Txn};

use super::{
    Breach, Client, Handle, Invariant, Workload,
    client::{Ended, key, number},
};

/// Counters that all clients increment by compare-and-swap: a lost update is one less than was acknowledged, a write that was
/// applied twice one more than was sent.
#[derive(Debug, Default)]
pub struct Counter {
    counted: Mutex<BTreeMap<u64, Counted>>,
}

#[derive(Debug, Default)]
struct Counted {
    acknowledged: i64,
    unknown: i64,
    /// Which value was acknowledged to how many clients.
    reached: BTreeMap<i64, u32>,
}

/// How many counters there are: few, so that they are contended.
const COUNTERS: u64 = 4;

/// A client whose increment met a conflict tries again so often.
const ATTEMPTS: usize = 5;

const ADDS_UP: &str = "adds up";
const ONCE: &str = "each value once";

#[async_trait]
impl Workload for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn invariants(&self) -> &'static [Invariant] {
        &[
            Invariant {
                name: ADDS_UP,
                says: "a counter ends at no less than its acknowledged increments, and no more than those and the unknown ones",
            },
            Invariant { name: ONCE, says: "no two clients are told that they brought a counter to the same value" },
        ]
    }

    async fn step(&self, client: &mut Client) {
        let place = client.rng.u64(..COUNTERS);
        let key = key(format!("counter/{place}"));
        for _ in 0..ATTEMPTS {
            let Some(entry) = client.get(&key).await else { return };
            let next = number(entry.as_ref()).unwrap_or(0) + 1;
            let expected = entry.map_or(Expected::Absent, |entry| Expected::Version(entry.version));
            let txn = Txn::new().guard(key.clone(), expected).put(key.clone(), next.to_string());
            let answer = client.commit(txn).await;
            let ended = Ended::from(&answer);
            if ended != Ended::NotApplied {
                let mut counted = self.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let counted = counted.entry(place).or_default();
                if ended == Ended::Applied {
                    counted.acknowledged += 1;
                    *counted.reached.entry(next).or_default() += 1;
                } else {
                    counted.unknown += 1;
                }
                return;
            }
            if answer.is_err() {
                return;
            }
        }
    }

    async fn verify(&self, store: &Handle) -> Result<Vec<Breach>> {
        let mut breaches = Vec::new();
        for place in 0..COUNTERS {
            let key = key(format!("counter/{place}"));
            let entry = store.get(&key, ReadOptions::default()).await?;
            let value = number(entry.as_ref()).unwrap_or(0);
            let counted = self.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Some(Counted { acknowledged, unknown, reached }) = counted.get(&place) else { continue };
            if !(*acknowledged..=acknowledged + unknown).contains(&value) {
                let what =
                    format!("{key} is {value} after {acknowledged} acknowledged and {unknown} unknown increments");
                breaches.push(Breach::new(ADDS_UP, what));
            }
            for (value, times) in reached.iter().filter(|(_, times)| **times > 1) {
                breaches.push(Breach::new(ONCE, format!("{key} was brought to {value} by {times} clients")));
            }
        }
        Ok(breaches)
    }
}
