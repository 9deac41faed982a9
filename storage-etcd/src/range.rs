//! Ranges of keys as etcd names them, and entries as it returns them.

use bytes::Bytes;
use etcd_client::{ResponseHeader, proto::PbKeyValue};
use storage_core::{Entry, Error, Key, Result, Revision, ScanOptions, Version};

/// The most bytes that one page of a scan may have: etcd limits only the number of entries, and a thousand of the
/// largest values would be a gigabyte. A page that is larger is asked for again with fewer entries.
/// Sixteen of the largest values.
pub(crate) const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// The end of all keys, in a range.
const NO_END: &[u8] = &[0];

/// The keys from `start` to before `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Range {
    /// All keys with this prefix.
    pub(crate) fn of_prefix(prefix: &[u8]) -> Self {
        // etcd wants a first byte; no key sorts before a single zero byte.
        let start = if prefix.is_empty() { NO_END.to_vec() } else { prefix.to_vec() };
        // The first key after all that have the prefix: its last byte that is not 0xff, plus one.
        let stem = prefix.iter().rposition(|byte| *byte < 0xff).and_then(|place| prefix.get(..=place));
        let end = match stem.and_then(<[u8]>::split_last) {
            Some((last, before)) => [before, &[last.saturating_add(1)]].concat(),
            None => NO_END.to_vec(),
        };
        Self { start, end }
    }

    /// The keys with this prefix after `after`; `None` if there can be none.
    pub(crate) fn after(prefix: &[u8], after: Option<&Key>) -> Option<Self> {
        let all = Self::of_prefix(prefix);
        match after.map(Key::as_bytes) {
            Some(after) if all.end != NO_END && after >= all.end.as_slice() => None,
            Some(after) if after >= all.start.as_slice() => Some(Self { start: [after, &[0]].concat(), ..all }),
            _ => Some(all),
        }
    }
}

/// # Errors
/// [`Error::Corrupt`] for a key that no store of this contract has written.
pub(crate) fn entry(kv: PbKeyValue) -> Result<Entry> {
    let version = version(kv.mod_revision);
    Ok(Entry { key: key_of(kv.key)?, value: Bytes::from(kv.value), version })
}

pub(crate) fn key_of(bytes: Vec<u8>) -> Result<Key> {
    Key::new(bytes).map_err(|error| Error::corrupt(format!("a key that this store cannot have written: {error}")))
}

/// A key's version is the revision that wrote it: it never repeats, whereas etcd's own `version` restarts at 1 when a key
/// is created again.
pub(crate) fn version(mod_revision: i64) -> Version {
    Version::from_u64(mod_revision.cast_unsigned())
}

/// The revision at which an answer was made.
///
/// # Errors
/// [`Error::Corrupt`] if it has none, which no etcd does.
pub(crate) fn revision(header: Option<&ResponseHeader>) -> Result<Revision> {
    let header = header.ok_or_else(|| Error::corrupt("etcd answered without a header"))?;
    Ok(Revision(header.revision().cast_unsigned()))
}

/// Learns how many entries a page may have to stay under [`MAX_PAGE_BYTES`].
#[derive(Debug)]
pub(crate) struct PageSize(std::sync::atomic::AtomicUsize);

impl PageSize {
    pub(crate) fn new() -> Self {
        Self(ScanOptions::MAX_LIMIT.into())
    }

    pub(crate) fn entries(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// A page of so many entries was too large; returns how many to ask for instead, or `None` if it was one.
    pub(crate) fn too_large(&self, entries: usize) -> Option<usize> {
        let fewer = entries / 2;
        self.set(fewer.max(1));
        (fewer > 0).then_some(fewer)
    }

    /// A full page had so many bytes.
    pub(crate) fn fitted(&self, entries: usize, bytes: usize) {
        if entries >= self.entries() && bytes < MAX_PAGE_BYTES / 4 {
            self.set((entries * 2).min(ScanOptions::MAX_LIMIT));
        }
    }

    fn set(&self, entries: usize) {
        self.0.store(entries, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &[u8], end: &[u8]) -> Range {
        Range { start: start.to_vec(), end: end.to_vec() }
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        for (prefix, start, end) in [
            (&b"a"[..], &b"a"[..], &b"b"[..]),
            (b"a/", b"a/", b"a0"),
            (b"a\xff", b"a\xff", b"b"),
            (b"\xff\xff", b"\xff\xff", b"\0"),
            (b"", b"\0", b"\0"),
        ] {
            assert_eq!(Range::of_prefix(prefix), range(start, end), "{}", prefix.escape_ascii());
        }
    }

    #[test]
    fn a_range_begins_right_after_a_key() {
        let after = |prefix: &[u8], key: &'static str| Range::after(prefix, Some(&Key::new(key).unwrap()));
        assert_eq!(after(b"b", "b1"), Some(range(b"b1\0", b"c")));
        assert_eq!(after(b"b", "b"), Some(range(b"b\0", b"c")));
        assert_eq!(after(b"b", "a9"), Some(range(b"b", b"c")), "a key before the prefix");
        assert_eq!(after(b"b", "c"), None, "a key behind the prefix");
        assert_eq!(after(b"", "z"), Some(range(b"z\0", b"\0")));
    }

    #[test]
    fn a_page_shrinks_until_it_fits_and_grows_again() {
        let size = PageSize::new();
        assert_eq!(size.too_large(1000), Some(500));
        assert_eq!(size.too_large(500), Some(250));
        size.fitted(250, MAX_PAGE_BYTES / 2);
        assert_eq!(size.entries(), 250);
        size.fitted(250, 1000);
        assert_eq!(size.entries(), 500);
        assert_eq!(size.too_large(1), None);
        assert_eq!(size.entries(), 1);
    }
}
