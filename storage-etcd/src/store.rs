//! The contract on etcd: limits, pages of bounded bytes, and the cheapest request for each transaction.
//!
//! Limits are below etcd's defaults, so that it never refuses for size what was accepted here. Requests are sent again
//! only if they were certainly not applied, which the pool decides.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use etcd_client::{GetOptions, TxnOp};
use storage_core::{
    Capabilities, Consistency, Entry, Error, Key, Outcome, Page, Prefixed, ReadOptions, Result, Revision, ScanOptions,
    Store, Txn, WatchOptions, WatchStream, WatchSupport, WriteOptions, servers::Effect,
};
use tokio::time::Instant;
use url::Url;

use crate::{
    EtcdConfig,
    error::ANSWER_BYTES,
    pool::{self, Pool, call},
    range::{MAX_PAGE_BYTES, PageSize, Range, entry, revision},
    txn::{self, Request},
    watch,
};

/// Opens the store that a URL names: see [`EtcdConfig`]. A URL with a path is a namespace.
///
/// # Errors
/// [`Error::InvalidArgument`] for what is no URL of etcd, and for certificates that cannot be used. Servers that cannot be
/// reached are no error here: the calls will say so.
pub async fn open(url: &Url) -> Result<Arc<dyn Store>> {
    let config = EtcdConfig::try_from(url)?;
    let prefix = config.prefix().cloned();
    Ok(Prefixed::if_named(EtcdStore::new(config).await?, prefix))
}

/// The contract on an etcd cluster.
///
/// A handle has one connection to one server, and goes to another when that one fails; a call is sent again within its
/// deadline if it was certainly not applied. Nothing is queued while no server can be reached.
#[derive(Debug)]
pub struct EtcdStore {
    pool: Arc<Pool>,
    capabilities: Capabilities,
    page_size: PageSize,
}

impl EtcdStore {
    /// The largest value, in bytes (1 MiB).
    pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
    /// The most guards and operations of a transaction: etcd's `--max-txn-ops`, as it is if nobody sets it.
    pub const MAX_TXN_OPS: usize = 128;
    /// The most bytes of keys and values of a transaction (1.25 MiB). etcd's `--max-request-bytes` is 1.5 MiB if nobody sets it;
    /// a guard's key stands twice in the request, and each guard and operation costs some bytes more: together
    /// 64 KiB for the keys of [`EtcdStore::MAX_TXN_OPS`] guards and less than 32 KiB for the rest.
    pub const MAX_TXN_BYTES: usize = 1280 * 1024;

    /// A handle on the cluster of `config`, whose prefix is not looked at. Connects when it is first used.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for certificates that cannot be used.
    pub async fn new(config: EtcdConfig) -> Result<Self> {
        let mut capabilities = Capabilities::new("etcd");
        capabilities.max_value_bytes = Self::MAX_VALUE_BYTES;
        capabilities.max_txn_ops = Self::MAX_TXN_OPS;
        capabilities.max_txn_bytes = Self::MAX_TXN_BYTES;
        capabilities.revisions = true;
        capabilities.native_value_compare = true;
        capabilities.conflict_reports_current = true;
        capabilities.atomic_get_many = true;
        capabilities.stale_reads = true;
        capabilities.watch = WatchSupport::Ordered;
        let pool = Arc::new(pool::open(&config).await?);
        Ok(Self { pool, capabilities, page_size: PageSize::new() })
    }

    /// A page of at most `entries`, with all of its bytes under [`MAX_PAGE_BYTES`].
    async fn page(&self, range: &Range, entries: usize, read: ReadOptions) -> Result<Page> {
        let answer = call(&self.pool, Effect::Reads, read.timeout, |connection| {
            let mut kv = connection.reader(read.consistency).max_decoding_message_size(MAX_PAGE_BYTES);
            let options = get_options(read).with_range(range.end.as_slice());
            let options = options.with_limit(i64::try_from(entries).unwrap_or(i64::MAX));
            let start = range.start.as_slice().to_vec();
            async move { kv.get(start, Some(options)).await }
        });
        let answer = answer.await?;
        let (revision, more) = (Some(revision(answer.header())?), answer.more());
        let page: Vec<_> = answer.0.kvs.into_iter().map(entry).collect::<Result<_>>()?;
        let next = page.last().filter(|_| more).map(|last| last.key.clone());
        Ok(Page { entries: page, next, revision })
    }

    async fn send(&self, txn: &Txn, timeout: Duration) -> Result<Outcome> {
        match Request::of(txn) {
            Request::Put { key, value } => {
                let answer = call(&self.pool, Effect::Writes, timeout, |connection| {
                    let (mut kv, key, value) = (connection.kv(), key.clone(), value.clone());
                    async move { kv.put(key, value, None).await }
                });
                txn::after_put(&answer.await?)
            }
            Request::Delete { key } => {
                let answer = call(&self.pool, Effect::Writes, timeout, |connection| {
                    let (mut kv, key) = (connection.kv(), key.clone());
                    async move { kv.delete(key, None).await }
                });
                txn::after_delete(&answer.await?)
            }
            Request::Txn(request) => {
                // Without operations it only looks whether its guards hold.
                let effect = if txn.ops.is_empty() { Effect::Reads } else { Effect::Writes };
                let answer = call(&self.pool, effect, timeout, |connection| {
                    let (mut kv, request) = (connection.kv(), request.clone());
                    async move { kv.txn(request).await }
                });
                txn::after_txn(txn, answer.await?)
            }
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        let answer = call(&self.pool, Effect::Reads, options.timeout, |connection| {
            let (mut kv, key) = (connection.reader(options.consistency), key.as_bytes().to_vec());
            async move { kv.get(key, Some(get_options(options))).await }
        });
        txn::only_entry(answer.await?.0)
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.pool.check_open()?;
        self.capabilities.check_keys(keys)?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let answer = call(&self.pool, Effect::Reads, options.timeout, |connection| {
            let reads = keys.iter().map(|key| TxnOp::get(key.as_bytes(), Some(get_options(options))));
            let request = etcd_client::Txn::new().and_then(reads.collect::<Vec<_>>());
            let mut kv = connection.reader(options.consistency);
            async move { kv.txn(request).await }
        });
        txn::entries(answer.await?.0.responses).collect()
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.pool.check_open()?;
        options.validate()?;
        let Some(range) = Range::after(prefix, options.after.as_ref()) else {
            let revision = self.current_revision(Range::of_prefix(prefix), options.read).await?;
            return Ok(Page { entries: Vec::new(), next: None, revision: Some(revision) });
        };
        let began = Instant::now();
        let mut entries = options.limit.min(self.page_size.entries());
        loop {
            let read = options.read.timeout(options.read.timeout.saturating_sub(began.elapsed()));
            match self.page(&range, entries, read).await {
                // This side refused the answer before it was read whole, so asking again for less costs little.
                Err(Error::TooLarge { what: ANSWER_BYTES, actual, limit }) => {
                    let fewer = self.page_size.too_large(entries);
                    entries = fewer.ok_or(Error::TooLarge { what: ANSWER_BYTES, actual, limit })?;
                }
                Ok(page) => {
                    let bytes = page.entries.iter().map(|entry| entry.key.as_bytes().len() + entry.value.len()).sum();
                    self.page_size.fitted(page.entries.len(), bytes);
                    return Ok(page);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        self.pool.check_open()?;
        txn.validate(&self.capabilities)?;
        options.validate(&self.capabilities)?;
        self.send(&txn, options.timeout).await
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        self.pool.check_open()?;
        let began = Instant::now();
        let range = Range::of_prefix(prefix);
        let after = match options.after {
            Some(after) => after,
            // What is committed now, as a majority has it: the server that watches may be behind.
            None => {
                let read = ReadOptions::default().timeout(options.timeout);
                self.current_revision(range.clone(), read).await?
            }
        };
        let left = options.timeout.saturating_sub(began.elapsed());
        watch::stream(Arc::clone(&self.pool), range, after, left).await
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        // A first key that no prefix has. A user who may not read it is told so after the read index was confirmed,
        // so that answer says that the store works as well.
        let range = Range { start: vec![0], end: Vec::new() };
        match self.current_revision(range, options).await {
            Ok(_) | Err(Error::PermissionDenied { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn close(&self) -> Result<()> {
        self.pool.close().await;
        Ok(())
    }
}

impl EtcdStore {
    /// The current revision, with a read that returns no key.
    async fn current_revision(&self, range: Range, read: ReadOptions) -> Result<Revision> {
        let answer = call(&self.pool, Effect::Reads, read.timeout, |connection| {
            let (mut kv, range) = (connection.reader(read.consistency), range.clone());
            // `limit` bounds what the server counts.
            let options = get_options(read).with_range(range.end).with_count_only().with_limit(1);
            async move { kv.get(range.start, Some(options)).await }
        });
        revision(answer.await?.header())
    }
}

fn get_options(read: ReadOptions) -> GetOptions {
    match read.consistency {
        Consistency::Linearizable => GetOptions::new(),
        Consistency::Stale => GetOptions::new().with_serializable(),
    }
}
