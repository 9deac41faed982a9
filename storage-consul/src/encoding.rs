//! Keys and values as they lie in Consul.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use storage_core::{Entry, Error, Key, Result, Version};

use crate::client::Pair;

/// Behind each key. It sorts before every digit, so that a key sorts before those that it is the beginning of; and with it
/// no stored key is the beginning of another, so that reading the tree below a key reads that key alone.
const END: char = '-';

/// The folder of a store: where its keys lie, as hexadecimal digits.
///
/// Consul wants keys that fit a URL: `//` fails there, `/../` is taken as a step up, and paths and transactions disagree on
/// escapes. Digits mean the same everywhere, sort as the bytes do, and have a prefix for every prefix of the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: String,
}

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        Self { path: format!("{name}/") }
    }

    /// What stands for this key.
    pub(crate) fn key(&self, key: &Key) -> String {
        let mut stored = self.prefix(key.as_bytes());
        stored.push(END);
        stored
    }

    /// What all keys with this prefix begin with.
    pub(crate) fn prefix(&self, prefix: &[u8]) -> String {
        let mut stored = String::with_capacity(self.path.len() + 2 * prefix.len() + 1);
        stored.push_str(&self.path);
        for byte in prefix {
            for digit in [byte >> 4, byte & 0xf] {
                stored.extend(char::from_digit(digit.into(), 16));
            }
        }
        stored
    }

    /// A key that no [`Key`] has.
    pub(crate) fn no_key(&self) -> String {
        format!("{}{END}", self.path)
    }

    /// The key that this stands for; `None` for what somebody else has put into the folder.
    pub(crate) fn decode(&self, stored: &str) -> Option<Key> {
        let digits = stored.strip_prefix(&self.path)?.strip_suffix(END)?.as_bytes();
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect();
        Key::new(bytes?).ok()
    }

    /// The entry that Consul answered; `None` for what somebody else has put into the folder.
    ///
    /// # Errors
    /// [`Foreign`] for a key of ours whose value is none of ours: somebody has edited it.
    pub(crate) fn entry(&self, pair: Pair) -> Result<Option<Entry>, Foreign> {
        let Some(key) = self.decode(&pair.key) else {
            tracing::warn!(key = pair.key, "a key in the folder that no store has put there is passed over");
            return Ok(None);
        };
        let value = BASE64_STANDARD.decode(pair.value.unwrap_or_default()).ok();
        match value.and_then(|value| unstamped(Bytes::from(value))) {
            Some(value) => Ok(Some(Entry { key, value, version: Version::from_u64(pair.modify_index) })),
            None => Err(Foreign { key, stored_as: pair.key }),
        }
    }
}

/// A key of ours whose value was written by no store.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) key: Key,
    /// What the key is called in Consul.
    stored_as: String,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, stored_as } = self;
        write!(
            f,
            "the value of {key} (in Consul: {stored_as}) was not written by a store; write or delete the key anew"
        )
    }
}

impl From<Foreign> for Error {
    fn from(foreign: Foreign) -> Self {
        Self::corrupt(foreign.to_string())
    }
}

/// Only the digits that [`Folder::prefix`] writes: each key has one form.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The first byte of a stored value: the form of what follows, [`NONCE_BYTES`] and then the value.
const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 16;

/// By how much a stored value is longer.
pub(crate) const STAMP_BYTES: usize = 1 + NONCE_BYTES;

/// Makes every stored value another than all before it: Consul does not raise the index of a key that is set to the value that it
/// has, so that of two equal swaps both would succeed. See docs/decisions/0006-consul-values-carry-a-nonce.md.
#[derive(Debug)]
pub(crate) struct Stamp {
    /// Random bits of the operating system: those of this handle.
    handle: u64,
    writes: AtomicU64,
}

impl Stamp {
    pub(crate) fn new() -> Self {
        // The standard library seeds its hash maps with random bits of the system, and shows them in no other way.
        Self { handle: RandomState::new().hash_one(std::process::id()), writes: AtomicU64::new(0) }
    }

    /// A nonce for one transaction.
    pub(crate) fn nonce(&self) -> Nonce {
        Nonce { handle: self.handle, write: self.writes.fetch_add(1, Ordering::Relaxed) }
    }
}

/// What no other transaction writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nonce {
    pub(crate) handle: u64,
    pub(crate) write: u64,
}

impl Nonce {
    /// A value as it is stored, in base64 as requests carry it.
    pub(crate) fn stamped(self, value: &[u8]) -> String {
        let mut stored = BytesMut::with_capacity(STAMP_BYTES + value.len());
        stored.put_u8(FORMAT);
        // Handle and count together: a count alone repeats after a restart, random bits alone could repeat within one handle.
        stored.put_u64(self.handle);
        stored.put_u64(self.write);
        stored.put_slice(value);
        BASE64_STANDARD.encode(stored)
    }
}

fn unstamped(stored: Bytes) -> Option<Bytes> {
    (stored.first() == Some(&FORMAT) && stored.len() >= STAMP_BYTES).then(|| stored.slice(STAMP_BYTES..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> Folder {
        Folder::new("storage")
    }

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_key_is_its_digits() {
        assert_eq!(folder().key(&key(b"a/\xff\0")), "storage/612fff00-");
        assert_eq!(folder().prefix(b""), "storage/");
    }

    #[test]
    fn stored_keys_sort_as_keys_and_are_read_back() {
        let mut keys: Vec<Key> = (0..=255u8).flat_map(|a| [key(&[a]), key(&[a, 0]), key(&[a, 0xff])]).collect();
        keys.sort();
        let stored: Vec<_> = keys.iter().map(|key| folder().key(key)).collect();
        assert!(stored.is_sorted());
        let read: Vec<_> = stored.iter().map(|stored| folder().decode(stored).unwrap()).collect();
        assert_eq!(read, keys);
    }

    #[test]
    fn what_others_put_into_the_folder_is_no_key() {
        for stored in ["storage/", "storage/-", "storage/61", "storage/6-", "storage/6A-", "storage/zz-", "other/61-"] {
            assert_eq!(folder().decode(stored), None, "{stored}");
        }
        assert_eq!(folder().decode(&folder().no_key()), None);
        assert_eq!(folder().decode(&format!("storage/{}-", "61".repeat(Key::MAX_BYTES + 1))), None);
    }

    #[test]
    fn equal_values_are_stored_differently() {
        let (one, other) = (Stamp::new(), Stamp::new());
        let stored = [one.nonce(), one.nonce(), other.nonce()].map(|nonce| nonce.stamped(b"v"));
        assert!(stored[0] != stored[1] && stored[1] != stored[2] && stored[0] != stored[2], "{stored:?}");
        for stored in stored {
            let stored = BASE64_STANDARD.decode(stored).unwrap();
            assert_eq!(unstamped(stored.into()), Some("v".into()));
        }
    }

    #[test]
    fn a_value_without_the_stamp_is_refused() {
        for stored in [&b""[..], b"\x01", b"\x010123456789abcde", b"\x020123456789abcdef", b"hand-made"] {
            assert_eq!(unstamped(Bytes::from_static(stored)), None, "{stored:?}");
        }
        assert_eq!(unstamped(Bytes::from_static(b"\x010123456789abcdef")), Some(Bytes::new()));
    }
}
