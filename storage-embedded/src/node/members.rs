//! How the leader changes the members.
//!
//! Invariants:
//! - no change is begun after which the voters that are alive would be no majority, since nothing could be written or taken back then. Who is alive
//!   is asked when the change is;
//! - changes are made one after the other, in a task that neither ends with its caller nor is stopped by it;
//! - a joint configuration that a leader has left behind is finished by the next one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use openraft::{
    ChangeMembers,
    async_runtime::watch::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    network::{
        message::{MembershipChange, Reply},
        peer::{PeerContext, standing},
    },
    raft::{LogId, Member, TypeConfig},
    state_machine::Raft,
};

/// Why a learner is not promoted, to callers that ask for one that has caught up.
pub const NOT_IN_SYNC: &str = "can only promote a learner member which is in sync with leader";

/// With what the reason begins when a change is refused since too few voters are alive.
pub const UNHEALTHY: &str = "unhealthy cluster";

/// A learner with this much of the leader's log has caught up, in percent: etcd's share.
const IN_SYNC_PERCENT: u128 = 90;

/// And it lacks no more entries than this, about a second of writes: a tenth of a log of millions takes minutes to send.
const IN_SYNC_ENTRIES: u128 = 20_000;

/// How often a change looks again how much of the log the voters have, while a leader has only just begun.
const LOOKED_AGAIN: Duration = Duration::from_millis(20);

/// Makes the changes of this leader one after the other: Raft takes most of them in two steps, and another change between them
/// would be mixed into both.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    one_at_a_time: Arc<Mutex<()>>,
    raft: Raft,
    peers: Arc<PeerContext>,
    /// Who does not answer for so long counts as dead.
    silence: Duration,
}

impl Changes {
    pub(crate) fn new(raft: Raft, peers: Arc<PeerContext>, silence: Duration) -> Self {
        Self { one_at_a_time: Arc::default(), raft, peers, silence }
    }

    /// Makes a change in a task of its own. Whoever waits for it may go away.
    pub(crate) async fn make(&self, change: MembershipChange) -> Reply {
        // Who waits asks again, and so nobody stands in a queue whose caller has gone.
        let Ok(held) = Arc::clone(&self.one_at_a_time).try_lock_owned() else { return Reply::Changing };
        let changes = self.clone();
        let made = tokio::spawn(async move {
            let reply = changes.decide(change).await;
            drop(held);
            reply
        });
        made.await.unwrap_or_else(|ended| match ended.try_into_panic() {
            // The node ends with it.
            Ok(panic) => resume_unwind(panic),
            // It was aborted with the node, and nobody knows what it has left.
            Err(_) => Reply::Undecided,
        })
    }

    /// Finishes a joint configuration that a leader has left behind, this one in an earlier term or another.
    pub(crate) async fn finish(&self) {
        let Ok(_held) = self.one_at_a_time.try_lock() else { return };
        let is_joint = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = &metrics.membership_config;
            // One that is not committed may yet be taken back, by another leader.
            membership.membership().get_joint_config().len() > 1
                && membership.log_id() == metrics.committed_membership_config.log_id()
        };
        if !is_joint || !self.raft.is_leader() {
            return;
        }
        // The last of the two sets is where the change was going. Adding nobody to it is a change to it alone.
        match self.reply(self.raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), false)).await {
            Reply::Changed => tracing::info!("finished a change of members that an earlier leader had begun"),
            reply => {
                tracing::debug!(?reply, "a change of members that an earlier leader had begun is not finished yet")
            }
        }
    }

    async fn decide(&self, change: MembershipChange) -> Reply {
        // One that has just removed itself may still call itself the leader, and raft must not be given another change then.
        if !self.raft.is_leader() || !self.raft.voter_ids().any(|id| id == self.peers.node) {
            return Reply::NotLeader;
        }
        match change {
            MembershipChange::AddLearner { id, member } => {
                if let Some(why) = self.peers.reach.excludes(&member.peer_address) {
                    return Reply::Refused(why);
                }
                if self.raft.server_metrics().borrow_watched().membership_config.membership().get_node(&id).is_some() {
                    return Reply::Refused(format!("node {id} is a member already"));
                }
                self.reply(self.raft.add_learner(id, member, false)).await
            }
            MembershipChange::Promote(ids) => self.promote(ids.into_iter().collect()).await,
            MembershipChange::PromoteInSync(id) => match self.is_in_sync(id) {
                Some(true) => self.promote([id].into()).await,
                Some(false) => Reply::Refused(NOT_IN_SYNC.to_owned()),
                None => Reply::NotLeader,
            },
            MembershipChange::Readdress { id, peer_address } => self.readdress(id, peer_address).await,
            MembershipChange::Remove(ids) => self.remove(ids.into_iter().collect()).await,
            MembershipChange::TransferLeadership(to) => self.transfer(to).await,
        }
    }

    /// Has another voter lead that is alive: the one that has most of the log. Nothing happens if there is none.
    pub(crate) async fn hand_over(&self) {
        let mut others: Vec<_> = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let voters: BTreeSet<_> = metrics.membership_config.membership().voter_ids().collect();
            let matched = metrics.replication.iter().flatten();
            let others = matched.filter(|(id, _)| **id != self.peers.node && voters.contains(id));
            others.map(|(id, log)| (*id, *log)).collect()
        };
        others.sort_by_key(|(_, log)| Reverse(*log));
        let members = self.members();
        for (to, _) in others {
            if self.answers(to, members.get(&to)).await {
                let reply = self.make(MembershipChange::TransferLeadership(to)).await;
                tracing::warn!(to, ?reply, "this node takes no writes, and has asked another to lead");
                return;
            }
        }
    }

    async fn transfer(&self, to: u64) -> Reply {
        if !self.raft.voter_ids().any(|id| id == to) {
            return Reply::Refused(format!("node {to} is no voter"));
        }
        let id = self.peers.node;
        if to == id {
            // Raft would take no more writes and wait for a leader that is already there.
            return Reply::Changed;
        }
        if !self.answers(to, self.members().get(&to)).await {
            return Reply::Refused(format!("{UNHEALTHY}: node {to} does not answer, and cannot take over"));
        }
        match self.raft.trigger().transfer_leader(to).await {
            Ok(()) => Reply::Changed,
            Err(_) => Reply::Undecided,
        }
    }

    async fn promote(&self, ids: BTreeSet<u64>) -> Reply {
        // A voter has data, or nobody could tell one that is new from one that has lost its disk: see docs/decisions/0012-first-start.md.
        // So taking in a learner is under way until it has acknowledged something.
        if ids.iter().any(|id| self.has_acknowledged(*id) == Some(false)) {
            return Reply::Changing;
        }
        let present: BTreeSet<u64> = self.raft.voter_ids().collect();
        let after = present.union(&ids).copied().collect();
        if let Err(refused) = self.check_both(&present, &after).await {
            return refused;
        }
        self.reply(self.raft.change_membership(ChangeMembers::AddVoterIds(ids), false)).await
    }

    /// `None`: it is no member, or this node does not lead, and cannot know.
    fn has_acknowledged(&self, id: u64) -> Option<bool> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.replication.as_ref()?.get(&id).map(Option::is_some)
    }

    /// `None`: this node does not lead, and cannot know.
    fn is_in_sync(&self, id: u64) -> Option<bool> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?.get(&id);
        let has = matched.and_then(|matched| matched.as_ref().map(|matched| matched.index));
        let (has, all) = (u128::from(has.unwrap_or_default()), u128::from(metrics.last_log_index.unwrap_or_default()));
        Some(has * 100 >= all * IN_SYNC_PERCENT && all - has.min(all) <= IN_SYNC_ENTRIES)
    }

    /// Checks the voters before and after a change: one that only the latter could commit would stand in the log until more of the former are back.
    async fn check_both(&self, present: &BTreeSet<u64>, after: &BTreeSet<u64>) -> Result<(), Reply> {
        self.check("before", present, present).await?;
        self.check("after", after, after).await
    }

    /// Refuses voters of which no majority is alive and has the log, where only some count as alive if they answer. Each of these is asked now:
    /// what the last heartbeat said may be a second old, and who has just died must not count.
    async fn check(&self, when: &str, voters: &BTreeSet<u64>, asked: &BTreeSet<u64>) -> Result<(), Reply> {
        #[cfg(simulated)]
        if crate::simulated::is_planted(crate::simulated::Flaw::UncheckedChange) {
            return Ok(());
        }
        let needed = voters.len() / 2 + 1;
        let waits_until = Instant::now() + self.silence;
        let members = self.members();
        let mut health = Health::default();
        let mut answers: FuturesUnordered<_> =
            asked.iter().map(|id| async { self.answers(*id, members.get(id)).await.then_some(*id) }).collect();
        while let Some(answered) = answers.next().await {
            health.alive.extend(answered);
            health.behind = self.behind(voters);
            if health.fit() >= needed {
                return Ok(());
            }
        }
        // Enough are alive, and a leader that has only just begun may not know yet how much of the log they have.
        while health.alive.len() >= needed && Instant::now() < waits_until && self.raft.is_leader() {
            tokio::time::sleep(LOOKED_AGAIN).await;
            health.behind = self.behind(voters);
            if health.fit() >= needed {
                return Ok(());
            }
        }
        if !self.raft.is_leader() {
            return Err(Reply::NotLeader);
        }
        health.names = members.iter().map(|(id, member)| (*id, member.name.clone())).collect();
        Err(Reply::Refused(health.words(when, voters, needed)))
    }

    /// Whether a node answers now. One that is dead is found out at once, one that hangs after the time in which it would count as gone.
    async fn answers(&self, id: u64, member: Option<&Member>) -> bool {
        let Some(member) = member else { return false };
        id == self.peers.node || self.answers_at(id, &member.peer_address).await
    }

    async fn answers_at(&self, id: u64, peer_address: &str) -> bool {
        matches!(timeout(self.silence, standing(&self.peers, id, peer_address)).await, Ok(Ok(_)))
    }

    fn behind(&self, voters: &BTreeSet<u64>) -> BTreeSet<u64> {
        voters.iter().copied().filter(|id| self.is_in_sync(*id) == Some(false)).collect()
    }

    fn members(&self) -> BTreeMap<u64, Member> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().map(|(id, member)| (*id, member.clone())).collect()
    }

    async fn readdress(&self, id: u64, peer_address: String) -> Reply {
        let metrics = self.raft.server_metrics();
        let member = metrics.borrow_watched().membership_config.membership().get_node(&id).cloned();
        let Some(member) = member else { return Reply::Refused(format!("node {id} is no member")) };
        if let Some(why) = self.peers.reach.excludes(&peer_address) {
            return Reply::Refused(why);
        }
        let readdressed = Member { peer_address: peer_address.clone(), ..member };
        let voters: BTreeSet<u64> = self.raft.voter_ids().collect();
        // Where nobody answers yet, nobody reaches this voter until it is started there. The others have to do without it, or wrong addresses
        // for a majority would stop the cluster for good. A voter that is alone is called by nobody.
        if voters.contains(&id) && voters.len() > 1 && !self.answers_at(id, &peer_address).await {
            let others = voters.iter().copied().filter(|other| *other != id).collect();
            if let Err(refused) = self.check("after", &voters, &others).await {
                return refused;
            }
        }
        let change = ChangeMembers::SetNodes([(id, readdressed)].into());
        let changed = self.reply(self.raft.change_membership(change, false)).await;
        if changed == Reply::Changed {
            // Raft keeps the streams that it has.
            self.peers.readdress(id, peer_address);
        }
        changed
    }

    async fn remove(&self, ids: BTreeSet<u64>) -> Reply {
        let voters: BTreeSet<u64> = self.raft.voter_ids().collect();
        let (leaving_voters, learners): (BTreeSet<u64>, BTreeSet<u64>) =
            ids.into_iter().partition(|id| voters.contains(id));
        if !leaving_voters.is_empty() {
            let staying: BTreeSet<u64> = voters.difference(&leaving_voters).copied().collect();
            if staying.is_empty() {
                return Reply::Refused("a cluster keeps at least one voter".to_owned());
            }
            if let Err(refused) = self.check_both(&voters, &staying).await {
                return refused;
            }
            let change = ChangeMembers::RemoveVoters(leaving_voters);
            let removed = self.reply(self.raft.change_membership(change, false)).await;
            if removed != Reply::Changed || learners.is_empty() {
                return removed;
            }
        }
        self.reply(self.raft.change_membership(ChangeMembers::RemoveNodes(learners), false)).await
    }

    /// Makes a change by raft. The answer is true whatever happens meanwhile: one that may stand in a log is never said to be none.
    async fn reply<T>(
        &self,
        change: impl Future<Output = Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>>,
    ) -> Reply {
        let before = self.effective();
        match change.await {
            Ok(_) => Reply::Changed,
            // Raft takes most changes in two steps, and may have lost the leadership after the first.
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) if self.effective() != before => {
                Reply::Undecided
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Reply::NotLeader,
            // A change that an earlier leader, or this one in an earlier term, has begun.
            Err(RaftError::APIError(
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))
                | ClientWriteError::PreconditionFailed(_),
            )) => Reply::Changing,
            Err(RaftError::APIError(error @ ClientWriteError::ChangeMembershipError(_))) => {
                Reply::Refused(error.to_string())
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) | RaftError::Fatal(_)) => Reply::Undecided,
        }
    }

    /// The entry with the members that this node goes by.
    fn effective(&self) -> Option<LogId> {
        *self.raft.server_metrics().borrow_watched().membership_config.log_id()
    }
}

/// What this leader knows now of the voters after a change.
#[derive(Debug, Default)]
struct Health {
    /// Those that have answered since the change was asked for.
    alive: BTreeSet<u64>,
    /// Those that lack too much of the log.
    behind: BTreeSet<u64>,
    names: BTreeMap<u64, String>,
}

impl Health {
    /// How many of those that have answered have the log, too.
    fn fit(&self) -> usize {
        self.alive.difference(&self.behind).count()
    }

    /// Why these voters cannot be the cluster, and what to do.
    fn words(&self, when: &str, voters: &BTreeSet<u64>, needed: usize) -> String {
        let named = |id: &u64| match self.names.get(id).filter(|name| !name.is_empty()) {
            Some(name) => format!("{name} ({id:x})"),
            None => format!("{id:x}"),
        };
        let list = |is: &dyn Fn(&u64) -> bool| {
            let found: Vec<_> = voters.iter().filter(|id| is(id)).map(named).collect();
            if found.is_empty() { "nobody".to_owned() } else { found.join(", ") }
        };
        format!(
            "{UNHEALTHY}: of the {} voters {when} this change {needed} have to be alive and have the log; alive are {}; silent: {}; far \
             behind: {}. Start what is silent or remove it first, and let what is behind catch up",
            voters.len(),
            list(&|id| self.alive.contains(id)),
            list(&|id| !self.alive.contains(id)),
            list(&|id| self.alive.contains(id) && self.behind.contains(id)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_who_is_alive_who_is_not_and_who_is_behind() {
        let health = Health {
            alive: [1, 2].into(),
            behind: [2, 3].into(),
            names: [(1, "n1".to_owned()), (2, String::new()), (3, "n3".to_owned())].into(),
        };
        assert_eq!(health.fit(), 1);
        let words = health.words("after", &[1, 2, 3].into(), 2);
        assert!(words.contains("alive are n1 (1), 2; silent: n3 (3); far behind: 2."), "{words}");
        let words = health.words("after", &[1].into(), 1);
        assert!(words.contains("alive are n1 (1); silent: nobody; far behind: nobody."), "{words}");
    }
}
