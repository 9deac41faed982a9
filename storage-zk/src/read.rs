//! Where keys are and what they hold, read at one point in time.

use std::collections::BTreeSet;

use bytes::Bytes;
use storage_core::{Consistency, Deadline, Entry, Error, Expected, Key, Result, Version};
use zookeeper_client::{Client, Error as ZkError, MultiReadResult, Stat};

use crate::{
    barrier::Barrier,
    cell::Cell,
    error::{self, Refusal},
    layout::{Bucket, Layout},
    path::bucket_of,
    store::Inner,
    tombstones::Reason,
};

/// How often a read follows buckets whose state changes while it looks. Generations change at most once in hundreds of deletes.
const MAX_ROUNDS: usize = 16;

/// A node of a key.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The generation that it is in.
    pub(crate) generation: u32,
    /// Its dataVersion.
    pub(crate) count: i32,
    /// The value and its version, unless it is a tombstone.
    pub(crate) live: Option<(Bytes, Version)>,
}

impl Slot {
    pub(crate) fn parse(layout: &Layout, key: &Key, generation: u32, data: Vec<u8>, stat: &Stat) -> Result<Self> {
        let live = match Cell::parse(&layout.node_path(key, generation), data)? {
            Cell::Tombstone => None,
            Cell::Live { inherited, value } => {
                let own = || layout.stamp(key, generation, stat.version).to_version();
                Some((value, inherited.unwrap_or_else(own)))
            }
        };
        Ok(Self { generation, count: stat.version, live })
    }

    fn entry(&self, key: &Key) -> Option<Entry> {
        let (value, version) = self.live.clone()?;
        Some(Entry { key: key.clone(), value, version })
    }
}

/// Keys at one point in time, with the state of their buckets.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// For each key that was asked for, in order.
    slots: Vec<(Key, Option<Slot>)>,
    buckets: Vec<(usize, Bucket)>,
}

impl Snapshot {
    /// The node of a key, if it has one.
    pub(crate) fn slot(&self, key: &Key) -> Option<&Slot> {
        self.slots.iter().find(|(other, _)| other == key).and_then(|(_, slot)| slot.as_ref())
    }

    pub(crate) fn bucket(&self, bucket: usize) -> Option<Bucket> {
        self.buckets.iter().find(|(other, _)| *other == bucket).map(|(_, state)| *state)
    }

    pub(crate) fn entry(&self, key: &Key) -> Option<Entry> {
        self.slot(key).and_then(|slot| slot.entry(key))
    }

    /// All entries, in the order of the keys that were asked for.
    pub(crate) fn into_entries(self) -> Vec<Option<Entry>> {
        self.slots.iter().map(|(key, slot)| slot.as_ref()?.entry(key)).collect()
    }

    pub(crate) fn holds(&self, key: &Key, expected: &Expected) -> bool {
        let live = self.slot(key).and_then(|slot| slot.live.as_ref());
        expected.holds(live.map(|(value, version)| (&value[..], *version)))
    }
}

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

impl Inner {
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
            Ok((data, stat)) => Ok(Slot::parse(&self.layout, key, generation, data, &stat)?.entry(key)),
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
            let mut slots: Vec<(Key, Option<Slot>)> = keys.iter().map(|key| (key.clone(), None)).collect();
            for (key, generation) in places {
                if let Some((data, stat)) = data(results.next())? {
                    let slot = Slot::parse(&self.layout, key, generation, data, &stat)?;
                    slots
                        .iter_mut()
                        .filter(|(other, _)| other == key)
                        .for_each(|(_, place)| *place = Some(slot.clone()));
                }
            }
            return Ok(Snapshot { slots, buckets: seen });
        }
        Err(Error::unavailable("the generations of the buckets kept changing"))
    }
}

/// Where the nodes of the keys can be: in the open generation, and in the one before while that is drained.
fn places<'a>(keys: &'a [Key], buckets: &[(usize, Bucket)]) -> Vec<(&'a Key, u32)> {
    let distinct: BTreeSet<&Key> = keys.iter().collect();
    let mut places = Vec::with_capacity(distinct.len());
    for key in distinct {
        let number = bucket_of(key.as_bytes());
        if let Some((_, bucket)) = buckets.iter().find(|(other, _)| *other == number) {
            places.push((key, bucket.open));
            if bucket.draining {
                places.push((key, bucket.open.saturating_sub(1)));
            }
        }
    }
    places
}

/// The answer to one `getData` of a multi-read: `None` if there is no such node.
pub(crate) fn data(result: Option<MultiReadResult>) -> Result<Option<(Vec<u8>, Stat)>> {
    match result {
        Some(MultiReadResult::Data { data, stat }) => Ok(Some((data, stat))),
        Some(MultiReadResult::Error { err: ZkError::NoNode }) => Ok(None),
        Some(MultiReadResult::Error { err }) => Err(error::read_error(err)),
        _ => Err(Error::unavailable("the server answered another multi-read than was asked")),
    }
}

/// A multi-read as a whole is refused with none of these.
pub(crate) fn unexpected(refusal: Refusal) -> Error {
    Error::unavailable(format!("the server refused a multi-read: {refusal:?}"))
}

pub(crate) fn gone(path: &str) -> Error {
    Error::unavailable(format!("the node {path} was removed while the store was open"))
}
