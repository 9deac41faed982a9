//! Members come, vote, hand over and go, while clients write.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{path::Path, time::Duration};

use storage_core::{Error, Key, ReadOptions, Store, StoreExt};
use storage_embedded::{ConditionalChange, LocalCluster, Member, Node, NodeConfig, Role};

const SOON: Duration = Duration::from_secs(20);
/// The cluster id of every [`LocalCluster`].
const CLUSTER: u128 = 0x10ca1;

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

async fn spare(id: u64, dir: &Path) -> (Node, Member) {
    let config = NodeConfig::new(id, CLUSTER, dir.join(format!("spare-{id}")), "127.0.0.1:0").fast();
    let node = Node::start(config).await.unwrap();
    let member =
        Member { name: format!("n{id}"), peer_address: node.address().unwrap().to_string(), ..Member::default() };
    (node, member)
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_catches_up_is_promoted_and_serves() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 1, NodeConfig::fast).await.unwrap();
    let first = cluster.node(0).unwrap();
    let store = first.store();
    for number in 0..200 {
        store.put(&key(&format!("k{number:03}")), number.to_string()).await.unwrap();
    }
    // The newcomers get a snapshot rather than the log, in part.
    first.snapshot(SOON).await.unwrap();
    let (second, member) = spare(2, dir.path()).await;
    first.add_learner(2, member, SOON).await.unwrap();
    let (third, member) = spare(3, dir.path()).await;
    // Any member takes the call.
    second.wait_for_leader(SOON).await.unwrap();
    second.add_learner(3, member, SOON).await.unwrap();
    assert_eq!(second.status().role, Role::Learner);
    first.promote([2, 3], SOON).await.unwrap();
    assert_eq!(first.status().voters, [1, 2, 3]);
    wait_until("the third votes", || third.status().role == Role::Follower).await;
    for node in [&second, &third] {
        let entry = node.store().get(&key("k199"), ReadOptions::default()).await.unwrap();
        assert_eq!(entry.unwrap().value, "199");
    }
    third.store().put(&key("through the newest"), "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leadership_moves_to_the_voter_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    for to in [1, 2, 3, 1] {
        let from = cluster.follower().unwrap();
        from.transfer_leadership(to, SOON).await.unwrap();
        let node = cluster.running().find(|node| node.id() == to).unwrap();
        wait_until("it knows that it leads", || node.status().role == Role::Leader).await;
        from.store().put(&key("a"), to.to_string()).await.unwrap();
    }
    let refused = cluster.leader().unwrap().transfer_leadership(9, SOON).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidArgument { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_leaves_hands_over_first_and_no_write_fails() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let leader = cluster.leader().unwrap().clone();
    let staying = cluster.running().find(|node| node.id() != leader.id()).unwrap().store();
    let writer = tokio::spawn(async move {
        for number in 0..500 {
            staying.put(&key("counter"), number.to_string()).await.unwrap();
        }
        staying
    });
    leader.leave(SOON).await.unwrap();
    leader.stop().await;
    let staying = writer.await.unwrap();
    assert_eq!(staying.get(&key("counter"), ReadOptions::default()).await.unwrap().unwrap().value, "499");
    let status = staying.node().status();
    assert_eq!(status.members.len(), 2, "{status:?}");
    assert!(!status.voters.contains(&leader.id()), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_meet_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let (first, second, third) = (cluster.node(0).unwrap(), cluster.node(1).unwrap(), cluster.node(2).unwrap());
    let (fourth, member_4) = spare(4, dir.path()).await;
    let (fifth, member_5) = spare(5, dir.path()).await;
    let (sixth, member_6) = spare(6, dir.path()).await;
    tokio::try_join!(
        first.add_learner(4, member_4, SOON),
        second.add_learner(5, member_5, SOON),
        third.add_learner(6, member_6, SOON),
    )
    .unwrap();
    tokio::try_join!(first.promote([4], SOON), second.promote([5], SOON), third.remove([6], SOON)).unwrap();
    let newcomers = [fourth, fifth];
    for node in &newcomers {
        wait_until("all have heard of it", || node.status().voters == [1, 2, 3, 4, 5]).await;
    }
    sixth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_voter_stays() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 1, NodeConfig::fast).await.unwrap();
    let node = cluster.node(0).unwrap();
    assert!(matches!(node.leave(SOON).await, Err(Error::InvalidArgument { .. })));
    assert!(matches!(node.remove([1], SOON).await, Err(Error::InvalidArgument { .. })));
    node.store().put(&key("a"), "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_acknowledged_and_afterwards_everything_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let store = cluster.node(0).unwrap().store();
    store.put(&key("a"), "before").await.unwrap();
    // A read at this node: it has applied the write when it answers, wherever the leader is.
    store.get(&key("a"), ReadOptions::default()).await.unwrap();
    cluster.stop(1).await;
    cluster.stop(2).await;
    let write = storage_core::WriteOptions::default().timeout(Duration::from_millis(1500));
    let refused = store.commit(storage_core::Txn::new().put(key("b"), "1"), write).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. } | Error::UnknownOutcome { .. })), "{refused:?}");
    let read = store.get(&key("a"), ReadOptions::default().timeout(Duration::from_millis(1500))).await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    let stale = store.get(&key("a"), ReadOptions::default().stale()).await.unwrap();
    assert_eq!(stale.unwrap().value, "before", "a stale read needs no majority");
    cluster.restart(1).await.unwrap();
    let read = ReadOptions::default().timeout(SOON);
    assert_eq!(store.get(&key("a"), read).await.unwrap().unwrap().value, "before");
}

/// Entries travel to the followers while the leader still syncs its own log. A leader that led on in its old term after a
/// restart could give the place of such an entry, which the others may have committed, to another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_restarts_leads_in_a_new_term_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start(dir.path(), 1, NodeConfig::fast).await.unwrap();
    for _ in 0..3 {
        let before = cluster.node(0).unwrap().status().term;
        cluster.stop(0).await;
        cluster.restart(0).await.unwrap();
        let node = cluster.node(0).unwrap();
        wait_until("it leads", || node.status().role == Role::Leader).await;
        let after = node.status().term;
        assert!(after > before, "leads again in term {after}, which was {before} before");
    }
}

/// Two who decide on the same view: one of them decides anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_made_only_on_the_members_that_it_was_decided_on() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::start(dir.path(), 3, NodeConfig::fast).await.unwrap();
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower().unwrap());
    assert!(follower.observe_members().is_none(), "a follower does not know");
    let (fourth, member) = spare(4, dir.path()).await;
    let observed = leader.observe_members().unwrap();
    assert_eq!(observed.voter_sets, [[1, 2, 3].into()]);
    let add = ConditionalChange::AddLearner { id: 4, member: member.clone() };
    leader.change_if(&observed, add, SOON).await.unwrap();
    let late = ConditionalChange::AddLearner { id: 5, member };
    let refused = leader.change_if(&observed, late, SOON).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
    wait_until("it has all that the leader has", || {
        let observed = leader.observe_members().unwrap();
        observed.is_committed && observed.matched.get(&4) == Some(&observed.last_log_index)
    })
    .await;
    // Another takes the place of one, in one joint change, and that one is no member any more.
    let (gone, observed) = (follower.id(), leader.observe_members().unwrap());
    let voters = [1, 2, 3, 4].into_iter().filter(|id| *id != gone).collect();
    leader.change_if(&observed, ConditionalChange::SetVoters(voters), SOON).await.unwrap();
    let observed = leader.observe_members().unwrap();
    assert!(!observed.members.contains_key(&gone) && observed.voter_sets.len() == 1, "{observed:?}");
    wait_until("it votes", || fourth.status().role == Role::Follower).await;
    let back = ConditionalChange::SetVoters([1, 2, 3].into());
    let refused = leader.change_if(&observed, back, SOON).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidArgument { .. }), "one that was removed cannot be a voter: {refused}");
    fourth.stop().await;
}
