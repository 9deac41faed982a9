//! Records that name no ledger: those of the first version. They are moved once, while no replica runs.

use storage_core::{Entry, Expected, Key, Outcome, ScanOptions, Store, Txn, channel::ChannelId};

use super::{claims::claim_of, snapshot::read_many};
use crate::{
    Error, Ledger, Result,
    ledger::{CHANNELS, CLAIMS, FREE_CALLS, RESERVATIONS, Records, USAGE},
    retries::Retries,
};

/// What [`move_unnamed`] did.
#[derive(Debug, Default)]
pub struct MoveReport {
    /// Records that are at the keys of the ledger now.
    pub records: u64,
    /// What is wrong with records that were left as they are. Their channels are not paid from until somebody has seen to it.
    pub left: Vec<Error>,
}

/// Moves the records that name no ledger to `ledger`, while no replica runs. Whoever calls it knows that they are of this ledger; claims
/// tell their contract, and those of another one are left.
///
/// Each record moves in one transaction, and a channel in one with its reservations; claims and usage go before their channel. So a crash leaves
/// each record at one place, replicas refuse the channels that are not moved, and the same call again goes on.
///
/// # Errors
/// Those of the store. If it [may be applied](Error::may_be_applied), the same call again tells.
///
/// # Cancel safety
/// Dropped, some are moved; the same call again goes on.
pub async fn move_unnamed<S: Store + ?Sized>(store: &S, ledger: Ledger) -> Result<MoveReport> {
    let mut moving = Moving { store, to: Records::of(ledger), ledger, report: MoveReport::default() };
    for kind in [CLAIMS, USAGE, FREE_CALLS, CHANNELS, RESERVATIONS] {
        moving.kind(kind).await?;
    }
    Ok(moving.report)
}

struct Moving<'a, S: ?Sized> {
    store: &'a S,
    to: Records,
    ledger: Ledger,
    report: MoveReport,
}

impl<S: Store + ?Sized> Moving<'_, S> {
    async fn kind(&mut self, kind: &[u8]) -> Result<()> {
        let mut after: Option<Key> = None;
        loop {
            let page = self.store.scan(kind, ScanOptions { after, ..ScanOptions::default() }).await?;
            for entry in &page.entries {
                match self.entry(kind, entry).await {
                    Ok(()) => {}
                    Err(error @ Error::Occupied { .. }) => self.report.left.push(error),
                    Err(error) if error.is_of_a_record() => self.report.left.push(error),
                    Err(error) => return Err(error),
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn entry(&mut self, kind: &[u8], entry: &Entry) -> Result<()> {
        if kind == CLAIMS {
            let claim = claim_of(Records::UNNAMED, entry)?;
            if claim.payment.authorization().contract != self.ledger.contract {
                return Err(Error::MisplacedRecord { key: entry.key.clone() });
            }
        }
        let mut keys = vec![entry.key.clone()];
        if kind == CHANNELS {
            let id = Records::UNNAMED.channel_of(&entry.key);
            let id: ChannelId = id.ok_or_else(|| Error::MisplacedRecord { key: entry.key.clone() })?;
            super::channel_of(Records::UNNAMED, entry, id)?;
            keys.push(Records::UNNAMED.reservation_key(id));
        }
        let mut retries = Retries::begin();
        loop {
            let entries: Vec<Entry> = read_many(self.store, &keys, &mut retries).await?.into_iter().flatten().collect();
            if entries.is_empty() {
                return Ok(());
            }
            match self.store.commit(self.txn(&entries)?, retries.write()).await {
                Ok(Outcome::Committed(_)) => {
                    self.report.records += entries.len() as u64;
                    return Ok(());
                }
                Ok(Outcome::Conflict(_)) => {
                    self.refuse_occupied(&entries, &mut retries).await?;
                    retries.after_conflict().await?;
                }
                Err(error) => retries.after(error).await?,
            }
        }
    }

    fn txn(&self, entries: &[Entry]) -> Result<Txn> {
        let mut txn = Txn::new();
        for entry in entries {
            let to = self.place(entry)?;
            txn = txn.guard(entry.key.clone(), Expected::Version(entry.version)).guard(to.clone(), Expected::Absent);
            txn = txn.put(to, self.to.enclose(entry.value.clone())).delete(entry.key.clone());
        }
        Ok(txn)
    }

    async fn refuse_occupied(&self, entries: &[Entry], retries: &mut Retries) -> Result<()> {
        let keys = entries.iter().map(|entry| self.place(entry)).collect::<Result<Vec<_>>>()?;
        let there = read_many(self.store, &keys, retries).await?.into_iter().flatten().next();
        there.map_or(Ok(()), |entry| Err(Error::Occupied { key: entry.key }))
    }

    /// Where a record goes: its key below the prefix of the ledger.
    fn place(&self, entry: &Entry) -> Result<Key> {
        Ok(Key::new([&self.ledger.prefix()[..], entry.key.as_bytes()].concat())?)
    }
}
