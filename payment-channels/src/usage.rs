use bytes::Bytes;
use storage_core::{
    ReadOptions, Store,
    channel::{Amount, ChannelId},
    record::{DecodeError, Schema},
};

use crate::{
    Error, Operation, RecentOperations, Result,
    update::{Step, update},
    usage_key,
};

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
    operations: RecentOperations,
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
                Err(UsageRefusal::Exhausted { left: less(available, used), wanted })
            }
            UsageChange::Refund(wanted) if next.refunded > used => {
                Err(UsageRefusal::NothingToRefund { left: less(used, refunded), wanted })
            }
            _ => Ok(next),
        }
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
        Ok(usage)
    }
}

/// What is left for a message.
fn less(of: Amount, taken: Amount) -> Amount {
    of.checked_sub(taken).unwrap_or(Amount::ZERO)
}

/// The prepaid usage of channels, shared by all replicas of a service.
#[derive(Clone, Debug)]
pub struct PrepaidUsage<S> {
    store: S,
}

impl<S: Store> PrepaidUsage<S> {
    /// The usage in `store`.
    pub fn new(store: S) -> Self {
        Self { store }
    }

    /// Counts a change, once for each operation however often it is sent, and returns the usage after it. A read and one commit.
    ///
    /// # Errors
    /// [`Error::UsageRefused`]; [`Error::Unsettled`] for a retry after more than [`RecentOperations::MAX`] others;
    /// those of the store and of its records. If it [may be applied](Error::may_be_applied), the same operation again resolves it.
    ///
    /// # Cancel safety
    /// Dropped, it is counted or not; the same operation again resolves it.
    pub async fn change(&self, id: ChannelId, operation: &mut Operation, change: UsageChange) -> Result<Usage> {
        let key = usage_key(id);
        let decide = |record: Option<&[u8]>| {
            let usage =
                record.map_or(Ok(Usage::default()), Usage::decode).map_err(|error| Error::record(&key, error))?;
            if usage.operations.has(operation)? {
                return Ok(Step::Keep(usage));
            }
            let next = usage.after(operation, change)?;
            Ok(Step::Put(next.encode(), next))
        };
        update(&self.store, &key, decide).await
    }

    /// The usage of a channel. One read.
    ///
    /// # Errors
    /// Those of the store and of its records.
    pub async fn get(&self, id: ChannelId) -> Result<Usage> {
        let key = usage_key(id);
        let entry = self.store.get(&key, ReadOptions::default()).await?;
        let usage = entry.map_or(Ok(Usage::default()), |entry| Usage::decode(&entry.value));
        usage.map_err(|error| Error::record(&key, error))
    }
}
