//! What the leader does next for the membership of its cluster: a pure function, without a clock and without I/O.
//!
//! - Voters follow the live replicas: 1 and 2 have one voter, 3 and 4 three, 5 and more five. They grow by themselves. They shrink only when replicas
//!   leave, never because some are silent: nobody can tell a death from a cut of the network.
//! - A voter that is dead, or whose replica has lost its disk, is replaced when another replica is live; without one it stays.
//! - Whoever becomes a voter was a learner that has caught up. One change is under way at a time, and none begins unless majorities of the voters
//!   before and after it are live.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::ids::{NodeId, ReplicaId};

/// What the leader knows, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The replicas in the table.
    pub replicas: BTreeMap<ReplicaId, ReplicaView>,
    /// The set of voters; during a joint change both sets, the one to be left first.
    pub voter_sets: Vec<BTreeSet<NodeId>>,
    /// The members that do not vote.
    pub learners: BTreeSet<NodeId>,
    /// The members that have what the leader has.
    pub caught_up: BTreeSet<NodeId>,
    /// Whether a majority has the latest change of members.
    pub is_committed: bool,
    /// Who leads and decides.
    pub leader: NodeId,
    /// How members can be changed.
    pub changes: Changes,
}

/// A replica, as the table and the leader's clock tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// Whether it is heard of.
    pub liveness: Liveness,
    /// Its node. A replica that has lost its disk has another one than the cluster remembers, or none.
    pub node: Option<NodeId>,
    /// It was asked to leave for good.
    pub is_leaving: bool,
}

/// A member that no replica in the table claims, as its own acknowledgements and what is left of the table tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclaimed {
    /// The replica that it was given to, if a row says so.
    pub replica: Option<ReplicaId>,
    /// Whether the node acknowledges what the leader sends.
    pub liveness: Liveness,
    /// That replica was asked to leave for good.
    pub is_leaving: bool,
    /// That replica has another data directory now.
    pub has_lost_disk: bool,
}

/// Whether somebody is heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// It was heard of just now.
    Live,
    /// It was not, and not yet for so long that it counts as dead.
    Silent,
    /// It has been silent for longer than the threshold.
    Dead,
}

/// How members can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Any set of voters becomes any other in one joint change (Raft thesis, section 4.3).
    Joint,
    /// One voter comes or goes at a time, and there is one learner at a time: as in etcd.
    Single,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This, and nothing else until it is done.
    Act(Action),
    /// Something is to be done, and cannot be done yet.
    Wait(Reason),
    /// Nothing: the members are as they should be.
    Settled,
}

/// One change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the joint change that another leader has begun.
    FinishJoint(BTreeSet<NodeId>),
    /// Give the replica a node with a new id, which does not vote.
    AddLearner(ReplicaId),
    /// Remove members that do not vote.
    RemoveLearners(BTreeSet<NodeId>),
    /// Make these the voters.
    SetVoters(BTreeSet<NodeId>),
    /// Let another voter lead.
    HandOver(NodeId),
}

/// Why what is to be done cannot be done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The last change has not reached a majority.
    NotCommitted,
    /// The leader's own replica does not stand in the table.
    NotRegistered,
    /// A majority of these voters would have to be live.
    NoMajority(BTreeSet<NodeId>),
    /// This node has yet to receive what the leader has.
    CatchingUp(NodeId),
    /// The leader wants to leave, and nobody can take over.
    NobodyTakesOver,
}

/// How many voters a cluster with so many live replicas has.
pub fn voters_for(live: usize) -> usize {
    match live {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

/// What the leader does next.
///
/// # Panics
/// If that would break what every change keeps to.
pub fn decide(view: &View) -> Decision {
    let decision = choose(view);
    if let Decision::Act(action) = &decision {
        assert_safe(view, action);
    }
    decision
}

/// What every change keeps to, whatever has decided on it: the voters keep what was acknowledged, and somebody can lead them.
fn assert_safe(view: &View, action: &Action) {
    assert!(view.is_committed, "members are changed while a change of them is not committed");
    let voters: BTreeSet<NodeId> = view.voter_sets.iter().flatten().copied().collect();
    match action {
        Action::FinishJoint(last) => {
            assert_eq!(Some(last), view.voter_sets.last(), "a joint change ends as it was meant")
        }
        Action::SetVoters(next) => {
            let keeps_leader = !voters.contains(&view.leader) || next.contains(&view.leader);
            assert!(keeps_leader, "the leader takes the vote from itself");
            let has_caught_up = next.difference(&voters).all(|node| view.caught_up.contains(node));
            assert!(has_caught_up, "a node becomes a voter that has not caught up");
            let changed = next.symmetric_difference(&voters).count();
            assert!(
                view.changes == Changes::Joint || changed == 1,
                "voters change one at a time, or in a joint change"
            );
        }
        Action::RemoveLearners(nodes) => assert!(nodes.is_disjoint(&voters), "a voter is removed as a learner"),
        Action::HandOver(next) => {
            let can_lead = voters.contains(next) && view.caught_up.contains(next) && *next != view.leader;
            assert!(can_lead, "the leadership goes to a node that cannot lead");
        }
        Action::AddLearner(replica) => {
            let node = view.replicas.get(replica).and_then(|replica| replica.node);
            assert!(!node.is_some_and(|node| view.is_member(node)), "a replica is given a second node");
        }
    }
}

fn choose(view: &View) -> Decision {
    let [voters] = view.voter_sets.as_slice() else { return finish_joint(view) };
    if !view.is_committed {
        return Decision::Wait(Reason::NotCommitted);
    }
    let Some(leader) = view.owner(view.leader) else { return Decision::Wait(Reason::NotRegistered) };
    if let Some(useless) = useless_learners(view) {
        return view.with_majorities([voters], Action::RemoveLearners(useless));
    }
    let goal = goal(view, voters);
    if leader.1.is_leaving {
        return hand_over(view, voters, &goal);
    }
    match view.changes {
        Changes::Joint => joint(view, voters, &goal),
        Changes::Single => single(view, voters, &goal),
    }
}

/// Who should vote: nodes that are there, and replicas that have yet to be given one.
#[derive(Debug, Default)]
struct Goal {
    nodes: BTreeSet<NodeId>,
    newcomers: Vec<ReplicaId>,
}

/// Fills the seats: first with voters that are well, then with live replicas, and at last with voters that are dead.
///
/// A dead voter keeps its seat while nobody else could have it. Taking it out would shrink the cluster on nothing but silence, which a cut of the network
/// looks like too, and leave the data on fewer disks.
fn goal(view: &View, voters: &BTreeSet<NodeId>) -> Goal {
    let staying = view.replicas.values().filter(|replica| !replica.is_leaving);
    let live = staying.clone().filter(|replica| replica.liveness == Liveness::Live).count();
    // Silence lets the number stand; that replicas leave makes it less. So the number of seats never follows what a cut looks like, and follows what a
    // person has said.
    let seats = voters.len().max(voters_for(live)).min(voters_for(staying.count()));
    let mut order: Vec<(Rank, ReplicaId, Option<NodeId>)> = Vec::new();
    for (id, replica) in view.replicas.iter().filter(|(_, replica)| !replica.is_leaving) {
        let is_live = replica.liveness == Liveness::Live;
        let rank = match replica.node {
            Some(node) if node == view.leader => Rank::Leader,
            Some(node) if voters.contains(&node) => match replica.liveness {
                Liveness::Live => Rank::Live,
                Liveness::Silent => Rank::Silent,
                Liveness::Dead => Rank::Dead,
            },
            Some(node) if is_live && view.learners.contains(&node) => Rank::Learner,
            _ if is_live => Rank::Spare,
            _ => continue,
        };
        // A node that is no member any more is given up; its replica gets another.
        order.push((rank, *id, replica.node.filter(|node| view.is_member(*node))));
    }
    // Of a replica that has another node now, or of none that is known.
    let lost = voters.iter().filter(|node| view.owner(**node).is_none());
    order.extend(lost.map(|node| (Rank::Dead, ReplicaId::MAX, Some(*node))));
    order.sort_unstable();
    let mut goal = Goal::default();
    for (_, replica, node) in order.into_iter().take(seats) {
        match node {
            Some(node) => drop(goal.nodes.insert(node)),
            None => goal.newcomers.push(replica),
        }
    }
    goal
}

/// Who is seated before whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Leader,
    Live,
    Silent,
    Learner,
    Spare,
    Dead,
}

/// A joint change that another leader has begun is ended as it was meant.
fn finish_joint(view: &View) -> Decision {
    let Some(last) = view.voter_sets.last() else { return Decision::Wait(Reason::NotRegistered) };
    if !view.is_committed {
        return Decision::Wait(Reason::NotCommitted);
    }
    view.with_majorities(&view.voter_sets, Action::FinishJoint(last.clone()))
}

/// Learners that will never vote: their replicas are leaving, or have lost them.
fn useless_learners(view: &View) -> Option<BTreeSet<NodeId>> {
    let useless = view.learners.iter().copied();
    let useless = useless.filter(|node| view.owner(*node).is_none_or(|(_, replica)| replica.is_leaving));
    let useless: BTreeSet<_> = useless.collect();
    (!useless.is_empty()).then_some(useless)
}

/// The leader leaves: another leads first, and then removes it.
///
/// It does not vote itself out: Raft would let it lead on, a member no more, until its removal is committed (thesis, section 4.2.2). Another voter that leads
/// first removes it like any other member.
fn hand_over(view: &View, voters: &BTreeSet<NodeId>, goal: &Goal) -> Decision {
    let well = goal.nodes.iter().filter(|node| voters.contains(node) && view.liveness(**node) == Liveness::Live);
    let well: Vec<_> = well.copied().collect();
    if let Some(next) = well.iter().find(|node| view.caught_up.contains(node)) {
        return view.with_majorities([voters], Action::HandOver(*next));
    }
    if let Some(node) = well.first() {
        return Decision::Wait(Reason::CatchingUp(*node));
    }
    // Nobody else votes who could lead: somebody has to come first.
    let learners = goal.nodes.iter().copied().filter(|node| view.learners.contains(node));
    let ready = learners.clone().find(|node| view.caught_up.contains(node));
    match (ready, learners.into_iter().next(), goal.newcomers.first()) {
        (Some(node), ..) => {
            let more: BTreeSet<_> = voters.iter().copied().chain([node]).collect();
            view.with_majorities([voters, &more], Action::SetVoters(more.clone()))
        }
        (None, Some(node), _) => Decision::Wait(Reason::CatchingUp(node)),
        (None, None, Some(replica)) => add(view, voters, *replica),
        (None, None, None) => Decision::Wait(Reason::NobodyTakesOver),
    }
}

fn joint(view: &View, voters: &BTreeSet<NodeId>, goal: &Goal) -> Decision {
    if let Some(replica) = goal.newcomers.first() {
        return add(view, voters, *replica);
    }
    if goal.nodes == *voters {
        return Decision::Settled;
    }
    if let Some(node) = goal.nodes.difference(voters).find(|node| !view.caught_up.contains(node)) {
        return Decision::Wait(Reason::CatchingUp(*node));
    }
    view.with_majorities([voters, &goal.nodes], Action::SetVoters(goal.nodes.clone()))
}

/// One voter at a time: the dead go before others come, who come before those go that are well.
fn single(view: &View, voters: &BTreeSet<NodeId>, goal: &Goal) -> Decision {
    let without = |node: NodeId| -> Decision {
        let rest: BTreeSet<_> = voters.iter().copied().filter(|voter| *voter != node).collect();
        view.with_majorities([voters, &rest], Action::SetVoters(rest.clone()))
    };
    let mut going = voters.difference(&goal.nodes).copied();
    if let Some(dead) = going.clone().find(|node| view.liveness(*node) == Liveness::Dead) {
        return without(dead);
    }
    let mut coming = goal.nodes.difference(voters).copied();
    if let Some(ready) = coming.clone().find(|node| view.caught_up.contains(node)) {
        let more: BTreeSet<_> = voters.iter().copied().chain([ready]).collect();
        return view.with_majorities([voters, &more], Action::SetVoters(more.clone()));
    }
    if let Some(node) = coming.next() {
        return Decision::Wait(Reason::CatchingUp(node));
    }
    if let Some(replica) = goal.newcomers.first() {
        return add(view, voters, *replica);
    }
    going.next().map_or(Decision::Settled, without)
}

fn add(view: &View, voters: &BTreeSet<NodeId>, replica: ReplicaId) -> Decision {
    // One that is silent holds the only place.
    if view.changes == Changes::Single && !view.learners.is_empty() {
        return view.with_majorities([voters], Action::RemoveLearners(view.learners.clone()));
    }
    view.with_majorities([voters], Action::AddLearner(replica))
}

impl View {
    /// Adds members that no replica claims, as replicas of their own: that rows are missing makes nobody a stranger. They count among the replicas that
    /// stay, and keep their seats like any other.
    ///
    /// Left out are those whose replicas have lost their disks, unless they acknowledge all the same, and learners that are silent for too long: of
    /// those nobody will ever hear. They are replaced or removed.
    pub fn include_unclaimed(&mut self, told: impl Fn(NodeId) -> Unclaimed) {
        let voters: BTreeSet<_> = self.voter_sets.iter().flatten().copied().collect();
        for node in voters.union(&self.learners).copied() {
            if self.owner(node).is_some() {
                continue;
            }
            let Unclaimed { replica, mut liveness, is_leaving, has_lost_disk } = told(node);
            if node == self.leader {
                liveness = Liveness::Live;
            }
            let may_come_back = !has_lost_disk && (liveness != Liveness::Dead || voters.contains(&node));
            if liveness != Liveness::Live && !may_come_back {
                continue;
            }
            let is_free = |id: &ReplicaId| !self.replicas.contains_key(id);
            // Numbers that no configuration gives to a replica.
            let id = replica.filter(is_free).or_else(|| (0..ReplicaId::MAX).rev().find(is_free));
            self.replicas.extend(id.map(|id| (id, ReplicaView { liveness, node: Some(node), is_leaving })));
        }
    }

    /// The replica whose node this is.
    pub fn owner(&self, node: NodeId) -> Option<(ReplicaId, &ReplicaView)> {
        self.replicas.iter().find(|(_, replica)| replica.node == Some(node)).map(|(id, replica)| (*id, replica))
    }

    fn liveness(&self, node: NodeId) -> Liveness {
        match self.owner(node) {
            _ if node == self.leader => Liveness::Live,
            Some((_, replica)) => replica.liveness,
            None => Liveness::Dead,
        }
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.learners.contains(&node) || self.voter_sets.iter().any(|voters| voters.contains(&node))
    }

    /// The action, if a majority of each of these sets is live.
    ///
    /// Raft would take a change that cannot be committed, and be stuck with it: a change of members counts from the moment it stands in the log. So the
    /// sets before and after it are looked at first. Liveness is a guess; a wrong one costs time, since the change itself needs these majorities.
    fn with_majorities<'a>(&self, sets: impl IntoIterator<Item = &'a BTreeSet<NodeId>>, action: Action) -> Decision {
        for set in sets {
            let live = set.iter().filter(|node| self.liveness(**node) == Liveness::Live).count();
            if live * 2 <= set.len() {
                return Decision::Wait(Reason::NoMajority(set.clone()));
            }
        }
        Decision::Act(action)
    }
}

/// Node ids, as people are shown them.
fn ids(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(|node| format!("{node:x}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FinishJoint(voters) => write!(f, "end the joint change, with the voters {}", ids(voters)),
            Self::AddLearner(replica) => write!(f, "start a node at replica {replica}, which does not vote yet"),
            Self::RemoveLearners(nodes) => write!(f, "remove {}, which will never vote", ids(nodes)),
            Self::SetVoters(voters) => write!(f, "make the voters {}", ids(voters)),
            Self::HandOver(node) => write!(f, "hand the leadership to {node:x}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCommitted => write!(f, "the last change of members has not reached a majority"),
            Self::NotRegistered => write!(f, "the leader's own replica does not stand in the table yet"),
            Self::NoMajority(voters) => write!(f, "no majority of the voters {} is live", ids(voters)),
            Self::CatchingUp(node) => write!(f, "{node:x} is still catching up"),
            Self::NobodyTakesOver => write!(f, "the leader wants to leave, and nobody else could lead"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Act(action) => write!(f, "{action}"),
            Self::Wait(reason) => write!(f, "wait: {reason}"),
            Self::Settled => write!(f, "nothing: the members are as they should be"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node 1 leads 2 and 3, and 4 is a learner that has not caught up.
    fn view(changes: Changes) -> View {
        View {
            replicas: BTreeMap::from([(1, ReplicaView { liveness: Liveness::Live, node: Some(1), is_leaving: false })]),
            voter_sets: vec![BTreeSet::from([1, 2, 3])],
            learners: BTreeSet::from([4]),
            caught_up: BTreeSet::from([1, 2, 3]),
            is_committed: true,
            leader: 1,
            changes,
        }
    }

    #[test]
    #[should_panic(expected = "members are changed while a change of them is not committed")]
    fn one_change_is_under_way_at_a_time() {
        let view = View { is_committed: false, ..view(Changes::Joint) };
        assert_safe(&view, &Action::RemoveLearners([4].into()));
    }

    #[test]
    #[should_panic(expected = "a node becomes a voter that has not caught up")]
    fn a_voter_has_what_was_acknowledged() {
        assert_safe(&view(Changes::Joint), &Action::SetVoters([1, 2, 3, 4].into()));
    }

    #[test]
    #[should_panic(expected = "the leader takes the vote from itself")]
    fn the_leader_votes() {
        assert_safe(&view(Changes::Joint), &Action::SetVoters([2, 3].into()));
    }

    #[test]
    #[should_panic(expected = "voters change one at a time, or in a joint change")]
    fn majorities_before_and_after_a_change_meet() {
        assert_safe(&view(Changes::Single), &Action::SetVoters([1].into()));
    }

    #[test]
    #[should_panic(expected = "a voter is removed as a learner")]
    fn a_voter_goes_with_a_change_of_voters_alone() {
        assert_safe(&view(Changes::Joint), &Action::RemoveLearners([3].into()));
    }

    #[test]
    #[should_panic(expected = "the leadership goes to a node that cannot lead")]
    fn a_learner_does_not_lead() {
        assert_safe(&view(Changes::Joint), &Action::HandOver(4));
    }

    #[test]
    #[should_panic(expected = "a replica is given a second node")]
    fn a_replica_has_one_node() {
        assert_safe(&view(Changes::Joint), &Action::AddLearner(1));
    }

    #[test]
    #[should_panic(expected = "a joint change ends as it was meant")]
    fn a_joint_change_ends_as_it_was_meant() {
        let view = View { voter_sets: vec![[1].into(), [1, 2].into()], ..view(Changes::Joint) };
        assert_safe(&view, &Action::FinishJoint([1].into()));
    }
}
