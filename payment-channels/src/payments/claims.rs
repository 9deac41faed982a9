use futures::stream::BoxStream;
use storage_core::{
    Entry, Expected, Outcome, Store, Txn, Version,
    channel::{ChannelId, ChannelState, Nonce, key_of},
};
use tokio::time::Instant;

use super::{Payments, reserve::exhausted, sight::Sight, turn::Turn, version_at};
use crate::{
    AfterClaim, ChannelSource, Claim, ClaimRefusal, Error, Result, attempts::Attempts, begin_claim, claim_key, merge,
    slot_key,
};

impl<S: Store, C: ChannelSource> Payments<S, C> {
    /// Moves the channel past what is authorized, and records that as a claim, in one transaction: both are there afterwards
    /// or neither. A read and one commit. Waits for a payment in flight as a reservation does.
    ///
    /// The caller then lets the contract pay the claim, and [finishes](Payments::finish_claim) it. Whoever finds it
    /// [listed](Payments::claims) after a crash may do the same.
    ///
    /// # Errors
    /// [`Error::ClaimRefused`]; [`Error::Busy`]; those of the blockchain, of the store and of its records.
    /// If it [may be applied](Error::may_be_applied), the list of claims tells.
    ///
    /// # Cancel safety
    /// Dropped, the claim was started or not; the list of claims tells.
    pub async fn start_claim(&self, id: ChannelId, after: AfterClaim) -> Result<Claim> {
        let chain = self.chain.channel(id).await?.ok_or(ClaimRefusal::UnknownChannel { channel_id: id })?;
        let (mut attempts, mut turn) = (Attempts::begin(), Turn::begin(&self.options));
        let claim_id = storage_core::unique_id();
        let mut tried: Option<(Version, Claim)> = None;
        loop {
            turn.look();
            let sight = self.look(id, &mut attempts).await?;
            let (stored, version) = sight.channel.as_ref().ok_or(ClaimRefusal::UnknownChannel { channel_id: id })?;
            if let Some((version_then, claim)) = &tried
                && version_then != version
            {
                match self.claim(id, claim.payment.nonce(), &mut attempts).await? {
                    Some(found) if found.id == claim_id => return Ok(found),
                    // Somebody else may have finished it already.
                    None if stored.nonce > claim.payment.nonce() => return Err(Error::Unsettled),
                    _ => attempts.settle_doubt(),
                }
                tried = None;
            }
            let (moved, claim) = begin_claim(&merge(Some(stored), &chain), self.terms.contract, after, claim_id)?;
            if !turn.has_come(&sight, &mut attempts).await? {
                continue;
            }
            match self.store.commit(claim_txn(&sight, &moved, &claim)?, attempts.write()).await {
                Ok(Outcome::Committed(committed)) => {
                    self.remember_claimed(sight, moved, &committed.versions)?;
                    return Ok(claim);
                }
                // The channel and its slot are as they were seen, and still there is a claim of this nonce.
                Ok(Outcome::Conflict(conflict)) if conflict.guard == CLAIM_GUARD => {
                    return Err(ClaimRefusal::AlreadyClaimed { nonce: claim.payment.nonce() }.into());
                }
                Ok(Outcome::Conflict(_)) => attempts.after_conflict().await?,
                Err(error) => {
                    if error.may_be_applied() {
                        tried = Some((*version, claim));
                    }
                    attempts.after(error).await?;
                }
            }
        }
    }

    /// The claims that were started and not finished, by channel and nonce, read page by page.
    pub fn claims(&self) -> BoxStream<'_, Result<Claim>> {
        self.operator().claims()
    }

    /// Removes a claim that the contract has paid, or never will. One round trip. Removing one that is gone is fine.
    ///
    /// # Errors
    /// Those of the store.
    ///
    /// # Cancel safety
    /// Dropped, it is removed or not; the same call again removes it.
    pub async fn finish_claim(&self, id: ChannelId, nonce: Nonce) -> Result<()> {
        let mut attempts = Attempts::begin();
        // A nonce never comes back, so a late copy of this removes nothing else.
        let txn = Txn::new().delete(claim_key(id, nonce));
        loop {
            match self.store.commit(txn.clone(), attempts.write()).await {
                Ok(_) => return Ok(()),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    async fn claim(&self, id: ChannelId, nonce: Nonce, attempts: &mut Attempts) -> Result<Option<Claim>> {
        let key = claim_key(id, nonce);
        loop {
            match self.store.get(&key, attempts.read()).await {
                Ok(entry) => return entry.as_ref().map(claim_of).transpose(),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    fn remember_claimed(&self, sight: Sight, moved: ChannelState, versions: &[Option<Version>]) -> Result<()> {
        let id = moved.channel_id;
        // A slot that was taken over has another version now: it is read when it is needed.
        if sight.slot.hold().is_none() {
            let channel = Some((moved, version_at(versions, 0)?));
            self.sights.remember(id, Sight { channel, since: Instant::now(), ..sight });
        }
        Ok(())
    }
}

/// The place of the guard that no claim of the nonce is there yet.
const CLAIM_GUARD: usize = 2;

/// Moves the channel and records the claim. A holder whose lease has ended is fenced by it; a free slot is guarded, so that
/// a payment that is taken meanwhile is not cut off.
fn claim_txn(sight: &Sight, moved: &ChannelState, claim: &Claim) -> Result<Txn> {
    let id = moved.channel_id;
    let claim_key = claim_key(id, claim.payment.nonce());
    let guards = vec![sight.slot_guard(id), sight.channel_guard(id)];
    let txn = Txn { guards, ..Txn::new() }.guard(claim_key.clone(), Expected::Absent);
    let txn = txn.put(key_of(id), moved.encode()).put(claim_key, claim.encode());
    Ok(match sight.slot.hold() {
        Some(_) => txn.put(slot_key(id), sight.slot.unlocked().ok_or_else(|| exhausted(id))?.encode()),
        None => txn,
    })
}

pub(super) fn claim_of(entry: &Entry) -> Result<Claim> {
    let claim = Claim::decode(&entry.value).map_err(|error| Error::record(&entry.key, error))?;
    let is_there = claim_key(claim.payment.channel_id(), claim.payment.nonce()) == entry.key;
    if is_there { Ok(claim) } else { Err(Error::MisplacedRecord { key: entry.key.clone() }) }
}
