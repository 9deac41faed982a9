//! Reserving a channel for one payment, and renewing the reservation.
//!
//! Invariants: a reservation is written only over exactly what was validated, by guards on channel and record. One in
//! doubt is resolved before another is tried. A refusal counts only when it comes of a fresh read.

use std::sync::OnceLock;

use storage_core::{
    Outcome, Store, Txn, Version,
    channel::{Address, BlockNumber, ChannelId},
};
use tokio::time::Instant;

use super::{Payments, Reservation, snapshot::ChannelSnapshot, version_at, wait::ChannelWait};
use crate::{
    ChainChannel, ChannelSource, Error, Hold, Payment, Price, ReservationId, ReservationRecord, ReservationStatus,
    Result, Settlement, merge, retries::Retries, validate::validate_signed,
};

impl<S: Store, C: ChannelSource> Payments<S, C> {
    /// Takes the channel for this payment, if it pays for a call of this price.
    ///
    /// One round trip if this replica dealt with the channel last, otherwise a read before it.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Busy`] if another payment is in flight for longer than [`Options::wait`](super::Options::wait); those of the blockchain,
    /// of records that cannot be read, and of the store. If it [may be applied](Error::may_be_applied), the channel is
    /// blocked for one lease at the most, and nothing is charged.
    ///
    /// # Cancel safety
    /// Dropped, the channel is reserved or not; if it is, it is free for others after its lease.
    pub async fn reserve(&self, payment: &Payment, price: impl Into<Price>) -> Result<Reservation> {
        let price = price.into();
        let (chain, block) = self.chain_view(payment.channel_id()).await?;
        let hold = Hold {
            id: ReservationId(storage_core::unique_id()),
            owner: self.options.owner.clone(),
            lease: self.options.lease,
            nonce: payment.nonce(),
            amount: payment.amount(),
        };
        Reserving { payments: self, payment: *payment, price, chain, block, hold, signer: OnceLock::new(), tried: None }
            .run()
            .await
    }

    /// Starts the lease of a reservation anew: for a call that takes longer. One round trip.
    ///
    /// # Errors
    /// [`Error::LeaseLost`], [`Error::Released`] and [`Error::Committed`] if it is no longer held; those of the store and of its records.
    ///
    /// # Cancel safety
    /// Dropped, the lease is renewed or not. The reservation stays usable.
    pub async fn renew(&self, reservation: &mut Reservation) -> Result<()> {
        let (id, mut retries) = (reservation.payment.channel_id(), Retries::begin());
        loop {
            held(&reservation.snapshot.record, reservation.id)?;
            let guard = reservation.snapshot.record_guard(self.records, id);
            // The same bytes again: it is the version of the record that changes.
            let txn = Txn { guards: vec![guard], ..Txn::new() }
                .put(self.records.reservation_key(id), self.records.enclose(reservation.snapshot.record.encode()));
            match self.store.commit(txn, retries.write()).await {
                Ok(Outcome::Committed(committed)) => {
                    let record_version = Some(version_at(&committed.versions, 0)?);
                    let snapshot =
                        ChannelSnapshot { record_version, since: Instant::now(), ..reservation.snapshot.clone() };
                    reservation.snapshot = self.snapshots.remember(id, snapshot);
                    return Ok(());
                }
                Ok(Outcome::Conflict(_)) => retries.after_conflict().await?,
                Err(error) => retries.after(error).await?,
            }
            reservation.snapshot = self.read_snapshot(id, &mut retries).await?;
        }
    }
}

/// Whether a reservation is in flight still.
fn held(record: &ReservationRecord, id: ReservationId) -> Result<()> {
    match record.status(id) {
        ReservationStatus::Held => Ok(()),
        ReservationStatus::Settled(Settlement::Committed) => Err(Error::Committed),
        ReservationStatus::Settled(Settlement::Released) => Err(Error::Released),
        ReservationStatus::Settled(Settlement::Fenced) => Err(Error::LeaseLost),
        ReservationStatus::Unknown => Err(Error::Unsettled),
    }
}

/// One reservation that is being made.
struct Reserving<'a, S, C> {
    payments: &'a Payments<S, C>,
    payment: Payment,
    price: Price,
    chain: ChainChannel,
    block: BlockNumber,
    hold: Hold,
    /// Who signed the payment, once that was looked at.
    signer: OnceLock<Option<Address>>,
    /// The version of the reservation record that guards a transaction in doubt. While it stands, that transaction may yet be applied.
    tried: Option<Option<Version>>,
}

impl<S: Store, C: ChannelSource> Reserving<'_, S, C> {
    async fn run(mut self) -> Result<Reservation> {
        let (id, payments) = (self.id(), self.payments);
        let mut wait = ChannelWait::begin(&payments.options);
        let mut retries = Retries::begin();
        // A decision on what was seen earlier counts only if it is to write: its guards then tell whether it was right.
        // What this replica wrote last is most often what is there still: then a reservation is one round trip.
        if let Some(snapshot) = payments.snapshots.get(id)
            && self.check(&snapshot).is_ok()
            && snapshot.free_at().is_none()
            && let Some(reservation) = self.take(snapshot, &mut retries).await?
        {
            return Ok(reservation);
        }
        loop {
            wait.before_read();
            let snapshot = payments.read_snapshot(id, &mut retries).await?;
            if let Some(reservation) = self.resolve(&snapshot, &mut retries)? {
                return Ok(reservation);
            }
            self.check(&snapshot)?;
            if wait.is_over(&snapshot, &mut retries).await?
                && let Some(reservation) = self.take(snapshot, &mut retries).await?
            {
                return Ok(reservation);
            }
        }
    }

    /// Whether the payment pays for the call, with the channel as it was seen.
    fn check(&self, snapshot: &ChannelSnapshot) -> Result<()> {
        let state = merge(snapshot.state(), &self.chain);
        let signer = || *self.signer.get_or_init(|| self.payment.signer());
        Ok(validate_signed(&self.payment, signer, &state, &self.payments.terms, self.block, self.price)?)
    }

    /// Writes the hold over what was seen, if that is still there. `None`: look again.
    async fn take(&mut self, snapshot: ChannelSnapshot, retries: &mut Retries) -> Result<Option<Reservation>> {
        let (id, records) = (self.id(), self.payments.records);
        let record = snapshot.record.taken(self.hold.clone()).ok_or_else(|| exhausted(id))?;
        // The channel is not written, but guarded: what was validated is what is there. Without this guard a claim that came between the
        // read and this commit would leave a reservation for a nonce that is past.
        let txn =
            Txn { guards: vec![snapshot.record_guard(records, id), snapshot.channel_guard(records, id)], ..Txn::new() };
        let txn = txn.put(records.reservation_key(id), records.enclose(record.encode()));
        match self.payments.store.commit(txn, retries.write()).await {
            Ok(Outcome::Committed(committed)) => {
                let record_version = Some(version_at(&committed.versions, 0)?);
                let snapshot = ChannelSnapshot { record, record_version, since: Instant::now(), ..snapshot };
                return Ok(Some(self.reservation(self.payments.snapshots.remember(id, snapshot))));
            }
            Ok(Outcome::Conflict(_)) => retries.after_conflict().await?,
            Err(error) => {
                if error.may_be_applied() {
                    self.tried = Some(snapshot.record_version);
                }
                retries.after(error).await?;
            }
        }
        Ok(None)
    }

    /// What became of a transaction without an answer, as far as this look tells.
    fn resolve(&mut self, snapshot: &ChannelSnapshot, retries: &mut Retries) -> Result<Option<Reservation>> {
        let Some(tried) = self.tried else { return Ok(None) };
        match snapshot.record.status(self.hold.id) {
            ReservationStatus::Held => return Ok(Some(self.reservation(snapshot.clone()))),
            ReservationStatus::Settled(_) => return Err(Error::LeaseLost),
            ReservationStatus::Unknown => {}
        }
        // The version that guarded it is gone and never comes back, so it was refused or will be.
        if tried != snapshot.record_version {
            self.tried = None;
            retries.settle_doubt();
        }
        Ok(None)
    }

    fn reservation(&self, snapshot: ChannelSnapshot) -> Reservation {
        let (chain, payment, price) = (self.chain.clone(), self.payment, self.price);
        Reservation { id: self.hold.id, token: snapshot.record.token(), payment, price, chain, snapshot }
    }

    fn id(&self) -> ChannelId {
        self.payment.channel_id()
    }
}

/// Nobody reserves a channel 2^64 times.
pub(super) fn exhausted(id: ChannelId) -> Error {
    storage_core::Error::corrupt(format!("the token of channel {id} is at the end of its range")).into()
}
