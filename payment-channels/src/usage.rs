//! Prepaid usage: what was paid for, used and given back at a channel.
//!
//! Pure. Invariants: amounts only grow; no more is used than was paid for or given back, and no more is given back than
//! was used. They are checked before a record is written and when it is read.

use bytes::Bytes;
use storage_core::{
    channel::Amount,
    record::{DecodeError, Schema},
};

use crate::{Operation, RecentOperations};

/// What was paid for in advance at a channel, and what of it was used. All amounts only grow.
///
/// `used <= planned + refunded`: nobody uses more than was paid for. `refunded <= used`: nobody gets back what was not used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// What was paid for.
    pub planned: Amount,
    /// What calls have used.
    pub used: Amount,
    /// What failed calls have given back.
    pub refunded: Amount,
    pub(crate) operations: RecentOperations,
}

/// A change of the usage of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UsageChange {
    /// So much more was paid for: the client's payment was committed. Its reservation's id makes a good operation id.
    Plan(Amount),
    /// A call uses so much.
    Use(Amount),
    /// A call that used so much has failed.
    Refund(Amount),
}

/// Why a change was not counted. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsageRefusal {
    /// More would be used than was paid for.
    #[error("{left} of what was paid for are left, not {wanted}")]
    Exhausted {
        /// What is left.
        left: Amount,
        /// What the call would use.
        wanted: Amount,
    },
    /// More would be given back than was used.
    #[error("{left} of what was used are not refunded yet, not {wanted}")]
    NothingToRefund {
        /// What can be given back.
        left: Amount,
        /// What should be given back.
        wanted: Amount,
    },
    /// An amount would leave its range.
    #[error("the amount would be over 2^256 - 1")]
    Overflow,
}

impl Usage {
    /// The tag and the version of the encoding.
    ///
    /// Version 1, after the six bytes of every [record](storage_core::record): planned 32, used 32, refunded 32, number of all
    /// operations 8, number of remembered ones 1, and each of these, the earliest first, 16. Numbers are big-endian.
    pub const SCHEMA: Schema = Schema { tag: *b"USGE", version: 1 };

    /// The usage after one more operation.
    ///
    /// # Errors
    /// A [`UsageRefusal`].
    ///
    /// # Panics
    /// If more is used here than was paid for, or more refunded than was used.
    #[expect(clippy::expect_used, reason = "`decode` refuses such a record")]
    pub fn after(&self, operation: &Operation, change: UsageChange) -> Result<Self, UsageRefusal> {
        let Self { planned, used, refunded, operations } = self.clone();
        let add = |amount: Amount, more| amount.checked_add(more).ok_or(UsageRefusal::Overflow);
        let operations = operations.and(operation.id);
        let next = match change {
            UsageChange::Plan(more) => Self { planned: add(planned, more)?, used, refunded, operations },
            UsageChange::Use(more) => Self { planned, used: add(used, more)?, refunded, operations },
            UsageChange::Refund(more) => Self { planned, used, refunded: add(refunded, more)?, operations },
        };
        // Checked for every change, so that the sum is always a number.
        let available = add(next.planned, next.refunded)?;
        match change {
            UsageChange::Use(wanted) if next.used > available => {
                let left = available.checked_sub(used).expect("no more is used than was paid for");
                Err(UsageRefusal::Exhausted { left, wanted })
            }
            UsageChange::Refund(wanted) if next.refunded > used => {
                let left = used.checked_sub(refunded).expect("no more is refunded than was used");
                Err(UsageRefusal::NothingToRefund { left, wanted })
            }
            UsageChange::Plan(_) | UsageChange::Use(_) | UsageChange::Refund(_) => {
                next.assert_follows(self);
                Ok(next)
            }
        }
    }

    /// What another program has counted; `None`: more was used than paid for, or refunded than used.
    pub(crate) fn imported(planned: Amount, used: Amount, refunded: Amount) -> Option<Self> {
        let usage = Self { planned, used, refunded, operations: RecentOperations::default() };
        usage.is_covered().then_some(usage)
    }

    /// What every change keeps to, whatever has decided on it.
    fn assert_follows(&self, before: &Self) {
        assert!(self.is_covered(), "no more is used than was paid for, and no more is refunded than was used");
        let amounts = |usage: &Self| [usage.planned, usage.used, usage.refunded];
        let rise = amounts(self).iter().zip(&amounts(before)).all(|(now, then)| now >= then);
        assert!(rise, "what was planned, used or refunded falls");
    }

    fn is_covered(&self) -> bool {
        let available = self.planned.checked_add(self.refunded);
        available.is_some_and(|available| self.used <= available) && self.refunded <= self.used
    }

    /// The usage in bytes: one usage has one encoding.
    pub fn encode(&self) -> Bytes {
        let amounts = [self.planned, self.used, self.refunded];
        let record = amounts.iter().fold(Self::SCHEMA.writer(), |record, amount| record.bytes(&amount.to_be_bytes()));
        self.operations.encode(record).finish()
    }

    /// The usage that these bytes are.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with them.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut record = Self::SCHEMA.reader(record)?;
        let usage = Self {
            planned: Amount::from_be_bytes(record.array()?),
            used: Amount::from_be_bytes(record.array()?),
            refunded: Amount::from_be_bytes(record.array()?),
            operations: RecentOperations::decode(&mut record)?,
        };
        record.finish()?;
        if usage.is_covered() { Ok(usage) } else { Err(DecodeError::NonCanonical { field: "used" }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(amounts: [u64; 3]) -> Usage {
        let [planned, used, refunded] = amounts.map(Amount::from);
        Usage { planned, used, refunded, ..Usage::default() }
    }

    #[test]
    #[should_panic(expected = "no more is used than was paid for, and no more is refunded than was used")]
    fn nobody_uses_more_than_was_paid_for() {
        usage([10, 12, 1]).assert_follows(&usage([10, 10, 1]));
    }

    #[test]
    #[should_panic(expected = "no more is used than was paid for, and no more is refunded than was used")]
    fn nobody_gets_back_what_was_not_used() {
        usage([10, 2, 3]).assert_follows(&usage([10, 2, 2]));
    }

    #[test]
    #[should_panic(expected = "what was planned, used or refunded falls")]
    fn amounts_only_grow() {
        usage([10, 5, 0]).assert_follows(&usage([10, 6, 0]));
    }

    #[test]
    fn a_record_of_more_than_was_paid_for_is_none_of_ours() {
        assert_eq!(Usage::decode(&usage([10, 10, 5]).encode()), Ok(usage([10, 10, 5])));
        for amounts in [[10, 11, 0], [10, 2, 3]] {
            let refused = Usage::decode(&usage(amounts).encode());
            assert_eq!(refused, Err(DecodeError::NonCanonical { field: "used" }), "{amounts:?}");
        }
    }
}
