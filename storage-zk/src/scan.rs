//! Keys in order, although they lie in buckets by their hash.
//!
//! A handle keeps the listing of each bucket beside the `pzxid` of the bucket's node, which ZooKeeper changes whenever a child is
//! created or removed: while it is the same, the listing is right. A page is one multi-read of the nodes of all buckets and of the
//! entries that the listings promise. If a `pzxid` is another one, the bucket's listing is read along the next time, so that
//! names and values are always of one point in time, and a page ends before the first name whose value was not read.

use std::{cmp::Reverse, collections::BinaryHeap, collections::HashMap, sync::Arc};

use storage_core::{Deadline, Entry, Error, Key, Page, Result, ScanOptions};
use zookeeper_client::MultiReadResult;

use crate::{
    error,
    handle::Handle,
    listing::Listing,
    node::{Node, data, gone, unexpected},
};

/// A page has about so many bytes of values: a few milliseconds of a server's time.
const PAGE_BYTES: usize = 1024 * 1024;

/// The request for a page has at most so many bytes of paths: half of what a server accepts.
const REQUEST_BYTES: usize = 512 * 1024;

/// The fewest entries that a page asks for, however large the last ones were: of the largest values they have 8 MiB.
const MIN_ENTRIES: usize = 16;

/// How often a page is tried while keys are created right at its beginning.
const MAX_ROUNDS: usize = 64;

/// Which keys a page is about.
struct Range<'a> {
    prefix: &'a [u8],
    after: Option<Key>,
}

impl Range<'_> {
    /// The names of the range in order, over all buckets.
    fn merge<'l>(&self, listings: &'l [Arc<Listing>]) -> impl Iterator<Item = &'l (Key, u32)> {
        let before = |key: &Key| match &self.after {
            Some(after) if after.as_bytes() >= self.prefix => key <= after,
            _ => key.as_bytes() < self.prefix,
        };
        let mut heads = BinaryHeap::with_capacity(listings.len());
        for listing in listings {
            let start = listing.names.partition_point(|(key, _)| before(key));
            let mut rest = listing.names.get(start..).unwrap_or_default().iter();
            if let Some(first) = rest.next() {
                heads.push(Reverse(Head { first, rest }));
            }
        }
        let prefix = self.prefix.to_vec();
        std::iter::from_fn(move || {
            let Reverse(mut head) = heads.pop()?;
            let name = head.first;
            if let Some(next) = head.rest.next() {
                head.first = next;
                heads.push(Reverse(head));
            }
            Some(name)
        })
        .take_while(move |(key, _)| key.starts_with(&prefix))
    }
}

/// The rest of a listing, ordered by its first name.
struct Head<'l> {
    first: &'l (Key, u32),
    rest: std::slice::Iter<'l, (Key, u32)>,
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.first == other.first
    }
}
impl Eq for Head<'_> {}
impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.first.cmp(other.first)
    }
}

/// One look: listings and entries of one point in time.
struct Look {
    listings: Vec<Option<Arc<Listing>>>,
    nodes: HashMap<Key, Node>,
}

impl Handle {
    /// One page, at one point in time.
    pub(crate) async fn page(&self, prefix: &[u8], options: &ScanOptions) -> Result<Page> {
        let deadline = Deadline::after(options.read.timeout);
        let mut range = Range { prefix, after: options.after.clone() };
        let mut listings = self.listings.known();
        for _ in 0..MAX_ROUNDS {
            let wanted = self.wanted(&range, &listings, options.limit);
            let look = self.look(&listings, &wanted, options, deadline).await?;
            listings = look.listings;
            let Some(complete) = listings.iter().cloned().collect::<Option<Vec<_>>>() else { continue };
            let page = cut(&range, &complete, &look.nodes);
            self.listings.remember(&listings, &page);
            match page {
                // Only tombstones: look on behind them.
                Page { entries, next: Some(next), .. } if entries.is_empty() => range.after = Some(next),
                // Everything that was wanted is gone: the listings are news, so look again.
                page if page.entries.is_empty() && !wanted.is_empty() && look.nodes.is_empty() => {}
                page if page.entries.is_empty()
                    && range.merge(&complete).next().is_some_and(|(key, _)| !look.nodes.contains_key(key)) => {}
                page => return Ok(page),
            }
        }
        // Nothing was found so far, and there may be more: a page may be empty.
        match range.after {
            Some(after) => Ok(Page { entries: Vec::new(), next: Some(after), revision: None }),
            None => Err(Error::unavailable("keys were created faster than they could be listed")),
        }
    }

    /// The names that the next look reads, as many as one answer should have.
    fn wanted(&self, range: &Range<'_>, listings: &[Option<Arc<Listing>>], limit: usize) -> Vec<(Key, u32)> {
        let Some(complete) = listings.iter().cloned().collect::<Option<Vec<_>>>() else { return Vec::new() };
        let entries = (PAGE_BYTES / self.listings.entry_bytes()).max(MIN_ENTRIES).min(limit);
        let mut request = 0;
        let fits = |(key, generation): &&(Key, u32)| {
            request += self.layout.node_path(key, *generation).len();
            request <= REQUEST_BYTES
        };
        range.merge(&complete).take(entries).take_while(fits).cloned().collect()
    }

    /// The nodes of all buckets, the listings of those that are not known to be right, and the wanted entries: one multi-read.
    /// Where a known listing turns out to be old, there is none in the answer, and the next look lists it.
    async fn look(
        &self,
        known: &[Option<Arc<Listing>>],
        wanted: &[(Key, u32)],
        options: &ScanOptions,
        deadline: Deadline,
    ) -> Result<Look> {
        let (client, freshness) = self.reader(options.read.consistency, deadline).await?;
        let mut multi = client.new_multi_reader();
        let mut compose = || {
            for (bucket, listing) in known.iter().enumerate() {
                multi.add_get_data(&self.layout.bucket_path(bucket))?;
                if listing.is_none() {
                    multi.add_get_children(&self.layout.bucket_path(bucket))?;
                }
            }
            wanted.iter().try_for_each(|(key, generation)| multi.add_get_data(&self.layout.node_path(key, *generation)))
        };
        compose().map_err(error::read_error)?;
        let read = multi.commit();
        let mut results = freshness.finish(deadline, read).await?.map_err(unexpected)?.into_iter();
        let mut listings = Vec::with_capacity(known.len());
        for (bucket, listing) in known.iter().enumerate() {
            let (_, stat) = data(results.next())?.ok_or_else(|| gone(&self.layout.bucket_path(bucket)))?;
            listings.push(match listing {
                Some(listing) => Some(listing).filter(|listing| listing.pzxid == stat.pzxid).cloned(),
                None => match results.next() {
                    Some(MultiReadResult::Children { children }) => Some(Arc::new(Listing::new(stat.pzxid, &children))),
                    _ => return Err(gone(&self.layout.bucket_path(bucket))),
                },
            });
        }
        let mut nodes = HashMap::with_capacity(wanted.len());
        for (key, generation) in wanted {
            if let Some((data, stat)) = data(results.next())? {
                nodes.insert(key.clone(), Node::parse(&self.layout, key, *generation, data, &stat)?);
            }
        }
        Ok(Look { listings, nodes })
    }
}

/// The page that a look allows: up to the first name whose entry was not read.
fn cut(range: &Range<'_>, listings: &[Arc<Listing>], nodes: &HashMap<Key, Node>) -> Page {
    let mut page = Page { entries: Vec::new(), next: None, revision: None };
    let mut last = None;
    for (key, generation) in range.merge(listings) {
        match nodes.get(key).filter(|node| node.generation == *generation) {
            Some(node) => {
                if let Some((value, version)) = &node.live {
                    page.entries.push(Entry { key: key.clone(), value: value.clone(), version: *version });
                }
                last = Some(key);
            }
            None => {
                page.next = last.cloned();
                break;
            }
        }
    }
    page
}
