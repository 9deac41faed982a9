//! One client of a store: it does what its workload says, and knows what has to be there afterwards.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use storage::{Expected, Key, Outcome, ReadOptions, Store, Txn, Version, WriteOptions};
use storage_testkit::workload::Tally;

use crate::{Error, Load, Result, Workload, measure::Measurement, payer::Payer};

/// How many keys a transaction changes.
const TXN_KEYS: usize = 3;

/// How many keys a client has for itself: some transactions' worth, so that successive writes are not of one key.
const OWN_KEYS: usize = 4 * TXN_KEYS;

/// So many clients are prepared, or looked at afterwards, at a time.
pub(crate) const AT_ONCE: usize = 64;

/// One client: its keys, and what it knows of them.
#[derive(Debug)]
pub(crate) struct Client {
    store: Arc<dyn Store>,
    workload: Workload,
    keys: Vec<Key>,
    /// Of each key, the counter and version that this client saw last. Of use where the client is the only writer.
    known: Vec<(u64, Version)>,
    iteration: usize,
    filler: Vec<u8>,
    tally: Tally,
    /// Who pays, under [`Workload::Payment`].
    payer: Option<Payer>,
    /// How long each call may take, where that is not the store's own default.
    patience: Option<Duration>,
}

/// How an iteration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Applied,
    Conflict,
}

impl Client {
    /// A client with its counters set to zero.
    pub(crate) async fn prepare(place: usize, store: Arc<dyn Store>, load: &Load) -> Result<Self> {
        let workload = load.workload;
        let names: Vec<String> = match workload {
            Workload::HotCas => vec!["bench/hot-cas".to_owned()],
            Workload::Payment => Vec::new(),
            _ => (0..OWN_KEYS).map(|slot| format!("bench/{workload}/{place:05}/{slot:02}")).collect(),
        };
        let keys = names.into_iter().map(Key::new).collect::<storage::Result<Vec<_>>>()?;
        let filler = filler(place, load.value_bytes);
        let payer = match workload {
            Workload::Payment => Some(Payer::new(place, Arc::clone(&store))?),
            _ => None,
        };
        let tally = Tally::default();
        let mut client =
            Self { store, workload, keys, known: Vec::new(), iteration: 0, filler, tally, payer, patience: None };
        client.reset().await?;
        Ok(client)
    }

    /// The same client, whose calls take no longer than this.
    pub(crate) fn patience(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    fn reads(&self) -> ReadOptions {
        self.patience.map_or_else(ReadOptions::default, |patience| ReadOptions::default().timeout(patience))
    }

    fn writes(&self) -> WriteOptions {
        self.patience.map_or_else(WriteOptions::default, |patience| WriteOptions::default().timeout(patience))
    }

    /// Does one iteration and counts it. The result is whether it ended without an error of the store.
    ///
    /// # Errors
    /// [`Error::Verification`] when the store answers what cannot be.
    pub(crate) async fn iterate(&mut self, counted: &mut Measurement) -> Result<Result<(), storage::Error>> {
        self.iteration = self.iteration.wrapping_add(1);
        let step = match self.workload {
            Workload::Put => self.put().await,
            Workload::Get => self.get().await,
            Workload::Cas | Workload::HotCas => self.cas(&mut counted.requests).await,
            Workload::Txn => self.txn().await,
            Workload::Payment => self.pay(&mut counted.requests).await,
        };
        match step {
            Ok(Step::Applied) => {
                counted.applied += 1;
                self.tally.acknowledged += 1;
            }
            Ok(Step::Conflict) => counted.conflicts += 1,
            Err(Error::Store(error)) => {
                *counted.failures.entry(error.kind().to_owned()).or_default() += 1;
                if error.may_be_applied() {
                    self.tally.unknown += 1;
                }
                return Ok(Err(error));
            }
            Err(error) => return Err(error),
        }
        counted.requests += 1;
        Ok(Ok(()))
    }

    async fn put(&mut self) -> Result<Step> {
        let slot = self.iteration % self.keys.len();
        let (key, (counter, _)) = self.own(slot)?;
        let txn = Txn::new().put(key, self.value(counter + 1));
        let outcome = self.store.commit(txn, WriteOptions::default()).await;
        // A put of which nobody knows is not written again: the next one has to differ from it.
        if outcome.as_ref().map_or_else(storage::Error::may_be_applied, Outcome::is_committed) {
            self.learn(slot, counter + 1, None);
        }
        match outcome? {
            Outcome::Committed(_) => Ok(Step::Applied),
            Outcome::Conflict(_) => Err(wrong("a put without a guard met a conflict")),
        }
    }

    async fn get(&mut self) -> Result<Step> {
        let slot = self.iteration % self.keys.len();
        let (key, (counter, version)) = self.own(slot)?;
        match self.store.get(&key, ReadOptions::default()).await? {
            Some(entry) if entry.version == version && counter_of(&entry.value)? == counter => Ok(Step::Applied),
            Some(_) => Err(wrong(format!("{key} has another value than the one that was put last"))),
            None => Err(wrong(format!("{key} is absent, although it was put"))),
        }
    }

    async fn cas(&mut self, requests: &mut u64) -> Result<Step> {
        let (key, _) = self.own(self.iteration % self.keys.len())?;
        let entry = self.store.get(&key, self.reads()).await?;
        *requests += 1;
        let entry = entry.ok_or_else(|| wrong(format!("{key} is absent, although it was put")))?;
        let value = self.value(counter_of(&entry.value)? + 1);
        let txn = Txn::new().guard(key.clone(), Expected::Version(entry.version)).put(key, value);
        Ok(match self.store.commit(txn, self.writes()).await? {
            Outcome::Committed(_) => Step::Applied,
            Outcome::Conflict(_) => Step::Conflict,
        })
    }

    async fn pay(&mut self, requests: &mut u64) -> Result<Step> {
        let payer = self.payer.as_mut().ok_or_else(|| Error::Usage("this client has no channel".to_owned()))?;
        payer.pay().await?;
        *requests += 1;
        Ok(Step::Applied)
    }

    async fn txn(&mut self) -> Result<Step> {
        let first = (self.iteration * TXN_KEYS) % self.keys.len();
        let slots = first..first + TXN_KEYS;
        let mut txn = Txn::new();
        for slot in slots.clone() {
            let (key, (counter, version)) = self.own(slot)?;
            txn = txn.guard(key.clone(), Expected::Version(version)).put(key, self.value(counter + 1));
        }
        match self.store.commit(txn, WriteOptions::default()).await {
            Ok(Outcome::Committed(committed)) => {
                for (slot, version) in slots.zip(committed.versions) {
                    let (_, (counter, _)) = self.own(slot)?;
                    let version = version.ok_or_else(|| wrong("a committed put has no version"))?;
                    self.learn(slot, counter + 1, Some(version));
                }
                Ok(Step::Applied)
            }
            // Nobody else writes these keys: only an earlier transaction of unknown outcome can have come in between.
            Ok(Outcome::Conflict(conflict)) => {
                if self.tally.unknown == 0 {
                    return Err(wrong(format!("a client's own keys were changed by somebody: {conflict:?}")));
                }
                self.look(slots).await?;
                Ok(Step::Conflict)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sets all counters to zero.
    async fn reset(&mut self) -> Result<()> {
        for key in &self.keys {
            let txn = Txn::new().put(key.clone(), self.value(0));
            let committed = self.store.commit(txn, WriteOptions::default()).await?.committed();
            let version = committed.and_then(|committed| committed.version());
            self.known.push((0, version.ok_or_else(|| wrong("a put without a guard was not committed"))?));
        }
        Ok(())
    }

    /// Reads again what is in these slots.
    async fn look(&mut self, slots: std::ops::Range<usize>) -> Result<()> {
        for slot in slots {
            let (key, _) = self.own(slot)?;
            let entry = self.store.get(&key, ReadOptions::default()).await?;
            let entry = entry.ok_or_else(|| wrong(format!("{key} is absent, although it was put")))?;
            self.learn(slot, counter_of(&entry.value)?, Some(entry.version));
        }
        Ok(())
    }

    fn own(&self, slot: usize) -> Result<(Key, (u64, Version))> {
        let found = self.keys.get(slot).cloned().zip(self.known.get(slot).copied());
        found.ok_or_else(|| Error::Usage(format!("a client has no key {slot}")))
    }

    fn learn(&mut self, slot: usize, counter: u64, version: Option<Version>) {
        if let Some(known) = self.known.get_mut(slot) {
            *known = (counter, version.unwrap_or(known.1));
        }
    }

    fn value(&self, counter: u64) -> Bytes {
        [&counter.to_be_bytes()[..], &self.filler].concat().into()
    }

    /// Whether the counters in the store are what the clients of one load were told. Reads through the first client's handle.
    ///
    /// # Errors
    /// [`Error::Verification`] with the sums, if they are not.
    pub(crate) async fn verify(clients: &[Self]) -> Result<()> {
        let Some(first) = clients.first() else { return Ok(()) };
        // One key for all of them: only the sum of what all were told can be held against it.
        if first.workload == Workload::HotCas {
            let mut all = Tally::default();
            for client in clients {
                all.acknowledged += client.tally.acknowledged;
                all.unknown += client.tally.unknown;
            }
            return check(all, "all clients", first.workload, first.counters().await?.iter().sum());
        }
        let mut checks =
            stream::iter(clients.iter().enumerate()).map(|(place, client)| client.check(place)).buffered(AT_ONCE);
        while let Some(checked) = checks.next().await {
            checked?;
        }
        Ok(())
    }

    /// Whether the counters of this client's own are what it was told.
    async fn check(&self, place: usize) -> Result<()> {
        let (counters, who) = (self.counters().await?, format!("client {place}"));
        match self.workload {
            Workload::Txn => {
                for keys in counters.chunks(TXN_KEYS) {
                    if keys.iter().any(|counter| Some(counter) != keys.first()) {
                        return Err(wrong(format!(
                            "a transaction of {who} was applied in part: its counters are {keys:?}"
                        )));
                    }
                }
                check(self.tally, &who, self.workload, counters.iter().step_by(TXN_KEYS).sum())
            }
            // A reader writes nothing: whatever is in its counters now, nobody was told of.
            Workload::Get => check(Tally::default(), &who, self.workload, counters.iter().sum()),
            _ => check(self.tally, &who, self.workload, counters.iter().sum()),
        }
    }

    async fn counters(&self) -> Result<Vec<u64>> {
        if let Some(payer) = &self.payer {
            return Ok(vec![payer.payments().await?]);
        }
        let mut counters = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            let entry = self.store.get(key, ReadOptions::default()).await?;
            counters.push(counter_of(&entry.ok_or_else(|| wrong(format!("{key} is gone")))?.value)?);
        }
        Ok(counters)
    }
}

/// Whether the counters of somebody add up to what was acknowledged.
fn check(tally: Tally, who: &str, workload: Workload, stored: u64) -> Result<()> {
    // A put of unknown outcome may be applied late, over a newer one: what it replaces cannot be told.
    let may_be_less = workload == Workload::Put && tally.unknown > 0 && stored <= tally.acknowledged;
    if may_be_less || tally.explains(stored) {
        return Ok(());
    }
    Err(wrong(format!("after {workload}, the counters of {who} add up to {stored}, but of {tally} increments")))
}

/// Bytes that no layer below can make smaller, other ones for each client: xorshift64 (Marsaglia 2003).
fn filler(place: usize, value_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(place as u64 + 1) | 1;
    let next = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    next.flatten().take(value_bytes.saturating_sub(Load::MIN_VALUE_BYTES)).collect()
}

fn counter_of(value: &[u8]) -> Result<u64> {
    let counter = value.first_chunk().copied().map(u64::from_be_bytes);
    counter.ok_or_else(|| wrong(format!("a value of {} bytes, which nobody wrote", value.len())))
}

fn wrong(what: impl Into<String>) -> Error {
    Error::Verification(what.into())
}
