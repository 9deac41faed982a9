//! The nodes of a store: `ROOT/layout`, and the buckets `ROOT/00` to `ROOT/63` with the entries.
//!
//! A bucket's data says which generation of its entries is open. docs/decisions/0005-zookeeper-versions.md has the rules;
//! in short: new nodes are created in the open generation only, and only together with a check that it still is; a node is removed
//! only when its generation is closed. So a path is never used again.

use std::sync::Arc;

use parking_lot::Mutex;
use storage_core::{Deadline, Error, Key, Result, Version};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions};

use crate::{
    ZkConfig,
    cell::Stamp,
    error::{self, Refusal},
    path::{BUCKETS, FNV_OFFSET, bucket_of, fnv1a, node_name, parse_node_name},
};

/// What the layout node begins with; a change of the layout changes the number. The store's own random name follows.
const LAYOUT: &str = "storage-zk layout 1 ";

/// Where the entries of one store are, and what this handle knows of their buckets.
#[derive(Debug)]
pub(crate) struct Layout {
    root: String,
    acls: Acls<'static>,
    /// The hash of the store's random name, so that versions of a store that was removed and created anew differ.
    identity: u64,
    buckets: Mutex<[Bucket; BUCKETS]>,
}

/// The state of a bucket, which only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// The generation in which nodes are created.
    pub(crate) open: u32,
    /// Whether the generation before still has nodes, that are being moved.
    pub(crate) draining: bool,
    /// The dataVersion of the bucket's node in this state.
    pub(crate) count: i32,
}

impl Bucket {
    const FIRST: Self = Self { open: 1, draining: false, count: 0 };

    pub(crate) fn data(self) -> String {
        if self.draining { format!("{} draining", self.open) } else { self.open.to_string() }
    }

    pub(crate) fn parse(path: &str, data: &[u8], count: i32) -> Result<Self> {
        let text = str::from_utf8(data).unwrap_or_default();
        let (open, draining) = match text.strip_suffix(" draining") {
            Some(open) => (open, true),
            None => (text, false),
        };
        let corrupt = || Error::corrupt(format!("the node {path} is no bucket of a store; its data is {text:?}"));
        Ok(Self { open: open.parse().map_err(|_| corrupt())?, draining, count })
    }
}

impl Layout {
    /// Finds the store below the root, or creates it.
    pub(crate) async fn open(client: &Client, config: &ZkConfig, deadline: Deadline) -> Result<Self> {
        let acls = if config.credentials().is_some() { Acls::creator_all() } else { Acls::anyone_all() };
        let (root, path) = (config.root().to_owned(), layout_path(config.root()));
        loop {
            let found = deadline.reading(client.get_data(&path)).await?;
            if let Ok((data, _)) = error::read(found)? {
                let text = String::from_utf8_lossy(&data);
                let Some(name) = text.strip_prefix(LAYOUT) else {
                    return Err(Error::invalid_argument(format!(
                        "{path} is of another layout than this program's: {text:?}"
                    )));
                };
                let identity = fnv1a(FNV_OFFSET, name.as_bytes());
                return Ok(Self { root, acls, identity, buckets: Mutex::new([Bucket::FIRST; BUCKETS]) });
            }
            create(client, &root, acls, deadline).await?;
        }
    }

    /// The path of the node that never changes.
    pub(crate) fn path(&self) -> String {
        layout_path(&self.root)
    }

    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    pub(crate) fn bucket_path(&self, bucket: usize) -> String {
        bucket_path(&self.root, bucket)
    }

    /// The path of a key's node in a generation.
    pub(crate) fn node_path(&self, key: &Key, generation: u32) -> String {
        let key = key.as_bytes();
        format!("{}/{:02}/{}", self.root, bucket_of(key), node_name(key, generation))
    }

    /// The key and generation of the node at this path; `None` for other nodes.
    pub(crate) fn parse_path(&self, path: &str) -> Option<(Key, u32)> {
        let (_, name) = path.strip_prefix(&self.root)?.strip_prefix('/')?.split_once('/')?;
        parse_node_name(name)
    }

    /// What this handle knows of a bucket.
    #[expect(clippy::expect_used, reason = "`bucket_of` gives no other")]
    pub(crate) fn bucket(&self, bucket: usize) -> Bucket {
        *self.buckets.lock().get(bucket).expect("a bucket is below BUCKETS")
    }

    /// Remembers what was read of a bucket, if it is news: an answer may have been overtaken by a later one.
    #[expect(clippy::expect_used, reason = "`bucket_of` gives no other")]
    pub(crate) fn learn(&self, bucket: usize, news: Bucket) {
        let mut buckets = self.buckets.lock();
        let known = buckets.get_mut(bucket).expect("a bucket is below BUCKETS");
        // Draining comes before drained within a generation.
        if (news.open, !news.draining) > (known.open, !known.draining) {
            *known = news;
        }
    }

    pub(crate) fn stamp(&self, key: &Key, generation: u32, count: i32) -> Stamp {
        Stamp { generation, tag: self.tag(key), count }
    }

    /// The stamp of a version, if this store gave that version to this key.
    pub(crate) fn stamp_of(&self, key: &Key, version: Version) -> Option<Stamp> {
        Some(Stamp::from_version(version)).filter(|stamp| stamp.tag == self.tag(key))
    }

    fn tag(&self, key: &Key) -> u64 {
        fnv1a(self.identity, key.as_bytes())
    }

    pub(crate) fn create_options(&self) -> CreateOptions<'static> {
        CreateMode::Persistent.with_acls(self.acls)
    }
}

fn layout_path(root: &str) -> String {
    format!("{root}/layout")
}

fn bucket_path(root: &str, bucket: usize) -> String {
    format!("{root}/{bucket:02}")
}

/// Creates everything in one transaction; that another handle was faster is fine.
async fn create(client: &Client, root: &str, acls: Acls<'static>, deadline: Deadline) -> Result<()> {
    let options = CreateMode::Persistent.with_acls(acls);
    // The way to the root is not the store's own: it is left open to others as it is found.
    let made = deadline.writing(client.mkdir(root, &options)).await?;
    error::written(made)?.map_err(|refusal| Error::unavailable(format!("{root} cannot be created: {refusal:?}")))?;
    let name = format!("{LAYOUT}{:032x}", u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..)));
    let mut multi = client.new_multi_writer();
    let mut compose = || {
        multi.add_create(&layout_path(root), name.as_bytes(), &options)?;
        for bucket in 0..BUCKETS {
            multi.add_create(&bucket_path(root, bucket), Bucket::FIRST.data().as_bytes(), &options)?;
        }
        Ok(())
    };
    compose().map_err(error::write_error)?;
    match error::committed(deadline.writing(multi.commit()).await?)? {
        Ok(_) | Err((0, Refusal::NodeExists)) => Ok(()),
        Err((index, refusal)) => {
            Err(Error::invalid_argument(format!("below {root} is something else than a store: {refusal:?} at {index}")))
        }
    }
}

/// Shared by all rooms of a handle.
pub(crate) type SharedLayout = Arc<Layout>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_bucket_survives_its_data() {
        for bucket in [Bucket::FIRST, Bucket { open: u32::MAX, draining: true, count: 9 }] {
            assert_eq!(Bucket::parse("/b", bucket.data().as_bytes(), bucket.count).unwrap(), bucket);
        }
        for data in [&b""[..], b"x", b"1 moving", b"\xff", b"-1"] {
            assert!(matches!(Bucket::parse("/b", data, 0), Err(Error::Corrupt { .. })));
        }
    }
}
