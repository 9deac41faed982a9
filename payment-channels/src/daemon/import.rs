//! The import of a store of snet-daemon: its records, read page by page, written in our form where there is none yet.
//!
//! Invariants: nothing that is there is overwritten, so running it again is safe; what cannot be imported is named and
//! not dropped. The daemon's own records are never changed. It must not run while daemons do.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::keccak256;
use bytes::Bytes;
use storage_core::{
    Entry, Expected, Key, Outcome, ScanOptions, Store, Txn,
    channel::{Address, Amount, ChannelId, ChannelState, Nonce, Signature},
};

use super::{
    keys::DaemonKey,
    records::{decode_daemon_channel, decode_daemon_claim, decode_daemon_free_calls, decode_daemon_prepaid},
};
use crate::{
    AfterClaim, Authorization, Claim, FreeCallCount, Ledger, Payment, Result, Usage, ledger::Records,
    payments::read_many, retries::Retries, validate::assert_follows,
};

/// Brings the records of one contract out of a store of snet-daemon into ours. The daemons are stopped meanwhile.
///
/// A record is written where none is. So an import that was cut off goes on when it is run again, one that is run twice changes nothing, and
/// what a service has done here since is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaemonImport {
    /// The network, as the daemon's keys name it.
    pub network: String,
    /// Whose channels are imported, and what they are here.
    pub ledger: Ledger,
    /// Nothing is written; all else is as if it were.
    pub is_dry_run: bool,
}

/// What an import found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Imported {
    /// Channels, written or there already.
    pub channels: u64,
    /// What is authorized in them, and was not claimed; `None`: it is over 2^256 - 1.
    pub authorized: Option<Amount>,
    /// Claims in progress.
    pub claims: u64,
    /// What they are for; `None`: it is over 2^256 - 1.
    pub claimed: Option<Amount>,
    /// Channels with prepaid usage.
    pub prepaid: u64,
    /// Users with free calls.
    pub free_callers: u64,
    /// Records that were written; in a dry run, those that would be.
    pub written: u64,
    /// Records that were there already, as they would be written.
    pub unchanged: u64,
    /// Records that were there already and differ: a service has gone on with them, and they are kept.
    pub kept: Vec<Key>,
    /// Records of the daemon that were passed over, and why.
    pub skipped: Vec<Skipped>,
    /// Channels that were imported with an authorization that the contract will not pay, and why.
    pub unclaimable: Vec<Skipped>,
}

/// A record and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// Its key in the daemon's store.
    pub key: Key,
    /// What is wrong.
    pub reason: String,
}

impl DaemonImport {
    /// Imports from `source` to `target`, which may be the same store; without a target, which a dry run may do, it is as if that were empty.
    ///
    /// # Errors
    /// Those of the stores. If it [may be applied](crate::Error::may_be_applied), the same call again tells.
    ///
    /// # Panics
    /// Without a target, if it is no dry run.
    ///
    /// # Cancel safety
    /// Dropped, some records are imported; the same call again goes on.
    pub async fn run<F: Store + ?Sized, T: Store + ?Sized>(&self, source: &F, target: Option<&T>) -> Result<Imported> {
        assert!(self.is_dry_run || target.is_some(), "an import has somewhere to go");
        let zero = Some(Amount::ZERO);
        let found = Imported { authorized: zero, claimed: zero, ..Imported::default() };
        let (usage, ids) = Default::default();
        let mut importing = Importing { import: self, records: Records::of(self.ledger), target, found, usage, ids };
        let prefix = format!("{}/", self.network);
        let mut after = None;
        loop {
            let page = source.scan(prefix.as_bytes(), ScanOptions { after, ..ScanOptions::default() }).await?;
            for entry in &page.entries {
                importing.entry(entry).await?;
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        importing.usage().await?;
        Ok(importing.found)
    }
}

struct Importing<'a, T: ?Sized> {
    import: &'a DaemonImport,
    records: Records,
    target: Option<&'a T>,
    found: Imported,
    /// Planned, used and refunded: the daemon has a record for each. With the key of the last that was seen.
    usage: BTreeMap<ChannelId, (Key, [Amount; 3])>,
    /// The channels of this ledger: prepaid records do not name the contract.
    ids: BTreeSet<ChannelId>,
}

impl<T: Store + ?Sized> Importing<'_, T> {
    async fn entry(&mut self, entry: &Entry) -> Result<()> {
        let Some((network, named)) = DaemonKey::parse(&entry.key) else { return Ok(()) };
        if network != self.import.network {
            return Ok(());
        }
        let contract = self.import.ledger.contract;
        let written = match named {
            DaemonKey::Channel(of, id) if of == contract => self.channel(entry, id).await?,
            DaemonKey::Claim(of, id, nonce) if of == contract => self.claim(entry, id, nonce).await?,
            DaemonKey::Planned(id) => self.prepaid(entry, id, 0),
            DaemonKey::Used(id) => self.prepaid(entry, id, 1),
            DaemonKey::Refunded(id) => self.prepaid(entry, id, 2),
            DaemonKey::FreeCalls(user) => match decode_daemon_free_calls(&entry.value) {
                Ok(made) => {
                    self.found.free_callers += 1;
                    let count = FreeCallCount::imported(made, seed(&entry.key));
                    self.put(self.records.free_calls_key(&user), count.encode()).await?;
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            },
            // Those of another contract, and locks.
            _ => Ok(()),
        };
        if let Err(reason) = written {
            self.found.skipped.push(Skipped { key: entry.key.clone(), reason });
        }
        Ok(())
    }

    /// The inner error says why the record is passed over.
    async fn channel(&mut self, entry: &Entry, id: ChannelId) -> Result<Result<(), String>> {
        let mut state = match decode_daemon_channel(&entry.value) {
            Ok(state) => state,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if state.channel_id != id {
            return Ok(Err(format!("it is of channel {}", state.channel_id)));
        }
        if state.authorized_amount > state.full_amount {
            return Ok(Err("more is authorized than there is in the channel".to_owned()));
        }
        if let Some(signature) = state.signature {
            match self.signed(&state, signature) {
                Ok(signature) => state.signature = Some(signature),
                Err(reason) => self.found.unclaimable.push(Skipped { key: entry.key.clone(), reason }),
            }
        }
        self.ids.insert(id);
        self.found.channels += 1;
        self.found.authorized = self.found.authorized.and_then(|sum| sum.checked_add(state.authorized_amount));
        assert_follows(None, &state);
        self.put(self.records.channel_key(id), state.encode()).await?;
        Ok(Ok(()))
    }

    /// The signature in our form: the daemon keeps it as the client sent it.
    fn signed(&self, state: &ChannelState, signature: Signature) -> Result<Signature, String> {
        let authorization = Authorization {
            contract: self.import.ledger.contract,
            channel_id: state.channel_id,
            nonce: state.nonce,
            amount: state.authorized_amount,
        };
        let payment = Payment::new(authorization, signature.as_bytes()).map_err(|error| error.to_string())?;
        let may_sign = |signer: Address| [state.signer, state.sender].contains(&signer);
        if !payment.signer().is_some_and(may_sign) {
            return Err("neither the signer nor the sender of the channel has signed what is authorized".to_owned());
        }
        Ok(payment.signature())
    }

    async fn claim(&mut self, entry: &Entry, id: ChannelId, nonce: Nonce) -> Result<Result<(), String>> {
        let claim = match decode_daemon_claim(&entry.value) {
            Ok(claim) => claim,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if (claim.channel_id, claim.nonce) != (id, nonce) {
            return Ok(Err(format!("it is of channel {} at nonce {}", claim.channel_id, claim.nonce)));
        }
        let contract = self.import.ledger.contract;
        let authorization = Authorization { contract, channel_id: id, nonce, amount: claim.amount };
        let payment = match Payment::new(authorization, &claim.signature) {
            Ok(payment) => payment,
            Err(error) => return Ok(Err(error.to_string())),
        };
        self.found.claims += 1;
        self.found.claimed = self.found.claimed.and_then(|sum| sum.checked_add(claim.amount));
        // The daemon does not keep whether a claim closes the channel, and its own never do.
        let claim = Claim { id: seed(&entry.key), payment, after: AfterClaim::Continue };
        self.put(self.records.claim_key(id, nonce), claim.encode()).await?;
        Ok(Ok(()))
    }

    fn prepaid(&mut self, entry: &Entry, id: ChannelId, place: usize) -> Result<(), String> {
        let amount = decode_daemon_prepaid(&entry.value).map_err(|error| error.to_string())?;
        let (key, amounts) = self.usage.entry(id).or_insert_with(|| (entry.key.clone(), [Amount::ZERO; 3]));
        key.clone_from(&entry.key);
        amounts.iter_mut().skip(place).take(1).for_each(|place| *place = amount);
        Ok(())
    }

    /// Prepaid usage stands in three records, so it is written when all were seen.
    async fn usage(&mut self) -> Result<()> {
        for (id, (key, [planned, used, refunded])) in std::mem::take(&mut self.usage) {
            if !self.ids.contains(&id) {
                continue;
            }
            match Usage::imported(planned, used, refunded) {
                Some(usage) => {
                    self.found.prepaid += 1;
                    self.put(self.records.usage_key(id), usage.encode()).await?;
                }
                None => {
                    let reason =
                        format!("{planned} were planned, {used} used and {refunded} refunded: too much is used");
                    self.found.skipped.push(Skipped { key, reason });
                }
            }
        }
        Ok(())
    }

    /// Writes a record where none is.
    async fn put(&mut self, key: Key, record: Bytes) -> Result<()> {
        let (value, mut retries) = (self.records.enclose(record), Retries::begin());
        loop {
            let there = match self.target {
                Some(target) => read_many(target, std::slice::from_ref(&key), &mut retries).await?.pop().flatten(),
                None => None,
            };
            match (there, self.target) {
                (Some(entry), _) if entry.value == value => self.found.unchanged += 1,
                (Some(_), _) => self.found.kept.push(key),
                (None, Some(target)) if !self.import.is_dry_run => {
                    let txn = Txn::new().guard(key.clone(), Expected::Absent).put(key.clone(), value.clone());
                    match target.commit(txn, retries.write()).await {
                        Ok(Outcome::Committed(_)) => self.found.written += 1,
                        // Read again: a lost reply may have been that of this very record.
                        Ok(Outcome::Conflict(_)) => {
                            retries.after_conflict().await?;
                            continue;
                        }
                        Err(error) => {
                            retries.after(error).await?;
                            continue;
                        }
                    }
                }
                (None, _) => self.found.written += 1,
            }
            return Ok(());
        }
    }
}

/// A number for a record that needs an id, the same at each import.
#[expect(clippy::expect_used, reason = "a hash has its length")]
fn seed(key: &Key) -> u128 {
    let hash = keccak256(key.as_bytes());
    u128::from_be_bytes(*hash.first_chunk().expect("Keccak-256 has 32 bytes"))
}
