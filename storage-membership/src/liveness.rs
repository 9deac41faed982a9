//! Who is heard of, on the leader's monotonic clock. The clock is an argument.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    decide::Liveness,
    ids::{NodeId, ReplicaId},
    settings::Timing,
};

/// What one leader has heard since it leads. Two things tell that somebody lives: the heartbeat that a replica writes into the table, and what its node
/// acknowledges to the leader. A process whose node hangs still writes heartbeats by the nodes of others, so a member is live by its node alone.
///
/// It keeps instants of the leader's own clock and no times of others, whose clocks may be anywhere. A new one begins anew, and takes nobody for dead before the whole threshold has passed.
#[derive(Debug)]
pub(crate) struct LivenessTracker {
    timing: Timing,
    term: u64,
    since: Instant,
    /// The latest heartbeat of each replica, and when it was seen to have changed.
    beats: BTreeMap<ReplicaId, ((u64, u64), Option<Instant>)>,
    /// When each member has acknowledged something.
    acknowledged: BTreeMap<NodeId, Instant>,
    matched: BTreeMap<NodeId, u64>,
    /// How far the leader was the last time.
    last_index: u64,
    caught_up: BTreeMap<NodeId, bool>,
}

impl LivenessTracker {
    pub(crate) fn new(timing: Timing, now: Instant) -> Self {
        Self {
            timing,
            term: 0,
            since: now,
            beats: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            matched: BTreeMap::new(),
            last_index: u64::MAX,
            caught_up: BTreeMap::new(),
        }
    }

    /// Begins anew if this is another term.
    pub(crate) fn leads(&mut self, term: u64, now: Instant) {
        if self.term != term {
            *self = Self { term, ..Self::new(self.timing, now) };
        }
    }

    /// A replica's row says this: its incarnation and the number of its heartbeat.
    pub(crate) fn beat(&mut self, replica: ReplicaId, beat: (u64, u64), now: Instant) {
        match self.beats.get_mut(&replica) {
            // The first that is seen may be old.
            None => drop(self.beats.insert(replica, (beat, None))),
            Some((before, _)) if *before == beat => {}
            Some(known) => *known = (beat, Some(now)),
        }
    }

    /// The members have acknowledged so long ago, and have come so far.
    pub(crate) fn acknowledge(
        &mut self,
        ago: &BTreeMap<NodeId, Duration>,
        matched: &BTreeMap<NodeId, u64>,
        last_index: u64,
        now: Instant,
    ) {
        let heard = ago.iter().filter_map(|(node, ago)| Some((*node, now.checked_sub(*ago)?)));
        for (node, at) in heard.filter(|(_, at)| *at >= self.since) {
            let known = self.acknowledged.entry(node).or_insert(at);
            *known = at.max(*known);
        }
        for (node, index) in matched {
            if self.matched.insert(*node, *index).is_some_and(|before| before < *index) {
                self.acknowledged.insert(*node, now);
            }
            // What the leader had a moment ago: under load it is always a little ahead.
            self.caught_up.insert(*node, *index >= self.last_index);
        }
        self.last_index = last_index;
    }

    pub(crate) fn has_caught_up(&self, node: NodeId) -> bool {
        self.caught_up.get(&node).copied().unwrap_or_default()
    }

    /// Whether a member is heard of, of which no row tells.
    pub(crate) fn of_member(&self, node: NodeId, now: Instant) -> Liveness {
        let silent = now.saturating_duration_since(self.acknowledged.get(&node).copied().unwrap_or(self.since));
        match self.acknowledged.get(&node) {
            Some(_) if silent < self.timing.live_within() => Liveness::Live,
            _ if silent >= self.timing.dead_after => Liveness::Dead,
            _ => Liveness::Silent,
        }
    }

    /// Whether a replica is heard of, and for how long it was not. One with a node that is a member is live only if that acknowledges, and
    /// dead only if neither of the two is heard of.
    pub(crate) fn of(&self, replica: ReplicaId, member: Option<NodeId>, now: Instant) -> (Liveness, Duration) {
        let beat = self.beats.get(&replica).and_then(|(_, at)| *at);
        let acknowledged = member.and_then(|node| self.acknowledged.get(&node).copied());
        let vital = if member.is_some() { acknowledged } else { beat };
        let heard = beat.max(acknowledged).unwrap_or(self.since);
        let silent = now.saturating_duration_since(heard);
        let is_live = vital.is_some_and(|at| now.saturating_duration_since(at) < self.timing.live_within());
        match (is_live, silent >= self.timing.dead_after) {
            (true, _) => (Liveness::Live, Duration::ZERO),
            (false, true) => (Liveness::Dead, silent),
            (false, false) => (Liveness::Silent, silent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_takes_nobody_for_dead_or_live_until_it_has_heard_or_waited() {
        let (timing, start) = (Timing::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heard = LivenessTracker::new(timing, start);
        heard.leads(3, start);
        for second in [0, 1, 2] {
            heard.beat(1, (7, second), at(second));
            heard.beat(2, (8, 55), at(second));
        }
        assert_eq!(heard.of(1, None, at(3)).0, Liveness::Live);
        assert_eq!(heard.of(2, None, at(3)).0, Liveness::Silent, "its row may be old");
        assert_eq!(heard.of(1, Some(5), at(3)).0, Liveness::Silent, "its node acknowledges nothing");
        assert_eq!(heard.of(2, None, at(30)).0, Liveness::Dead);
        assert_eq!(heard.of(1, None, at(31)), (Liveness::Silent, Duration::from_secs(29)));
        assert_eq!(heard.of(1, None, at(32)).0, Liveness::Dead);
        heard.leads(4, at(40));
        assert_eq!(heard.of(2, None, at(41)).0, Liveness::Silent, "another term counts anew");
    }

    #[test]
    fn a_member_is_heard_by_acknowledgements_or_by_progress() {
        let (timing, start) = (Timing::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heard = LivenessTracker::new(timing, start);
        heard.leads(3, start);
        let ago = |node, seconds| BTreeMap::from([(node, Duration::from_secs(seconds))]);
        heard.acknowledge(&ago(5, 1), &BTreeMap::from([(5, 10), (6, 10)]), 10, at(20));
        assert_eq!(heard.of(1, Some(5), at(20)).0, Liveness::Live);
        assert_eq!(heard.of(2, Some(6), at(20)).0, Liveness::Silent);
        assert_eq!((heard.of_member(5, at(20)), heard.of_member(6, at(20))), (Liveness::Live, Liveness::Silent));
        assert_eq!((heard.of_member(5, at(48)), heard.of_member(6, at(30))), (Liveness::Silent, Liveness::Dead));
        assert!(!heard.has_caught_up(5), "there is nothing yet to compare with");
        heard.acknowledge(&ago(5, 30), &BTreeMap::from([(5, 10), (6, 9)]), 12, at(50));
        assert_eq!(heard.of(1, Some(5), at(50)).0, Liveness::Dead, "29 to 31 seconds");
        assert!(heard.has_caught_up(5) && !heard.has_caught_up(6));
        heard.acknowledge(&BTreeMap::new(), &BTreeMap::from([(6, 11)]), 13, at(51));
        assert_eq!(heard.of(2, Some(6), at(51)).0, Liveness::Live, "it has come further");
        assert!(!heard.has_caught_up(6), "the leader was further before");
    }
}
