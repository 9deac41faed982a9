//! What a person who runs a service looks at and puts right.

use futures::{StreamExt, TryStreamExt, future::ready, stream, stream::BoxStream};
use storage_core::{
    Entry, Key, Outcome, ReadOptions, ScanOptions, Store, StoreExt, Txn,
    channel::{ChannelId, ChannelState, Nonce, VersionedChannel},
};

use super::{
    claims::claim_of,
    reserve::exhausted,
    snapshot::{channel_of, read_snapshot},
};
use crate::{
    Claim, Error, Ledger, ReservationRecord, Result, Usage,
    ledger::{CHANNELS, CLAIMS, RESERVATIONS, Records, USAGE},
    retries::Retries,
};

/// A channel and who holds it, as one read saw them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelReport {
    /// The channel as the store has it; `None`: nobody has paid from it yet.
    pub channel: Option<ChannelState>,
    /// Which payment holds it, and how the last ones ended.
    pub reservation: ReservationRecord,
}

/// The payments of a ledger in a store, as the people who run a service see them. Needs no blockchain.
#[derive(Debug)]
pub struct Operator<'a, S: ?Sized> {
    store: &'a S,
    records: Records,
}

impl<'a, S: Store + ?Sized> Operator<'a, S> {
    /// An operator of the payments of `ledger` in `store`.
    pub fn new(store: &'a S, ledger: Ledger) -> Self {
        Self { store, records: Records::of(ledger) }
    }

    /// An operator of the records in `store` that name no ledger: an earlier version of this program wrote them. They can be looked at, and
    /// [moved](crate::move_unnamed), but not paid with.
    pub fn of_unnamed(store: &'a S) -> Self {
        Self { store, records: Records::UNNAMED }
    }

    /// An operator for everyone whose records are in `store`: for each ledger, in order, and last for the records that name none, if there
    /// are such. Two reads, and one more for each ledger.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn of_all(store: &'a S) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let options = ScanOptions { after: after.take(), limit: 1, ..ScanOptions::default() };
            let page = store.scan(Ledger::PREFIX, options).await?;
            let Some(entry) = page.entries.first() else { break };
            after = Some(entry.key.clone());
            if let Some(ledger) = Ledger::of_key(&entry.key) {
                found.push(Self::new(store, ledger));
                // Behind all keys of this ledger: no digit or word begins so.
                after = Some(Key::new([&ledger.prefix()[..], b"\xff"].concat())?);
            }
        }
        for kind in [CHANNELS, CLAIMS, RESERVATIONS, USAGE] {
            let page = store.scan(kind, ScanOptions { limit: 1, ..ScanOptions::default() }).await?;
            if !page.entries.is_empty() {
                found.push(Self::of_unnamed(store));
                break;
            }
        }
        Ok(found)
    }

    /// Whose payments they are; `None`: those that name nobody.
    pub fn ledger(&self) -> Option<Ledger> {
        self.records.ledger()
    }

    /// The channels, in the order of their ids, read page by page. A record that cannot be read is an error among them, and the list goes on
    /// behind it.
    pub fn channels(&self) -> BoxStream<'a, Result<VersionedChannel>> {
        let records = self.records;
        let channel = move |entry: Entry| {
            let id = records.channel_of(&entry.key);
            let id = id.ok_or_else(|| Error::MisplacedRecord { key: entry.key.clone() })?;
            Ok(VersionedChannel { state: channel_of(records, &entry, id)?, version: entry.version })
        };
        self.entries(records.prefix(CHANNELS)).map(move |entry| channel(entry?)).boxed()
    }

    /// The claims that were started and not finished, by channel and nonce, read page by page. A record that cannot be read is an error
    /// among them, and the list goes on behind it.
    pub fn claims(&self) -> BoxStream<'a, Result<Claim>> {
        let records = self.records;
        self.entries(records.prefix(CLAIMS)).map(move |entry| claim_of(records, &entry?)).boxed()
    }

    fn entries(&self, prefix: Vec<u8>) -> BoxStream<'a, Result<Entry>> {
        let store = self.store;
        stream::try_unfold(Some(None), move |position: Option<Option<Key>>| {
            let prefix = prefix.clone();
            async move {
                // The outer `None` is the end; the inner one is the first page.
                let Some(after) = position else { return Ok(None) };
                let page = store.scan(&prefix, ScanOptions { after, ..ScanOptions::default() }).await?;
                Ok::<_, Error>(Some((stream::iter(page.entries.into_iter().map(Ok)), page.next.map(Some))))
            }
        })
        .try_flatten()
        .boxed()
    }

    /// Removes a claim that the contract has paid, or never will. One round trip. Removing one that is gone is fine.
    ///
    /// # Errors
    /// Those of the store.
    ///
    /// # Cancel safety
    /// Dropped, it is removed or not; the same call again removes it.
    pub async fn finish_claim(&self, id: ChannelId, nonce: Nonce) -> Result<()> {
        let mut retries = Retries::begin();
        // A nonce never comes back, so a late copy of this removes nothing else.
        let txn = Txn::new().delete(self.records.claim_key(id, nonce));
        loop {
            match self.store.commit(txn.clone(), retries.write()).await {
                Ok(_) => return Ok(()),
                Err(error) => retries.after(error).await?,
            }
        }
    }

    /// What was paid for in advance at a channel, and what of it was used. One read.
    ///
    /// # Errors
    /// Those of the store and of its records.
    pub async fn usage(&self, id: ChannelId) -> Result<Usage> {
        let key = self.records.usage_key(id);
        let entry = self.store.get(&key, ReadOptions::default()).await?;
        let Some(entry) = entry else { return Ok(Usage::default()) };
        Usage::decode(self.records.open(&entry)?).map_err(|error| Error::record(&key, error))
    }

    /// The claims of one channel, by nonce.
    ///
    /// # Errors
    /// Those of the store and of its records.
    pub async fn claims_of(&self, id: ChannelId) -> Result<Vec<Claim>> {
        let prefix = self.records.claims_prefix(id);
        let entries = self.store.scan_all(&prefix).map_err(Error::from);
        entries.and_then(|entry| ready(claim_of(self.records, &entry))).try_collect().await
    }

    /// What the store has of one channel. One read.
    ///
    /// # Errors
    /// Those of the store and of its records.
    pub async fn report(&self, id: ChannelId) -> Result<ChannelReport> {
        let snapshot = read_snapshot(self.store, self.records, id, &mut Retries::begin()).await?;
        Ok(ChannelReport { channel: snapshot.channel.map(|(state, _)| state), reservation: snapshot.record })
    }

    /// Frees a channel from whoever holds it, without waiting for the lease: that holder can no longer commit, because the token
    /// goes up. A read and one commit. Returns the record as it is then; it is free, unless a new holder came since.
    ///
    /// A channel that is free stays as it is.
    ///
    /// # Errors
    /// Those of the store and of its records. If it [may be applied](Error::may_be_applied), the same call again tells.
    ///
    /// # Cancel safety
    /// Dropped, the channel was freed or not.
    pub async fn force_unlock(&self, id: ChannelId) -> Result<ReservationRecord> {
        let mut retries = Retries::begin();
        let mut fenced = None;
        loop {
            let snapshot = read_snapshot(self.store, self.records, id, &mut retries).await?;
            // Nobody holds it any more, or one who came after the one that was to be fenced.
            if snapshot.record.hold().is_none_or(|hold| *fenced.get_or_insert(hold.id) != hold.id) {
                return Ok(snapshot.record);
            }
            let freed = snapshot.record.unlocked().ok_or_else(|| exhausted(id))?;
            let guards = vec![snapshot.record_guard(self.records, id)];
            let txn = Txn { guards, ..Txn::new() }
                .put(self.records.reservation_key(id), self.records.enclose(freed.encode()));
            match self.store.commit(txn, retries.write()).await {
                Ok(Outcome::Committed(_)) => return Ok(freed),
                Ok(Outcome::Conflict(_)) => retries.after_conflict().await?,
                Err(error) => retries.after(error).await?,
            }
        }
    }
}
