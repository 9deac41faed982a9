//! The contract as a trait: eight calls that every backend has, and what each promises.
//!
//! Every write is one transaction through `commit`. A method is added only if no existing one can carry it, since each
//! backend and wrapper has to have it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{
    Capabilities, Entry, Key, Outcome, ReadOptions, Result, Revision, ScanOptions, Txn, WatchOptions, WriteOptions,
};

/// A strongly consistent store of small records: the contract that every backend fulfils. docs/contract.md has it clause by clause.
///
/// - Writes are linearizable and durable: acknowledged means on stable storage of a majority.
/// - Reads are linearizable unless a stale one is asked for.
/// - Every write goes through [`Store::commit`]; [`StoreExt`](crate::StoreExt) has the shorter forms.
/// - A minority never serves a linearizable read and never acknowledges a write.
///
/// A handle is cheap to share (`Arc<dyn Store>` is itself a `Store`) and may be used from many tasks at once.
///
/// # Errors
/// Every call may answer [`Error::Unavailable`](crate::Error::Unavailable) and [`Error::Closed`](crate::Error::Closed);
/// [`Error`](crate::Error) tells for each variant whether a write may have been applied.
///
/// # Cancel safety
/// Dropping the future of a read does nothing. Dropping the future of a commit leaves the write either applied or not,
/// as if it had ended with [`Error::UnknownOutcome`](crate::Error::UnknownOutcome); it is never applied in part.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// What this store can do, and its limits.
    fn capabilities(&self) -> &Capabilities;

    /// Reads one key: `None` if it is absent.
    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>>;

    /// Reads keys, in the order given; a key may stand there more than once. At one point in time if
    /// [`Capabilities::atomic_get_many`] says so, otherwise each at some point during the call.
    ///
    /// # Errors
    /// [`Error::TooLarge`](crate::Error::TooLarge) for more keys than [`Capabilities::max_txn_ops`].
    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>>;

    /// Reads one page of the keys with this prefix, in bytewise order. The empty prefix stands for all keys.
    /// Each page is linearizable on its own; a scan of many pages sees every key that was there all the time, once.
    ///
    /// A page may hold fewer entries than its limit although there are more: it ends when [`Page::next`] is `None`.
    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page>;

    /// Applies a transaction: all of it, if all its guards hold, or nothing.
    ///
    /// # Errors
    /// [`Error::UnknownOutcome`](crate::Error::UnknownOutcome) if the transaction left and no answer came. With every other error it was not applied and never will be.
    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome>;

    /// Watches the keys with this prefix, beginning as [`WatchOptions::after`] says. What a watch promises is in [`Capabilities::watch`].
    ///
    /// To follow a set of keys from its current state: watch, then scan, then take the events (some repeat what the scan saw).
    /// The stream ends after its first error, and when the handle is closed. Dropping it ends the watch.
    ///
    /// # Errors
    /// [`Error::Compacted`](crate::Error::Compacted) here or as an item of the stream if the history is gone or the reader was too slow;
    /// [`Error::Unsupported`](crate::Error::Unsupported) for a resumption where the store cannot resume.
    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream>;

    /// A linearizable round trip that reads no data: whether the store works at all.
    async fn ping(&self, options: ReadOptions) -> Result<()>;

    /// Ends the handle: every later call answers [`Error::Closed`](crate::Error::Closed), watches end, tasks and connections are gone when it returns. Closing twice is fine.
    async fn close(&self) -> Result<()>;
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, in bytewise order of their keys.
    pub entries: Vec<Entry>,
    /// What to give as [`ScanOptions::after`] for the next page; `None`: there are no more.
    pub next: Option<Key>,
    /// The revision at which this page was read, where the store has revisions. A watch after it continues the page.
    pub revision: Option<Revision>,
}

/// The changes that a watch sees.
pub type WatchStream = BoxStream<'static, Result<WatchEvent>>;

/// A change of one key, or news of progress.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A key has this value now.
    Put {
        /// The key with its new value and version.
        entry: Entry,
        /// The commit that wrote it, where the store has revisions.
        revision: Option<Revision>,
    },
    /// A key is gone.
    Delete {
        /// The key.
        key: Key,
        /// The commit that removed it, where the store has revisions.
        revision: Option<Revision>,
    },
}

impl WatchEvent {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { entry, .. } => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The commit that changed it, where the store has revisions.
    pub fn revision(&self) -> Option<Revision> {
        match self {
            Self::Put { revision, .. } | Self::Delete { revision, .. } => *revision,
        }
    }
}

/// A shared handle is a store itself, so wrappers stack on `Arc<dyn Store>` in any order.
#[async_trait]
impl<S: Store + ?Sized> Store for Arc<S> {
    fn capabilities(&self) -> &Capabilities {
        (**self).capabilities()
    }
    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        (**self).get(key, options).await
    }
    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        (**self).get_many(keys, options).await
    }
    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        (**self).scan(prefix, options).await
    }
    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        (**self).commit(txn, options).await
    }
    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        (**self).watch(prefix, options).await
    }
    async fn ping(&self, options: ReadOptions) -> Result<()> {
        (**self).ping(options).await
    }
    async fn close(&self) -> Result<()> {
        (**self).close().await
    }
}
