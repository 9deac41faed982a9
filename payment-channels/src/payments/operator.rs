//! What a person who runs a service looks at and puts right.

use futures::{StreamExt, TryStreamExt, future::ready, stream::BoxStream};
use storage_core::{
    Outcome, Store, StoreExt, Txn,
    channel::{ChannelId, ChannelState, KEY_PREFIX, VersionedChannel, id_of},
};

use super::{
    claims::claim_of,
    reserve::exhausted,
    sight::{channel_of, look},
};
use crate::{
    Claim, Error, Result, Slot,
    attempts::Attempts,
    keys::{CLAIM_PREFIX, claim_prefix},
    slot_key,
};

/// A channel with whose turn it is, as one read saw them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelReport {
    /// The channel as the store has it; `None`: nobody has paid from it yet.
    pub channel: Option<ChannelState>,
    /// Whose turn it is, and how the last turns ended.
    pub slot: Slot,
}

/// The payments in a store as the people who run a service see them. Needs no blockchain.
#[derive(Debug)]
pub struct Operator<'a, S: ?Sized> {
    store: &'a S,
}

impl<'a, S: Store + ?Sized> Operator<'a, S> {
    /// An operator of the payments in `store`.
    pub fn new(store: &'a S) -> Self {
        Self { store }
    }

    /// The channels in the store, in the order of their ids, read page by page.
    pub fn channels(&self) -> BoxStream<'a, Result<VersionedChannel>> {
        let entries = self.store.scan_all(KEY_PREFIX).map_err(Error::from);
        let channel = |entry: storage_core::Entry| {
            let state = channel_of(&entry, id_of(&entry.key)?)?;
            Ok(VersionedChannel { state, version: entry.version })
        };
        entries.and_then(move |entry| ready(channel(entry))).boxed()
    }

    /// The claims that were started and not finished, by channel and nonce, read page by page.
    pub fn claims(&self) -> BoxStream<'a, Result<Claim>> {
        let entries = self.store.scan_all(CLAIM_PREFIX).map_err(Error::from);
        entries.and_then(|entry| ready(claim_of(&entry))).boxed()
    }

    /// The claims of one channel, by nonce.
    ///
    /// # Errors
    /// Those of the store and of its records.
    pub async fn claims_of(&self, id: ChannelId) -> Result<Vec<Claim>> {
        let prefix = claim_prefix(id);
        let entries = self.store.scan_all(&prefix).map_err(Error::from);
        entries.and_then(|entry| ready(claim_of(&entry))).try_collect().await
    }

    /// What the store has of one channel. One read.
    ///
    /// # Errors
    /// Those of the store and of its records.
    pub async fn report(&self, id: ChannelId) -> Result<ChannelReport> {
        let sight = look(self.store, id, &mut Attempts::begin()).await?;
        Ok(ChannelReport { channel: sight.channel.map(|(state, _)| state), slot: sight.slot })
    }

    /// Frees a channel from whoever holds it, without waiting for the lease: that holder can no longer commit, because the token
    /// goes up. A read and one commit. Returns the slot as it is then; it is free, unless a new holder came since.
    ///
    /// A channel that is free stays as it is.
    ///
    /// # Errors
    /// Those of the store and of its records. If it [may be applied](Error::may_be_applied), the same call again tells.
    ///
    /// # Cancel safety
    /// Dropped, the channel was freed or not.
    pub async fn force_unlock(&self, id: ChannelId) -> Result<Slot> {
        let mut attempts = Attempts::begin();
        let mut fenced = None;
        loop {
            let sight = look(self.store, id, &mut attempts).await?;
            // Nobody holds it any more, or one who came after the one that was to be fenced.
            if sight.slot.hold().is_none_or(|hold| *fenced.get_or_insert(hold.id) != hold.id) {
                return Ok(sight.slot);
            }
            let freed = sight.slot.unlocked().ok_or_else(|| exhausted(id))?;
            let guards = vec![sight.slot_guard(id)];
            let txn = Txn { guards, ..Txn::new() }.put(slot_key(id), freed.encode());
            match self.store.commit(txn, attempts.write()).await {
                Ok(Outcome::Committed(_)) => return Ok(freed),
                Ok(Outcome::Conflict(_)) => attempts.after_conflict().await?,
                Err(error) => attempts.after(error).await?,
            }
        }
    }
}
