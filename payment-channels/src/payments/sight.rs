use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use storage_core::{
    Entry, Expected, Guard, Store, Version,
    channel::{ChannelId, ChannelState, key_of},
};
use tokio::time::Instant;

use crate::{ChannelSource, Error, Payments, Result, Slot, attempts::Attempts, slot_key};

/// A channel and its slot as they were seen, with their versions (`None`: absent).
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) channel: Option<(ChannelState, Version)>,
    pub(super) slot: Slot,
    pub(super) slot_version: Option<Version>,
    /// Since when this replica has seen this version of the slot, by its own monotonic clock. A lease counts from here.
    pub(super) since: Instant,
}

impl Sight {
    /// When the holder's lease has ended for this observer; `None`: nobody holds the channel.
    pub(super) fn free_at(&self) -> Option<Instant> {
        // A lease beyond what the clock can tell never ends.
        self.slot.hold().map(|hold| self.since.checked_add(hold.lease).unwrap_or(self.since + MAX_WATCH))
    }

    /// Expects the channel as it was seen.
    pub(super) fn channel_guard(&self, id: ChannelId) -> Guard {
        Guard { key: key_of(id), expected: expected(self.channel.as_ref().map(|(_, version)| *version)) }
    }

    /// Expects the slot as it was seen.
    pub(super) fn slot_guard(&self, id: ChannelId) -> Guard {
        Guard { key: slot_key(id), expected: expected(self.slot_version) }
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

/// What this replica saw last of the channels that it dealt with. It saves the read before a reservation, and it remembers since
/// when a holder has not been heard of, over several calls. It is never believed: a transaction is guarded by the versions in it,
/// and a refusal that comes of it is looked at afresh.
#[derive(Debug, Default)]
pub(super) struct Sights {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    sights: HashMap<ChannelId, Sight>,
    /// The channels in the order in which they were first seen.
    order: VecDeque<ChannelId>,
}

impl Sights {
    /// How many channels are remembered, first in, first out: those of a busy replica, in a few megabytes.
    const MAX: usize = 4096;

    pub(super) fn get(&self, id: ChannelId) -> Option<Sight> {
        self.seen.lock().sights.get(&id).cloned()
    }

    /// Remembers a sight, and since when its slot has been seen.
    pub(super) fn remember(&self, id: ChannelId, mut sight: Sight) -> Sight {
        let Seen { sights, order } = &mut *self.seen.lock();
        match sights.get(&id) {
            Some(before) if before.slot_version == sight.slot_version => sight.since = before.since.min(sight.since),
            Some(_) => {}
            None => order.push_back(id),
        }
        sights.insert(id, sight.clone());
        if order.len() > Self::MAX
            && let Some(oldest) = order.pop_front()
        {
            sights.remove(&oldest);
        }
        sight
    }
}

impl<S: Store, C: ChannelSource> Payments<S, C> {
    /// Reads the channel and its slot, in one round trip, and remembers them.
    pub(super) async fn look(&self, id: ChannelId, attempts: &mut Attempts) -> Result<Sight> {
        Ok(self.sights.remember(id, look(&self.store, id, attempts).await?))
    }
}

/// Reads the channel and its slot, in one round trip.
pub(super) async fn look<S: Store + ?Sized>(store: &S, id: ChannelId, attempts: &mut Attempts) -> Result<Sight> {
    let keys = [key_of(id), slot_key(id)];
    let entries = loop {
        match store.get_many(&keys, attempts.read()).await {
            Ok(entries) => break entries,
            Err(error) => attempts.after(error).await?,
        }
    };
    let [channel, slot] = <[Option<Entry>; 2]>::try_from(entries)
        .map_err(|_| storage_core::Error::corrupt("the store answered for other keys than were asked for"))?;
    let channel = channel.as_ref().map(|entry| Ok::<_, Error>((channel_of(entry, id)?, entry.version))).transpose()?;
    let slot_version = slot.as_ref().map(|entry| entry.version);
    let slot = slot.as_ref().map_or(Ok(Slot::default()), slot_of)?;
    // The clock is read after the read has ended, so a whole lease passes after the last renewal that it can have seen.
    Ok(Sight { channel, slot, slot_version, since: Instant::now() })
}

pub(super) fn channel_of(entry: &Entry, id: ChannelId) -> Result<ChannelState> {
    let state = ChannelState::decode(&entry.value).map_err(|error| Error::record(&entry.key, error))?;
    if state.channel_id == id { Ok(state) } else { Err(Error::MisplacedRecord { key: entry.key.clone() }) }
}

pub(super) fn slot_of(entry: &Entry) -> Result<Slot> {
    Slot::decode(&entry.value).map_err(|error| Error::record(&entry.key, error))
}
