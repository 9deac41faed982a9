use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};

use crate::{
    Conflict, Deadline, Entry, Error, Expected, Key, Observed, Outcome, ReadOptions, Result, ScanOptions, Store, Txn,
    Version, WriteOptions, backoff::Backoff,
};

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

    /// Reads, changes and swaps one key until no other writer comes in between: bounded, with jittered backoff.
    ///
    /// `change` sees the current entry (`None`: absent) and decides; it may be called several times.
    ///
    /// # Errors
    /// Those of `get` and `commit`. [`Error::Unavailable`] if other writers were faster [`UpdateOptions::attempts`] times
    /// or the deadline passed: the change was not applied. [`Error::UnknownOutcome`] is not retried: the change may have been applied.
    ///
    /// # Cancel safety
    /// As for [`Store::commit`]: dropped, the change is applied or not.
    async fn update<E, F>(&self, key: &Key, options: UpdateOptions, mut change: F) -> Result<Updated, E>
    where
        F: FnMut(Option<&Entry>) -> Result<Change, E> + Send,
        E: From<Error> + Send,
    {
        let deadline = Deadline::after(options.timeout);
        let mut backoff = Backoff::new(options.backoff_floor, options.backoff_ceiling);
        let mut known = None;
        for _ in 0..options.attempts {
            let left = || deadline.left();
            if left().is_zero() {
                return Err(deadline.passed().into());
            }
            let current = match known.take() {
                Some(current) => current,
                None => self.get(key, ReadOptions::default().timeout(left())).await?,
            };
            let expected = current.as_ref().map_or(Expected::Absent, |entry| Expected::Version(entry.version));
            let txn = match change(current.as_ref())? {
                Change::Keep => return Ok(Updated { entry: current, changed: false }),
                Change::Put(value) => Txn::new().guard(key.clone(), expected).put(key.clone(), value),
                Change::Delete => Txn::new().guard(key.clone(), expected).delete(key.clone()),
            };
            let written = txn.ops.first().cloned();
            match self.commit(txn, WriteOptions::default().timeout(left())).await? {
                Outcome::Committed(committed) => {
                    let entry = match (written, committed.version()) {
                        (Some(crate::Op::Put { key, value }), Some(version)) => Some(Entry { key, value, version }),
                        _ => None,
                    };
                    return Ok(Updated { entry, changed: true });
                }
                Outcome::Conflict(conflict) => {
                    known = match conflict.current {
                        Observed::Present(entry) => Some(Some(entry)),
                        Observed::Absent => Some(None),
                        Observed::Unknown => None,
                    };
                    backoff.wait().await;
                }
            }
        }
        Err(Error::unavailable(format!("other writers of {key} were faster {} times", options.attempts)).into())
    }

    /// Every entry with this prefix, in bytewise order, read page by page.
    fn scan_all<'a>(&'a self, prefix: &'a [u8]) -> BoxStream<'a, Result<Entry>> {
        stream::try_unfold(Some(None), move |position: Option<Option<Key>>| async move {
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

/// What [`StoreExt::update`] shall do with what it read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Set this value.
    Put(Bytes),
    /// Remove the key.
    Delete,
    /// Leave it as it is: nothing is written.
    Keep,
}

/// What [`StoreExt::update`] left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The entry as it is now; `None`: absent.
    pub entry: Option<Entry>,
    /// Whether this call changed it.
    pub changed: bool,
}

/// The bounds of [`StoreExt::update`].
#[derive(Clone, Copy, Debug)]
pub struct UpdateOptions {
    /// How often to try at the most. The default, 64, lets dozens of writers of one key through within the default deadline.
    pub attempts: u32,
    /// The deadline for all attempts together.
    pub timeout: Duration,
    /// The longest first wait after a conflict; each further conflict doubles it.
    pub backoff_floor: Duration,
    /// The longest wait after any conflict.
    pub backoff_ceiling: Duration,
}

impl Default for UpdateOptions {
    fn default() -> Self {
        Self {
            attempts: 64,
            timeout: crate::DEFAULT_TIMEOUT,
            backoff_floor: Duration::from_millis(1),
            backoff_ceiling: Duration::from_millis(100),
        }
    }
}

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
