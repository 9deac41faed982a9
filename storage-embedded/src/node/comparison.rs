//! Whether this replica's state is that of the others: a hash of it after the same entry, compared at the start and then now and then.
//!
//! The state is a function of the log, so states that differ are a bug or damage, and going on spreads it. Each voter counts once, the leader
//! like any other: a node whose state differs from that of a majority stops. If no majority answers or agrees, nobody can tell who is
//! right, and after some tries whoever differs from the leader stops. etcd's corruption check does the same between the leader and its followers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;

use crate::{
    network::{
        admission::Verdict,
        peer::{PeerContext, state_hash},
    },
    raft::Membership,
    state_machine::{Raft, SharedState},
};

/// How often a node compares its state.
const COMPARED_EVERY: Duration = Duration::from_secs(2);

/// How often it tries as long as it has not done so once, and shows nothing.
const FIRST_TRIED_EVERY: Duration = Duration::from_millis(50);

/// So often in a row a node differs from its leader, and no majority says who is right, until it stops: those that did not answer may yet.
const TORN_AT_MOST: u32 = 3;

/// What a comparison has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// A majority of the voters has the state that this node has.
    Same,
    /// A majority has another one: this node must not go on.
    Differs,
    /// The leader has another one, and no majority says who is right.
    Torn,
    /// Too few have answered.
    Unknown,
}

/// Compares for as long as the node runs, and tells the last entry after which its state was that of a majority.
pub(super) async fn compare(
    raft: Raft,
    peers: Arc<PeerContext>,
    state: SharedState,
    compared: watch::Sender<Option<u64>>,
) {
    #[cfg(simulated)]
    if crate::simulated::is_planted(crate::simulated::Flaw::Uncompared) {
        compared.send_replace(Some(0));
        std::future::pending::<()>().await;
    }
    let mut torn = 0;
    loop {
        let pause = if compared.borrow().is_some() { COMPARED_EVERY } else { FIRST_TRIED_EVERY };
        tokio::time::sleep(pause).await;
        let Some((index, own)) = state.latest_hash() else { continue };
        let (leader, voters) = {
            let metrics = raft.server_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_leader, voters(metrics.membership_config.membership()))
        };
        let Some(leader) = leader else { continue };
        let mut hashes: BTreeMap<_, _> = voters.keys().map(|id| (*id, (*id == peers.node).then_some(own))).collect();
        let others = voters.iter().filter(|(id, _)| **id != peers.node);
        let mut answers: FuturesUnordered<_> =
            others.map(|(id, at)| async { (*id, state_hash(&peers, *id, at, index).await.ok().flatten()) }).collect();
        // Whoever does not answer keeps nobody waiting once a majority has.
        while judge(own, &hashes, leader) != Outcome::Same
            && let Some((id, hash)) = answers.next().await
        {
            hashes.insert(id, hash);
        }
        let outcome = judge(own, &hashes, leader);
        torn = if outcome == Outcome::Torn { torn + 1 } else { 0 };
        match outcome {
            Outcome::Same => {
                assert_shared(own, &hashes);
                compared.send_replace(Some(index));
            }
            Outcome::Torn if torn < TORN_AT_MOST => {
                tracing::warn!(
                    node = peers.node,
                    index,
                    own,
                    ?hashes,
                    "the state of this node is not that of its leader"
                );
            }
            Outcome::Differs | Outcome::Torn => {
                tracing::error!(node = peers.node, index, own, ?hashes, "the states of the nodes differ");
                peers.admission.condemn(Verdict::Differs { index });
                return;
            }
            Outcome::Unknown => {}
        }
    }
}

/// What is checked again right before this replica may show its state.
///
/// # Panics
/// If it is not that of a majority.
fn assert_shared(own: u64, hashes: &BTreeMap<u64, Option<u64>>) {
    let same = hashes.values().filter(|hash| **hash == Some(own)).count();
    assert!(same * 2 > hashes.len(), "a state is shown that is not known to be that of a majority");
}

/// The voters, and where they are.
fn voters(membership: &Membership) -> BTreeMap<u64, String> {
    let voters: BTreeSet<_> = membership.voter_ids().collect();
    let members = membership.nodes().filter(|(id, _)| voters.contains(id));
    members.map(|(id, member)| (*id, member.peer_address.clone())).collect()
}

/// What follows from the hashes of all voters after one entry, as far as they are known.
fn judge(own: u64, hashes: &BTreeMap<u64, Option<u64>>, leader: u64) -> Outcome {
    let mut votes: HashMap<u64, usize> = HashMap::new();
    for hash in hashes.values().flatten() {
        *votes.entry(*hash).or_default() += 1;
    }
    let majority = votes.iter().find(|(_, count)| **count * 2 > hashes.len()).map(|(hash, _)| *hash);
    let of_leader = hashes.get(&leader).copied().flatten();
    match (majority, of_leader) {
        (Some(right), _) if right == own => Outcome::Same,
        (Some(_), _) => Outcome::Differs,
        (None, Some(other)) if other != own => Outcome::Torn,
        (None, _) => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a state is shown that is not known to be that of a majority")]
    fn a_state_that_only_half_of_the_voters_have_is_not_shown() {
        assert_shared(1, &BTreeMap::from([(1, Some(1)), (2, Some(1)), (3, None), (4, Some(2))]));
    }

    /// Every node of up to five, every leader, every state of two, and every silence.
    #[test]
    fn a_majority_that_agrees_goes_on_and_whoever_differs_from_it_stops() {
        for nodes in 1..=5_u32 {
            for code in 0..3_u64.pow(nodes) {
                let state = |node: u32| Some(code / 3_u64.pow(node) % 3).filter(|state| *state < 2);
                let hashes: BTreeMap<_, _> = (0..nodes).map(|node| (u64::from(node), state(node))).collect();
                for (own, leader) in (0..nodes).flat_map(|own| (0..nodes).map(move |leader| (own, leader))) {
                    let Some(mine) = state(own) else { continue };
                    let has =
                        |wanted| hashes.values().filter(|state| **state == Some(wanted)).count() * 2 > hashes.len();
                    let outcome = judge(mine, &hashes, leader.into());
                    let what = format!("{hashes:?}, {own}, led by {leader}");
                    assert_eq!(has(mine), outcome == Outcome::Same, "{what}");
                    assert_eq!(has(1 - mine), outcome == Outcome::Differs, "{what}");
                    // Of two that cannot be told apart, the leader goes on.
                    assert!(outcome != Outcome::Torn || own != leader, "{what}");
                }
            }
        }
    }
}
