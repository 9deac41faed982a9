use bytes::Bytes;
use storage_core::{Entry, Key, Version};

/// What a key, or a change of one, counts for beside its bytes and those of its values: as much as etcd adds, and about what the trees take.
pub(crate) const ITEM_BYTES: u64 = 256;

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) value: Bytes,
    /// The revision that created the key, after its last deletion if it had one.
    pub(crate) create_revision: u64,
    /// The revision that wrote the value.
    pub(crate) mod_revision: u64,
    /// How often the key was written since it was created.
    pub(crate) version: u64,
    /// The lease that the key is attached to; 0: none.
    pub(crate) lease: u64,
}

impl Record {
    /// The version in the sense of the contract: revisions are never repeated.
    pub(crate) fn contract_version(&self) -> Version {
        Version::from_u64(self.mod_revision)
    }

    pub(crate) fn to_entry(&self, key: &Key) -> Entry {
        Entry { key: key.clone(), value: self.value.clone(), version: self.contract_version() }
    }
}

/// A copy with memory of its own: a slice would keep alive the whole buffer that it came in.
pub(crate) fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A copy with memory of its own.
#[expect(clippy::expect_used, reason = "a copy of a key is a key")]
pub(crate) fn own_key(key: &Key) -> Key {
    Key::new(Bytes::copy_from_slice(key.as_bytes())).expect("a copy of a key is a key")
}
