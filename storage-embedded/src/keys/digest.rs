//! The running hash of the replicated state, and how keys and leases count in it.

use super::Record;

/// A hash of a set of items, which does not depend on the order in which they came: the sum of the hashes of the items.
///
/// So it is kept up to date in constant time, replicas can compare it at the same applied index, and it can be computed
/// anew from a snapshot. It finds bugs and damage, not forgery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) u64);

impl Digest {
    pub(crate) fn add(&mut self, item: u64) {
        self.0 = self.0.wrapping_add(item);
    }

    pub(crate) fn remove(&mut self, item: u64) {
        self.0 = self.0.wrapping_sub(item);
    }

    /// The hash of the items of both.
    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

/// What an item is, so that items of different tables do not stand for each other.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Table {
    Record = 1,
    Lease = 2,
    Row = 3,
    Operation = 4,
    Session = 5,
    Answer = 6,
    Auth = 7,
    Role = 8,
    User = 9,
    Alarm = 10,
}

pub(super) fn record(key: &[u8], record: &Record) -> u64 {
    let Record { value, create_revision, mod_revision, version, lease } = record;
    let bytes = hash_bytes(hash_bytes(begin(Table::Record), key), value);
    hash_numbers(bytes, [*create_revision, *mod_revision, *version, *lease])
}

pub(super) fn lease(id: u64, ttl_seconds: u64) -> u64 {
    hash_numbers(begin(Table::Lease), [id, ttl_seconds])
}

/// What the hash of an item of a table begins with.
pub(crate) fn begin(table: Table) -> u64 {
    mix(table as u64)
}

pub(crate) fn hash_numbers<const N: usize>(hash: u64, numbers: [u64; N]) -> u64 {
    numbers.into_iter().fold(hash, |hash, number| mix(hash ^ number))
}

pub(crate) fn hash_bytes(hash: u64, bytes: &[u8]) -> u64 {
    mix(mix(hash ^ u64::from(crc32c::crc32c(bytes))) ^ bytes.len() as u64)
}

/// The step of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input reaches every bit of the output.
pub(crate) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
