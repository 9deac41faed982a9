//! A channel and its reservation record as one read saw them, and those of the last channels that this replica dealt
//! with.
//!
//! Invariants: leases count on this replica's own monotonic clock, from when the record was read. What is remembered is
//! never believed: it is guarded when it is written over, and read anew before it refuses anybody.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use storage_core::{
    Entry, Expected, Guard, Key, Store, Version,
    channel::{ChannelId, ChannelState},
};
use tokio::time::Instant;

use super::watch::HoldWatch;
use crate::{ChannelSource, Error, Payments, ReservationRecord, Result, ledger::Records, retries::Retries};

/// A channel and its reservation record as one read saw them, with their versions (`None`: absent).
#[derive(Clone, Debug)]
pub(super) struct ChannelSnapshot {
    pub(super) channel: Option<(ChannelState, Version)>,
    pub(super) record: ReservationRecord,
    pub(super) record_version: Option<Version>,
    /// Since when this replica has seen this version of the reservation record, by its own monotonic clock. A lease counts from here: no
    /// clock is compared with that of the holder.
    pub(super) since: Instant,
}

impl ChannelSnapshot {
    /// When the holder's lease has ended for this observer; `None`: nobody holds the channel.
    pub(super) fn free_at(&self) -> Option<Instant> {
        // A lease beyond what the clock can tell never ends.
        self.record.hold().map(|hold| self.since.checked_add(hold.lease).unwrap_or(self.since + MAX_WATCH))
    }

    /// Expects the channel as it was seen.
    pub(super) fn channel_guard(&self, records: Records, id: ChannelId) -> Guard {
        Guard { key: records.channel_key(id), expected: expected(self.channel.as_ref().map(|(_, version)| *version)) }
    }

    /// Expects the reservation record as it was seen.
    pub(super) fn record_guard(&self, records: Records, id: ChannelId) -> Guard {
        Guard { key: records.reservation_key(id), expected: expected(self.record_version) }
    }

    pub(super) fn state(&self) -> Option<&ChannelState> {
        self.channel.as_ref().map(|(state, _)| state)
    }
}

/// Longer than any program runs: thirty years.
const MAX_WATCH: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

fn expected(version: Option<Version>) -> Expected {
    version.map_or(Expected::Absent, Expected::Version)
}

/// What this replica saw last of the channels that it dealt with. It saves the read before a reservation. It is never believed: a
/// transaction is guarded by the versions in it, and a refusal that comes of it is looked at afresh.
#[derive(Debug, Default)]
pub(super) struct SnapshotCache {
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    snapshots: HashMap<ChannelId, ChannelSnapshot>,
    /// The channels in the order in which they were first seen.
    order: VecDeque<ChannelId>,
    watched: HoldWatch,
}

impl SnapshotCache {
    /// How many channels are remembered, first in, first out: those of a busy replica, in a few megabytes.
    const MAX: usize = 4096;

    pub(super) fn get(&self, id: ChannelId) -> Option<ChannelSnapshot> {
        self.cached.lock().snapshots.get(&id).cloned()
    }

    /// Remembers a snapshot, and since when its reservation record has been seen: a lease runs over several calls of the same replica.
    pub(super) fn remember(&self, id: ChannelId, mut snapshot: ChannelSnapshot) -> ChannelSnapshot {
        let Cached { snapshots, order, watched } = &mut *self.cached.lock();
        snapshot.since = watched.since(id, &snapshot.record, snapshot.record_version, snapshot.since);
        if snapshots.insert(id, snapshot.clone()).is_none() {
            order.push_back(id);
        }
        // First in, first out: a forgotten channel costs one read more, and the plainest rule cannot be abused to keep others out.
        if order.len() > Self::MAX
            && let Some(oldest) = order.pop_front()
        {
            snapshots.remove(&oldest);
        }
        snapshot
    }
}

impl<S: Store, C: ChannelSource> Payments<S, C> {
    /// Reads the channel and its reservation record, in one round trip, and remembers them.
    pub(super) async fn read_snapshot(&self, id: ChannelId, retries: &mut Retries) -> Result<ChannelSnapshot> {
        Ok(self.snapshots.remember(id, read_snapshot(&self.store, self.records, id, retries).await?))
    }
}

/// Reads the channel and its reservation record, in one round trip.
///
/// The same read looks for records of this channel that name no ledger. They may be those of this very channel, with money in them, so
/// that nobody pays past them.
///
/// # Errors
/// [`Error::UnnamedRecord`] if there is one.
pub(super) async fn read_snapshot<S: Store + ?Sized>(
    store: &S,
    records: Records,
    id: ChannelId,
    retries: &mut Retries,
) -> Result<ChannelSnapshot> {
    let mut keys = vec![records.channel_key(id), records.reservation_key(id)];
    if records.ledger().is_some() {
        keys.extend([Records::UNNAMED.channel_key(id), Records::UNNAMED.reservation_key(id)]);
    }
    let mut entries = read_many(store, &keys, retries).await?;
    refuse_unnamed(entries.split_off(2))?;
    let [channel, record] = <[Option<Entry>; 2]>::try_from(entries)
        .map_err(|_| storage_core::Error::corrupt("the store answered for other keys than were asked for"))?;
    let state = |entry: &Entry| Ok::<_, Error>((channel_of(records, entry, id)?, entry.version));
    let channel = channel.as_ref().map(state).transpose()?;
    let record_version = record.as_ref().map(|entry| entry.version);
    let record = record.as_ref().map_or(Ok(ReservationRecord::default()), |entry| record_of(records, entry))?;
    // The clock is read after the read has ended, so a whole lease passes after the last renewal that it can have seen.
    Ok(ChannelSnapshot { channel, record, record_version, since: Instant::now() })
}

/// Reads keys, with as many attempts as it takes.
pub(crate) async fn read_many<S: Store + ?Sized>(
    store: &S,
    keys: &[Key],
    retries: &mut Retries,
) -> Result<Vec<Option<Entry>>> {
    loop {
        match store.get_many(keys, retries.read()).await {
            Ok(entries) if entries.len() == keys.len() => return Ok(entries),
            Ok(_) => {
                return Err(
                    storage_core::Error::corrupt("the store answered for other keys than were asked for").into()
                );
            }
            Err(error) => retries.after(error).await?,
        }
    }
}

/// Stops at the first record that names no ledger.
pub(crate) fn refuse_unnamed(entries: Vec<Option<Entry>>) -> Result<()> {
    let unnamed = entries.into_iter().flatten().next();
    unnamed.map_or(Ok(()), |entry| Err(Error::UnnamedRecord { key: entry.key }))
}

pub(crate) fn channel_of(records: Records, entry: &Entry, id: ChannelId) -> Result<ChannelState> {
    let state = ChannelState::decode(records.open(entry)?).map_err(|error| Error::record(&entry.key, error))?;
    if state.channel_id == id { Ok(state) } else { Err(Error::MisplacedRecord { key: entry.key.clone() }) }
}

pub(super) fn record_of(records: Records, entry: &Entry) -> Result<ReservationRecord> {
    ReservationRecord::decode(records.open(entry)?).map_err(|error| Error::record(&entry.key, error))
}
