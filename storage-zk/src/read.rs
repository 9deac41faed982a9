//! Where keys are and what they hold, read at one point in time.

use std::collections::BTreeSet;

use storage_core::{Consistency, Deadline, Entry, Error, Key, Result};
use zookeeper_client::{Client, Error as ZkError};

use crate::{
    barrier::Barrier,
    error::{self, Refusal},
    garbage::Reason,
    handle::Handle,
    layout::Bucket,
    node::{Node, Snapshot, data, gone, unexpected},
    path::bucket_of,
};

/// How often a read follows buckets whose state changes while it looks. Generations change at most once in hundreds of deletes.
const MAX_ROUNDS: usize = 16;

/// What has to be true before a read counts.
pub(crate) struct Freshness(Option<Barrier>);

impl Freshness {
    /// Waits for what was read, and then until it counts.
    pub(crate) async fn finish<T>(
        self,
        deadline: Deadline,
        read: impl Future<Output = Result<T, ZkError>>,
    ) -> Result<Result<T, Refusal>> {
        let answer = deadline.reading(read).await?;
        if let Some(barrier) = self.0 {
            deadline.reading(barrier.passed()).await??;
        }
        error::read(answer)
    }
}

impl Handle {
    /// A client to read from, as fresh as was asked for.
    pub(crate) async fn reader(&self, consistency: Consistency, deadline: Deadline) -> Result<(Client, Freshness)> {
        Ok(match consistency {
            Consistency::Linearizable => {
                let (client, barrier) = self.barriers.join(deadline).await?;
                (client, Freshness(Some(barrier)))
            }
            Consistency::Stale => (self.session.client(deadline).await?, Freshness(None)),
        })
    }

    /// One key: one `getData` if its node is where this handle expects it.
    pub(crate) async fn entry(&self, key: &Key, consistency: Consistency, deadline: Deadline) -> Result<Option<Entry>> {
        let generation = self.layout.bucket(bucket_of(key.as_bytes())).open;
        let (client, freshness) = self.reader(consistency, deadline).await?;
        let path = self.layout.node_path(key, generation);
        let read = client.get_data(&path);
        match freshness.finish(deadline, read).await? {
            // A key has one node at the most, so what is here is the truth, whatever the state of the bucket is.
            Ok((data, stat)) => Ok(Node::parse(&self.layout, key, generation, data, &stat)?.entry(key)),
            Err(_) => Ok(self.snapshot(std::slice::from_ref(key), consistency, deadline).await?.entry(key)),
        }
    }

    /// Keys, all at the same point in time, by one multi-read that also shows the state of their buckets.
    ///
    /// A server serves a multi-read between two commits, never beside one: its commit processor waits for the reads under way.
    pub(crate) async fn snapshot(
        &self,
        keys: &[Key],
        consistency: Consistency,
        deadline: Deadline,
    ) -> Result<Snapshot> {
        let numbers: BTreeSet<usize> = keys.iter().map(|key| bucket_of(key.as_bytes())).collect();
        let mut buckets: Vec<_> = numbers.into_iter().map(|bucket| (bucket, self.layout.bucket(bucket))).collect();
        for _ in 0..MAX_ROUNDS {
            let places = places(keys, &buckets);
            let (client, freshness) = self.reader(consistency, deadline).await?;
            let mut multi = client.new_multi_reader();
            let mut compose = || {
                buckets.iter().try_for_each(|(bucket, _)| multi.add_get_data(&self.layout.bucket_path(*bucket)))?;
                places
                    .iter()
                    .try_for_each(|(key, generation)| multi.add_get_data(&self.layout.node_path(key, *generation)))
            };
            compose().map_err(error::read_error)?;
            let read = multi.commit();
            let results = freshness.finish(deadline, read).await?.map_err(unexpected)?;
            let mut results = results.into_iter();
            let mut seen = Vec::with_capacity(buckets.len());
            for (bucket, _) in &buckets {
                let path = self.layout.bucket_path(*bucket);
                let (data, stat) = data(results.next())?.ok_or_else(|| gone(&path))?;
                let state = Bucket::parse(&path, &data, stat.version)?;
                self.layout.learn(*bucket, state);
                if state.draining {
                    self.garbage.report(*bucket, Reason::Draining);
                }
                seen.push((*bucket, state));
            }
            if seen != buckets
                && seen.iter().zip(&buckets).any(|(a, b)| (a.1.open, a.1.draining) != (b.1.open, b.1.draining))
            {
                buckets = seen;
                continue;
            }
            let mut nodes: Vec<(Key, Option<Node>)> = keys.iter().map(|key| (key.clone(), None)).collect();
            for (key, generation) in places {
                if let Some((data, stat)) = data(results.next())? {
                    let node = Node::parse(&self.layout, key, generation, data, &stat)?;
                    nodes
                        .iter_mut()
                        .filter(|(other, _)| other == key)
                        .for_each(|(_, place)| *place = Some(node.clone()));
                }
            }
            return Ok(Snapshot { nodes, buckets: seen });
        }
        Err(Error::unavailable("the generations of the buckets kept changing"))
    }
}

/// Where the nodes of the keys can be: in the open generation, and in the one before while that is drained.
#[expect(clippy::expect_used, reason = "the caller has read the bucket of each key")]
fn places<'a>(keys: &'a [Key], buckets: &[(usize, Bucket)]) -> Vec<(&'a Key, u32)> {
    let distinct: BTreeSet<&Key> = keys.iter().collect();
    let mut places = Vec::with_capacity(distinct.len());
    for key in distinct {
        let number = bucket_of(key.as_bytes());
        // A key that is not looked for would be told to be absent.
        let (_, bucket) =
            buckets.iter().find(|(other, _)| *other == number).expect("the buckets are those of the keys");
        places.push((key, bucket.open));
        if bucket.draining {
            places.push((key, bucket.open.saturating_sub(1)));
        }
    }
    places
}
