use std::sync::OnceLock;

use storage_core::{
    Outcome, Store, Txn, Version,
    channel::{Address, Amount, BlockNumber, ChannelId},
};
use tokio::time::Instant;

use super::{Payments, Reservation, sight::Sight, turn::Turn, version_at};
use crate::{
    ChainChannel, ChannelSource, Error, Hold, Payment, ReservationId, Result, Settlement, Slot, Standing,
    attempts::Attempts, merge, slot_key, validate::validate_signed,
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
    pub async fn reserve(&self, payment: &Payment, price: Amount) -> Result<Reservation> {
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
        let (id, mut attempts) = (reservation.payment.channel_id(), Attempts::begin());
        loop {
            held(&reservation.sight.slot, reservation.id)?;
            let guard = reservation.sight.slot_guard(id);
            // The same bytes again: it is the version of the record that changes.
            let txn = Txn { guards: vec![guard], ..Txn::new() }.put(slot_key(id), reservation.sight.slot.encode());
            match self.store.commit(txn, attempts.write()).await {
                Ok(Outcome::Committed(committed)) => {
                    let slot_version = Some(version_at(&committed.versions, 0)?);
                    let sight = Sight { slot_version, since: Instant::now(), ..reservation.sight.clone() };
                    reservation.sight = self.sights.remember(id, sight);
                    return Ok(());
                }
                Ok(Outcome::Conflict(_)) => attempts.after_conflict().await?,
                Err(error) => attempts.after(error).await?,
            }
            reservation.sight = self.look(id, &mut attempts).await?;
        }
    }
}

/// Whether a reservation is in flight still.
fn held(slot: &Slot, id: ReservationId) -> Result<()> {
    match slot.standing(id) {
        Standing::Held => Ok(()),
        Standing::Settled(Settlement::Committed) => Err(Error::Committed),
        Standing::Settled(Settlement::Released) => Err(Error::Released),
        Standing::Settled(Settlement::Fenced) => Err(Error::LeaseLost),
        Standing::Unknown => Err(Error::Unsettled),
    }
}

/// One reservation that is being made.
struct Reserving<'a, S, C> {
    payments: &'a Payments<S, C>,
    payment: Payment,
    price: Amount,
    chain: ChainChannel,
    block: BlockNumber,
    hold: Hold,
    /// Who signed the payment, once that was looked at.
    signer: OnceLock<Option<Address>>,
    /// The version of the slot that guards a transaction in doubt.
    tried: Option<Option<Version>>,
}

impl<S: Store, C: ChannelSource> Reserving<'_, S, C> {
    async fn run(mut self) -> Result<Reservation> {
        let (id, payments) = (self.id(), self.payments);
        let mut turn = Turn::begin(&payments.options);
        let mut attempts = Attempts::begin();
        // A decision on what was seen earlier counts only if it is to write: its guards then tell whether it was right.
        if let Some(sight) = payments.sights.get(id)
            && self.check(&sight).is_ok()
            && sight.free_at().is_none()
            && let Some(reservation) = self.take(sight, &mut attempts).await?
        {
            return Ok(reservation);
        }
        loop {
            turn.look();
            let sight = payments.look(id, &mut attempts).await?;
            if let Some(reservation) = self.resolve(&sight, &mut attempts)? {
                return Ok(reservation);
            }
            self.check(&sight)?;
            if turn.has_come(&sight, &mut attempts).await?
                && let Some(reservation) = self.take(sight, &mut attempts).await?
            {
                return Ok(reservation);
            }
        }
    }

    /// Whether the payment pays for the call, with the channel as it was seen.
    fn check(&self, sight: &Sight) -> Result<()> {
        let state = merge(sight.state(), &self.chain);
        let signer = || *self.signer.get_or_init(|| self.payment.signer());
        Ok(validate_signed(&self.payment, signer, &state, &self.payments.terms, self.block, self.price)?)
    }

    /// Writes the hold over what was seen, if that is still there. `None`: look again.
    async fn take(&mut self, sight: Sight, attempts: &mut Attempts) -> Result<Option<Reservation>> {
        let id = self.id();
        let slot = sight.slot.taken(self.hold.clone()).ok_or_else(|| exhausted(id))?;
        // The channel is not written, but guarded: what was validated is what is there.
        let txn = Txn { guards: vec![sight.slot_guard(id), sight.channel_guard(id)], ..Txn::new() };
        match self.payments.store.commit(txn.put(slot_key(id), slot.encode()), attempts.write()).await {
            Ok(Outcome::Committed(committed)) => {
                let slot_version = Some(version_at(&committed.versions, 0)?);
                let sight = Sight { slot, slot_version, since: Instant::now(), ..sight };
                return Ok(Some(self.reservation(self.payments.sights.remember(id, sight))));
            }
            Ok(Outcome::Conflict(_)) => attempts.after_conflict().await?,
            Err(error) => {
                if error.may_be_applied() {
                    self.tried = Some(sight.slot_version);
                }
                attempts.after(error).await?;
            }
        }
        Ok(None)
    }

    /// What became of a transaction without an answer, as far as this look tells.
    fn resolve(&mut self, sight: &Sight, attempts: &mut Attempts) -> Result<Option<Reservation>> {
        let Some(tried) = self.tried else { return Ok(None) };
        match sight.slot.standing(self.hold.id) {
            Standing::Held => return Ok(Some(self.reservation(sight.clone()))),
            Standing::Settled(_) => return Err(Error::LeaseLost),
            Standing::Unknown => {}
        }
        if tried != sight.slot_version {
            self.tried = None;
            attempts.settle_doubt();
        }
        Ok(None)
    }

    fn reservation(&self, sight: Sight) -> Reservation {
        let (chain, payment) = (self.chain.clone(), self.payment);
        Reservation { id: self.hold.id, token: sight.slot.token(), payment, chain, sight }
    }

    fn id(&self) -> ChannelId {
        self.payment.channel_id()
    }
}

/// Nobody reserves a channel 2^64 times.
pub(super) fn exhausted(id: ChannelId) -> Error {
    storage_core::Error::corrupt(format!("the token of channel {id} is at the end of its range")).into()
}
