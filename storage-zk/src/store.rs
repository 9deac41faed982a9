//! The contract on ZooKeeper: limits, and transactions as one multi request.
//!
//! A plan that needs no read is tried first. If it is refused for another reason than a guard, the state is read and an
//! exact plan made. Conflicts are told only of what was true at one moment. Limits are below `jute.maxbuffer`, since a
//! larger request drops the connection.

use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{
    Capabilities, Committed, Conflict, Consistency, DEFAULT_TIMEOUT, Deadline, Entry, Error, Key, Observed, Op,
    Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn, WatchOptions, WatchStream, WriteOptions,
};
use url::Url;
use zookeeper_client::MultiWriteResult;

use crate::{
    ZkConfig,
    barrier::Barriers,
    error::{self, Refusal},
    garbage::{Garbage, Reason},
    handle::Handle,
    layout::{Bucket, Layout},
    listing::Listings,
    node::{data, unexpected},
    path::{BUCKETS, bucket_of},
    plan::{Plan, Step},
    session::Session,
    tombstones, watch,
};

/// The largest value, in bytes. A request may have 1 MiB (`jute.maxbuffer`); half of it leaves room for everything beside.
const MAX_VALUE_BYTES: usize = 512 * 1024;

/// The most guards and operations of a transaction. Each may take three operations of ZooKeeper, with a path in two of them.
const MAX_TXN_OPS: usize = 64;

/// The most bytes of keys and values in a transaction. 64 keys of 512 bytes are 32 KiB here and, encoded and in two
/// operations each, 192 KiB in the request; with 64 roots of 256 bytes, twice, and all else it stays under 1 MiB.
const MAX_TXN_BYTES: usize = 640 * 1024;

/// How often a transaction that has to read first is tried while other writers come in between.
const MAX_ATTEMPTS: usize = 64;

/// From this dataVersion on the bucket is collected, which begins anew at 0. The number has 32 bits; after 2^31 it
/// is negative, still unique, and at -1 it could not be checked any more.
const OLD_COUNT: i32 = 1 << 30;

/// Opens the store that a URL names; [`ZkConfig`] has the form of URLs.
///
/// # Errors
/// [`Error::InvalidArgument`] for a URL that cannot be meant, and otherwise those of [`ZkStore::open`].
pub async fn open(url: &Url) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(ZkStore::open(&ZkConfig::try_from(url)?).await?))
}

/// A store on a ZooKeeper ensemble.
#[derive(Debug)]
pub struct ZkStore {
    handle: Arc<Handle>,
}

impl ZkStore {
    /// Connects, and creates the store's nodes if they are absent.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no server could be reached within [`DEFAULT_TIMEOUT`]; [`Error::Unauthenticated`] and
    /// [`Error::PermissionDenied`]; [`Error::InvalidArgument`] if something else lives below the root.
    pub async fn open(config: &ZkConfig) -> Result<Self> {
        let deadline = Deadline::after(DEFAULT_TIMEOUT);
        let session = Arc::new(Session::start(config)?);
        let client = session.client(deadline).await?;
        let layout = Arc::new(Layout::open(&client, config, deadline).await?);
        drop(client);
        let barriers = Barriers::new(Arc::clone(&session), config.reads(), layout.path().into());
        let (garbage, jobs) = Garbage::new();
        let (listings, capabilities) = (Listings::default(), capabilities());
        let handle = Arc::new(Handle { session, barriers, layout, listings, garbage, capabilities });
        tokio::spawn(tombstones::collector(Arc::downgrade(&handle), jobs));
        handle.learn_buckets(deadline).await?;
        Ok(Self { handle })
    }

    /// Removes the tombstones that deleted keys left behind, now. Handles do so by themselves after some hundreds of
    /// deletes; a program that lives shorter may call this.
    ///
    /// # Errors
    /// Those of a write. What was removed stays removed.
    pub async fn collect_tombstones(&self) -> Result<()> {
        for bucket in 0..BUCKETS {
            self.handle.collect_bucket(bucket).await?;
        }
        Ok(())
    }
}

fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::new("zookeeper");
    capabilities.max_value_bytes = MAX_VALUE_BYTES;
    capabilities.max_txn_ops = MAX_TXN_OPS;
    capabilities.max_txn_bytes = MAX_TXN_BYTES;
    capabilities.atomic_get_many = true;
    capabilities.stale_reads = true;
    capabilities
}

#[async_trait]
impl Store for ZkStore {
    fn capabilities(&self) -> &Capabilities {
        &self.handle.capabilities
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        self.handle.entry(key, options.consistency, Deadline::after(options.timeout)).await
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.handle.capabilities.check_keys(keys)?;
        let deadline = Deadline::after(options.timeout);
        Ok(self.handle.snapshot(keys, options.consistency, deadline).await?.into_entries())
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        options.validate()?;
        self.handle.page(prefix, &options).await
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        txn.validate(&self.handle.capabilities)?;
        options.validate(&self.handle.capabilities)?;
        self.handle.commit(&txn, Deadline::after(options.timeout)).await
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        options.validate(&self.handle.capabilities)?;
        watch::start(&self.handle, prefix, Deadline::after(options.timeout)).await
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        let deadline = Deadline::after(options.timeout);
        let (_, barrier) = self.handle.barriers.join(deadline).await?;
        deadline.reading(barrier.passed()).await?
    }

    async fn close(&self) -> Result<()> {
        self.handle.session.close().await;
        Ok(())
    }
}

impl Handle {
    /// The optimist's plan first, which is one round trip; if it is refused for a reason that is not the answer, the state is read and
    /// the exact plan tried, until no other writer comes in between.
    async fn commit(&self, txn: &Txn, deadline: Deadline) -> Result<Outcome> {
        // Most transactions are swaps of one key whose version says where its node is: one round trip, and no read before it.
        if let Some(plan) = Plan::blind(&self.layout, txn) {
            match self.apply(&plan, deadline).await? {
                Ok(counts) => return Ok(self.committed(txn, &plan, &counts)),
                Err((step, Refusal::BadVersion)) => {
                    // Where the version says that its node is there is the node, with another version; and the guards
                    // before this one held at that moment.
                    if let Some(guard) = plan.guards.get(step).copied().flatten() {
                        return Ok(Outcome::Conflict(Conflict { guard, current: Observed::Unknown }));
                    }
                }
                Err(_) => {}
            }
        }
        let keys: Vec<Key> =
            txn.guards.iter().map(|guard| &guard.key).chain(txn.ops.iter().map(Op::key)).cloned().collect();
        for _ in 0..MAX_ATTEMPTS {
            let snapshot = self.snapshot(&keys, Consistency::Linearizable, deadline).await?;
            if let Some(guard) = txn.guards.iter().position(|guard| !snapshot.holds(&guard.key, &guard.expected)) {
                let current = txn.guards.get(guard).and_then(|guard| snapshot.entry(&guard.key)).into();
                return Ok(Outcome::Conflict(Conflict { guard, current }));
            }
            // Nothing to remove, and nothing else to do: true at the moment of the snapshot.
            if let ([], [Op::Delete { key }]) = (&txn.guards[..], &txn.ops[..])
                && snapshot.entry(key).is_none()
            {
                return Ok(self.committed(txn, &Plan { puts: vec![None], ..Plan::default() }, &[]));
            }
            let Some(plan) = Plan::exact(&self.layout, txn, &snapshot) else {
                keys.iter().for_each(|key| self.garbage.report(bucket_of(key.as_bytes()), Reason::OldCount));
                return Err(Error::unavailable("a node was written 4 billion times and has to be moved first"));
            };
            if let Ok(counts) = self.apply(&plan, deadline).await? {
                return Ok(self.committed(txn, &plan, &counts));
            }
        }
        Err(Error::unavailable(format!("other writers of the same keys were faster {MAX_ATTEMPTS} times")))
    }

    /// Sends a plan: the dataVersion that each step gave its node, or the first step that was refused.
    async fn apply(&self, plan: &Plan, deadline: Deadline) -> Result<Result<Vec<i32>, (usize, Refusal)>> {
        let client = self.session.client(deadline).await?;
        if let [Step::Set { path, data, count }] = &plan.steps[..] {
            let answer = deadline.writing(client.set_data(path, data, *count)).await?;
            return Ok(error::written(answer)?.map(|stat| vec![stat.version]).map_err(|refusal| (0, refusal)));
        }
        if plan.steps.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let options = self.layout.create_options();
        let mut multi = client.new_multi_writer();
        for step in &plan.steps {
            match step {
                Step::Check { path, count } => multi.add_check_version(path, *count),
                Step::Set { path, data, count } => multi.add_set_data(path, data, *count),
                Step::Create { path, data } => multi.add_create(path, data, &options),
                Step::Remove { path } => multi.add_delete(path, None),
            }
            .map_err(|error| Error::invalid_argument(error.to_string()))?;
        }
        let answer = deadline.writing(multi.commit()).await?;
        let count = |result| match result {
            MultiWriteResult::SetData { stat } => stat.version,
            _ => 0,
        };
        Ok(error::committed(answer)?.map(|results| results.into_iter().map(count).collect()))
    }

    fn committed(&self, txn: &Txn, plan: &Plan, counts: &[i32]) -> Outcome {
        let version = |(op, put): (&Op, &Option<(usize, u32)>)| {
            let (step, generation) = (*put)?;
            let count = *counts.get(step)?;
            if !(0..OLD_COUNT).contains(&count) {
                self.garbage.report(bucket_of(op.key().as_bytes()), Reason::OldCount);
            }
            Some(self.layout.stamp(op.key(), generation, count).to_version())
        };
        let versions = txn.ops.iter().zip(&plan.puts).map(version).collect();
        plan.tombstones.iter().for_each(|bucket| self.garbage.deleted(*bucket));
        Outcome::Committed(Committed { versions, revision: None })
    }

    /// Reads the state of all buckets, so that the first call on each needs no second round trip.
    async fn learn_buckets(&self, deadline: Deadline) -> Result<()> {
        let (client, freshness) = self.reader(Consistency::Stale, deadline).await?;
        let mut multi = client.new_multi_reader();
        for bucket in 0..BUCKETS {
            multi.add_get_data(&self.layout.bucket_path(bucket)).map_err(error::read_error)?;
        }
        let read = multi.commit();
        let results = freshness.finish(deadline, read).await?.map_err(unexpected)?;
        for (bucket, result) in results.into_iter().enumerate() {
            let path = self.layout.bucket_path(bucket);
            // A server that is behind may not have them yet; then the calls find out.
            if let Some((data, stat)) = data(Some(result))? {
                self.layout.learn(bucket, Bucket::parse(&path, &data, stat.version)?);
            }
        }
        Ok(())
    }
}
