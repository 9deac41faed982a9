//! When leases end. The state has no clock: the leader counts, on its monotonic clock, and proposes the end of a lease as a
//! command. A new leader grants every lease its whole life anew, so a change of leaders never ends one too early. So does a leader that has
//! heard from no majority for a while: meanwhile nobody could keep a lease alive, and it counts no time. A lease whose end it has proposed, or told
//! of, is excepted: that may be in the log already, and it is never told to be alive again.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::LeaseLife;
use crate::keys::{Lease, Leases};

/// How many leases are ended at once, at the most; the others have to wait for the next time.
const ENDED_AT_ONCE: usize = 1024;

/// The leader's clock for leases.
#[derive(Clone, Debug)]
pub(crate) struct LeaseClock {
    /// After so long without an answer of a majority the leader counts no time.
    silence: Duration,
    times: Arc<Mutex<Times>>,
}

/// That this node leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leading {
    /// Since this term.
    pub(crate) term: u64,
    /// When a majority has answered it last.
    pub(crate) heard: Option<Instant>,
}

#[derive(Debug, Default)]
struct Times {
    /// The term in which this node leads and counts.
    term: u64,
    /// When a majority had answered it, when that was looked at last.
    heard: Option<Instant>,
    /// The leases for which there are times.
    known: Leases,
    ends: HashMap<u64, Instant>,
    order: BTreeSet<(Instant, u64)>,
    /// The leases whose end was proposed or told of in this term, and the indexes of the entries that granted them.
    doomed: HashMap<u64, u64>,
}

impl LeaseClock {
    pub(crate) fn new(silence: Duration) -> Self {
        Self { silence, times: Arc::default() }
    }

    /// How long one of these leases lives, kept alive from `renewed` on if that is given. `None`: there is none, or it has run out.
    #[expect(clippy::expect_used, reason = "`follow` gives one to each")]
    pub(crate) fn life(
        &self,
        leading: Leading,
        leases: Leases,
        id: u64,
        renewed: Option<Instant>,
        now: Instant,
    ) -> Option<LeaseLife> {
        let mut times = self.times.lock();
        times.follow(leading, self.silence, leases, now);
        let Lease { ttl_seconds: granted_seconds, granted, .. } = *times.known.0.get(&id)?;
        let mut end = *times.ends.get(&id).expect("a lease that is known has an end");
        // It has run out here, though its end is not in the log yet: whoever is told so must not find it alive later.
        if end <= now {
            times.doomed.insert(id, granted);
            return None;
        }
        if let Some(renewed) = renewed {
            end = after(renewed, granted_seconds);
            times.ends_at(id, end);
        }
        let left = end.saturating_duration_since(now);
        Some(LeaseLife { granted_seconds, left_millis: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) })
    }

    /// Which of these leases have run out: their ids, and the indexes of the entries that granted them.
    #[expect(clippy::expect_used, reason = "`follow` takes away the ends of others")]
    pub(crate) fn ended(&self, leading: Leading, leases: Leases, now: Instant) -> Vec<(u64, u64)> {
        let mut times = self.times.lock();
        times.follow(leading, self.silence, leases, now);
        if times.heard.is_none_or(|heard| heard + self.silence < now) {
            return Vec::new();
        }
        let ended = times.order.iter().take_while(|(end, _)| *end <= now).take(ENDED_AT_ONCE);
        let granted = |id| times.known.0.get(id).expect("a lease that has an end is known").granted;
        let ended: Vec<_> = ended.map(|(_, id)| (*id, granted(id))).collect();
        times.doomed.extend(ended.iter().copied());
        ended
    }
}

impl Times {
    /// Takes in what has changed: time is found out by looking at what is new, however many leases there are.
    #[expect(clippy::expect_used, reason = "each was given one when it was seen first")]
    fn follow(&mut self, leading: Leading, silence: Duration, leases: Leases, now: Instant) {
        let Leading { term, heard } = leading;
        let was_silent = match (self.heard, heard) {
            (Some(before), Some(heard)) => before + silence < heard,
            _ => false,
        };
        #[cfg(simulated)]
        let was_silent = {
            if crate::simulated::is_planted(crate::simulated::Flaw::StaleLeaseClock) {
                self.term = term;
            }
            was_silent
        };
        // This node leads anew, and does not know what was kept alive in between: every lease gets its whole life once more, never less.
        if self.term != term || was_silent {
            // What was proposed in an earlier term is known from the log by whoever is answered in this one.
            let mut doomed = if self.term == term { std::mem::take(&mut self.doomed) } else { HashMap::new() };
            doomed.retain(|id, granted| leases.0.get(id).is_some_and(|lease| lease.granted == *granted));
            *self = Self { term, doomed, ..Self::default() };
        }
        // What is looked at by two tasks may come in another order.
        self.heard = self.heard.max(heard);
        let known = std::mem::replace(&mut self.known, leases.clone());
        // Mostly nothing has. Otherwise all are walked over, in some 10 ns each: `OrdMap::diff` of imbl 6.1.0, which passes over
        // the nodes that two maps share, passes over changes too.
        let is_same = known.0.ptr_eq(&leases.0);
        let mut old = known.0.iter().filter(|_| !is_same).peekable();
        let mut new = leases.0.iter().filter(|_| !is_same).peekable();
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some((old, _)), Some((new, _))) => old.cmp(new),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let gone = if order.is_le() { old.next() } else { None };
            let there = if order.is_ge() { new.next() } else { None };
            match (gone, there) {
                (Some((_, old)), Some((id, lease))) if is_another(old, lease) => {
                    self.ends_at(*id, after(now, lease.ttl_seconds));
                }
                (None, Some((id, lease))) => {
                    let is_doomed = self.doomed.get(id) == Some(&lease.granted);
                    self.ends_at(*id, if is_doomed { now } else { after(now, lease.ttl_seconds) });
                }
                (Some((id, _)), None) => {
                    let end = self.ends.remove(id).expect("a lease that was known has an end");
                    self.order.remove(&(end, *id));
                    self.doomed.remove(id);
                }
                _ => {}
            }
        }
        let (known, ends, order) = (self.known.0.len(), self.ends.len(), self.order.len());
        assert!(
            known == ends && ends == order,
            "each lease has one end: {known} leases, {ends} ends, {order} in order"
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(1);

    fn leases() -> Leases {
        let mut leases = Leases::default();
        leases.0.insert(7, Lease { ttl_seconds: 10, granted: 3, keys: Default::default() });
        leases
    }

    /// A leader of term 1 that a majority has answered at some time.
    fn heard(at: Instant) -> Leading {
        Leading { term: 1, heard: Some(at) }
    }

    #[test]
    fn a_lease_ends_after_its_time_under_a_leader_that_is_heard() {
        let (clock, began) = (LeaseClock::new(SILENCE), Instant::now());
        for second in 0..10 {
            let now = began + SILENCE * second;
            assert_eq!(clock.ended(heard(now), leases(), now), []);
        }
        let now = began + SILENCE * 10;
        assert_eq!(clock.ended(heard(now), leases(), now), [(7, 3)]);
        assert_eq!(
            clock.life(heard(now), leases(), 7, Some(now), now),
            None,
            "once it has ended it is not found alive"
        );
    }

    /// Its followers were away for longer than the lease: nobody could keep it alive.
    #[test]
    fn a_lease_gets_its_whole_time_when_the_majority_is_back() {
        let (clock, began) = (LeaseClock::new(SILENCE), Instant::now());
        for second in 0..15 {
            assert_eq!(
                clock.ended(heard(began), leases(), began + SILENCE * second),
                [],
                "without a majority none ends"
            );
        }
        let now = began + SILENCE * 15;
        let life = clock.life(heard(now), leases(), 7, None, now).unwrap();
        assert_eq!(life.left_millis, 10_000);
        assert_eq!(clock.ended(heard(now), leases(), now), []);
    }

    /// A leader proposed the end just after it had heard from a majority for the last time. The proposal stayed in its log, and was committed when the
    /// majority was back, after the lease had been told to live on.
    #[test]
    fn a_lease_whose_end_was_proposed_is_not_alive_when_the_majority_is_back() {
        let (clock, began) = (LeaseClock::new(SILENCE), Instant::now());
        clock.ended(heard(began), leases(), began);
        for tenth in 1..=100 {
            let now = began + SILENCE * tenth / 10;
            let ended = clock.ended(heard(now - SILENCE / 2), leases(), now);
            assert_eq!(ended.is_empty(), tenth < 100, "{tenth}");
        }
        let now = began + SILENCE * 15;
        assert_eq!(clock.life(heard(now), leases(), 7, Some(now), now), None);
        assert_eq!(clock.ended(heard(now), leases(), now), [(7, 3)], "it is proposed again");
        let another = Leading { term: 2, heard: Some(now) };
        assert!(clock.life(another, leases(), 7, None, now).is_some(), "what was proposed before is not in the log");
    }

    /// The library's comparison of two maps lost some of them, and the leader ended when they were revoked.
    #[test]
    fn each_of_many_leases_has_its_end_while_they_come_and_go() {
        let (clock, now, mut leases) = (LeaseClock::new(SILENCE), Instant::now(), Leases::default());
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let ids: Vec<_> = (0..500).map(|_| random.u64(1..)).collect();
        let looked_at = |leases: &Leases, id, is_there: bool| {
            let life = clock.life(heard(now), leases.clone(), id, Some(now), now);
            assert_eq!(life.is_some(), is_there, "seed {seed}");
        };
        for (granted, id) in (1..).zip(&ids) {
            leases.0.insert(*id, Lease { ttl_seconds: 10, granted, keys: Default::default() });
            looked_at(&leases, *id, true);
        }
        for id in ids {
            leases.0.remove(&id);
            looked_at(&leases, id, false);
        }
        assert!(clock.times.lock().ends.is_empty());
    }

    /// A process that stood still finds its clock ahead, and has heard nobody since.
    #[test]
    fn a_leader_that_stood_still_ends_nothing_before_it_is_heard_again() {
        let (clock, began) = (LeaseClock::new(SILENCE), Instant::now());
        clock.ended(heard(began), leases(), began);
        let now = began + SILENCE * 60;
        assert_eq!(clock.ended(heard(began), leases(), now), []);
        assert_eq!(clock.ended(heard(now), leases(), now), []);
        assert!(clock.life(heard(now), leases(), 7, None, now).is_some());
    }
}
