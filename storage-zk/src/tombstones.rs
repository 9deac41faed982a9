//! The collection of tombstones, bucket by bucket: docs/decisions/0005-zookeeper-versions.md.
//!
//! A bucket's generation is closed and the next one opened, in one write. From then on nothing is created in the closed one. Its nodes are
//! moved one by one (a value keeps its version, which travels with it) or removed (a tombstone), and when there are none left, the
//! bucket is marked as drained. Every step is conditional on what it read, so any number of handles may work on the same bucket, and
//! one may stop at any point: the next that meets the bucket goes on.

use std::sync::Weak;

use storage_core::{DEFAULT_TIMEOUT, Deadline, Error, Key, Result};
use tokio::sync::mpsc;
use zookeeper_client::{Client, MultiReadResult};

use crate::{
    cell::{Cell, MAX_OVERHEAD},
    error,
    garbage::Reason,
    handle::Handle,
    layout::Bucket,
    node::{Node, data, gone, unexpected},
    path::parse_node_name,
};

/// The nodes that are moved in one transaction, and the most bytes of their data.
const BATCH_NODES: usize = 64;
const BATCH_BYTES: usize = 512 * 1024;

/// A collection gives up after so many rounds, each of which moves what nobody writes at the same moment.
const MAX_ROUNDS: usize = 10_000;

/// Looks after the buckets that were reported, until the handle is gone.
pub(crate) async fn collector(store: Weak<Handle>, mut jobs: mpsc::Receiver<usize>) {
    while let Some(bucket) = jobs.recv().await {
        let Some(handle) = store.upgrade() else { return };
        let closed = handle.session.closed();
        tokio::select! {
            () = closed => return,
            done = handle.look_after(bucket) => if let Err(error) = done {
                tracing::debug!(bucket, %error, "the collection of tombstones stopped, to go on another time");
            }
        }
    }
}

impl Handle {
    async fn look_after(&self, bucket: usize) -> Result<()> {
        let reasons = self.garbage.take_reasons(bucket);
        let client = self.session.client(Deadline::after(DEFAULT_TIMEOUT)).await?;
        let (state, nodes, _) = self.read_bucket(&client, bucket).await?;
        let old = reasons & Reason::OldCount as u8 != 0;
        if state.draining || old || self.garbage.worth_it(bucket, nodes) {
            self.collect_bucket(bucket).await
        } else {
            Ok(())
        }
    }

    /// Closes the open generation of a bucket, unless one is being drained already, and drains the closed one.
    pub(crate) async fn collect_bucket(&self, bucket: usize) -> Result<()> {
        let path = self.layout.bucket_path(bucket);
        for _ in 0..MAX_ROUNDS {
            let deadline = Deadline::after(DEFAULT_TIMEOUT);
            let client = self.session.client(deadline).await?;
            let (state, _, children) = self.read_bucket(&client, bucket).await?;
            // One step of the bucket a round, each conditional on the dataVersion that was read: of two collectors at the same bucket one loses and reads
            // again.
            let next = if !state.draining {
                let open = state
                    .open
                    .checked_add(1)
                    .ok_or_else(|| Error::corrupt(format!("{path}: no generation is left")))?;
                Bucket { open, draining: true, ..state }
            } else {
                // No node is ever created in a closed generation, so what this listing has is all there will be.
                let closed: Vec<_> =
                    children.iter().filter_map(|name| parse_node_name(name)).filter(|(_, g)| *g < state.open).collect();
                if !closed.is_empty() {
                    for batch in closed.chunks(BATCH_NODES) {
                        self.drain(&client, batch, state.open).await?;
                    }
                    continue;
                }
                Bucket { draining: false, ..state }
            };
            let answer = deadline.writing(client.set_data(&path, next.data().as_bytes(), Some(state.count))).await?;
            if let Ok(stat) = error::written(answer)? {
                self.layout.learn(bucket, Bucket { count: stat.version, ..next });
                if !next.draining {
                    self.garbage.collected(bucket);
                    return Ok(());
                }
            }
        }
        Err(Error::unavailable("the bucket is written faster than it can be drained"))
    }

    /// The state of a bucket, how many nodes it has, and their names, at one point in time.
    async fn read_bucket(&self, client: &Client, bucket: usize) -> Result<(Bucket, usize, Vec<String>)> {
        let path = self.layout.bucket_path(bucket);
        let mut multi = client.new_multi_reader();
        multi.add_get_data(&path).map_err(error::read_error)?;
        multi.add_get_children(&path).map_err(error::read_error)?;
        let answer = Deadline::after(DEFAULT_TIMEOUT).reading(multi.commit()).await?;
        let mut results = error::read(answer)?.map_err(unexpected)?.into_iter();
        let (data, stat) = data(results.next())?.ok_or_else(|| gone(&path))?;
        let Some(MultiReadResult::Children { children }) = results.next() else { return Err(gone(&path)) };
        let state = Bucket::parse(&path, &data, stat.version)?;
        self.layout.learn(bucket, state);
        Ok((state, children.len(), children))
    }

    /// Moves nodes of a closed generation to the open one, as far as nobody writes them at the same moment.
    async fn drain(&self, client: &Client, nodes: &[(Key, u32)], open: u32) -> Result<()> {
        let mut multi = client.new_multi_reader();
        for (key, generation) in nodes {
            multi.add_get_data(&self.layout.node_path(key, *generation)).map_err(error::read_error)?;
        }
        let answer = Deadline::after(DEFAULT_TIMEOUT).reading(multi.commit()).await?;
        let results = error::read(answer)?.map_err(unexpected)?;
        let mut moves = Vec::with_capacity(nodes.len());
        for ((key, generation), result) in nodes.iter().zip(results) {
            if let Some((data, stat)) = data(Some(result))? {
                moves.push((key, Node::parse(&self.layout, key, *generation, data, &stat)?));
            }
        }
        let bytes = |(key, node): &(&Key, Node)| {
            let value = node.live.as_ref().map_or(0, |(value, _)| value.len());
            value + MAX_OVERHEAD + 2 * self.layout.node_path(key, open).len()
        };
        // A request over `jute.maxbuffer` would end the session, and with it every call under way.
        if moves.iter().map(bytes).sum::<usize>() <= BATCH_BYTES && self.relocate(client, &moves, open).await? {
            return Ok(());
        }
        // Too much for one request, or one of them was written meanwhile: one by one.
        for one in moves.chunks(1) {
            self.relocate(client, one, open).await?;
        }
        Ok(())
    }

    /// One transaction; whether it was applied.
    ///
    /// The removal is conditional on the dataVersion, and a path is never used again: so what is removed is what was read. And the
    /// generation that it goes to is open still: it stays so for as long as the one before has a node.
    async fn relocate(&self, client: &Client, moves: &[(&Key, Node)], open: u32) -> Result<bool> {
        let options = self.layout.create_options();
        let mut multi = client.new_multi_writer();
        for (key, node) in moves {
            let from = self.layout.node_path(key, node.generation);
            if node.count == -1 {
                // As a condition, -1 means any. The collection was asked for three billion writes ago.
                return Err(Error::unavailable(format!("{from} was written 4 billion times and cannot be moved")));
            }
            let composed = match &node.live {
                None => multi.add_delete(&from, Some(node.count)),
                Some((value, version)) => multi.add_delete(&from, Some(node.count)).and_then(|()| {
                    multi.add_create(&self.layout.node_path(key, open), &Cell::encode_moved(*version, value), &options)
                }),
            };
            composed.map_err(error::write_error)?;
        }
        let answer = Deadline::after(DEFAULT_TIMEOUT).writing(multi.commit()).await?;
        Ok(error::committed(answer)?.is_ok())
    }
}
