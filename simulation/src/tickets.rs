//! What those outside ask and are answered, since values do not travel over the simulated network: only the number of a row does.

use std::{collections::BTreeMap, sync::Arc};

use futures::lock::Mutex;
use storage_core::{Entry, Key, Outcome, ReadOptions, Result, Txn, WriteOptions};

#[derive(Debug)]
pub(crate) enum Request {
    Get(Key, ReadOptions),
    GetMany(Vec<Key>, ReadOptions),
    Commit(Txn, WriteOptions),
}

#[derive(Debug)]
pub(crate) enum StoreAnswer {
    Entry(Result<Option<Entry>>),
    Entries(Result<Vec<Option<Entry>>>),
    Outcome(Result<Outcome>),
}

/// The table. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tickets(pub(crate) Arc<Mutex<Table>>);

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) next: u64,
    pub(crate) requests: BTreeMap<u64, Request>,
    pub(crate) answers: BTreeMap<u64, StoreAnswer>,
}
