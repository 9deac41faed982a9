//! The contract on a node of an embedded cluster: limits, reads as fresh as asked for, watches from the history.
//!
//! A watch has no queue of its own, so a slow reader costs no memory and is told when the history has gone. The handle
//! is not the node: closing it stops the node only if it owns it.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use storage_core::{
    Capabilities, Consistency, Entry, Error, Key, Outcome, Page, ReadOptions, Result, Revision, ScanOptions, Store,
    Txn, WatchEvent, WatchOptions, WatchStream, WatchSupport, WriteOptions,
};
use tokio::sync::watch;

use crate::{
    command::{Applied, Rejection, contract_growth},
    node::Node,
    state_machine::SharedState,
    tables::MAX_OPERATIONS,
};

/// The contract on a node of an embedded cluster. Any node will do: writes and linearizable reads go to the leader, wherever it is.
///
/// A write whose leader dies is sent to the next one within its deadline and is applied once, so a caller sees
/// [`Error::UnknownOutcome`] only if no leader answered in time.
#[derive(Debug)]
pub struct EmbeddedStore {
    node: Node,
    closed: watch::Sender<bool>,
    owns_node: bool,
}

impl EmbeddedStore {
    /// The largest value, in bytes (1 MiB): a few of them make one append of the log.
    pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
    /// The most guards and operations in one transaction: as many as etcd's default.
    pub const MAX_TXN_OPS: usize = 128;
    /// The most bytes of values in one page of a scan (4 MiB, and one value more); a page ends there and says that there is more.
    pub const MAX_PAGE_BYTES: usize = 4 * Self::MAX_VALUE_BYTES;
    /// The most bytes of keys and values in one transaction (4 MiB): one entry of the log, held whole in memory by every node.
    pub const MAX_TXN_BYTES: usize = 4 * Self::MAX_VALUE_BYTES;

    const CAPABILITIES: Capabilities = {
        let mut capabilities = Capabilities::new("embedded");
        capabilities.max_value_bytes = Self::MAX_VALUE_BYTES;
        capabilities.max_txn_ops = Self::MAX_TXN_OPS;
        capabilities.max_txn_bytes = Self::MAX_TXN_BYTES;
        capabilities.revisions = true;
        capabilities.native_value_compare = true;
        capabilities.conflict_reports_current = true;
        capabilities.atomic_get_many = true;
        capabilities.stale_reads = true;
        capabilities.deduplicates = Some(MAX_OPERATIONS);
        capabilities.watch = WatchSupport::Ordered;
        capabilities
    };

    pub(crate) fn new(node: Node, owns_node: bool) -> Self {
        Self { node, closed: watch::Sender::new(false), owns_node }
    }

    /// The node behind this handle.
    pub fn node(&self) -> &Node {
        &self.node
    }

    fn open(&self) -> Result<&Node> {
        if *self.closed.borrow() { Err(Error::Closed) } else { Ok(&self.node) }
    }

    /// The state of this replica, as fresh as the options want it.
    async fn fresh(&self, options: ReadOptions) -> Result<&SharedState> {
        let node = self.open()?;
        if options.consistency == Consistency::Linearizable {
            node.read_barrier(options.timeout).await?;
        }
        node.compared(options.timeout).await?;
        Ok(node.state())
    }
}

impl Node {
    /// A handle for the users of this node. Closing it leaves the node running.
    pub fn store(&self) -> EmbeddedStore {
        EmbeddedStore::new(self.clone(), false)
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn capabilities(&self) -> &Capabilities {
        &Self::CAPABILITIES
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        Ok(self.fresh(options).await?.get(key))
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        if keys.len() > Self::MAX_TXN_OPS {
            return Err(Error::TooLarge { what: "keys in one read", actual: keys.len(), limit: Self::MAX_TXN_OPS });
        }
        Ok(self.fresh(options).await?.get_many(keys))
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        options.validate()?;
        let state = self.fresh(options.read).await?;
        Ok(state.scan(prefix, options.after.as_ref(), options.limit, Self::MAX_PAGE_BYTES))
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let node = self.open()?;
        txn.validate(&Self::CAPABILITIES)?;
        let throttled =
            |rejection: Rejection| Err(Error::Throttled { retry_after: None, source: rejection.to_string().into() });
        // One that was named may have been carried out before there was no space: only its place in the log tells.
        if options.operation_id.is_none() && contract_growth(&txn) > 0 && node.has_no_space(options.timeout).await? {
            return throttled(Rejection::NoSpace);
        }
        match node.commit(&txn, options.operation_id, options.timeout).await? {
            Applied::Outcome(outcome) => Ok(outcome),
            Applied::Rejected(rejection @ (Rejection::TooManyRequests | Rejection::NoSpace)) => throttled(rejection),
            Applied::Rejected(rejection) => Err(Error::invalid_argument(rejection.to_string())),
            applied => Err(Error::corrupt(format!("a transaction was answered with {applied}"))),
        }
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let node = self.open()?;
        node.read_barrier(options.timeout).await?;
        node.compared(options.timeout).await?;
        let state = node.state().clone();
        // Behind the barrier: a replica that lags would tell as news what was acknowledged before the call.
        let after = options.after.unwrap_or_else(|| state.revision());
        // A resumption that has come too late is refused here rather than by the stream.
        state.events_after(after, prefix, 1)?;
        let watch = Watch {
            applied: state.subscribe(),
            closed: self.closed.subscribe(),
            prefix: Bytes::copy_from_slice(prefix),
            after,
            state,
        };
        let batches = stream::try_unfold(watch, |mut watch| async move {
            let events = watch.next().await?;
            Ok::<_, Error>(events.map(|events| (stream::iter(events.into_iter().map(Ok)), watch)))
        });
        Ok(batches.try_flatten().boxed())
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.open()?.read_barrier(options.timeout).await
    }

    async fn close(&self) -> Result<()> {
        self.closed.send_replace(true);
        if self.owns_node {
            self.node.stop().await;
        }
        Ok(())
    }
}

/// How many events a watch takes from the history at once.
const EVENTS_AT_ONCE: usize = 1000;

/// A place in the history of this replica's state. A watch has no queue of its own: a slow reader costs nothing, and is
/// told when the history has gone.
struct Watch {
    state: SharedState,
    applied: watch::Receiver<u64>,
    closed: watch::Receiver<bool>,
    prefix: Bytes,
    after: Revision,
}

impl Watch {
    /// The next events, or `None` when the handle is closed.
    async fn next(&mut self) -> Result<Option<Vec<WatchEvent>>> {
        loop {
            if *self.closed.borrow() {
                return Ok(None);
            }
            // Before the look: what is applied between the look and the wait still ends the wait.
            self.applied.mark_unchanged();
            let (events, upto) = self.state.events_after(self.after, &self.prefix, EVENTS_AT_ONCE)?;
            self.after = upto;
            if !events.is_empty() {
                return Ok(Some(events));
            }
            tokio::select! {
                changed = self.applied.changed() => changed.map_err(|_| Error::Closed)?,
                // A handle that is dropped rather than closed leaves its watches alone.
                Ok(_) = self.closed.wait_for(|closed| *closed) => return Ok(None),
            }
        }
    }
}
