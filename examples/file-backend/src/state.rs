//! What the store holds and its encoding in the file, as pure functions: no file, no clock, no lock.
//!
//! Revisions only rise, and give the versions too, so that none ever repeats. Any damage of the file is found by the
//! checksum, never guessed around.

use std::{collections::BTreeMap, ops::Bound};

use bytes::{Buf, BufMut, Bytes, TryGetError};
use crc32c::crc32c;
use storage_core::{
    Committed, Conflict, Entry, Error, Key, Observed, Op, Page, Result, Revision, Txn, Version, WatchEvent,
};

/// What the file begins with; its last byte is the version of the format.
const MAGIC: &[u8; 8] = b"filestr\x01";

/// The data. Pure: no file, no clock, no lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The number of the last commit that changed something. It gives versions too, so that none is ever repeated, not
    /// even after a deletion: contract 1.4.
    revision: u64,
    entries: BTreeMap<Key, (Bytes, u64)>,
}

impl State {
    pub(crate) fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        self.entries.get(key).map(|stored| entry(key, stored))
    }

    pub(crate) fn scan(&self, prefix: &[u8], after: Option<&Key>, limit: usize) -> Page {
        let start = match after {
            Some(after) if after.as_bytes() >= prefix => Bound::Excluded(after.as_bytes()),
            _ => Bound::Included(prefix),
        };
        let rest = self.entries.range::<[u8], _>((start, Bound::Unbounded));
        let mut rest = rest.take_while(|(key, _)| key.starts_with(prefix)).map(|(key, stored)| entry(key, stored));
        let entries: Vec<_> = rest.by_ref().take(limit).collect();
        // `next` only if there is more, so that a last page that is full is seen to be the last.
        let next = rest.next().and_then(|_| entries.last().map(|last| last.key.clone()));
        Page { entries, next, revision: Some(self.revision()) }
    }

    /// The first guard that does not hold, with what is at its key.
    pub(crate) fn conflict(&self, txn: &Txn) -> Option<Conflict> {
        let fails = |(key, expected): (&Key, &storage_core::Expected)| {
            let current = self.entries.get(key);
            !expected.holds(current.map(|(value, version)| (value.as_ref(), Version::from_u64(*version))))
        };
        let guard = txn.guards.iter().position(|guard| fails((&guard.key, &guard.expected)))?;
        let current = txn.guards.get(guard).map_or(Observed::Unknown, |guard| self.get(&guard.key).into());
        Some(Conflict { guard, current })
    }

    /// The state after these operations, what the caller is told, and what a watch sees: nothing, if nothing changed.
    pub(crate) fn after(&self, ops: Vec<Op>) -> (Self, Committed, Vec<WatchEvent>) {
        let mut next = self.clone();
        next.revision += 1;
        let (number, revision) = (next.revision, Some(next.revision()));
        let (mut versions, mut events) = (Vec::with_capacity(ops.len()), Vec::new());
        for op in ops {
            match op {
                Op::Put { key, value } => {
                    let stored = (value, number);
                    events.push(WatchEvent::Put { entry: entry(&key, &stored), revision });
                    versions.push(Some(Version::from_u64(number)));
                    next.entries.insert(key, stored);
                }
                Op::Delete { key } => {
                    versions.push(None);
                    if next.entries.remove(&key).is_some() {
                        events.push(WatchEvent::Delete { key, revision });
                    }
                }
            }
        }
        let revision = revision.filter(|_| !events.is_empty());
        (next, Committed { versions, revision }, events)
    }

    /// Magic, revision, entries, and a checksum of all that. An entry: the lengths of key and value, the version, key, value.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.put_u64_le(self.revision);
        for (key, (value, version)) in &self.entries {
            bytes.put_u64_le(key.as_bytes().len() as u64);
            bytes.put_u64_le(value.len() as u64);
            bytes.put_u64_le(*version);
            bytes.put_slice(key.as_bytes());
            bytes.put_slice(value);
        }
        let checksum = crc32c(&bytes);
        bytes.put_u32_le(checksum);
        bytes
    }

    /// What [`State::encode`] was given.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for anything else.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self> {
        let Some((content, checksum)) = bytes.split_last_chunk::<4>() else { return Err(corrupt("it is cut off")) };
        if crc32c(content).to_le_bytes() != *checksum {
            return Err(corrupt("its checksum is wrong"));
        }
        let mut rest = bytes.slice_ref(content);
        if !rest.starts_with(MAGIC) {
            return Err(corrupt("it is no file of this backend in a version that this release reads"));
        }
        rest.advance(MAGIC.len());
        Self::decode_entries(rest).unwrap_or_else(|_| Err(corrupt("an entry is cut off")))
    }

    fn decode_entries(mut rest: Bytes) -> Result<Result<Self>, TryGetError> {
        let mut state = Self { revision: rest.try_get_u64_le()?, entries: BTreeMap::new() };
        while rest.has_remaining() {
            let lengths = [rest.try_get_u64_le()?, rest.try_get_u64_le()?];
            let version = rest.try_get_u64_le()?;
            let [key, value] = lengths.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
            let Some(end) = key.checked_add(value).filter(|end| *end <= rest.len()) else {
                return Ok(Err(corrupt("an entry is longer than the file")));
            };
            let mut both = rest.split_to(end);
            match Key::new(both.split_to(key)) {
                Ok(key) => state.entries.insert(key, (both, version)),
                Err(error) => return Ok(Err(corrupt(&error.to_string()))),
            };
        }
        Ok(Ok(state))
    }
}

fn entry(key: &Key, (value, version): &(Bytes, u64)) -> Entry {
    Entry { key: key.clone(), value: value.clone(), version: Version::from_u64(*version) }
}

fn corrupt(reason: &str) -> Error {
    Error::corrupt(format!("the file of the store: {reason}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_damage_is_seen() {
        let key = |text: &str| Key::try_from(text).unwrap();
        let txn = Txn::new().put(key("a"), "1").put(key("b"), "").put(key("c"), vec![0; 20]);
        let (state, ..) = State::default().after(txn.ops);
        let bytes = state.encode();
        assert_eq!(State::decode(&bytes.clone().into()).unwrap(), state);
        for at in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(bytes.get(..at).unwrap());
            assert!(matches!(State::decode(&cut), Err(Error::Corrupt { .. })), "cut at {at}");
            let mut flipped = bytes.clone();
            *flipped.get_mut(at).unwrap() ^= 16;
            assert!(matches!(State::decode(&flipped.into()), Err(Error::Corrupt { .. })), "byte {at}");
        }
    }
}
