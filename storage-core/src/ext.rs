//! The shorter forms of `commit` and `scan`. Each lowers to a call of the contract, and adds no behaviour of its own.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};

use crate::{Conflict, Entry, Error, Expected, Key, Outcome, Result, ScanOptions, Store, Txn, Version, WriteOptions};

/// The shorter forms of [`Store::commit`] and [`Store::scan`], with the default options. Every store has them.
///
/// # Errors
/// Those of the call that each is a short form of.
#[async_trait]
pub trait StoreExt: Store {
    /// Sets a key, whatever was there, and returns its new version.
    async fn put(&self, key: &Key, value: impl Into<Bytes> + Send) -> Result<Version> {
        let txn = Txn::new().put(key.clone(), value);
        version_of(self.commit(txn, WriteOptions::default()).await?)?
            .map_err(|_| contract("a put without a guard met a conflict"))
    }

    /// Sets a key that is absent. The inner result is the new version, or what is in the way.
    async fn put_if_absent(&self, key: &Key, value: impl Into<Bytes> + Send) -> Result<Result<Version, Conflict>> {
        self.put_expecting(key, Expected::Absent, value).await
    }

    /// Sets a key whose version is `version`. The inner result is the new version, or what is there instead.
    async fn compare_and_swap(
        &self,
        key: &Key,
        version: Version,
        value: impl Into<Bytes> + Send,
    ) -> Result<Result<Version, Conflict>> {
        self.put_expecting(key, Expected::Version(version), value).await
    }

    /// Sets a key if what is there is `expected`. The inner result is the new version, or what is there instead.
    async fn put_expecting(
        &self,
        key: &Key,
        expected: Expected,
        value: impl Into<Bytes> + Send,
    ) -> Result<Result<Version, Conflict>> {
        let txn = Txn::new().guard(key.clone(), expected).put(key.clone(), value);
        version_of(self.commit(txn, WriteOptions::default()).await?)
    }

    /// Removes a key, whatever was there; an absent key is fine.
    async fn delete(&self, key: &Key) -> Result<()> {
        let outcome = self.commit(Txn::new().delete(key.clone()), WriteOptions::default()).await?;
        outcome.committed().map(|_| ()).ok_or_else(|| contract("a delete without a guard met a conflict"))
    }

    /// Removes a key if what is there is `expected`. The inner result says what is there instead.
    async fn delete_expecting(&self, key: &Key, expected: Expected) -> Result<Result<(), Conflict>> {
        let txn = Txn::new().guard(key.clone(), expected).delete(key.clone());
        Ok(match self.commit(txn, WriteOptions::default()).await? {
            Outcome::Committed(_) => Ok(()),
            Outcome::Conflict(conflict) => Err(conflict),
        })
    }

    /// Every entry with this prefix, in bytewise order, read page by page.
    fn scan_all<'a>(&'a self, prefix: &'a [u8]) -> BoxStream<'a, Result<Entry>> {
        stream::try_unfold(Some(None), move |position: Option<Option<Key>>| async move {
            // The outer `None` is the end; the inner one is the first page.
            let Some(after) = position else { return Ok(None) };
            let page = self.scan(prefix, ScanOptions { after, ..ScanOptions::default() }).await?;
            let next = page.next.map(Some);
            Ok::<_, Error>(Some((stream::iter(page.entries.into_iter().map(Ok)), next)))
        })
        .try_flatten()
        .boxed()
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

fn version_of(outcome: Outcome) -> Result<Result<Version, Conflict>> {
    match outcome {
        Outcome::Committed(committed) => {
            committed.version().map(Ok).ok_or_else(|| contract("a committed put has no version"))
        }
        Outcome::Conflict(conflict) => Ok(Err(conflict)),
    }
}

/// A store broke the contract: nothing that a caller could mend.
fn contract(what: &str) -> Error {
    Error::corrupt(format!("the store broke its contract: {what}"))
}
