//! Keys: any bytes, within limits that are checked once, when a key is made.
//!
//! Code that holds a `Key` checks nothing again. The order is bytewise, everywhere.

use std::{borrow::Borrow, fmt};

use bytes::Bytes;

use crate::{Error, Result};

/// A key: 1 to [`Key::MAX_BYTES`] bytes, any bytes, ordered bytewise.
///
/// The limits are checked once, here; code that holds a `Key` need not check again.
///
/// ```
/// # use storage_core::Key;
/// let key = Key::new("channel/7")?;
/// assert!(key.starts_with(b"channel/"));
/// assert!(Key::new("").is_err());
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// The longest key, in bytes. 512 fits every backend even after the encodings that some need:
    /// ZooKeeper limits a whole request, Consul a URL.
    pub const MAX_BYTES: usize = 512;

    /// Makes a key of `bytes`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an empty key, [`Error::TooLarge`] over [`Key::MAX_BYTES`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(Error::invalid_argument("a key has at least one byte"));
        }
        if bytes.len() > Self::MAX_BYTES {
            return Err(Error::TooLarge { what: "key bytes", actual: bytes.len(), limit: Self::MAX_BYTES });
        }
        Ok(Self(bytes))
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the key, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Whether the key begins with `prefix`. Every key begins with the empty prefix.
    pub fn starts_with(&self, prefix: &[u8]) -> bool {
        self.0.starts_with(prefix)
    }

    /// This key with `suffix` behind it.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the result is over [`Key::MAX_BYTES`].
    pub fn with_suffix(&self, suffix: impl AsRef<[u8]>) -> Result<Self> {
        Self::new([self.as_bytes(), suffix.as_ref()].concat())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Printable ASCII as it is, every other byte as `\xNN`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A map of keys can be searched by bytes: keys are equal, ordered and hashed as their bytes are.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&str> for Key {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::new(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        assert!(Key::new(vec![7; Key::MAX_BYTES]).is_ok());
        assert!(matches!(Key::new(vec![7; Key::MAX_BYTES + 1]), Err(Error::TooLarge { actual: 513, limit: 512, .. })));
        assert!(matches!(Key::new(""), Err(Error::InvalidArgument { .. })));
    }

    #[test]
    fn order_is_bytewise() {
        let key = |bytes: &'static [u8]| Key::new(bytes).unwrap();
        assert!(key(b"a") < key(b"a\0"));
        assert!(key(b"a\xff") < key(b"b"));
        assert!(key(b"Z") < key(b"a"));
    }
}
