//! The contract on Consul KV: limits, transactions, and values that Consul cannot compare.
//!
//! Every write is one Consul transaction. A guard on a value becomes one on the version that had it, and is tried anew
//! when only the version moved. Limits are below Consul's own, so that it never refuses for size what was accepted
//! here.

use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{
    Capabilities, Conflict, Consistency, Deadline, Entry, Error, Expected, Guard, Key, Observed, Outcome, Page,
    Prefixed, ReadOptions, Result, ScanOptions, Store, Txn, WatchOptions, WatchStream, WriteOptions, servers::Effect,
};
use url::Url;

use crate::{
    ConsulConfig,
    encoding::{Folder, Stamp},
    pool::{self, Pool},
    scan,
    txn::{self, Answered, Request},
    watch,
};

/// Opens the store that a URL names: see [`ConsulConfig`]. A URL with a path is a namespace.
///
/// # Errors
/// [`Error::InvalidArgument`] for what is no URL of Consul, and for certificates that cannot be used. Servers that cannot be
/// reached are no error here: the calls will say so.
pub async fn open(url: &Url) -> Result<Arc<dyn Store>> {
    let config = ConsulConfig::try_from(url)?;
    let prefix = config.prefix().cloned();
    Ok(Prefixed::if_named(ConsulStore::new(config).await?, prefix))
}

/// How often a transaction that expects values is tried: it loses only to a write of the same key between its read and itself,
/// and gives way once it has lost so often.
const MAX_VALUE_ATTEMPTS: usize = 16;

/// The contract on a Consul cluster.
///
/// A handle asks one server, and goes to another when that one fails; a call is sent again within its deadline if it was
/// certainly not applied. Nothing is queued while no server can be reached.
#[derive(Debug)]
pub struct ConsulStore {
    pool: Arc<Pool>,
    folder: Folder,
    stamp: Stamp,
    capabilities: Capabilities,
}

impl ConsulStore {
    /// The largest value, in bytes (256 KiB). Consul's limit is 512 KiB for a value and for a whole transaction, in base64.
    pub const MAX_VALUE_BYTES: usize = 256 * 1024;
    /// The most guards and operations of a transaction: Consul's limit is 64, and each may need two.
    pub const MAX_TXN_OPS: usize = 32;
    /// The most bytes of keys and values of a transaction (320 KiB). Consul takes a request of 512 KiB. Values grow by a third,
    /// keys to twice their length; a key may stand twice: 64 KiB for 32 keys of the greatest length, less than 16 KiB for the rest.
    pub const MAX_TXN_BYTES: usize = 320 * 1024;

    /// A handle on the cluster of `config`, whose prefix is not looked at. Connects when it is first used.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for certificates that cannot be used.
    pub async fn new(config: ConsulConfig) -> Result<Self> {
        let mut capabilities = Capabilities::new("consul");
        capabilities.max_value_bytes = Self::MAX_VALUE_BYTES;
        capabilities.max_txn_ops = Self::MAX_TXN_OPS;
        capabilities.max_txn_bytes = Self::MAX_TXN_BYTES;
        capabilities.revisions = true;
        capabilities.atomic_get_many = true;
        capabilities.stale_reads = true;
        let pool = Arc::new(pool::open(&config).await?);
        Ok(Self { pool, folder: Folder::new(config.folder()), stamp: Stamp::new(), capabilities })
    }

    /// Sends a transaction whose guards Consul can check.
    async fn send(&self, guards: &[Guard], txn: &Txn, deadline: Deadline) -> Result<Outcome> {
        let request = &Request::of(guards, &txn.ops, &self.folder, self.stamp.nonce());
        let effect = if request.writes() { Effect::Writes } else { Effect::Reads };
        let body = &request.body()?;
        let answered = self.pool.call(effect, deadline.left(), |server| async move {
            let answer = server.transaction(body.clone(), Consistency::Linearizable).await?;
            Answered::of(request, &answer)
        });
        txn::outcome(&txn.ops, request, answered.await?)
    }

    /// Sends a transaction that expects values, which Consul does not compare: reads the guards' keys, and expects the
    /// versions that have these values. A version that has changed in between may still have the value.
    async fn send_comparing(&self, txn: &Txn, deadline: Deadline) -> Result<Outcome> {
        let keys: Vec<_> = txn.guards.iter().map(|guard| guard.key.clone()).collect();
        for _ in 0..MAX_VALUE_ATTEMPTS {
            let entries = scan::read(&self.pool, &self.folder, &keys, Consistency::Linearizable, deadline).await?;
            let entries = scan::by_key(entries)?;
            let mut guards = Vec::with_capacity(txn.guards.len());
            for (place, guard) in txn.guards.iter().enumerate() {
                let current = entries.get(&guard.key);
                if !guard.expected.holds(current.map(|entry| (entry.value.as_ref(), entry.version))) {
                    let current = Observed::from(current.cloned());
                    return Ok(Outcome::Conflict(Conflict { guard: place, current }));
                }
                let expected = match (&guard.expected, current) {
                    (Expected::Value(_), Some(entry)) => Expected::Version(entry.version),
                    (expected, _) => expected.clone(),
                };
                guards.push(Guard { key: guard.key.clone(), expected });
            }
            match self.send(&guards, txn, deadline).await? {
                // The version that had the value is gone, but another one may have the same value: only a new read can tell.
                Outcome::Conflict(conflict) if expects_value(txn.guards.get(conflict.guard)) => {}
                outcome => return Ok(outcome),
            }
        }
        Err(Error::unavailable("a key whose value is expected changes faster than it can be compared"))
    }
}

fn expects_value(guard: Option<&Guard>) -> bool {
    guard.is_some_and(|guard| matches!(guard.expected, Expected::Value(_)))
}

#[async_trait]
impl Store for ConsulStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        let stored = &self.folder.key(key);
        let reading = self.pool.call(Effect::Reads, options.timeout, |server| async move {
            server.read(stored, options.consistency).await
        });
        Ok(match reading.await? {
            Some(pair) => self.folder.entry(pair)?,
            None => None,
        })
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.pool.check_open()?;
        self.capabilities.check_keys(keys)?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut different = keys.to_vec();
        different.sort_unstable();
        different.dedup();
        let deadline = Deadline::after(options.timeout);
        let entries = scan::read(&self.pool, &self.folder, &different, options.consistency, deadline).await?;
        let entries = scan::by_key(entries)?;
        Ok(keys.iter().map(|key| entries.get(key).cloned()).collect())
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.pool.check_open()?;
        options.validate()?;
        scan::page(&self.pool, &self.folder, prefix, &options).await
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        self.pool.check_open()?;
        txn.validate(&self.capabilities)?;
        options.validate(&self.capabilities)?;
        let deadline = Deadline::after(options.timeout);
        if txn.guards.iter().any(|guard| expects_value(Some(guard))) {
            return self.send_comparing(&txn, deadline).await;
        }
        self.send(&txn.guards, &txn, deadline).await
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        self.pool.check_open()?;
        options.validate(&self.capabilities)?;
        watch::stream(Arc::clone(&self.pool), self.folder.clone(), prefix, options.timeout).await
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        let stored = &self.folder.no_key();
        let reading = self.pool.call(Effect::Reads, options.timeout, |server| async move {
            server.read(stored, options.consistency).await
        });
        reading.await.map(|_| ())
    }

    async fn close(&self) -> Result<()> {
        self.pool.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Nonce;

    #[test]
    fn the_largest_requests_fit_what_consul_takes() {
        /// `limits.txn_max_req_len` of Consul, if nobody sets it.
        const MAX_BODY_BYTES: usize = 512 * 1024;
        const OPS: usize = ConsulStore::MAX_TXN_OPS;
        let longest =
            |n: usize| Key::new([format!("{n:02}").as_bytes(), &[0xff; Key::MAX_BYTES - 2]].concat()).unwrap();
        let deletes = (0..OPS).fold(Txn::new(), |txn, n| txn.delete(longest(n)));
        let mut left = ConsulStore::MAX_TXN_BYTES - OPS * Key::MAX_BYTES;
        let mut puts = Txn::new();
        for n in 0..OPS / 2 {
            let size = left.min(ConsulStore::MAX_VALUE_BYTES);
            left -= size;
            puts = puts.guard(longest(n), Expected::Exists).put(longest(n), vec![0xff; size]);
        }
        let mut limits = Capabilities::new("consul");
        limits.max_txn_bytes = ConsulStore::MAX_TXN_BYTES;
        for txn in [deletes, puts] {
            txn.validate(&limits).unwrap();
            let nonce = Nonce { handle: u64::MAX, write: u64::MAX };
            let request = Request::of(&txn.guards, &txn.ops, &Folder::new(&"f".repeat(64)), nonce);
            let length = request.body().unwrap().len();
            assert!(length <= MAX_BODY_BYTES, "{length} bytes");
        }
    }
}
