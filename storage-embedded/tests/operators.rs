//! What operators do to the members, right and wrong: who was removed stops and says so, and nothing is begun that a majority cannot finish.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, net::TcpListener, path::Path, time::Duration};

use storage_core::{Error, Key, Outcome, ReadOptions, Result, Store, StoreExt, Txn, WriteOptions};
use storage_embedded::{Member, Node, NodeConfig, NodeStatus, Refusal, Removed, Role, Stopped, UNHEALTHY};

const SOON: Duration = Duration::from_secs(60);

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(SOON, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"));
}

/// Nodes that found a cluster, and others that wait to be taken in; each may be stopped and started again.
struct Cluster {
    configs: BTreeMap<u64, NodeConfig>,
    nodes: BTreeMap<u64, Node>,
}

impl Cluster {
    async fn found(dir: &Path, size: u64) -> Self {
        let mut cluster = Self { configs: BTreeMap::new(), nodes: BTreeMap::new() };
        let listeners: Vec<_> = (1..=size).map(|id| (id, TcpListener::bind("127.0.0.1:0").unwrap())).collect();
        let member = |id: u64, listener: &TcpListener| Member {
            name: format!("n{id}"),
            peer_address: listener.local_addr().unwrap().to_string(),
            ..Member::default()
        };
        let founders: BTreeMap<_, _> = listeners.iter().map(|(id, listener)| (*id, member(*id, listener))).collect();
        for (id, listener) in listeners {
            cluster.start_on(dir, id, listener, &founders).await;
        }
        for id in 1..=size {
            cluster.nodes[&id].wait_for_leader(SOON).await.unwrap();
        }
        cluster.put("a").await;
        cluster
    }

    async fn start_on(&mut self, dir: &Path, id: u64, listener: TcpListener, founders: &BTreeMap<u64, Member>) {
        let address = listener.local_addr().unwrap().to_string();
        let mut config = NodeConfig::new(id, 7, dir.join(format!("n{id}")), address).fast();
        config.founders.clone_from(founders);
        self.nodes.insert(id, Node::start_on(config.clone(), listener).await.unwrap());
        self.configs.insert(id, config);
    }

    /// Takes a new node in, which has all that there is when this returns.
    async fn add(&mut self, dir: &Path, id: u64) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer_address = listener.local_addr().unwrap().to_string();
        self.start_on(dir, id, listener, &BTreeMap::new()).await;
        let (leader, member) = (self.leader().await, Member { peer_address, ..Member::default() });
        let add = async |node: &Node| node.add_learner(id, member.clone(), SOON).await;
        self.change(&leader, add, |status| status.members.contains_key(&id)).await;
        let node = &self.nodes[&id];
        until("a learner has caught up", || node.status().members.contains_key(&id)).await;
    }

    /// The node that leads and is followed.
    async fn leader(&self) -> Node {
        let leading = |node: &&Node| node.why_stopped().is_none() && node.leader() == Some(node.id());
        until("one leads", || self.nodes.values().any(|node| leading(&node))).await;
        self.nodes.values().find(leading).cloned().unwrap()
    }

    /// Makes a change through a node, or else through the leader, until it is made: on a busy machine the leadership may move meanwhile.
    async fn change(
        &self,
        first: &Node,
        change: impl AsyncFn(&Node) -> Result<()>,
        is_made: impl Fn(&NodeStatus) -> bool,
    ) {
        let mut at = first.clone();
        let made = tokio::time::timeout(SOON, async {
            loop {
                match change(&at).await {
                    Ok(()) => return,
                    Err(error @ (Error::InvalidArgument { .. } | Error::Corrupt { .. })) => panic!("{error}"),
                    Err(_) => at = self.leader().await,
                }
                if is_made(&at.status()) {
                    return;
                }
            }
        });
        made.await.expect("a change is made");
    }

    async fn remove(&self, at: &Node, id: u64) {
        self.change(at, async |node| node.remove([id], SOON).await, |status| !status.members.contains_key(&id)).await;
    }

    async fn promote(&self, id: u64) {
        let at = self.leader().await;
        self.change(&at, async |node| node.promote([id], SOON).await, |status| status.voters.contains(&id)).await;
    }

    async fn hand_over(&self, to: u64) {
        let at = self.leader().await;
        self.change(&at, async |node| node.transfer_leadership(to, SOON).await, |status| status.leader == Some(to))
            .await;
    }

    /// A voter that does not lead.
    async fn follower(&self) -> Node {
        let follows = |node: &&Node| node.status().role == Role::Follower && node.why_stopped().is_none();
        until("one follows", || self.nodes.values().any(|node| follows(&node))).await;
        self.nodes.values().find(follows).cloned().unwrap()
    }

    async fn stop(&mut self, id: u64) {
        self.nodes.remove(&id).unwrap().stop().await;
    }

    async fn restart(&mut self, id: u64) -> Node {
        let node = Node::start(self.configs[&id].clone()).await.unwrap();
        self.nodes.insert(id, node.clone());
        node
    }

    /// Writes through each node that runs, whatever the leadership does meanwhile.
    async fn put(&self, name: &str) {
        for node in self.nodes.values().filter(|node| node.why_stopped().is_none()) {
            let store = node.store();
            let written = store.commit(Txn::new().put(key(name), "1"), WriteOptions::default().timeout(SOON));
            let outcome = written.await.unwrap_or_else(|error| panic!("node {} does not write: {error}", node.id()));
            assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
        }
    }

    async fn stop_all(self) {
        for node in self.nodes.values() {
            node.stop().await;
        }
    }

    /// The node stops, says why, and so does each start after it.
    async fn is_told_that_it_was_removed(&self, node: &Node, case: &str) {
        let error = tokio::time::timeout(SOON, node.stopped()).await;
        let error = error.unwrap_or_else(|_| panic!("{case}: it runs on")).unwrap_err();
        assert!(Removed::caused(&error), "{case}: {error}");
        let Some(Stopped::Removed(why)) = node.why_stopped() else { panic!("{case}: {:?}", node.why_stopped()) };
        assert!(why.contains("it was removed from its cluster"), "{case}: {why}");
        let refused = node.store().put(&key("b"), "1").await.unwrap_err();
        assert!(Removed::caused(&refused) && !refused.may_be_applied(), "{case}: {refused}");
        let stale = node.store().get(&key("a"), ReadOptions::default().stale()).await;
        assert!(stale.is_err(), "{case}: it shows {stale:?}");
        for _ in 0..2 {
            let again = Node::start(self.configs[&node.id()].clone()).await.unwrap_err();
            assert!(Removed::caused(&again), "{case}: {again}");
            assert!(again.to_string().contains("was removed from its cluster"), "{case}: {again}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_removed_while_it_runs_stops_and_stays_stopped() {
    for role in [Role::Follower, Role::Leader, Role::Learner] {
        let (case, dir) = (format!("{role:?}"), tempfile::tempdir().unwrap());
        let mut cluster = Cluster::found(dir.path(), 3).await;
        let removed = match role {
            Role::Follower => cluster.follower().await,
            Role::Leader => cluster.leader().await,
            _ => {
                cluster.add(dir.path(), 4).await;
                cluster.nodes[&4].clone()
            }
        };
        // Each may ask for it, the member itself too: it is answered.
        cluster.remove(&removed, removed.id()).await;
        cluster.is_told_that_it_was_removed(&removed, &case).await;
        cluster.put("after").await;
        cluster.stop_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_removed_while_it_is_down_or_cut_off_learns_it_when_it_is_back() {
    for (role, is_down) in
        [(Role::Follower, true), (Role::Learner, true), (Role::Follower, false), (Role::Learner, false)]
    {
        let (case, dir) = (format!("{role:?}, down: {is_down}"), tempfile::tempdir().unwrap());
        let mut cluster = Cluster::found(dir.path(), 3).await;
        cluster.add(dir.path(), 4).await;
        let away = if role == Role::Follower { cluster.follower().await } else { cluster.nodes[&4].clone() };
        if is_down {
            cluster.stop(away.id()).await;
        } else {
            away.isolate(true);
        }
        let leader = cluster.leader().await;
        cluster.remove(&leader, away.id()).await;
        let back = if is_down {
            cluster.restart(away.id()).await
        } else {
            assert_eq!(away.why_stopped(), None, "{case}: nobody can have told it");
            away.isolate(false);
            away
        };
        cluster.is_told_that_it_was_removed(&back, &case).await;
        let refused: u64 = cluster.nodes.values().map(|node| node.refusals().count(Refusal::NotMember)).sum();
        assert!(refused > 0, "{case}: no member has refused it");
        cluster.put("after").await;
        cluster.stop_all().await;
    }
}

/// The third is away while a fourth is taken in and comes to lead. It knows no fourth when that calls it, and whom it knows, the first, is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lags_behind_lets_a_new_leader_in_and_neither_is_taken_for_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::found(dir.path(), 3).await;
    cluster.hand_over(1).await;
    cluster.stop(3).await;
    cluster.add(dir.path(), 4).await;
    cluster.promote(4).await;
    cluster.hand_over(4).await;
    let fourth = cluster.nodes[&4].clone();
    until("the fourth leads", || fourth.leader() == Some(4)).await;
    cluster.remove(&fourth, 1).await;
    let first = cluster.nodes[&1].clone();
    cluster.is_told_that_it_was_removed(&first, "the first").await;
    cluster.put("meanwhile").await;
    let third = cluster.restart(3).await;
    until("the third has heard of all", || third.status().voters == [2, 3, 4]).await;
    let found = third.store().get(&key("meanwhile"), ReadOptions::default().timeout(SOON)).await.unwrap();
    assert_eq!(found.unwrap().value, "1");
    for id in [2, 3, 4] {
        assert_eq!(cluster.nodes[&id].why_stopped(), None, "{id}");
    }
    cluster.stop_all().await;
}

/// The second has died this moment: its last heartbeat is no sign of life.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_dead_voter_a_live_one_is_not_removed_and_the_dead_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::found(dir.path(), 3).await;
    let (leader, dies) = (cluster.leader().await, cluster.follower().await.id());
    let first = leader.id();
    let lives = (1..=3).find(|id| ![leader.id(), dies].contains(id)).unwrap();
    cluster.stop(dies).await;
    for (what, refused) in [
        ("a live voter is removed", leader.remove([lives], SOON).await),
        ("the leader is", leader.remove([leader.id()], SOON).await),
        ("the dead one is to lead", leader.transfer_leadership(dies, SOON).await),
    ] {
        let Err(Error::InvalidArgument { reason }) = refused else { panic!("{what}: {refused:?}") };
        assert!(
            reason.contains(UNHEALTHY) && reason.contains(&format!("n{dies}"))
                || reason.contains(&format!("node {dies} does")),
            "{what}: {reason}"
        );
    }
    assert_eq!(leader.status().voters, [1, 2, 3]);
    cluster.put("between").await;
    cluster.remove(&leader, dies).await;
    cluster.put("after").await;
    // Of two that are alive, one may go.
    let leader = cluster.leader().await;
    let lives = [leader.id(), lives].into_iter().find(|id| *id != leader.id()).unwrap_or(first);
    cluster.remove(&leader, lives).await;
    let gone = cluster.nodes[&lives].clone();
    cluster.is_told_that_it_was_removed(&gone, "the second").await;
    cluster.put("alone").await;
    // The one that was dead has missed all of it.
    let back = cluster.restart(dies).await;
    cluster.is_told_that_it_was_removed(&back, "the dead one").await;
    cluster.stop_all().await;
}

/// With a dead voter among three, a fourth one makes three of four be needed, which are there; a fifth does not answer any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_has_just_died_is_not_promoted_beside_a_dead_voter() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::found(dir.path(), 3).await;
    cluster.add(dir.path(), 4).await;
    let (leader, dies) = (cluster.leader().await, cluster.follower().await.id());
    cluster.stop(dies).await;
    cluster.stop(4).await;
    let Err(Error::InvalidArgument { reason }) = leader.promote([4], SOON).await else { panic!("it is promoted") };
    assert!(reason.contains(UNHEALTHY), "{reason}");
    cluster.restart(4).await;
    cluster.promote(4).await;
    cluster.put("after").await;
    cluster.stop_all().await;
}

/// What is called for an address is there only once the node has been started with it. Without a majority of the others, nobody could take it back.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_where_nobody_answers_are_given_to_no_more_voters_than_the_cluster_can_do_without() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::found(dir.path(), 3).await;
    let leader = cluster.leader().await;
    let others: Vec<_> = (1..=3).filter(|id| *id != leader.id()).collect();
    let [first, second] = others[..] else { panic!("three nodes") };
    let was = leader.status().members[&first].peer_address.clone();
    // A port that nobody else is given as long as this lives.
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = held.local_addr().unwrap().to_string();
    leader.readdress(first, nowhere.clone(), SOON).await.unwrap();
    for id in [second, leader.id()] {
        let refused = leader.readdress(id, nowhere.clone(), SOON).await;
        let Err(Error::InvalidArgument { reason }) = refused else { panic!("{id}: {refused:?}") };
        assert!(reason.contains(UNHEALTHY), "{reason}");
    }
    cluster.put("meanwhile").await;
    leader.readdress(first, was, SOON).await.unwrap();
    leader.readdress(second, nowhere, SOON).await.unwrap();
    cluster.put("after").await;
    cluster.stop_all().await;
}

/// It could not be committed, and would happen later, when nobody wants it any more.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_of_those_that_are_there_the_dead_are_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::found(dir.path(), 3).await;
    let leader = cluster.leader().await;
    let dead: Vec<_> = (1..=3).filter(|id| *id != leader.id()).collect();
    for id in &dead {
        cluster.stop(*id).await;
    }
    let refused = leader.remove(dead.clone(), Duration::from_secs(2)).await;
    // Whether it still knows itself as the leader is a matter of time.
    assert!(matches!(refused, Err(Error::InvalidArgument { .. } | Error::Unavailable { .. })), "{refused:?}");
    for id in dead {
        cluster.restart(id).await;
    }
    cluster.put("after").await;
    assert_eq!(cluster.leader().await.status().voters, [1, 2, 3]);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_to_hand_over_to_itself_goes_on() {
    for size in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::found(dir.path(), size).await;
        let leader = cluster.leader().await;
        leader.transfer_leadership(leader.id(), SOON).await.unwrap();
        assert_eq!(cluster.leader().await.id(), leader.id());
        cluster.put("after").await;
        cluster.stop_all().await;
    }
}

/// The leader is cut off while it adds and removes, and callers go away: what they were told is true, and what was begun is finished or taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_cut_short_is_told_as_what_it_is_and_is_not_left_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::found(dir.path(), 3).await;
    let leader = cluster.leader().await;
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let member = Member { peer_address: nowhere.local_addr().unwrap().to_string(), ..Member::default() };
    leader.isolate(true);
    let told = leader.add_learner(9, member, Duration::from_secs(1)).await.unwrap_err();
    leader.isolate(false);
    cluster.put("between").await;
    let is_member = cluster.leader().await.status().members.contains_key(&9);
    assert!(matches!(told, Error::UnknownOutcome { .. }) || !is_member, "{told}");

    let leader = cluster.leader().await;
    let leaves = cluster.follower().await.id();
    let removal = leader.remove([leaves], SOON);
    let _ = tokio::time::timeout(Duration::from_millis(5), removal).await;
    leader.isolate(true);
    tokio::time::sleep(Duration::from_millis(300)).await;
    leader.isolate(false);
    // It may have been removed, and then takes no part any more.
    cluster.stop(leaves).await;
    cluster.put("after").await;
    // As long as a joint configuration stands, another change is refused as one that is under way.
    let stays = (1..=3).find(|id| *id != leaves).unwrap();
    let at = cluster.leader().await;
    let address = at.status().members[&stays].peer_address.clone();
    cluster.change(&at, async |node| node.readdress(stays, address.clone(), SOON).await, |_| false).await;
    let voters = cluster.leader().await.status().voters;
    assert!(voters == [1, 2, 3] || voters.len() == 2 && !voters.contains(&leaves), "{voters:?}");
    cluster.stop_all().await;
}
