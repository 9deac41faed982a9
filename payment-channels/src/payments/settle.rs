//! How a reservation ends: the client is charged, or the channel is given back.
//!
//! Invariants: it is ended by a guard on the version of its record, so a holder that was fenced changes nothing. The
//! authorization, its record and prepaid usage change in one transaction. Ending it the same way again does nothing
//! more.

use storage_core::{
    Entry, Expected, OperationId, Outcome, ReadOptions, Store, Txn,
    channel::{Amount, ChannelId},
};
use tokio::time::Instant;

use super::{
    Payments, Reservation,
    snapshot::{ChannelSnapshot, read_many, record_of, refuse_unnamed},
    version_at,
};
use crate::{
    ChannelSource, Error, Operation, ReservationId, ReservationRecord, ReservationStatus, Result, Settlement, Usage,
    UsageChange, authorize, ledger::Records, merge, retries::Retries, validate::assert_follows,
};

impl<S: Store, C: ChannelSource> Payments<S, C> {
    /// Stores the authorization: the client is charged. One round trip. Committing again is fine, and does nothing more.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if another one took over or an operator unlocked the channel, [`Error::Released`] if the
    /// reservation was released: the client is not charged. [`Error::Refused`] if somebody wrote the channel past this crate.
    /// Those of the store and of its records; if it [may be applied](Error::may_be_applied), the same call again tells.
    ///
    /// # Cancel safety
    /// Dropped, the authorization is stored or not; the same call again tells.
    pub async fn commit(&self, reservation: &Reservation) -> Result<()> {
        self.settle(reservation, Settlement::Committed, Credit::None).await
    }

    /// Stores the authorization as [`commit`](Self::commit) does, and in the same transaction adds what it pays to the channel's
    /// [prepaid usage](crate::PrepaidUsage): both are there afterwards or neither. A read and one commit. Committing again is fine.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit), and [`Error::UsageRefused`] for what would be over 2^256 - 1.
    ///
    /// # Cancel safety
    /// Dropped, both are stored or neither; the same call again tells.
    pub async fn commit_prepaid(&self, reservation: &Reservation) -> Result<()> {
        self.settle(reservation, Settlement::Committed, Credit::Prepaid).await
    }

    /// Gives the channel back: the client is not charged. One round trip. Releasing again is fine, and does nothing more.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if others have the channel already, [`Error::Committed`] if the reservation was committed; those of
    /// the store and of its records.
    ///
    /// # Cancel safety
    /// Dropped, the channel is free, or will be after its lease.
    pub async fn release(&self, reservation: &Reservation) -> Result<()> {
        self.settle(reservation, Settlement::Released, Credit::None).await
    }

    /// What the record says of a reservation, for one who has lost track of it. One read.
    ///
    /// # Errors
    /// Those of the store and of its records.
    pub async fn status(&self, channel: ChannelId, id: ReservationId) -> Result<ReservationStatus> {
        let entry = self.store.get(&self.records.reservation_key(channel), ReadOptions::default()).await?;
        let record = entry.as_ref().map_or(Ok(ReservationRecord::default()), |entry| record_of(self.records, entry));
        Ok(record?.status(id))
    }

    #[expect(clippy::expect_used, reason = "`authorize` refuses what is not more")]
    async fn settle(&self, reservation: &Reservation, settlement: Settlement, credit: Credit) -> Result<()> {
        let (id, records, mut retries) = (reservation.payment.channel_id(), self.records, Retries::begin());
        let mut snapshot = reservation.snapshot.clone();
        loop {
            match snapshot.record.status(reservation.id) {
                ReservationStatus::Held => {}
                ReservationStatus::Settled(found) if found == settlement => return Ok(()),
                ReservationStatus::Settled(Settlement::Committed) => return Err(Error::Committed),
                ReservationStatus::Settled(Settlement::Released) => return Err(Error::Released),
                ReservationStatus::Settled(Settlement::Fenced) => return Err(Error::LeaseLost),
                ReservationStatus::Unknown => return Err(Error::Unsettled),
            }
            // The guard is the version that this replica wrote or read. Where another one took over, or an operator unlocked, the version is
            // another: the commit conflicts, whatever any clock says.
            let record = snapshot.record.ended(settlement);
            let mut txn = Txn { guards: vec![snapshot.record_guard(records, id)], ..Txn::new() }
                .put(records.reservation_key(id), records.enclose(record.encode()));
            let mut state = None;
            if settlement == Settlement::Committed && reservation.price.is_nothing() {
                txn.guards.push(snapshot.channel_guard(records, id));
            } else if settlement == Settlement::Committed {
                // Once more the rules that the record itself has to keep: between reserving and now somebody may have written past this crate.
                let authorized = authorize(&merge(snapshot.state(), &reservation.chain), &reservation.payment)?;
                assert_follows(snapshot.state(), &authorized);
                txn.guards.push(snapshot.channel_guard(records, id));
                txn = txn.put(records.channel_key(id), records.enclose(authorized.encode()));
                if credit == Credit::Prepaid {
                    let before = snapshot.state().filter(|state| state.nonce == authorized.nonce);
                    let before = before.map_or(Amount::ZERO, |state| state.authorized_amount);
                    let paid = authorized.authorized_amount.checked_sub(before);
                    let paid = paid.expect("what is authorized at a nonce only grows");
                    txn = self.with_credit(txn, reservation, paid, &mut retries).await?;
                }
                state = Some(authorized);
            }
            match self.store.commit(txn, retries.write()).await {
                Ok(Outcome::Committed(committed)) => {
                    let record_version = Some(version_at(&committed.versions, 0)?);
                    let channel = match state {
                        Some(state) => Some((state, version_at(&committed.versions, 1)?)),
                        None => snapshot.channel,
                    };
                    self.snapshots
                        .remember(id, ChannelSnapshot { channel, record, record_version, since: Instant::now() });
                    return Ok(());
                }
                Ok(Outcome::Conflict(_)) => retries.after_conflict().await?,
                Err(error) => retries.after(error).await?,
            }
            // After a conflict or an unknown outcome the record tells what became of the reservation; the loop begins with that.
            snapshot = self.read_snapshot(id, &mut retries).await?;
        }
    }

    /// The transaction, which then also plans `paid` in the channel's usage. The usage is guarded by the version that was read: if it
    /// has moved since, the whole is decided anew.
    async fn with_credit(
        &self,
        txn: Txn,
        reservation: &Reservation,
        paid: Amount,
        retries: &mut Retries,
    ) -> Result<Txn> {
        let (id, records) = (reservation.payment.channel_id(), self.records);
        let mut entries =
            read_many(&self.store, &[records.usage_key(id), Records::UNNAMED.usage_key(id)], retries).await?;
        refuse_unnamed(entries.split_off(1))?;
        let entry = entries.pop().flatten();
        let failed = |entry: &Entry, error| Error::record(&entry.key, error);
        let usage = match &entry {
            None => Usage::default(),
            Some(entry) => Usage::decode(records.open(entry)?).map_err(|error| failed(entry, error))?,
        };
        let operation = Operation::new(OperationId(reservation.id.0));
        let usage = usage.after(&operation, UsageChange::Plan(paid))?;
        let expected = entry.map_or(Expected::Absent, |entry| Expected::Version(entry.version));
        let key = records.usage_key(id);
        Ok(txn.guard(key.clone(), expected).put(key, records.enclose(usage.encode())))
    }
}

/// What a commit pays for besides its call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Credit {
    None,
    Prepaid,
}
