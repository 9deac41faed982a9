//! Counters that count an operation once, however often it is sent.
//!
//! Invariant: the record that is written has the id of the operation in it. So a retry after a lost reply finds it there; and since each
//! write is guarded by the version that was read, a late copy of it changes nothing.

use bytes::Bytes;
use storage_core::{Entry, Expected, Key, OperationId, Outcome, Store, Txn, channel::ChannelId, record::DecodeError};

use crate::{
    Error, FreeCallCount, FreeCallUser, Ledger, Operation, RecentOperations, Result, Usage, UsageChange,
    free_calls::given_back,
    ledger::Records,
    payments::{read_many, refuse_unnamed},
    retries::Retries,
};

/// The prepaid usage of channels, shared by all replicas of a service.
#[derive(Clone, Debug)]
pub struct PrepaidUsage<S> {
    store: S,
    ledger: Ledger,
}

impl<S: Store> PrepaidUsage<S> {
    /// The usage of the channels of `ledger` in `store`.
    pub fn new(store: S, ledger: Ledger) -> Self {
        Self { store, ledger }
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
        let next = |usage: &Usage, operation: &Operation| Ok(usage.after(operation, change)?);
        self.counters().count(|records| records.usage_key(id), operation, next).await
    }

    /// The usage of a channel. One read.
    ///
    /// # Errors
    /// Those of the store and of its records.
    pub async fn get(&self, id: ChannelId) -> Result<Usage> {
        self.counters().read(|records| records.usage_key(id)).await
    }

    fn counters(&self) -> Counters<'_, S> {
        Counters { store: &self.store, records: Records::of(self.ledger) }
    }
}

/// The free calls of users, shared by all replicas of a service.
#[derive(Clone, Debug)]
pub struct FreeCalls<S> {
    store: S,
    ledger: Ledger,
}

impl<S: Store> FreeCalls<S> {
    /// The free calls of the users of `ledger` in `store`.
    pub fn new(store: S, ledger: Ledger) -> Self {
        Self { store, ledger }
    }

    /// Counts a free call of a user who may have `limit` of them, once for each operation however often it is sent. A read and
    /// one commit. It is counted before the call is made; if the call fails, [`FreeCalls::give_back`] it.
    ///
    /// # Errors
    /// [`Error::FreeCallsExhausted`]; [`Error::Released`] if it was given back already; [`Error::Unsettled`] for a retry after more than [`RecentOperations::MAX`] others;
    /// those of the store and of its records. If it [may be applied](Error::may_be_applied), the same operation again resolves it.
    ///
    /// # Cancel safety
    /// Dropped, it is counted or not; the same operation again resolves it.
    pub async fn count(
        &self,
        user: impl Into<FreeCallUser>,
        operation: &mut Operation,
        limit: u64,
    ) -> Result<FreeCallCount> {
        let next = |count: &FreeCallCount, operation: &Operation| count.after(operation, limit);
        let (counters, user) = (self.counters(), user.into());
        let count = counters.count(|records| records.free_calls_key(&user), operation, next).await?;
        if count.operations.remembers(given_back(operation.id)) { Err(Error::Released) } else { Ok(count) }
    }

    /// Gives back a call that was [counted](FreeCalls::count) by this operation and has failed, once however often it is sent. A read and one
    /// commit. A replica that dies in between has not given it back: the user has had one call less, and never one more.
    ///
    /// # Errors
    /// [`Error::Unsettled`] if it was never counted, or more than [`RecentOperations::MAX`] others came since; those of the store and of its
    /// records. If it [may be applied](Error::may_be_applied), the same call again resolves it.
    ///
    /// # Cancel safety
    /// Dropped, it is given back or not; the same call again resolves it.
    pub async fn give_back(&self, user: impl Into<FreeCallUser>, counted: OperationId) -> Result<FreeCallCount> {
        let next = |count: &FreeCallCount, _: &Operation| count.after_giving_back(counted);
        let user = user.into();
        let mut operation = Operation::new(given_back(counted));
        self.counters().count(|records| records.free_calls_key(&user), &mut operation, next).await
    }

    /// How many free calls a user has had. One read.
    ///
    /// # Errors
    /// Those of the store and of its records.
    pub async fn get(&self, user: impl Into<FreeCallUser>) -> Result<FreeCallCount> {
        let user = user.into();
        self.counters().read(|records| records.free_calls_key(&user)).await
    }

    fn counters(&self) -> Counters<'_, S> {
        Counters { store: &self.store, records: Records::of(self.ledger) }
    }
}

/// What a counter's record holds. An absent record is the default.
trait Counter: Default {
    fn decode(record: &[u8]) -> Result<Self, DecodeError>;
    fn encode(&self) -> Bytes;
    fn operations(&self) -> &RecentOperations;
}

impl Counter for Usage {
    fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(record)
    }
    fn encode(&self) -> Bytes {
        self.encode()
    }
    fn operations(&self) -> &RecentOperations {
        &self.operations
    }
}

impl Counter for FreeCallCount {
    fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(record)
    }
    fn encode(&self) -> Bytes {
        self.encode()
    }
    fn operations(&self) -> &RecentOperations {
        &self.operations
    }
}

/// The counters of a ledger.
struct Counters<'a, S> {
    store: &'a S,
    records: Records,
}

impl<S: Store> Counters<'_, S> {
    async fn read<T: Counter>(&self, key: impl Fn(Records) -> Key) -> Result<T> {
        let entry = self.entry(&key, &mut Retries::begin()).await?;
        self.decoded(entry.as_ref())
    }

    /// Reads a counter, and writes what `next` makes of it, until no other writer comes in between. After a lost reply it reads again, and
    /// finds the operation if it was counted.
    async fn count<T: Counter>(
        &self,
        key: impl Fn(Records) -> Key,
        operation: &mut Operation,
        next: impl Fn(&T, &Operation) -> Result<T>,
    ) -> Result<T> {
        let mut retries = Retries::begin();
        loop {
            let entry = self.entry(&key, &mut retries).await?;
            let counter: T = self.decoded(entry.as_ref())?;
            if counter.operations().has(operation)? {
                return Ok(counter);
            }
            let next = next(&counter, operation)?;
            let expected = entry.map_or(Expected::Absent, |entry| Expected::Version(entry.version));
            let key = key(self.records);
            let txn = Txn::new().guard(key.clone(), expected).put(key, self.records.enclose(next.encode()));
            match self.store.commit(txn, retries.write()).await {
                Ok(Outcome::Committed(_)) => return Ok(next),
                Ok(Outcome::Conflict(_)) => retries.after_conflict().await?,
                Err(error) => retries.after(error).await?,
            }
        }
    }

    /// The same read looks for a record that names no ledger, and would be this one.
    async fn entry(&self, key: &impl Fn(Records) -> Key, retries: &mut Retries) -> Result<Option<Entry>> {
        let mut entries = read_many(self.store, &[key(self.records), key(Records::UNNAMED)], retries).await?;
        refuse_unnamed(entries.split_off(1))?;
        Ok(entries.pop().flatten())
    }

    fn decoded<T: Counter>(&self, entry: Option<&Entry>) -> Result<T> {
        let Some(entry) = entry else { return Ok(T::default()) };
        T::decode(self.records.open(entry)?).map_err(|error| Error::record(&entry.key, error))
    }
}
