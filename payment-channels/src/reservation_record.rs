//! The record beside a channel: which payment holds it, and how the last ones ended.
//!
//! Pure. Invariants: at most one payment is in flight at a channel; the token rises with each reservation and forced
//! unlock, and never falls. The tag on disk is `SLOT`, the record's first name: it stays.

use std::{fmt, time::Duration};

use bytes::Bytes;
use storage_core::{
    FencingToken,
    channel::{Amount, Nonce},
    record::{DecodeError, Schema},
};

/// Names one attempt to reserve: 128 random bits, so that one whose reply was lost knows its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(pub u128);

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReservationId({self})")
    }
}

/// Which payment holds a channel, and how the last ones ended. At most one is in flight at a channel, because a channel has one
/// such record. A channel that was never reserved has the default one, which is not stored.
///
/// Pure: each change gives the record that is to be written if nobody wrote another one meanwhile.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReservationRecord {
    token: u64,
    hold: Option<Hold>,
    /// The last reservations and how they ended, the latest last.
    settled: Vec<(ReservationId, Settlement)>,
}

/// A payment in flight.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Which reservation.
    pub id: ReservationId,
    /// Who holds it, as the replica calls itself: at most [`Hold::MAX_OWNER_BYTES`] bytes.
    pub owner: String,
    /// For how long this record has to be seen unchanged before another may take over, in whole milliseconds.
    pub lease: Duration,
    /// The nonce of the payment.
    pub nonce: Nonce,
    /// What the payment authorizes.
    pub amount: Amount,
}

/// How a reservation ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Settlement {
    /// The authorization was stored.
    Committed,
    /// It was given back, and the client not charged.
    Released,
    /// Another one took over after the lease, or an operator unlocked the channel: the client was not charged.
    Fenced,
}

/// What the record says of one reservation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReservationStatus {
    /// It is in flight.
    Held,
    /// It ended so.
    Settled(Settlement),
    /// It was never made, or ended more than [`ReservationRecord::MAX_SETTLED`] reservations ago.
    Unknown,
}

impl Hold {
    /// The longest owner, in bytes: a host name and a process id with room to spare.
    pub const MAX_OWNER_BYTES: usize = 512;
}

impl ReservationRecord {
    /// How many ended reservations are remembered, so that a commit whose reply was lost is told that it was
    /// applied. A retry comes within seconds, and as many payments on one channel meanwhile are unlikely; one that comes later
    /// is told that it cannot be known.
    pub const MAX_SETTLED: usize = 32;

    /// The tag and the version of the encoding.
    ///
    /// Version 1, after the six bytes of every [record](storage_core::record): token 8, and 1 for whether a payment is in flight. If one
    /// is: id 16, lease 8 (milliseconds), nonce 32, amount 32, owner with its length in four bytes before it. Then the number of
    /// ended reservations, 1, and for each, the earliest first: id 16, and 1 for how it ended (0 committed, 1 released, 2 fenced).
    pub const SCHEMA: Schema = Schema { tag: *b"SLOT", version: 1 };

    /// The token of the last reservation: it goes up at each reservation and forced unlock, and never down.
    pub fn token(&self) -> FencingToken {
        FencingToken(self.token)
    }

    /// The payment in flight; `None`: the channel is free.
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// What is known of a reservation.
    pub fn status(&self, id: ReservationId) -> ReservationStatus {
        if self.hold.as_ref().is_some_and(|hold| hold.id == id) {
            return ReservationStatus::Held;
        }
        let settled = self.settled.iter().rev().find(|(settled, _)| *settled == id);
        settled.map_or(ReservationStatus::Unknown, |(_, settlement)| ReservationStatus::Settled(*settlement))
    }

    /// The record with `hold` in flight, one token later. Who held the channel before is fenced. `None`: there are no more tokens.
    pub fn taken(&self, hold: Hold) -> Option<Self> {
        Some(Self { hold: Some(hold), ..self.unlocked()? })
    }

    /// The record of a free channel, one token later. Who held it is fenced. `None`: there are no more tokens.
    pub fn unlocked(&self) -> Option<Self> {
        Some(Self { token: self.token.checked_add(1)?, ..self.ended(Settlement::Fenced) })
    }

    /// The record of a free channel after its holder has ended its reservation so.
    pub fn ended(&self, settlement: Settlement) -> Self {
        let mut settled = self.settled.clone();
        settled.extend(self.hold.as_ref().map(|hold| (hold.id, settlement)));
        settled.drain(..settled.len().saturating_sub(Self::MAX_SETTLED));
        Self { token: self.token, hold: None, settled }
    }

    /// The record in bytes: one record has one encoding.
    #[expect(clippy::expect_used, reason = "`ended` and `decode` let no more in")]
    pub fn encode(&self) -> Bytes {
        let mut record = Self::SCHEMA.writer().u64(self.token).bool(self.hold.is_some());
        if let Some(Hold { id, owner, lease, nonce, amount }) = &self.hold {
            // Half a billion years: whatever is longer may as well end then.
            let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
            record = record.bytes(&id.0.to_be_bytes()).u64(lease);
            record = record.bytes(&nonce.to_be_bytes()).bytes(&amount.to_be_bytes()).var_bytes(owner.as_bytes());
        }
        // One more would be refused by whoever reads it, and the channel would be stuck.
        assert!(self.settled.len() <= Self::MAX_SETTLED, "a record remembers too many reservations");
        let count = u8::try_from(self.settled.len()).expect("MAX_SETTLED is a byte");
        self.settled
            .iter()
            .fold(record.u8(count), |record, (id, end)| record.bytes(&id.0.to_be_bytes()).u8(end.code()))
            .finish()
    }

    /// The record that these bytes are.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with them.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut record = Self::SCHEMA.reader(record)?;
        let token = record.u64()?;
        let hold = match record.bool("held")? {
            false => None,
            true => Some(Hold {
                id: ReservationId(u128::from_be_bytes(record.array()?)),
                lease: Duration::from_millis(record.u64()?),
                nonce: Nonce::from_be_bytes(record.array()?),
                amount: Amount::from_be_bytes(record.array()?),
                owner: record.text("owner")?.to_owned(),
            }),
        };
        let count = usize::from(record.u8()?);
        if count > Self::MAX_SETTLED {
            return Err(DecodeError::NonCanonical { field: "settled" });
        }
        let mut settled = Vec::with_capacity(count);
        for _ in 0..count {
            let id = ReservationId(u128::from_be_bytes(record.array()?));
            settled.push((id, Settlement::of(record.u8()?).ok_or(DecodeError::NonCanonical { field: "settlement" })?));
        }
        record.finish()?;
        Ok(Self { token, hold, settled })
    }
}

impl Settlement {
    fn code(self) -> u8 {
        match self {
            Self::Committed => 0,
            Self::Released => 1,
            Self::Fenced => 2,
        }
    }

    fn of(code: u8) -> Option<Self> {
        [Self::Committed, Self::Released, Self::Fenced].into_iter().find(|settlement| settlement.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a record remembers too many reservations")]
    fn a_record_that_nobody_could_read_is_not_written() {
        let settled = vec![(ReservationId(1), Settlement::Committed); ReservationRecord::MAX_SETTLED + 1];
        ReservationRecord { settled, ..ReservationRecord::default() }.encode();
    }
}
