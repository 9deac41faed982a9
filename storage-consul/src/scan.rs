//! One page of a scan.
//!
//! Consul gives everything below a prefix at once or not at all. So a page lists the keys, which are short, and reads
//! the values of those that belong to it. What was listed and what was read are of one moment if nothing that was read is newer
//! than the list; otherwise the page is read again, with fewer entries.

use std::collections::HashMap;

use futures::{StreamExt, TryFutureExt, TryStreamExt, stream};
use storage_core::{Consistency, Deadline, Entry, Error, Key, Page, Result, Revision, ScanOptions, servers::Effect};

use crate::{
    client::Found,
    encoding::{Folder, Foreign},
    pool::Pool,
    txn::{self, Answered, MAX_OPERATIONS, Request},
};

/// A page ends before it grows much beyond this: sixteen megabytes, as many of the largest values as fit one read.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// How many reads of a page are under way at once: each may be as large as a page.
const READS_AT_ONCE: usize = 2;

/// How often a page is read again because its keys have changed, the last times with a single entry.
const MAX_ATTEMPTS: usize = 100;

/// The keys of one page, listed.
struct Listed {
    keys: Vec<Key>,
    /// Whether there are keys after these.
    more: bool,
    index: u64,
}

pub(crate) async fn page(pool: &Pool, folder: &Folder, prefix: &[u8], options: &ScanOptions) -> Result<Page> {
    let deadline = Deadline::after(options.read.timeout);
    let mut limit = options.limit;
    for _ in 0..MAX_ATTEMPTS {
        let listed = list(pool, folder, prefix, options, limit, deadline).await?;
        let (keys, index) = (listed.keys.len(), listed.index);
        let read = values(pool, folder, &listed.keys, options.read.consistency, deadline).await?;
        // Read in whole, or up to the limit of bytes.
        // The last key that was read, also if its entry is gone meanwhile: the next page begins behind it.
        let next = if read.keys < keys { listed.keys.get(read.keys.saturating_sub(1)) } else { listed.keys.last() };
        let next = next.filter(|_| listed.more || read.keys < keys).cloned();
        let of_one_moment = read.entries.len() + read.foreign == read.keys
            && read.entries.iter().all(|entry| entry.version.to_u64().is_some_and(|version| version <= index));
        if of_one_moment || options.read.consistency == Consistency::Stale {
            return Ok(Page { entries: read.entries, next, revision: Some(Revision(index)) });
        }
        limit = (keys / 2).max(1);
    }
    Err(Error::unavailable("the keys of the page change faster than they can be read"))
}

async fn list(
    pool: &Pool,
    folder: &Folder,
    prefix: &[u8],
    options: &ScanOptions,
    limit: usize,
    deadline: Deadline,
) -> Result<Listed> {
    let stored = &folder.prefix(prefix);
    let listing = pool.call(Effect::Reads, deadline.left(), |server| async move {
        server.keys(stored, options.read.consistency).await
    });
    let Found { data, index } = listing.await?;
    let mut stored = data.unwrap_or_default();
    // Consul sorts them so; nobody would notice if it once did not.
    stored.sort_unstable();
    let after = options.after.as_ref().map(|after| folder.key(after));
    let begin = after.map_or(0, |after| stored.partition_point(|key| *key <= after));
    let mut rest = stored.iter().skip(begin).filter_map(|key| folder.decode(key));
    let keys: Vec<_> = rest.by_ref().take(limit).collect();
    Ok(Listed { keys, more: rest.next().is_some(), index })
}

/// The entries of the first so many keys. Fewer entries than keys: some are gone.
#[derive(Default)]
struct Read {
    keys: usize,
    /// How many of the keys have values that no store has written. They are named, and passed over.
    foreign: usize,
    entries: Vec<Entry>,
}

async fn values(
    pool: &Pool,
    folder: &Folder,
    keys: &[Key],
    consistency: Consistency,
    deadline: Deadline,
) -> Result<Read> {
    let mut reads = Vec::with_capacity(keys.len().div_ceil(MAX_OPERATIONS));
    for keys in keys.chunks(MAX_OPERATIONS) {
        reads.push(read(pool, folder, keys, consistency, deadline).map_ok(|entries| (keys.len(), entries)));
    }
    let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
    let (mut all, mut bytes) = (Read::default(), 0);
    while let Some((keys, entries)) = reads.try_next().await? {
        all.keys += keys;
        for entry in entries {
            match entry {
                Ok(entry) => {
                    bytes += entry.key.as_bytes().len() + entry.value.len();
                    all.entries.push(entry);
                }
                Err(foreign) => {
                    tracing::warn!("a scan passes it over: {foreign}");
                    all.foreign += 1;
                }
            }
        }
        if bytes >= MAX_PAGE_BYTES {
            break;
        }
    }
    Ok(all)
}

/// What is there of these keys, at one point in time; at most [`MAX_OPERATIONS`].
pub(crate) async fn read(
    pool: &Pool,
    folder: &Folder,
    keys: &[Key],
    consistency: Consistency,
    deadline: Deadline,
) -> Result<Vec<Result<Entry, Foreign>>> {
    let request = &Request::reading(keys.iter(), folder);
    let body = &request.body()?;
    let answered = pool.call(Effect::Reads, deadline.left(), |server| async move {
        Answered::of(request, &server.transaction(body.clone(), consistency).await?)
    });
    txn::entries(answered.await?, folder)
}

/// Entries by their keys.
///
/// # Errors
/// [`Error::Corrupt`] if a value was written by no store.
pub(crate) fn by_key(entries: Vec<Result<Entry, Foreign>>) -> Result<HashMap<Key, Entry>> {
    entries.into_iter().map(|entry| entry.map(|entry| (entry.key.clone(), entry)).map_err(Error::from)).collect()
}
