//! Claims against the store and the chain: started, listed, settled and finished.
//!
//! Invariants: the channel moves past its nonce and the claim is recorded in one transaction. A claim goes only when
//! the chain has passed its nonce. A read of the chain decides that, never a clock.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, future::ready, stream::BoxStream};
use storage_core::{
    Entry, Expected, Outcome, Store, Txn, Version,
    channel::{Amount, ChannelId, ChannelState, Nonce},
};
use tokio::time::Instant;

use super::{Payments, reserve::exhausted, snapshot::ChannelSnapshot, version_at, wait::ChannelWait};
use crate::{
    AfterClaim, ChannelSource, Claim, ClaimRefusal, Error, Result, begin_claim, ledger::Records, merge,
    retries::Retries, validate::assert_follows,
};

/// What [`Payments::settle_claims`] found and did.
#[derive(Debug, Default)]
pub struct ClaimsReport {
    /// The claims, by channel and nonce.
    pub claims: Vec<SettledClaim>,
    /// What is wrong with the records that could not be read. They are left as they are.
    pub unreadable: Vec<Error>,
}

/// A claim, and whether it is done with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SettledClaim {
    /// The claim.
    pub claim: Claim,
    /// The chain has passed its nonce, and its record was removed. If not, it is to be paid still.
    pub is_finished: bool,
}

impl ClaimsReport {
    /// What is to be paid still; `None`: it is over 2^256 - 1.
    pub fn open_amount(&self) -> Option<Amount> {
        self.sum(false)
    }

    /// What was finished now; `None`: it is over 2^256 - 1.
    pub fn finished_amount(&self) -> Option<Amount> {
        self.sum(true)
    }

    fn sum(&self, is_finished: bool) -> Option<Amount> {
        let claims = self.claims.iter().filter(|settled| settled.is_finished == is_finished);
        claims.map(|settled| settled.claim.payment.amount()).try_fold(Amount::ZERO, Amount::checked_add)
    }
}

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
        let (mut retries, mut wait) = (Retries::begin(), ChannelWait::begin(&self.options));
        let claim_id = storage_core::unique_id();
        let mut tried: Option<(Version, Claim)> = None;
        loop {
            wait.before_read();
            let snapshot = self.read_snapshot(id, &mut retries).await?;
            let (stored, version) = snapshot.channel.as_ref().ok_or(ClaimRefusal::UnknownChannel { channel_id: id })?;
            // While the version stands that guarded it, a claim in doubt may yet be applied. Once it is gone, the
            // claim's own record tells.
            if let Some((version_then, claim)) = &tried
                && version_then != version
            {
                match self.claim(id, claim.payment.nonce(), &mut retries).await? {
                    Some(found) if found.id == claim_id => return Ok(found),
                    // Somebody else may have finished it already.
                    None if stored.nonce > claim.payment.nonce() => return Err(Error::Unsettled),
                    _ => retries.settle_doubt(),
                }
                tried = None;
            }
            let (claimed, claim) = begin_claim(&merge(Some(stored), &chain), self.terms.contract, after, claim_id)?;
            assert_follows(Some(stored), &claimed);
            if !wait.is_over(&snapshot, &mut retries).await? {
                continue;
            }
            match self.store.commit(claim_txn(self.records, &snapshot, &claimed, &claim)?, retries.write()).await {
                Ok(Outcome::Committed(committed)) => {
                    self.remember_claimed(snapshot, claimed, &committed.versions)?;
                    return Ok(claim);
                }
                // Guards are checked in order: the channel and its reservation record are as they were seen, and still there is a claim
                // of this nonce. This crate moves both in one transaction, so somebody else wrote here.
                Ok(Outcome::Conflict(conflict)) if conflict.guard == CLAIM_GUARD => {
                    return Err(ClaimRefusal::AlreadyClaimed { nonce: claim.payment.nonce() }.into());
                }
                Ok(Outcome::Conflict(_)) => retries.after_conflict().await?,
                Err(error) => {
                    if error.may_be_applied() {
                        tried = Some((*version, claim));
                    }
                    retries.after(error).await?;
                }
            }
        }
    }

    /// The claims that the contract can pay still, by channel and nonce, read page by page: those that were started and not finished, without
    /// those whose nonce the chain has passed. A record that cannot be read is an error among them, and the list goes on behind it.
    pub fn claims(&self) -> BoxStream<'_, Result<Claim>> {
        let payable = async |claim: Claim| Ok((!self.is_passed(&claim).await?).then_some(claim));
        self.operator().claims().and_then(payable).filter_map(|claim| ready(claim.transpose())).boxed()
    }

    /// Finishes every claim whose nonce the chain has passed, and tells what is open still. Such a claim was paid, or the channel was claimed past
    /// this store; in either case the contract will never pay it again. So nothing is lost, in whatever order this comes with claims, payments
    /// and crashes; and nothing is paid twice, since the chain alone pays.
    ///
    /// The chain is believed about its past: a source that may answer from a block that is later replaced lets this forget a claim that is
    /// to be paid again. Such a source answers from a block that is final, or some blocks deep.
    ///
    /// # Errors
    /// Those of the blockchain and of the store: what was finished by then stays finished, and the same call again goes on.
    /// Records that cannot be read are in the report.
    ///
    /// # Cancel safety
    /// Dropped, some are finished; the same call again goes on.
    pub async fn settle_claims(&self) -> Result<ClaimsReport> {
        let mut report = ClaimsReport::default();
        let mut nonces: HashMap<ChannelId, Option<Nonce>> = HashMap::new();
        let operator = self.operator();
        let mut claims = operator.claims();
        while let Some(claim) = claims.next().await {
            let claim = match claim {
                Ok(claim) => claim,
                Err(error) if error.is_of_a_record() => {
                    report.unreadable.push(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let id = claim.payment.channel_id();
            // One question for each channel, however many claims it has: all are held against the same look at the
            // chain.
            let nonce = match nonces.get(&id) {
                Some(nonce) => *nonce,
                None => {
                    let nonce = self.chain.channel(id).await?.map(|channel| channel.nonce);
                    nonces.insert(id, nonce);
                    nonce
                }
            };
            let settled = SettledClaim { claim, is_finished: nonce.is_some_and(|nonce| nonce > claim.payment.nonce()) };
            if settled.is_finished {
                self.finish_claim(id, claim.payment.nonce()).await?;
            }
            report.claims.push(settled);
        }
        Ok(report)
    }

    /// Whether the chain has paid the claim, or a later one: it can never be paid again.
    async fn is_passed(&self, claim: &Claim) -> Result<bool> {
        let channel = self.chain.channel(claim.payment.channel_id()).await?;
        // A channel that the chain does not know may be one that this node does not know yet.
        Ok(channel.is_some_and(|channel| channel.nonce > claim.payment.nonce()))
    }

    /// Removes a claim that the contract has paid, or never will. One round trip. Removing one that is gone is fine.
    ///
    /// # Errors
    /// Those of the store.
    ///
    /// # Cancel safety
    /// Dropped, it is removed or not; the same call again removes it.
    pub async fn finish_claim(&self, id: ChannelId, nonce: Nonce) -> Result<()> {
        self.operator().finish_claim(id, nonce).await
    }

    async fn claim(&self, id: ChannelId, nonce: Nonce, retries: &mut Retries) -> Result<Option<Claim>> {
        let key = self.records.claim_key(id, nonce);
        loop {
            match self.store.get(&key, retries.read()).await {
                Ok(entry) => return entry.as_ref().map(|entry| claim_of(self.records, entry)).transpose(),
                Err(error) => retries.after(error).await?,
            }
        }
    }

    fn remember_claimed(
        &self,
        snapshot: ChannelSnapshot,
        claimed: ChannelState,
        versions: &[Option<Version>],
    ) -> Result<()> {
        let id = claimed.channel_id;
        // A holder that was fenced left a reservation record of another version: it is read when it is needed.
        if snapshot.record.hold().is_none() {
            let channel = Some((claimed, version_at(versions, 0)?));
            self.snapshots.remember(id, ChannelSnapshot { channel, since: Instant::now(), ..snapshot });
        }
        Ok(())
    }
}

/// The place of the guard that no claim of the nonce is there yet.
const CLAIM_GUARD: usize = 2;

/// Moves the channel and records the claim. A holder whose lease has ended is fenced by it; a free channel's record is guarded, so that
/// a payment that is taken meanwhile is not cut off.
fn claim_txn(records: Records, snapshot: &ChannelSnapshot, claimed: &ChannelState, claim: &Claim) -> Result<Txn> {
    let id = claimed.channel_id;
    let claim_key = records.claim_key(id, claim.payment.nonce());
    let guards = vec![snapshot.record_guard(records, id), snapshot.channel_guard(records, id)];
    let txn = Txn { guards, ..Txn::new() }.guard(claim_key.clone(), Expected::Absent);
    let txn = txn.put(records.channel_key(id), records.enclose(claimed.encode()));
    let txn = txn.put(claim_key, records.enclose(claim.encode()));
    if snapshot.record.hold().is_none() {
        return Ok(txn);
    }
    let unlocked = snapshot.record.unlocked().ok_or_else(|| exhausted(id))?;
    Ok(txn.put(records.reservation_key(id), records.enclose(unlocked.encode())))
}

pub(super) fn claim_of(records: Records, entry: &Entry) -> Result<Claim> {
    let claim = Claim::decode(records.open(entry)?).map_err(|error| Error::record(&entry.key, error))?;
    let is_ours = records.ledger().is_none_or(|ledger| ledger.contract == claim.payment.authorization().contract);
    let is_there = is_ours && records.claim_key(claim.payment.channel_id(), claim.payment.nonce()) == entry.key;
    if is_there { Ok(claim) } else { Err(Error::MisplacedRecord { key: entry.key.clone() }) }
}
