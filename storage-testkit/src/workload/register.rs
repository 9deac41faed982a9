//! Reads, blind writes, swaps and deletes of a few shared keys, for the linearizability checker.
//!
//! It judges nothing itself. Keys change slowly, so that each has a history that the checker can decide.

use async_trait::async_trait;
use futures::TryStreamExt;
use storage_core::{Entry, Expected, Key, Outcome, Result, StoreExt, Txn};

use super::{
    Breach, Client, Handle, Workload,
    client::{Ended, key},
};

/// Reads, blind writes, guarded writes and deletes of a few keys that all clients share.
///
/// A client's steps move from key to key slowly, so that each has a history of some hundred operations: long enough for every
/// interleaving, short enough to be checked at once.
#[derive(Debug)]
pub struct Register {
    /// How many keys are in use at one time.
    keys: u64,
}

impl Register {
    /// After so many steps of a client, it goes on with other keys.
    pub const STEPS_ON_KEYS: u64 = 150;

    /// On so many keys at one time.
    #[must_use]
    pub fn of(keys: u64) -> Self {
        Self { keys }
    }

    fn key(client: &Client, place: u64) -> Key {
        key(format!("register/{}/{place}", client.steps / Self::STEPS_ON_KEYS))
    }
}

impl Default for Register {
    fn default() -> Self {
        Self::of(6)
    }
}

/// What a client saw last, for its next guarded write.
#[derive(Default)]
struct Seen(Option<(Key, Option<Entry>)>);

#[async_trait]
impl Workload for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    async fn step(&self, client: &mut Client) {
        let place = client.rng.u64(..self.keys);
        let key = Self::key(client, place);
        let value = client.unique();
        let txn = match client.rng.u32(..100) {
            ..40 => {
                let seen = if client.rng.bool() {
                    client.get(&key).await
                } else {
                    let keys = [key.clone(), Self::key(client, 0)];
                    client.get_many(&keys).await.and_then(|entries| entries.into_iter().next())
                };
                if let (Some(seen), Some(memory)) = (seen, client.memory::<Seen>()) {
                    memory.0 = Some((key, seen));
                }
                return;
            }
            40..55 => Txn::new().put(key.clone(), value),
            55..60 => Txn::new().guard(key.clone(), Expected::Exists).delete(key.clone()),
            _ => {
                let seen = client.memory::<Seen>().and_then(|memory| memory.0.take());
                match seen.filter(|(seen, _)| *seen == key) {
                    Some((_, Some(entry))) => {
                        Txn::new().guard(key.clone(), Expected::Version(entry.version)).put(key.clone(), value)
                    }
                    Some((_, None)) => Txn::new().guard(key.clone(), Expected::Absent).put(key.clone(), value),
                    None => Txn::new().guard(key.clone(), Expected::Exists).put(key.clone(), value),
                }
            }
        };
        let answer = client.commit(txn).await;
        if Ended::from(&answer) == Ended::Applied
            && let Ok(Outcome::Committed(_)) = answer
            && client.rng.u32(..4) == 0
        {
            // Read your own write, which is what a stale follower fails.
            let _ = client.get(&key).await;
        }
    }

    async fn last_step(&self, client: &mut Client) {
        for place in 0..self.keys {
            let _ = client.get(&Self::key(client, place)).await;
        }
    }

    /// The checker judges: all that there is stands in the history.
    fn judge(&self, _: &[Option<Entry>]) -> Vec<Breach> {
        Vec::new()
    }

    /// The final reads are scans, for the history.
    async fn verify(&self, store: &Handle) -> Result<Vec<Breach>> {
        let mut entries = store.scan_all(b"register/");
        while entries.try_next().await?.is_some() {}
        Ok(self.judge(&[]))
    }
}
