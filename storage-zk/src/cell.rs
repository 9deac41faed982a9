//! What a node holds: a tombstone or a value, and the version of it.

use bytes::Bytes;
use storage_core::{Error, Result, Version};

/// The data of a node whose key was deleted.
pub(crate) const TOMBSTONE: &[u8] = &[0];

/// The first byte of a value that was written where it is.
const WRITTEN: u8 = 1;

/// The first byte of a value that the collection moved here; its version from before follows.
const MOVED: u8 = 2;

/// The most bytes that a node holds beside the value.
pub(crate) const MAX_OVERHEAD: usize = 1 + Version::BYTES;

/// The data of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// The key was deleted here.
    Tombstone,
    /// The key has this value. `inherited` is its version if it was moved here since it was written.
    Live { inherited: Option<Version>, value: Bytes },
}

impl Cell {
    /// The data of a node for a value that a caller writes.
    pub(crate) fn encode_written(value: &[u8]) -> Vec<u8> {
        [&[WRITTEN], value].concat()
    }

    /// The data of a node for a value that is moved, and keeps its version.
    pub(crate) fn encode_moved(version: Version, value: &[u8]) -> Vec<u8> {
        [&[MOVED], &version.to_bytes()[..], value].concat()
    }

    /// Reads the data of the node at `path`.
    pub(crate) fn parse(path: &str, data: Vec<u8>) -> Result<Self> {
        let data = Bytes::from(data);
        match data.first() {
            Some(0) => Ok(Self::Tombstone),
            Some(&WRITTEN) => Ok(Self::Live { inherited: None, value: data.slice(1..) }),
            Some(&MOVED) => match data.get(1..=Version::BYTES).and_then(|bytes| bytes.try_into().ok()) {
                Some(bytes) => {
                    let inherited = Some(Version::from_bytes(bytes));
                    Ok(Self::Live { inherited, value: data.slice(MAX_OVERHEAD..) })
                }
                None => Err(corrupt(path)),
            },
            _ => Err(corrupt(path)),
        }
    }
}

fn corrupt(path: &str) -> Error {
    Error::corrupt(format!("the node {path} holds no entry of this store; `get {path}` in zkCli.sh shows it"))
}

/// What a [`Version`] is made of.
///
/// A key's node has a path that ends with its generation, and no path is ever used again once its node is gone; and
/// `count` is the node's own dataVersion. So the pair never repeats for a key: docs/decisions/0005-zookeeper-versions.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The generation in the path of the node that was written.
    pub(crate) generation: u32,
    /// Tells the versions of different keys and stores apart, which the other two numbers do not.
    pub(crate) tag: u64,
    /// The dataVersion that the node had then.
    pub(crate) count: i32,
}

impl Stamp {
    pub(crate) fn to_version(self) -> Version {
        let number =
            u128::from(self.generation) << 96 | u128::from(self.tag) << 32 | u128::from(self.count.cast_unsigned());
        Version::from_bytes(number.to_be_bytes())
    }

    #[expect(clippy::cast_possible_truncation, reason = "the three parts are cut out of 128 bits")]
    pub(crate) fn from_version(version: Version) -> Self {
        let number = u128::from_be_bytes(version.to_bytes());
        Self { generation: (number >> 96) as u32, tag: (number >> 32) as u64, count: (number as u32).cast_signed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_survive_their_bytes() {
        let version = Stamp { generation: 3, tag: 4, count: 5 }.to_version();
        for (data, cell) in [
            (TOMBSTONE.to_vec(), Cell::Tombstone),
            (Cell::encode_written(b""), Cell::Live { inherited: None, value: Bytes::new() }),
            (Cell::encode_written(b"v"), Cell::Live { inherited: None, value: "v".into() }),
            (Cell::encode_moved(version, b""), Cell::Live { inherited: Some(version), value: Bytes::new() }),
            (Cell::encode_moved(version, b"v"), Cell::Live { inherited: Some(version), value: "v".into() }),
        ] {
            assert_eq!(Cell::parse("/p", data).unwrap(), cell);
        }
        for data in [vec![], vec![3], vec![MOVED, 1]] {
            assert!(matches!(Cell::parse("/p", data), Err(Error::Corrupt { .. })));
        }
    }

    #[test]
    fn stamps_survive_versions() {
        for stamp in [
            Stamp { generation: 0, tag: 0, count: 0 },
            Stamp { generation: 1, tag: u64::MAX, count: -2 },
            Stamp { generation: u32::MAX, tag: 1, count: i32::MIN },
        ] {
            assert_eq!(Stamp::from_version(stamp.to_version()), stamp);
        }
    }
}
