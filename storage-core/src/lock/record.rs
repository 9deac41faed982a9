//! What stands at the two keys of a lock, as bytes.
//!
//! The fence is written once a tenure, so that its version stands for the tenure and can guard writes.

use std::time::Duration;

use bytes::Bytes;

use super::FencingToken;
use crate::{
    Entry, Error, Key, Result,
    record::{DecodeError, Schema},
};

/// What stands at the fence key. Written at acquisition, release and forced release, and at nothing else, so its
/// version stands for one tenure of the lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fence {
    pub(super) held: bool,
    pub(super) token: FencingToken,
    pub(super) ttl: Duration,
    /// Random, one for each acquisition: tells an acquirer whose reply was lost that the record is its own.
    pub(super) nonce: u128,
    pub(super) owner: String,
}

const FENCE: Schema = Schema { tag: *b"LOCK", version: 1 };
const LEASE: Schema = Schema { tag: *b"LEAS", version: 1 };

impl Fence {
    pub(super) fn encode(&self) -> Bytes {
        // `LockOptions::MAX_TTL` is far below 2^64 milliseconds.
        let ttl = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        let record = FENCE.writer().bool(self.held).u64(self.token.0).u64(ttl);
        record.bytes(&self.nonce.to_be_bytes()).var_bytes(self.owner.as_bytes()).finish()
    }

    /// # Errors
    /// [`Error::Corrupt`] if the value is no such record.
    pub(super) fn of(entry: &Entry) -> Result<Self> {
        Self::decode(&entry.value).map_err(|error| Error::corrupt(format!("lock record {}: {error}", entry.key)))
    }

    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut record = FENCE.reader(value)?;
        let fence = Self {
            held: record.bool("held")?,
            token: FencingToken(record.u64()?),
            ttl: Duration::from_millis(record.u64()?),
            nonce: u128::from_be_bytes(record.array()?),
            owner: record.text("owner")?.to_owned(),
        };
        record.finish()?;
        Ok(fence)
    }

    /// The token of the next tenure.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is none: nobody acquires a lock 2^64 times.
    pub(super) fn next_token(&self, name: &Key) -> Result<FencingToken> {
        let next = self.token.0.checked_add(1).map(FencingToken);
        next.ok_or_else(|| Error::corrupt(format!("lock record {name}: its token is at the end of its range")))
    }
}

/// What stands at the lease key: whose heartbeat it is, for a person who looks. The lock itself goes by the version of
/// the entry alone, which changes at every write.
pub(super) fn heartbeat(token: FencingToken) -> Bytes {
    LEASE.writer().u64(token.0).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_survives_encoding() {
        let fence = Fence {
            held: true,
            token: FencingToken(7),
            ttl: Duration::from_millis(1500),
            nonce: 1 << 100,
            owner: "réplica 1".to_owned(),
        };
        assert_eq!(Fence::decode(&fence.encode()), Ok(fence.clone()));
        assert!(Fence::decode(&heartbeat(fence.token)).is_err());
    }
}
