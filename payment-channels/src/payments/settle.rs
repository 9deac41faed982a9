use storage_core::{Outcome, ReadOptions, Store, Txn, channel::ChannelId, channel::key_of};
use tokio::time::Instant;

use super::{Payments, Reservation, sight::Sight, sight::slot_of, version_at};
use crate::{
    ChannelSource, Error, ReservationId, Result, Settlement, Slot, Standing, attempts::Attempts, authorize, merge,
    slot_key,
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
        self.settle(reservation, Settlement::Committed).await
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
        self.settle(reservation, Settlement::Released).await
    }

    /// What the record says of a reservation, for one who has lost track of it. One read.
    ///
    /// # Errors
    /// Those of the store and of its records.
    pub async fn standing(&self, channel: ChannelId, id: ReservationId) -> Result<Standing> {
        let entry = self.store.get(&slot_key(channel), ReadOptions::default()).await?;
        Ok(entry.as_ref().map_or(Ok(Slot::default()), slot_of)?.standing(id))
    }

    async fn settle(&self, reservation: &Reservation, settlement: Settlement) -> Result<()> {
        let (id, mut attempts) = (reservation.payment.channel_id(), Attempts::begin());
        let mut sight = reservation.sight.clone();
        loop {
            match sight.slot.standing(reservation.id) {
                Standing::Held => {}
                Standing::Settled(found) if found == settlement => return Ok(()),
                Standing::Settled(Settlement::Committed) => return Err(Error::Committed),
                Standing::Settled(Settlement::Released) => return Err(Error::Released),
                Standing::Settled(Settlement::Fenced) => return Err(Error::LeaseLost),
                Standing::Unknown => return Err(Error::Unsettled),
            }
            let slot = sight.slot.ended(settlement);
            let mut txn = Txn { guards: vec![sight.slot_guard(id)], ..Txn::new() }.put(slot_key(id), slot.encode());
            let mut state = None;
            if settlement == Settlement::Committed {
                let authorized = authorize(&merge(sight.state(), &reservation.chain), &reservation.payment)?;
                txn.guards.push(sight.channel_guard(id));
                txn = txn.put(key_of(id), authorized.encode());
                state = Some(authorized);
            }
            match self.store.commit(txn, attempts.write()).await {
                Ok(Outcome::Committed(committed)) => {
                    let slot_version = Some(version_at(&committed.versions, 0)?);
                    let channel = match state {
                        Some(state) => Some((state, version_at(&committed.versions, 1)?)),
                        None => sight.channel,
                    };
                    self.sights.remember(id, Sight { channel, slot, slot_version, since: Instant::now() });
                    return Ok(());
                }
                Ok(Outcome::Conflict(_)) => attempts.after_conflict().await?,
                Err(error) => attempts.after(error).await?,
            }
            sight = self.look(id, &mut attempts).await?;
        }
    }
}
