//! Where the rows of the table stand: apart from what clients write, as far as the engine allows it.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use storage_core::{Error, Expected, Key, ReadOptions, Result, ScanOptions, Store, Txn, WriteOptions};
use storage_embedded::RowChange;

/// Small rows by their names, which all nodes of a cluster have. Embedded nodes keep them apart from the keys; an etcd has nothing but keys:
/// [`StoreRows`].
#[async_trait]
pub trait Rows: fmt::Debug + Send + Sync {
    /// All rows whose names begin so, with everything that was acknowledged before the call.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no leader can be reached in time; [`Error::PermissionDenied`] if the token there is another one.
    async fn all(&self, prefix: &str, timeout: Duration) -> Result<BTreeMap<Bytes, Bytes>>;

    /// Makes a change, all of it, if the rows are what it expects. `false`: they are not, or another has made one meanwhile.
    ///
    /// # Errors
    /// [`Error::UnknownOutcome`] if nobody knows whether it was made; otherwise it was not.
    async fn change(&self, change: RowChange, timeout: Duration) -> Result<bool>;
}

/// Keys that begin so are the rows of a cluster of etcds. Clients can write them: no row is believed without its proof.
pub const PREFIX: &str = "snet/membership/";

/// Rows as keys of a store, under [`PREFIX`].
#[derive(Clone, Debug)]
pub struct StoreRows(pub Arc<dyn Store>);

#[async_trait]
impl Rows for StoreRows {
    async fn all(&self, prefix: &str, timeout: Duration) -> Result<BTreeMap<Bytes, Bytes>> {
        let mut rows = BTreeMap::new();
        let read = ReadOptions::default().timeout(timeout);
        let mut options = ScanOptions { read, ..ScanOptions::default() };
        loop {
            let page = self.0.scan(format!("{PREFIX}{prefix}").as_bytes(), options.clone()).await?;
            for entry in page.entries {
                let name = entry.key.as_bytes().strip_prefix(PREFIX.as_bytes());
                let name = name.ok_or_else(|| Error::corrupt(format!("a scan for {PREFIX} gave {}", entry.key)))?;
                rows.insert(Bytes::copy_from_slice(name), entry.value);
            }
            match page.next {
                Some(next) => options = options.after(next),
                None => return Ok(rows),
            }
        }
    }

    async fn change(&self, RowChange { expected, next }: RowChange, timeout: Duration) -> Result<bool> {
        let mut txn = Txn::new();
        for (name, content) in expected {
            txn = txn.guard(key(&name)?, content.map_or(Expected::Absent, Expected::Value));
        }
        for (name, content) in next {
            let key = key(&name)?;
            txn = match content {
                Some(content) => txn.put(key, content),
                None => txn.delete(key),
            };
        }
        Ok(self.0.commit(txn, WriteOptions::default().timeout(timeout)).await?.is_committed())
    }
}

fn key(name: &[u8]) -> Result<Key> {
    Key::new([PREFIX.as_bytes(), name].concat())
}
