//! When leases end. The state has no clock: the leader counts, on its monotonic clock, and proposes the end of a lease as a
//! command. A new leader grants every lease its whole life anew, so a change of leaders never ends one too early.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use imbl::ordmap::DiffItem;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    command::Command,
    mvcc::LeaseLife,
    state_machine::{Lease, Leases, SharedState},
};

/// How many leases are ended at once, at the most; the others have to wait for the next time.
const ENDED_AT_ONCE: usize = 1024;

/// The leader's clock for leases.
#[derive(Clone, Debug)]
pub(super) struct LeaseClock {
    state: SharedState,
    times: Arc<Mutex<Times>>,
}

#[derive(Debug, Default)]
struct Times {
    /// The term in which this node leads and counts.
    term: u64,
    /// The leases for which there are times.
    known: Leases,
    ends: HashMap<u64, Instant>,
    order: BTreeSet<(Instant, u64)>,
}

impl LeaseClock {
    pub(super) fn new(state: SharedState) -> Self {
        Self { state, times: Arc::default() }
    }

    pub(super) fn state(&self) -> &SharedState {
        &self.state
    }

    /// How long a lease lives, kept alive from `renewed` on if that is given. `None`: there is none, or it has run out.
    pub(super) fn life(&self, term: u64, id: u64, renewed: Option<Instant>) -> Option<LeaseLife> {
        let mut times = self.times.lock();
        times.follow(term, self.leases());
        let granted_seconds = times.known.0.get(&id)?.ttl_seconds;
        let now = Instant::now();
        if *times.ends.get(&id)? <= now {
            return None;
        }
        if let Some(renewed) = renewed {
            times.ends_at(id, after(renewed, granted_seconds));
        }
        let left = times.ends.get(&id)?.saturating_duration_since(now);
        Some(LeaseLife { granted_seconds, left_millis: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) })
    }

    /// The commands that end the leases which have run out.
    pub(super) fn ended(&self, term: u64) -> Vec<Command> {
        let mut times = self.times.lock();
        times.follow(term, self.leases());
        let now = Instant::now();
        let ended = times.order.iter().take_while(|(end, _)| *end <= now).take(ENDED_AT_ONCE);
        let ended = ended.filter_map(|(_, id)| Some((*id, times.known.0.get(id)?.granted)));
        ended.map(|(id, granted)| Command::LeaseExpire { id, granted }).collect()
    }

    fn leases(&self) -> Leases {
        self.state.read(|replica| replica.state.tables().lease_table().clone())
    }
}

impl Times {
    /// Takes in what has changed: time is found out by looking at what is new, however many leases there are.
    fn follow(&mut self, term: u64, leases: Leases) {
        if self.term != term {
            *self = Self { term, ..Self::default() };
        }
        let now = Instant::now();
        let known = std::mem::replace(&mut self.known, leases.clone());
        for change in known.0.diff(&leases.0) {
            match change {
                DiffItem::Add(id, lease) => self.ends_at(*id, after(now, lease.ttl_seconds)),
                DiffItem::Update { old, new: (id, lease) } if is_another(old.1, lease) => {
                    self.ends_at(*id, after(now, lease.ttl_seconds));
                }
                DiffItem::Update { .. } => {}
                DiffItem::Remove(id, _) => {
                    if let Some(end) = self.ends.remove(id) {
                        self.order.remove(&(end, *id));
                    }
                }
            }
        }
    }

    fn ends_at(&mut self, id: u64, end: Instant) {
        if let Some(before) = self.ends.insert(id, end) {
            self.order.remove(&(before, id));
        }
        self.order.insert((end, id));
    }
}

/// Whether the id was given to another lease meanwhile, rather than to other keys.
fn is_another(one: &Lease, other: &Lease) -> bool {
    one.granted != other.granted
}

/// A lease that lives longer than a clock can count lives for a very long time.
fn after(from: Instant, seconds: u64) -> Instant {
    const LONG: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    from.checked_add(Duration::from_secs(seconds)).unwrap_or_else(|| from + LONG)
}
