//! The nodes of keys as one read saw them, and the answers that they are read from.

use bytes::Bytes;
use storage_core::{Entry, Error, Expected, Key, Result, Version};
use zookeeper_client::{Error as ZkError, MultiReadResult, Stat};

use crate::{
    cell::Cell,
    error::{self, Refusal},
    layout::{Bucket, Layout},
};

/// A node of a key.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The generation that it is in.
    pub(crate) generation: u32,
    /// Its dataVersion.
    pub(crate) count: i32,
    /// The value and its version, unless it is a tombstone.
    pub(crate) live: Option<(Bytes, Version)>,
}

impl Node {
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

    pub(crate) fn entry(&self, key: &Key) -> Option<Entry> {
        let (value, version) = self.live.clone()?;
        Some(Entry { key: key.clone(), value, version })
    }
}

/// Keys at one point in time, with the state of their buckets.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// For each key that was asked for, in order.
    pub(crate) nodes: Vec<(Key, Option<Node>)>,
    pub(crate) buckets: Vec<(usize, Bucket)>,
}

impl Snapshot {
    /// The node of a key, if it has one.
    pub(crate) fn node(&self, key: &Key) -> Option<&Node> {
        self.nodes.iter().find(|(other, _)| other == key).and_then(|(_, node)| node.as_ref())
    }

    pub(crate) fn bucket(&self, bucket: usize) -> Option<Bucket> {
        self.buckets.iter().find(|(other, _)| *other == bucket).map(|(_, state)| *state)
    }

    pub(crate) fn entry(&self, key: &Key) -> Option<Entry> {
        self.node(key).and_then(|node| node.entry(key))
    }

    /// All entries, in the order of the keys that were asked for.
    pub(crate) fn into_entries(self) -> Vec<Option<Entry>> {
        self.nodes.iter().map(|(key, node)| node.as_ref()?.entry(key)).collect()
    }

    pub(crate) fn holds(&self, key: &Key, expected: &Expected) -> bool {
        let live = self.node(key).and_then(|node| node.live.as_ref());
        expected.holds(live.map(|(value, version)| (&value[..], *version)))
    }
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
