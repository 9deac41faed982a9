//! Since when each hold has been seen unchanged, by which the lease of a dead replica is counted.
//!
//! Bounded, and apart from the other memory: nothing that strangers send may make it forget a hold, since forgetting
//! begins the lease anew.

use std::{collections::HashMap, time::Duration};

use storage_core::{Version, channel::ChannelId};
use tokio::time::Instant;

use crate::ReservationRecord;

/// Since when this replica has seen each hold unchanged: what a dead replica's lease is counted by.
///
/// It is apart from what is remembered of other channels. An entry is made only for a channel that is held, which takes a payment that was
/// accepted, and goes when the hold does. So neither other payments nor requests of strangers can make it forget a hold, which would
/// begin a lease anew: for ever, if they are many.
#[derive(Debug, Default)]
pub(super) struct HoldWatch {
    watched: HashMap<ChannelId, Watched>,
}

#[derive(Debug)]
struct Watched {
    version: Option<Version>,
    since: Instant,
    lease: Duration,
}

impl HoldWatch {
    /// How many holds are watched, in some megabytes. There are as many as payments in flight, and those that dead replicas left.
    ///
    /// Where there are more, those go whose lease has ended for another lease: whoever is asked for such a channel has taken it since, or nobody
    /// asks. If none is, what is new is not watched until there is room: that is within two of the longest leases among them.
    const MAX: usize = 65_536;

    /// Since when a reservation record of this version, which was seen now, has been seen: from now on if it is new.
    pub(super) fn since(
        &mut self,
        id: ChannelId,
        record: &ReservationRecord,
        version: Option<Version>,
        now: Instant,
    ) -> Instant {
        let Some(hold) = record.hold() else {
            self.watched.remove(&id);
            return now;
        };
        if let Some(watched) = self.watched.get_mut(&id) {
            // Of two that saw the same version the earlier time counts; another version is a new hold, or a renewed one.
            watched.since = if watched.version == version { watched.since.min(now) } else { now };
            (watched.version, watched.lease) = (version, hold.lease);
            return watched.since;
        }
        if self.watched.len() >= Self::MAX {
            self.watched.retain(|_, watched| now.saturating_duration_since(watched.since) < 2 * watched.lease);
        }
        if self.watched.len() < Self::MAX {
            self.watched.insert(id, Watched { version, since: now, lease: hold.lease });
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use storage_core::channel::{Amount, Nonce};

    use super::*;
    use crate::{Hold, ReservationId};

    const LEASE: Duration = Duration::from_secs(8);

    /// Looks at a channel that is held, or free.
    fn see(watch: &mut HoldWatch, id: ChannelId, version: u64, now: Instant, held: bool) -> Instant {
        let (nonce, amount) = (Nonce::ZERO, Amount::from(1));
        let hold = Hold { id: ReservationId(1), owner: "dead".to_owned(), lease: LEASE, nonce, amount };
        let free = ReservationRecord::default();
        let record = if held { free.taken(hold).unwrap() } else { free };
        watch.since(id, &record, Some(Version::from_u64(version)), now)
    }

    #[test]
    fn a_hold_is_watched_from_when_it_was_first_seen_until_it_changes() {
        let (mut watch, begin, id) = (HoldWatch::default(), Instant::now(), ChannelId::from(7));
        let later = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(see(&mut watch, id, 1, begin, true), begin);
        assert_eq!(see(&mut watch, id, 1, later(3), true), begin);
        assert_eq!(see(&mut watch, id, 2, later(4), true), later(4), "it was renewed");
        assert_eq!(see(&mut watch, id, 3, later(5), false), later(5));
        assert!(watch.watched.is_empty(), "a free channel needs no watch");
    }

    #[test]
    fn a_watch_that_is_full_makes_room_within_two_leases_and_forgets_no_lease_that_runs() {
        let (mut watch, begin) = (HoldWatch::default(), Instant::now());
        for id in 0..HoldWatch::MAX as u64 {
            see(&mut watch, ChannelId::from(id), 1, begin, true);
        }
        let (new, soon) = (ChannelId::MAX, begin + LEASE);
        assert_eq!(see(&mut watch, new, 1, soon, true), soon);
        assert_eq!(watch.watched.len(), HoldWatch::MAX, "it has a bound");
        assert_eq!(see(&mut watch, ChannelId::ZERO, 1, soon, true), begin, "no lease that runs is forgotten");
        let room = begin + 2 * LEASE;
        assert_eq!(see(&mut watch, new, 1, room, true), room);
        assert_eq!(see(&mut watch, new, 1, room + LEASE, true), room);
    }
}
