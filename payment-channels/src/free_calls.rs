use bytes::Bytes;
use storage_core::{
    ReadOptions, Store,
    channel::Address,
    record::{DecodeError, Schema},
};

use crate::{
    Error, Operation, RecentOperations, Result, free_calls_key,
    update::{Step, update},
};

/// How many free calls a user has had.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FreeCallCount {
    operations: RecentOperations,
}

impl FreeCallCount {
    /// The tag and the version of the encoding.
    ///
    /// Version 1, after the six bytes of every [record](storage_core::record): number of all calls 8, number of remembered ones 1, and
    /// the operation id of each of these, the earliest first, 16. Numbers are big-endian.
    pub const SCHEMA: Schema = Schema { tag: *b"FREE", version: 1 };

    /// How many calls were made.
    pub fn used(&self) -> u64 {
        self.operations.total()
    }

    /// The count after one more call.
    ///
    /// # Errors
    /// [`Error::FreeCallsExhausted`] if `limit` calls were made.
    pub fn after(&self, operation: &Operation, limit: u64) -> Result<Self> {
        if self.used() >= limit {
            return Err(Error::FreeCallsExhausted { limit });
        }
        Ok(Self { operations: self.operations.and(operation.id) })
    }

    /// The count in bytes: one count has one encoding.
    pub fn encode(&self) -> Bytes {
        self.operations.encode(Self::SCHEMA.writer()).finish()
    }

    /// The count that these bytes are.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with them.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut record = Self::SCHEMA.reader(record)?;
        let operations = RecentOperations::decode(&mut record)?;
        record.finish()?;
        Ok(Self { operations })
    }
}

/// The free calls of users, shared by all replicas of a service.
#[derive(Clone, Debug)]
pub struct FreeCalls<S> {
    store: S,
}

impl<S: Store> FreeCalls<S> {
    /// The free calls in `store`.
    pub fn new(store: S) -> Self {
        Self { store }
    }

    /// Counts a free call of a user who may have `limit` of them, once for each operation however often it is sent. A read and
    /// one commit.
    ///
    /// # Errors
    /// [`Error::FreeCallsExhausted`]; [`Error::Unsettled`] for a retry after more than [`RecentOperations::MAX`] others;
    /// those of the store and of its records. If it [may be applied](Error::may_be_applied), the same operation again resolves it.
    ///
    /// # Cancel safety
    /// Dropped, it is counted or not; the same operation again resolves it.
    pub async fn count(&self, user: Address, operation: &mut Operation, limit: u64) -> Result<FreeCallCount> {
        let key = free_calls_key(user);
        let decide = |record: Option<&[u8]>| {
            let count = record.map_or(Ok(FreeCallCount::default()), FreeCallCount::decode);
            let count = count.map_err(|error| Error::record(&key, error))?;
            if count.operations.has(operation)? {
                return Ok(Step::Keep(count));
            }
            let next = count.after(operation, limit)?;
            Ok(Step::Put(next.encode(), next))
        };
        update(&self.store, &key, decide).await
    }

    /// How many free calls a user has had. One read.
    ///
    /// # Errors
    /// Those of the store and of its records.
    pub async fn get(&self, user: Address) -> Result<FreeCallCount> {
        let key = free_calls_key(user);
        let entry = self.store.get(&key, ReadOptions::default()).await?;
        let count = entry.map_or(Ok(FreeCallCount::default()), |entry| FreeCallCount::decode(&entry.value));
        count.map_err(|error| Error::record(&key, error))
    }
}
