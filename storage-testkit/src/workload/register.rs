use async_trait::async_trait;
use storage_core::{Entry, Expected, Key, Outcome, Result, StoreExt, Txn};

use super::{
    Breach, Client, Handle, Invariant, Workload,
    client::{Ended, key},
};

/// Reads, blind writes, guarded writes and deletes of a few keys that all clients share.
///
/// A client's steps move from key to key slowly, so that each has a history of some hundred operations: long enough for every
/// interleaving, short enough to be checked at once.
#[derive(Debug, Default)]
pub struct Register {
    _private: (),
}

/// How many keys are in use at one time.
const KEYS: u64 = 6;

/// After so many steps of a client, it goes on with other keys.
const STEPS_ON_KEYS: u64 = 150;

/// What a client saw last, for its next guarded write.
#[derive(Default)]
struct Seen(Option<(Key, Option<Entry>)>);

#[async_trait]
impl Workload for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn invariants(&self) -> &'static [Invariant] {
        &[]
    }

    async fn step(&self, client: &mut Client) {
        let place = client.rng.u64(..KEYS);
        let key = key(format!("register/{}/{place}", client.steps / STEPS_ON_KEYS));
        let value = client.unique();
        let txn = match client.rng.u32(..100) {
            ..40 => {
                let seen = if client.rng.bool() {
                    client.get(&key).await
                } else {
                    let keys = [key.clone(), self::key(format!("register/{}/0", client.steps / STEPS_ON_KEYS))];
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
        for place in 0..KEYS {
            let _ = client.get(&key(format!("register/{}/{place}", client.steps / STEPS_ON_KEYS))).await;
        }
    }

    /// The final reads stand in the history, which the checker judges.
    async fn verify(&self, store: &Handle) -> Result<Vec<Breach>> {
        use futures::TryStreamExt;
        let mut entries = store.scan_all(b"register/");
        while entries.try_next().await?.is_some() {}
        Ok(Vec::new())
    }
}
