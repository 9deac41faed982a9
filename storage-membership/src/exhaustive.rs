//! The decisions on every small cluster.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    decide::{Action, Changes, Decision, Liveness, Reason, ReplicaView, Unclaimed, View, decide, voters_for},
    ids::{NodeId, ReplicaId},
};

/// What a replica's node is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeState {
    /// It has none.
    Spare,
    Voter,
    Behind,
    CaughtUp,
    /// Its former node votes, and its disk is gone.
    Wiped,
    /// It votes, and its rows are gone.
    Unclaimed,
}

const NODE_STATES: [NodeState; 5] =
    [NodeState::Spare, NodeState::Voter, NodeState::Behind, NodeState::CaughtUp, NodeState::Wiped];
const NEW: [NodeState; 3] = [NodeState::Spare, NodeState::Voter, NodeState::CaughtUp];
const LIVENESS: [Liveness; 3] = [Liveness::Live, Liveness::Silent, Liveness::Dead];
const TWO: [Liveness; 2] = [Liveness::Live, Liveness::Dead];

/// One replica of an enumeration.
type ReplicaCase = (NodeState, Liveness, bool);

fn states(node_states: &[NodeState], liveness: &[Liveness], leaving: &[bool]) -> Vec<ReplicaCase> {
    let mut all = Vec::new();
    for node_state in node_states {
        for liveness in liveness {
            all.extend(leaving.iter().map(|leaving| (*node_state, *liveness, *leaving)));
        }
    }
    all
}

/// Calls `look` with every cluster of so many replicas, each in one of the states, under every leader, with both kinds of changes.
fn every(replicas: u32, states: &[ReplicaCase], mut look: impl FnMut(&View)) -> usize {
    let mut seen = 0;
    for number in 0..states.len().pow(replicas) {
        let mut rest = number;
        let cluster: Vec<_> = (0..replicas)
            .map(|_| {
                let state = states[rest % states.len()];
                rest /= states.len();
                state
            })
            .collect();
        // Which replica has which number matters only to who is taken first.
        for (leader, state) in cluster.iter().enumerate() {
            if !matches!(state.0, NodeState::Voter | NodeState::Unclaimed) || state.1 != Liveness::Live {
                continue;
            }
            for changes in [Changes::Joint, Changes::Single] {
                look(&view(&cluster, leader, changes));
                seen += 1;
            }
        }
    }
    seen
}

/// Replica r has node 10 + r, and former node 20 + r.
fn view(cluster: &[ReplicaCase], leader: usize, changes: Changes) -> View {
    let (mut replicas, mut voters, mut learners) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let (mut caught_up, mut unclaimed) = (BTreeSet::new(), BTreeMap::new());
    for (id, (node_state, liveness, is_leaving)) in (1..).zip(cluster) {
        let node = 10 + id;
        match node_state {
            NodeState::Spare => {}
            NodeState::Voter => {
                voters.insert(node);
                // A voter that is dead has not what the leader has.
                caught_up.extend((*liveness == Liveness::Live).then_some(node));
            }
            NodeState::Behind => drop(learners.insert(node)),
            NodeState::CaughtUp => {
                learners.insert(node);
                caught_up.insert(node);
            }
            NodeState::Wiped => drop(voters.insert(20 + id)),
            NodeState::Unclaimed => {
                voters.insert(node);
                caught_up.extend((*liveness == Liveness::Live).then_some(node));
                unclaimed.insert(node, *liveness);
                continue;
            }
        }
        let node = (!matches!(node_state, NodeState::Spare | NodeState::Wiped)).then_some(node);
        replicas.insert(id, ReplicaView { liveness: *liveness, node, is_leaving: *is_leaving });
    }
    let leader = 11 + leader as u64;
    let mut view =
        View { replicas, voter_sets: vec![voters], learners, caught_up, is_committed: true, leader, changes };
    view.include_unclaimed(|node| Unclaimed {
        replica: None,
        liveness: unclaimed.get(&node).copied().unwrap_or(Liveness::Dead),
        is_leaving: false,
        has_lost_disk: !unclaimed.contains_key(&node),
    });
    view
}

fn is_live(view: &View, node: NodeId) -> bool {
    view.owner(node).is_some_and(|(_, replica)| replica.liveness == Liveness::Live)
}

fn has_majority(view: &View, set: &BTreeSet<NodeId>) -> bool {
    set.iter().filter(|node| is_live(view, **node)).count() * 2 > set.len()
}

/// How many replicas have not been asked to leave, and how many of them are live.
fn staying(view: &View) -> (usize, usize) {
    let staying = view.replicas.values().filter(|replica| !replica.is_leaving);
    (staying.clone().count(), staying.filter(|replica| replica.liveness == Liveness::Live).count())
}

/// What holds of every single decision.
fn check(view: &View) -> Decision {
    let decision = decide(view);
    let voters = &view.voter_sets[0];
    let (staying, live) = staying(view);
    if let Decision::Act(action) = &decision {
        for set in &view.voter_sets {
            assert!(has_majority(view, set), "{action:?} without a majority: {view:?}");
        }
        assert!(view.is_committed, "{action:?} while a change is under way: {view:?}");
    }
    match &decision {
        Decision::Act(Action::SetVoters(new)) => {
            assert_eq!(view.voter_sets.len(), 1, "a change in a joint change: {view:?}");
            assert!(has_majority(view, new), "the new voters have no majority: {view:?} {new:?}");
            assert!(new.contains(&view.leader), "the leader is voted out without a handover: {view:?} {new:?}");
            for node in new.difference(voters) {
                assert!(view.learners.contains(node), "{node} is no learner: {view:?}");
                assert!(view.caught_up.contains(node), "{node} has not caught up: {view:?}");
                assert!(is_live(view, *node), "{node} is not live: {view:?}");
            }
            for node in voters.difference(new) {
                let gone = view.owner(*node);
                let replaced = new.difference(voters).count() > 0 || view.changes == Changes::Single;
                let leaves = gone.is_some_and(|(_, replica)| replica.is_leaving);
                let dead = gone.is_none_or(|(_, replica)| replica.liveness == Liveness::Dead);
                let too_many = voters.len() > voters_for(staying);
                assert!(leaves || too_many || dead && replaced, "{node} is voted out for nothing: {view:?} {new:?}");
                if dead && !leaves && !too_many {
                    let spare = view.replicas.values().any(|replica| {
                        replica.liveness == Liveness::Live
                            && !replica.is_leaving
                            && replica.node.is_none_or(|node| !voters.contains(&node))
                    });
                    assert!(spare, "{node} is dead and there is no spare: {view:?} {new:?}");
                }
            }
            let leaving = voters.iter().filter(|node| view.owner(**node).is_some_and(|owner| owner.1.is_leaving));
            let smallest = voters.len().min(voters_for(staying)).saturating_sub(leaving.count());
            let smallest = smallest - usize::from(view.changes == Changes::Single && smallest > 0);
            assert!(new.len() >= smallest, "it shrinks: {view:?} {new:?}");
            assert!(new.len() <= voters.len().max(voters_for(live)) + 1, "it grows too far: {view:?} {new:?}");
            if view.changes == Changes::Single {
                assert_eq!(new.symmetric_difference(voters).count(), 1, "more than one voter at a time: {view:?}");
            }
        }
        Decision::Act(Action::AddLearner(id)) => {
            let replica = view.replicas[id];
            assert!(replica.liveness == Liveness::Live && !replica.is_leaving, "{id} for a node: {view:?}");
            assert!(replica.node.is_none(), "{id} has a node already: {view:?}");
            assert!(view.changes == Changes::Joint || view.learners.is_empty(), "two learners: {view:?}");
            let lower = view
                .replicas
                .range(..id)
                .find(|(_, other)| other.liveness == Liveness::Live && !other.is_leaving && other.node.is_none());
            assert!(lower.is_none(), "{lower:?} comes before {id}: {view:?}");
        }
        Decision::Act(Action::RemoveLearners(nodes)) => assert!(nodes.is_subset(&view.learners), "{view:?}"),
        Decision::Act(Action::HandOver(to)) => {
            assert!(view.owner(view.leader).unwrap().1.is_leaving, "{view:?}");
            assert!(voters.contains(to) && is_live(view, *to) && view.caught_up.contains(to), "{to}: {view:?}");
        }
        Decision::Act(Action::FinishJoint(_)) => panic!("nothing to finish: {view:?}"),
        Decision::Wait(Reason::NotRegistered | Reason::NotCommitted) => panic!("{decision:?}: {view:?}"),
        Decision::Wait(_) | Decision::Settled => {}
    }
    decision
}

/// What becomes of the members by an action, when everything goes well and nobody comes or goes.
fn carried_out(view: &View, action: Action, next_id: &mut NodeId, gone: &mut BTreeSet<NodeId>) -> View {
    let mut after = view.clone();
    match action {
        Action::FinishJoint(voters) | Action::SetVoters(voters) => {
            for node in view.voter_sets.iter().flatten().filter(|node| !voters.contains(node)) {
                gone.insert(*node);
                forget(&mut after, *node);
            }
            assert!(voters.is_disjoint(gone), "a removed id is used again: {view:?} {voters:?}");
            after.learners.retain(|node| !voters.contains(node));
            after.voter_sets = vec![voters];
        }
        Action::AddLearner(replica) => {
            *next_id += 1;
            assert!(!gone.contains(next_id));
            after.learners.insert(*next_id);
            after.replicas.get_mut(&replica).unwrap().node = Some(*next_id);
            after.caught_up.insert(*next_id);
        }
        Action::RemoveLearners(nodes) => {
            for node in &nodes {
                after.learners.remove(node);
                gone.insert(*node);
                forget(&mut after, *node);
            }
        }
        Action::HandOver(to) => after.leader = to,
    }
    after
}

fn forget(view: &mut View, node: NodeId) {
    for replica in view.replicas.values_mut().filter(|replica| replica.node == Some(node)) {
        replica.node = None;
    }
}

/// So many changes lead from any state to rest: each replica is given a node, votes, hands over and goes.
const MOST_CHANGES: usize = 20;

/// Acts until there is nothing left to do, and returns what is there then.
fn settle(view: &View) -> (View, Decision) {
    let used = view.replicas.values().filter_map(|replica| replica.node).max();
    let (mut view, mut next_id, mut gone) = (view.clone(), used.unwrap_or_default().max(100), BTreeSet::new());
    // Learners that are live catch up; others never do.
    let behind: Vec<_> = view.learners.iter().copied().filter(|node| is_live(&view, *node)).collect();
    view.caught_up.extend(behind);
    let first = view.clone();
    for _ in 0..MOST_CHANGES {
        match check(&view) {
            Decision::Act(action) => view = carried_out(&view, action, &mut next_id, &mut gone),
            rest => return (view, rest),
        }
    }
    panic!("it never comes to rest: {first:?}");
}

fn check_settled(before: &View) {
    let (after, rest) = settle(before);
    let voters = &after.voter_sets[0];
    let well = voters.iter().all(|node| is_live(&after, *node));
    let (staying, live) = staying(&after);
    match rest {
        Decision::Settled => {
            let leaver = voters.iter().find(|node| after.owner(**node).is_some_and(|owner| owner.1.is_leaving));
            assert!(leaver.is_none(), "{leaver:?} wanted to leave: {before:?} {after:?}");
            assert!(voters.len() >= voters_for(live).min(voters_for(staying)), "too few: {before:?} {after:?}");
            if live == staying && staying > 0 {
                assert!(well && voters.len() == voters_for(live), "all are live: {before:?} {after:?}");
            }
            if !well {
                let idle = after.replicas.values().find(|replica| {
                    replica.liveness == Liveness::Live
                        && !replica.is_leaving
                        && replica.node.is_none_or(|node| !voters.contains(&node))
                });
                let dead = voters
                    .iter()
                    .find(|node| after.owner(**node).is_none_or(|(_, replica)| replica.liveness == Liveness::Dead));
                assert!(idle.is_none() || dead.is_none(), "a dead voter is not replaced: {before:?} {after:?}");
            }
        }
        Decision::Wait(Reason::NoMajority(_)) => assert!(!well, "{before:?} {after:?}"),
        // The last one stays. A voter that is silent will be live or dead.
        Decision::Wait(Reason::NobodyTakesOver) => {
            let silent = after.replicas.values().any(|replica| replica.liveness == Liveness::Silent);
            assert!(live == 0 || silent, "{before:?} {after:?}");
        }
        other => panic!("{other:?} is no rest: {before:?} {after:?}"),
    }
}

#[test]
fn every_cluster_of_up_to_three_comes_to_rest_by_safe_steps() {
    for replicas in 1..=3 {
        let seen = every(replicas, &states(&NODE_STATES, &LIVENESS, &[false, true]), |view| {
            check(view);
            check_settled(view);
        });
        println!("{replicas} replicas: {seen} states");
    }
}

#[test]
fn every_cluster_of_four_comes_to_rest_by_safe_steps() {
    let seen = every(4, &states(&NODE_STATES, &TWO, &[false]), check_settled);
    let leaving = every(4, &states(&NEW, &TWO, &[false, true]), check_settled);
    println!("{} states", seen + leaving);
}

#[test]
fn every_cluster_of_five_and_six_comes_to_rest_by_safe_steps() {
    let mut five = states(&NEW, &TWO, &[false]);
    five.extend([(NodeState::Voter, Liveness::Live, true), (NodeState::Wiped, Liveness::Live, false)]);
    let seen = every(5, &five, check_settled) + every(6, &states(&NEW, &TWO, &[false]), check_settled);
    println!("{seen} states");
}

/// Every joint change of up to four nodes that another leader has begun, with every liveness.
#[test]
fn a_joint_change_that_was_left_behind_is_ended_as_it_was_meant() {
    let sets = |number: u32| -> BTreeSet<NodeId> { (1..=4).filter(|bit| number & (1 << (bit - 1)) != 0).collect() };
    for (old, new, live) in (1..16)
        .flat_map(|old| (1..16).map(move |new| (old, new)))
        .flat_map(|(old, new)| (0..16).map(move |live| (old, new, live)))
    {
        let (old, new, live) = (sets(old), sets(new), sets(live));
        for leader in old.union(&new).filter(|node| live.contains(node)) {
            let replica = |id: ReplicaId| {
                let liveness = if live.contains(&id) { Liveness::Live } else { Liveness::Dead };
                (id, ReplicaView { liveness, node: Some(id), is_leaving: false })
            };
            let view = View {
                replicas: (1..=4).map(replica).collect(),
                voter_sets: vec![old.clone(), new.clone()],
                learners: BTreeSet::new(),
                caught_up: live.clone(),
                is_committed: true,
                leader: *leader,
                changes: Changes::Joint,
            };
            let both = has_majority(&view, &old) && has_majority(&view, &new);
            match decide(&view) {
                Decision::Act(Action::FinishJoint(voters)) => assert!(both && voters == new, "{view:?}"),
                Decision::Wait(Reason::NoMajority(_)) => assert!(!both, "{view:?}"),
                other => panic!("{other:?}: {view:?}"),
            }
            let pending = View { is_committed: false, ..view };
            assert_eq!(decide(&pending), Decision::Wait(Reason::NotCommitted));
        }
    }
}

/// Replicas 1 to 6 come one after the other: 1, 1, 3, 3, 5, 5 voters, and the same number when one dies and comes back.
#[test]
fn voters_follow_the_live_replicas() {
    for changes in [Changes::Joint, Changes::Single] {
        let mut now = view(&[(NodeState::Voter, Liveness::Live, false)], 0, changes);
        let mut counts = Vec::new();
        for id in 1..=6 {
            now.replicas.entry(id).or_insert(ReplicaView { liveness: Liveness::Live, node: None, is_leaving: false });
            (now, _) = settle(&now);
            counts.push(now.voter_sets[0].len());
        }
        assert_eq!(counts, [1, 1, 3, 3, 5, 5]);
        let spare = *now.replicas.iter().find(|(_, replica)| replica.node.is_none()).unwrap().0;
        let voter =
            *now.replicas.keys().find(|id| **id != spare && now.replicas[*id].node != Some(now.leader)).unwrap();
        let mut changes = 0;
        // It flaps: it is replaced once, and is the spare from then on.
        for liveness in [Liveness::Dead, Liveness::Live, Liveness::Dead, Liveness::Live, Liveness::Dead] {
            now.replicas.get_mut(&voter).unwrap().liveness = liveness;
            let before = now.voter_sets.clone();
            (now, _) = settle(&now);
            changes += usize::from(now.voter_sets != before);
        }
        assert_eq!(changes, 1);
        assert_eq!(now.voter_sets[0].len(), 5);
    }
}

/// Rows that are gone, of some replicas or of all, and voters of which some are silent: nobody is voted out for it.
#[test]
fn that_rows_are_gone_makes_no_member_a_stranger() {
    let states = states(&[NodeState::Voter, NodeState::Unclaimed], &LIVENESS, &[false]);
    for replicas in 1..=5 {
        every(replicas, &states, |view| {
            let decision = check(view);
            let is_uneven = view.voter_sets[0].len() % 2 == 1;
            assert!(!is_uneven || decision == Decision::Settled, "{decision:?}: {view:?}");
        });
    }
    // Of a mixture with spares and wiped ones comes what comes of it with all rows.
    every(
        3,
        &self::states(&[NodeState::Spare, NodeState::Unclaimed, NodeState::Wiped], &LIVENESS, &[false]),
        check_settled,
    );
}
