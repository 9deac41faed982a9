//! The names of the nodes in each bucket, as a handle remembers them between the pages of its scans.

use std::sync::Arc;

use parking_lot::Mutex;
use storage_core::{Key, Page};

use crate::path::{BUCKETS, parse_node_name};

/// The first page of a handle is made as if values had this size; the later ones know better.
const FIRST_GUESS_BYTES: usize = 16 * 1024;

/// The most names that a handle keeps between pages, some tens of megabytes; beyond, each page lists again.
const MAX_CACHED_NAMES: usize = 500_000;

/// What a handle remembers of its scans.
#[derive(Debug)]
pub(crate) struct Listings {
    known: Mutex<Vec<Option<Arc<Listing>>>>,
    entry_bytes: Mutex<usize>,
}

/// The nodes of a bucket. It is right for as long as the bucket's `pzxid` is this one.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) pzxid: i64,
    /// Keys in order, with the generation of their node.
    pub(crate) names: Vec<(Key, u32)>,
}

impl Default for Listings {
    fn default() -> Self {
        Self { known: Mutex::new(vec![None; BUCKETS]), entry_bytes: Mutex::new(FIRST_GUESS_BYTES) }
    }
}

impl Listings {
    /// For each bucket the last listing that was seen, which may be old.
    pub(crate) fn known(&self) -> Vec<Option<Arc<Listing>>> {
        self.known.lock().clone()
    }

    /// How large the values of the last page were, on average.
    pub(crate) fn entry_bytes(&self) -> usize {
        *self.entry_bytes.lock()
    }

    pub(crate) fn remember(&self, listings: &[Option<Arc<Listing>>], page: &Page) {
        let bytes: usize = page.entries.iter().map(|entry| entry.value.len()).sum();
        if let Some(average) = bytes.checked_div(page.entries.len()) {
            *self.entry_bytes.lock() = average.max(1);
        }
        let names: usize = listings.iter().flatten().map(|listing| listing.names.len()).sum();
        let keep = names <= MAX_CACHED_NAMES;
        *self.known.lock() = if keep { listings.to_vec() } else { vec![None; listings.len()] };
    }
}

impl Listing {
    pub(crate) fn new(pzxid: i64, children: &[String]) -> Self {
        let mut names: Vec<_> = children.iter().filter_map(|name| parse_node_name(name)).collect();
        names.sort_unstable();
        Self { pzxid, names }
    }
}
